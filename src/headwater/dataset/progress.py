"""A bar with the rate and the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from headwater.dataset.manifest import Manifest


def tracked(chunks: Iterable[int], manifest: Manifest, pending: int, shown: bool | None) -> Iterator[int]:
    """The chunks as they come, counted in samples on standard error."""
    if shown is False or (shown is None and not sys.stderr.isatty()):
        yield from chunks
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Samples a second."""

        def render(self, task: Task) -> Text:
            """As many digits as matter."""
            return Text("" if task.speed is None else f"{task.speed:,.3g}/s", style="progress.data.speed")

    columns = TextColumn("explaining"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        done = manifest.samples - min(manifest.samples, pending * manifest.chunk)
        task = bar.add_task("", total=manifest.samples, completed=done)
        for chunk in chunks:
            bar.advance(task, len(manifest.span(chunk)))
            yield chunk
