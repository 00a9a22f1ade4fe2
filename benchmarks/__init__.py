"""Speed and memory of the networks beside plain PyTorch and beside the machine's limit.

``python -m benchmarks`` runs everything; see :mod:`benchmarks.__main__`.
"""
