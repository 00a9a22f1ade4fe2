"""Trunks: a sequence of tokens to one vector, ``(B, T, d) -> (B, d)``. One trunk a file."""
