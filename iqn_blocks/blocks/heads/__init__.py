"""Heads: a mixed vector to values or advantages, ``(R, D) -> (R, *out_shape)``."""
