"""Entries in the ledger's books while relevance walks back through a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headwater.propagate.calls import Call, Causes, Walk
from headwater.propagate.nested import flat, replace
from headwater.propagate.tags import is_weight, product

if TYPE_CHECKING:
    from headwater.propagate.engine import Propagation


def constant_share(engine: Propagation, call: Call) -> Causes | None:
    """What constants and parameters contribute to a sum or a join: its value with all live operands zero."""
    if not call.operator.joins or not engine.ledger:
        return None

    swap = {id(t): torch.zeros_like(t) for t in call.live}
    share = call.func(*replace(call.args, swap), **{k: replace(v, swap) for k, v in call.kwargs.items()})
    weights = any(is_weight(t) for t in flat([call.args]))
    cause = "padding" if "pad" in call.operator.name else "parameter" if weights else "constant"

    def causes(cs: Sequence[Tensor | None], factors: Sequence[Tensor | None]) -> None:
        if cs[0] is not None:
            call.book(cause, product(share, cs[0]))

    return causes


def booked(engine: Propagation, call: Call, walk: Walk, ends: Sequence[Tensor], inputs: Sequence[Tensor]) -> Walk:
    """A walk that also books what comes in by the results ``ends`` and goes out to ``inputs`` (and, last, a dummy)."""
    values = [engine.keeper.keep(t.detach()) for t in inputs]
    results = [engine.keeper.keep(t.detach()) for t in ends]

    def walk_and_book(*cs: Tensor | None) -> Sequence[Tensor | None]:
        call.reached = True
        for y, c in zip(results, cs, strict=True):
            if c is not None:
                call.incoming[-1] += float(product(y.value, c).double().sum())
        factors = walk(*cs)
        for x, c in zip(values, factors, strict=False):
            if c is not None:
                call.outgoing[-1] += float(product(x.value, c.detach()).double().sum())
        for relevance in factors[len(values) :]:
            if relevance is not None:
                call.outgoing[-1] += float(relevance.detach().double().sum())
        return factors

    return walk_and_book
