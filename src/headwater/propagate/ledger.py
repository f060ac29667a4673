"""The ledger: what each operator received, passed on and absorbed, by named cause, each cause by its own formula."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from headwater.propagate.calls import Call


@dataclass(frozen=True)
class Row:
    """One operator call that relevance reached.

    Attributes:
        layer, operator, rule: where it was, what it was and how it was treated.
        incoming, outgoing: relevance received and passed on, ``[N]`` in float64.
        absorbed: relevance kept back, by cause, each ``[N]``.
    """

    layer: str
    operator: str
    rule: str
    incoming: Tensor
    outgoing: Tensor
    absorbed: dict[str, Tensor]

    @property
    def unexplained(self) -> Tensor:
        """What came in and neither went out nor has a name, ``[N]``: zero up to rounding where all is well."""
        return self.incoming - self.outgoing - sum(self.absorbed.values(), torch.zeros_like(self.incoming))


class Ledger:
    """Rows from the output back to the input."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def absorbed(self) -> Tensor:
        """The largest amount that any operator absorbed by name, ``[N]``."""
        return self._largest([_total(row) for row in self.rows])

    def unexplained(self) -> Tensor:
        """The largest amount that any operator lost or made without a name, ``[N]``."""
        return self._largest([row.unexplained for row in self.rows])

    def causes(self) -> dict[str, Tensor]:
        """Sums over all operators by cause, ``[N]`` each."""
        totals: dict[str, Tensor] = {}
        for row in self.rows:
            for cause, amount in row.absorbed.items():
                totals[cause] = totals.get(cause, torch.zeros_like(amount)) + amount
        return totals

    def _largest(self, amounts: list[Tensor]) -> Tensor:
        return torch.stack(amounts).abs().amax(0) if amounts else torch.zeros(0, dtype=torch.float64)

    def __str__(self) -> str:
        lines = [
            f"{'layer':24} {'operator':28} {'rule':28} {'incoming':>12} {'outgoing':>12} {'unexplained':>12}  absorbed"
        ]
        for row in self.rows:
            causes = ", ".join(f"{k} {float(v.abs().max()):.3g}" for k, v in row.absorbed.items())
            numbers = " ".join(f"{float(t.sum()):12.5g}" for t in (row.incoming, row.outgoing, row.unexplained))
            lines.append(f"{row.layer[:24]:24} {row.operator[:28]:28} {row.rule[:28]:28} {numbers}  {causes}")
        return "\n".join(lines)


def _total(row: Row) -> Tensor:
    return sum((amount.abs() for amount in row.absorbed.values()), torch.zeros_like(row.incoming))


def collect(calls: Iterable[Call]) -> list[Row]:
    """Rows of the engine's calls that relevance reached, from the output back."""
    rows = []
    for call in reversed(list(calls)):
        if call.reached:
            incoming, outgoing = _amounts(call.incoming), _amounts(call.outgoing)
            absorbed = {cause: _amounts(values) for cause, values in call.absorbed.items()}
            rows.append(Row(call.layer, call.operator.name, call.rule_name, incoming, outgoing, absorbed))
    return rows


def _amounts(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def join(ledgers: list[list[Row]]) -> list[Row]:
    """The rows of several batches as one; a call that a batch did not make counts zero for its samples."""
    if len(ledgers) == 1:
        return ledgers[0]
    numbered = [_numbered(rows) for rows in ledgers]
    sizes = [len(rows[0].incoming) if rows else 0 for rows in ledgers]
    joined = []
    for key in {key: None for rows in sorted(numbered, key=len, reverse=True) for key in rows}:
        same = [rows.get(key) for rows in numbered]
        first = next(row for row in same if row is not None)
        causes = {cause: None for row in same if row is not None for cause in row.absorbed}
        zeros = [torch.zeros(n, dtype=torch.float64) for n in sizes]
        incoming, outgoing = (
            torch.cat([zero if row is None else getattr(row, side) for row, zero in zip(same, zeros, strict=True)])
            for side in ("incoming", "outgoing")
        )
        absorbed = {
            cause: torch.cat(
                [zero if row is None else row.absorbed.get(cause, zero) for row, zero in zip(same, zeros, strict=True)]
            )
            for cause in causes
        }
        joined.append(Row(first.layer, first.operator, first.rule, incoming, outgoing, absorbed))
    return joined


def _numbered(rows: list[Row]) -> dict[tuple[str, str, int], Row]:
    """Rows by layer, operator and how often that operator was called there before."""
    found: dict[tuple[str, str, int], Row] = {}
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        place = (row.layer, row.operator)
        seen[place] = seen.get(place, 0) + 1
        found[*place, seen[place]] = row
    return found
