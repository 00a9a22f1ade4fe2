"""State encoders, one topology each: ``(img, floats) -> s (B, D)``."""
