"""``hw.plan``: every operator call of a model and how it will be treated, before anything is explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from headwater.propagate.calls import Call
from headwater.propagate.engine import Propagation


@dataclass(frozen=True)
class PlanRow:
    """One operator call: ``status`` is "ok" or "gap"; ``depth`` is the share of the affine path below it."""

    layer: str
    operator: str
    kind: str
    rule: str
    shape: tuple[int, ...]
    depth: float | None
    status: str


class Plan:
    """Rows in the order of the calls; prints as a table."""

    def __init__(self, rows: list[PlanRow], composite: str) -> None:
        self.rows, self.composite = rows, composite

    def __iter__(self) -> Iterator[PlanRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PlanRow:
        return self.rows[index]

    @property
    def gaps(self) -> list[PlanRow]:
        """Calls without a treatment."""
        return [row for row in self.rows if row.status == "gap"]

    @property
    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The names of the columns, and the rows as text."""
        header = ("layer", "operator", "class", "rule", "output", "depth", "status")
        return header, [
            (r.layer, r.operator, r.kind, r.rule, "x".join(map(str, r.shape)), _share(r.depth), r.status)
            for r in self.rows
        ]

    @property
    def verdict(self) -> str:
        """Whether every call has a treatment, in one sentence."""
        gaps = len(self.gaps)
        without = f"{gaps} call{'s' if gaps > 1 else ''} without a treatment"
        found = without if gaps else "every operator has a treatment"
        return f"{len(self.rows)} calls under {self.composite}: {found}"

    def __str__(self) -> str:
        head, body = self.cells
        widths = [min(60, max(len(line[i]) for line in (head, *body))) for i in range(len(head))]
        lines = [
            "  ".join(cell[:w].ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in (head, *body)
        ]
        return "\n".join([*lines, self.verdict])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from headwater.show.display import plan_html

        return plan_html(self)

    def __rich__(self) -> Any:
        from headwater.show.display import plan_rich

        return plan_rich(self)


def _share(depth: float | None) -> str:
    return "" if depth is None else f"{depth:.2f}"


def plan_calls(engine: Propagation, run: Callable[[], Any]) -> Plan:
    """Run a model under a planning engine and describe its calls.

    Args:
        engine: made with ``planning=True``.
        run: runs the model on entered inputs, the mode active.
    """
    run()
    total = max((call.depth for call in engine.calls), default=0)
    rows = [_describe(engine, call, total) for call in engine.calls if call.shape or call.status == "gap"]
    return Plan(rows, repr(engine.composite))


def _describe(engine: Propagation, call: Call, total: int) -> PlanRow:
    operator = call.operator
    affine = operator.affine and call.is_affine
    if engine.composite.plain:
        rule = engine.composite.row(call)
        text = "gradient" if rule is None else str(rule)
    elif call.folded_into is not None:
        rule, _ = engine.composite.resolve(call.folded_into, total)
        text = f"{rule}, folded into {call.folded_into.layer or call.folded_into.operator.name}"
    elif affine:
        rule, filter_ = engine.composite.resolve(call, total)
        text = str(rule) if filter_ is None else f"{rule}, {filter_!r}"
    else:
        text = _TREATMENTS.get(operator.kind, operator.kind)
        text = str(engine.composite.attention(call)) if operator.kind == "attention" else text
    depth = (call.depth - 0.5) / total if affine and total else None
    return PlanRow(call.layer, operator.name, operator.kind, text, call.shape, depth, call.status)


_TREATMENTS = {
    "homogeneous": "gradient",
    "pointwise": "secant from zero",
    "product": "gate or equal shares",
    "normalizer": "divisor constant",
    "softmax": "gradient, absorbs",
    "recurrent": "its parts",
    "constant": "no relevance",
    "unknown": "none",
}
