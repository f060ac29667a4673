"""Whole data sets: resumable jobs that explain every sample, and the stores that hold what they found."""

from __future__ import annotations

from headwater.dataset.imported import import_attributions
from headwater.dataset.run import run
from headwater.dataset.store import Rows, Store, open_store

__all__ = ["Rows", "Store", "import_attributions", "open_store", "run"]
