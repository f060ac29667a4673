"""Long work in batches: with progress, and in smaller batches where memory does not suffice."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

PATIENCE = 1.0  # seconds after which progress is shown


def in_batches(
    work: Callable[[slice], Result], total: int, size: int, progress: bool | None = None, label: str = "explaining"
) -> list[Result]:
    """The results of ``work`` on consecutive slices of ``range(total)``, each of at most ``size`` rows.

    A batch that does not fit into memory is tried again in halves, and so are all that follow.

    Args:
        work: called with a slice; it may be called again with parts of that slice if memory runs out in it.
        progress: show a bar; None shows one on a terminal once the work has taken a second.
    """
    results: list[Result] = []
    start = 0
    with _Bar(total, progress, label) as bar:
        while start < total:
            stop = min(start + size, total)
            try:
                results.append(work(slice(start, stop)))
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error) or stop - start == 1:
                    raise
                size = (stop - start + 1) // 2
                continue
            bar.advance(stop - start)
            start = stop
    return results


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(sign in str(error) for sign in ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED"))


class _Bar:
    """A bar on the terminal that appears only where there is something to wait for."""

    def __init__(self, total: int, progress: bool | None, label: str) -> None:
        self.total, self.label, self.done = total, label, 0
        self.wanted = sys.stderr.isatty() if progress is None else progress
        self.started = time.monotonic()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, count: int) -> None:
        self.done += count
        if not self.wanted or (self.done >= self.total and self.bar is None):
            return
        if self.bar is None and time.monotonic() - self.started >= PATIENCE:
            self._open()
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=Console(stderr=True))
        self.bar.start()
        self.task = self.bar.add_task(self.label, total=self.total)
