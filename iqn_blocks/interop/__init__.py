"""Bridges to other projects: the only modules that know of them."""
