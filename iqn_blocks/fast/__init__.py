"""Finished networks made fast: the folded copy for acting, and its onnxruntime engine."""
