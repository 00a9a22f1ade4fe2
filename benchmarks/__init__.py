"""Speed and memory of the networks beside plain PyTorch.

``python -m benchmarks`` runs everything; see :mod:`benchmarks.__main__`.
"""
