"""Mixers: the state and the embedding of τ to one vector, ``(B, D), (R, P) -> (K·B, out_dim)``."""
