"""Tables that others can check: what the parts learn, beside each other and published numbers."""

from __future__ import annotations
