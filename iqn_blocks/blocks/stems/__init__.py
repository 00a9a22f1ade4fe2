"""Image stems: a scaled frame to features, ``(B, C, H, W) -> (B, out_dim)``. One stem a file."""
