"""Reductions of values that share a place: ``scatter_reduce``, ``index_reduce`` and ``segment_reduce``.

Sums, means and extremes are homogeneous in all of their operands together, so that constants among them have a share.
In a product each live factor of a place takes the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.propagate.calls import bind
from headwater.propagate.nested import carries, flat, replace
from headwater.propagate.tags import is_live, product

if TYPE_CHECKING:
    from headwater.propagate.calls import Call, Causes
    from headwater.propagate.engine import Propagation


def reduced(engine: Propagation, call: Call) -> Any:
    """``scatter_reduce`` and ``index_reduce``."""
    source = "src" if call.operator.name == "scatter_reduce" else "source"
    bound = bind(call, f"input dim index {source} reduce include_self", *[None] * 5, True)
    target, dim, index, values, reduce, include = bound
    if reduce != "prod":
        return engine.native(call, _constants(engine, call))
    if index.dim() != values.dim():  # one index for a whole slice
        index = index.view(-1, *[1] * (values.dim() - 1 - dim % values.dim())).expand_as(values)
    ones = [torch.full_like(t, float(is_live(t))).detach() for t in (target, values)]
    return _shared(engine, call, torch.scatter_reduce(ones[0], dim, index, ones[1], "sum", include_self=include))


def by_segments(engine: Propagation, call: Call) -> Any:
    """``segment_reduce``."""
    data, reduce = bind(call, "data reduce", None, None)
    if reduce != "prod":
        return engine.native(call)
    rest = {k: v for k, v in call.kwargs.items() if k not in ("data", "reduce", "initial")}
    return _shared(engine, call, torch.segment_reduce(torch.ones_like(data).detach(), "sum", **rest))


def _shared(engine: Propagation, call: Call, counts: Tensor) -> Any:
    """A product by its gradient over the number of live factors of each place."""
    results = call.func(*_values(call.args), **_named(call)) if engine.ledger else counts

    def causes(cs: Any, factors: Any) -> None:
        if cs[0] is not None:
            call.book("constant", product(results, cs[0]).masked_fill(counts > 0, 0.0))

    factors = counts.clamp(min=1)

    def gradient(pull: Any, cs: Any) -> Any:
        return pull(None if cs[0] is None else cs[0] / factors)

    return engine.local(call, gradient=gradient, causes=causes)


def _constants(engine: Propagation, call: Call) -> Causes | None:
    """Books what the constants among the operands contribute, by their own gradient."""
    live = {id(t) for t in call.live}
    constants = [t for t in flat([call.args, list(call.kwargs.values())]) if carries(t) and id(t) not in live]
    if not engine.ledger or not constants:
        return None
    leaves = [t.detach().clone().requires_grad_() for t in constants]
    swap = {id(t): leaf for t, leaf in zip(constants, leaves, strict=True)}
    swap |= {id(t): t.detach().clone() for t in call.live}
    with torch.enable_grad():
        out = call.func(*replace(call.args, swap), **{k: replace(v, swap) for k, v in call.kwargs.items()})

    def causes(cs: Any, factors: Any) -> None:
        if cs[0] is not None:
            shares = torch.autograd.grad(out, leaves, cs[0].detach(), retain_graph=True)
            for leaf, share in zip(leaves, shares, strict=True):
                call.book("constant", product(leaf.detach(), share))

    return causes


def _values(args: Any) -> list[Any]:
    return [a.detach() if isinstance(a, Tensor) else a for a in args]


def _named(call: Call) -> dict[str, Any]:
    return {k: v.detach() if isinstance(v, Tensor) else v for k, v in call.kwargs.items()}
