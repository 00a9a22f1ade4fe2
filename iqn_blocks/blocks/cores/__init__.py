"""Cores: a step through time, ``(s (B, D), memory (B, M), reset (B,)) -> (s', memory)``."""
