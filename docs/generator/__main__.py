"""Write every generated page, at the root of the checkout."""

from __future__ import annotations

from pathlib import Path

from docs.generator.pages import pages

for path, text in pages().items():
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    print(path)
