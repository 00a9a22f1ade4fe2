"""The pages of the docs that are made from the code: `python -m docs.generator`, or `make docs`."""

from __future__ import annotations
