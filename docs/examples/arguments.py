"""The command line that all examples share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def read(
    about: str | None, seeds: Sequence[int], picture: str = "", folder: str = ""
) -> argparse.Namespace:
    """``seeds``, and ``figure`` where the example draws ``picture``: its path, whose folder exists.

    ``output`` is where an example saves what it makes, ``folder`` in ``build/`` by default.

    Pictures go to ``build/``; those of the docs are overwritten on request alone.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if seeds:
        parser.add_argument(
            "--seeds", type=int, nargs="+", default=seeds, help=f"default: {[*seeds]}"
        )
    if picture:
        where = parser.add_mutually_exclusive_group()
        where.add_argument(
            "--figure", type=Path, default=Path("build", picture), help="default: %(default)s"
        )
        where.add_argument(
            "--update-docs",
            dest="figure",
            action="store_const",
            const=Path("docs/images", picture),
            help="overwrite the picture of the docs",
        )
    if folder:
        parser.add_argument(
            "--output", type=Path, default=Path("build", folder), help="default: %(default)s"
        )
    arguments = parser.parse_args()
    if picture:
        arguments.figure.parent.mkdir(parents=True, exist_ok=True)
        print(f"draws {arguments.figure} at the end", flush=True)
    return arguments
