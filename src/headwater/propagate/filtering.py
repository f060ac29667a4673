"""Where a composite's filter acts on an operator that is not affine: on the relevance of its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from headwater.propagate.calls import Reroute
from headwater.propagate.tags import attach, product

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


def filtered(engine: Propagation, call: Call, out: Tensor) -> Tensor:
    """Apply the filter of a composite's row to the relevance at this operator's output.

    A chain of elementwise functions is one function, so that it is filtered where it ends.
    """
    filter_ = engine.composite.filter_at(call)
    if filter_ is None or call.operator.view or not out.requires_grad or _goes_on(engine, call, out):
        return out
    value = engine.keeper.keep(out.detach())

    def walk(c: Tensor) -> list[Tensor]:
        passed = c * filter_.multiplier(product(value.value, c))
        if engine.ledger:
            call.book("filter", product(value.value, c - passed))
            call.incoming[-1] += float(product(value.value, c - passed).double().sum())
        return [passed]

    result: Tensor = Reroute.apply(engine, walk, 1, out, out)
    tag = engine.tag(out).renewed(result._version)
    tag.chain = tag.call = tag.token = None  # another function begins here
    attach(result, tag)
    return result


def _goes_on(engine: Propagation, call: Call, out: Tensor) -> bool:
    """Whether an elementwise result is a part of a function that a filter must see whole.

    It is where the function needs a secant, set at its end; and after a shift or scale, with which one may begin,
    unless that operator is filtered by its own name.
    """
    if engine.tag(out).chain is None:
        return False
    name = call.operator.name
    return engine.bent(out) or (name in ("add", "sub", "rsub", "mul", "div") and name not in engine.composite.named)
