"""The papers behind the library, run again: a package a paper, with ``TITLE``, ``SOURCE`` and ``reproduce(run)``."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from headwater.errors import InvalidInput


def papers() -> list[str]:
    """The names of the papers, sorted: every package beside this file."""
    return sorted(found.parent.name for found in Path(__file__).parent.glob("*/__init__.py"))


def paper(name: str) -> ModuleType:
    """The package that reproduces a paper.

    Raises:
        InvalidInput: there is none of this name; the text lists those there are.
    """
    if name not in papers():
        raise InvalidInput(f"{name!r} is no paper that is reproduced here: choose one of {', '.join(papers())}")
    return importlib.import_module(f"{__name__}.{name}")
