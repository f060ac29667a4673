"""Tables of figures: what a terminal prints, what a page shows, and the numbers themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Board:
    """Rows of text under a header, beside the numbers they were made of.

    Attributes:
        header: names of the columns; the first names the row.
        rows: the cells as text.
        records: for each row its numbers by name.
        notes: what a reader must know of the columns.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, name: str | int) -> Mapping[str, Any]:
        """A row's numbers, by its place or its name."""
        if isinstance(name, int):
            return self.records[name]
        return next(record for row, record in zip(self.rows, self.records, strict=True) if row[0] == name)

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        text = [_line(line, widths) for line in lines]
        text.insert(1, "-" * len(text[0]))
        return "\n".join([*text, *self.notes])

    __repr__ = __str__


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()


def number(value: Any, digits: int = 3) -> str:
    """A number as text, a dash for none."""
    return "-" if value is None or value != value else f"{value:.{digits}g}"
