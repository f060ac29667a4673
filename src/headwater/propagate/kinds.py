"""What the engine knows of one torch function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from headwater.propagate.pointwise import HOMOGENEOUS

Handler = Callable[[Any, Any], Any]


def native(engine: Any, call: Any) -> Any:
    """The ordinary gradient."""
    return engine.native(call)


def gap(engine: Any, call: Any) -> Any:
    """No treatment: an error, or a row of the plan."""
    return engine.gap(call)


@dataclass(frozen=True)
class Operator:
    """What the engine knows of one torch function.

    Attributes:
        name: bare name, as composites select it; ``kind``: its class.
        handler: its treatment; an operator of kind "unknown" has none and is a gap.
        inplace: writes to its first argument. ``view``: only moves values. ``elementwise``: one value at a time.
        affine: takes a rule. ``metadata``: returns no values. ``moves_ids``: token ids stay token ids.
        joins: linear in all of its operands together, so that constants among them have a share of their own.
        moves_axes: may move samples away from the first axis.
        random: draws from a generator. ``checked``: its treatment refuses training mode, so it is asked under plain
            gradients too.
        nonneg: whether results are known to be non-negative: "keep" (where all live operands are), "join" (where the
            constants among the operands are as well), "always" or "never".
        degree: of an elementwise function: homogeneous, affine or bent.
        body: the Python body to run under the engine instead, if it is a composite of others; ``short``: the function
            that it comes down to for one argument alone; ``idle``: whether these arguments make it return the first.
    """

    name: str
    kind: str = "unknown"
    handler: Handler = gap
    inplace: bool = False
    view: bool = False
    elementwise: bool = False
    affine: bool = False
    metadata: bool = False
    moves_ids: bool = False
    joins: bool = False
    moves_axes: bool = False
    random: bool = False
    checked: bool = False
    nonneg: str = "never"
    degree: int = HOMOGENEOUS
    body: Callable[..., Any] | None = None
    short: Callable[..., Any] | None = None
    idle: Callable[..., bool] | None = None

    def functional(self) -> Operator:
        """The same operator, not in place."""
        return replace(self, inplace=False)

    def simple_in_place(self, call: Any) -> bool:
        """Whether its own in-place gradient is right, and no chain of elementwise functions goes on through it."""
        if self.handler is native and not self.elementwise:
            return True
        chained = any(call.engine.tag(t).chain is not None for t in call.live)
        if self.name in ("relu", "leaky_relu"):
            return not chained
        return self.name in ("add", "sub") and len(call.live) == 2 and not chained
