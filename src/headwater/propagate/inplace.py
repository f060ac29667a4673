"""In-place operators: natively where their gradient is right, else computed beside and copied in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.errors import UnsupportedOperator
from headwater.propagate import places
from headwater.propagate.calls import Call
from headwater.propagate.nested import flat, replace
from headwater.propagate.tags import Tag, attach

if TYPE_CHECKING:
    from headwater.propagate.engine import Propagation


def run_in_place(engine: Propagation, call: Call) -> Any:
    """An in-place operator: natively where its gradient is right, else computed beside and copied in."""
    target = call.args[0]
    # The explained input and a filter must see what is done; so must a chain, an audit, a preset of plain gradients.
    at_input = engine.sourced and any(engine.tag(t).source is not None for t in call.live)
    filtered = engine.composite.has_filters and engine.composite.filter_at(call) is not None
    special = at_input or filtered or call.bent or engine.isolate or engine.composite.plain
    relu = call.operator.name == "relu" and not engine.ledger and not engine.differentiable
    affine = engine.tag(target).affine if target.requires_grad else None
    engine.keeper.preserve(target, relu=relu and affine is not None and not affine.other)
    if call.operator.view and call.bent:
        where = places.describe_here(engine.model)
        raise UnsupportedOperator(
            f"{call.operator.name}_ reshapes an activation's result in place {where}: use {call.operator.name}."
        )
    plain = engine.composite.plain and engine.composite.row(call) is None and not engine.isolate
    if plain or call.operator.view or (not special and call.operator.simple_in_place(call)):
        out = call.func(*call.args, **call.kwargs)
        call.shape = tuple(target.shape)
        _retag(engine, call, target)
        return out
    beside = _beside(engine, call, target)
    new = engine.treat(beside)
    alone = not target._is_view() and not (target.requires_grad and engine.tag(target).viewed)
    known = engine.tag(new)  # the target goes on with the chain; only its views need the secant right here
    if not alone:  # views would follow the plain gradient of an activation, which stands in only for its secant
        new = engine.materialize(new)
    if not target._is_view():
        target.detach_()  # what it was lives on in its copy; a zero gradient must not reach what is overwritten
    target.copy_(new)
    call.shape = beside.shape = tuple(target.shape)
    _retag(engine, call, target, known)
    return target


def run_into(engine: Propagation, func: Any, args: Any, kwargs: Any) -> Any:
    """A call that is to write its results into given tensors (``out=``): computed beside and copied in."""
    targets = kwargs["out"]
    results = engine.redo(func, *args, **{k: v for k, v in kwargs.items() if k != "out"})
    for target, result in zip(flat([targets]), flat([results]), strict=True):
        if target.shape != result.shape:
            target.resize_(result.shape)
        engine.redo(torch.Tensor.copy_, target, result)
    return targets


def _beside(engine: Propagation, call: Call, target: Tensor) -> Call:
    """The same call on a copy of its target, not in place; it stands for the call in the ledger."""
    old = target.clone()
    if target.requires_grad:
        attach(old, engine.tag(target).renewed(old._version))
    swap = {id(target): old}
    beside = Call(
        engine, call.operator.functional(), functional(call.func), replace(call.args, swap),
        {k: replace(v, swap) for k, v in call.kwargs.items() if k != "inplace"},
        [old if t is target else t for t in call.live],
    )  # fmt: skip
    beside.layer = call.layer
    if not call.operator.elementwise:
        engine.settle(beside)
    if engine.names is not None:
        engine.calls[-1] = beside
    return beside


def _retag(engine: Propagation, call: Call, target: Tensor, like: Tag | None = None) -> None:
    for t in (target, target._base):
        if t is not None:
            known = like.nonneg if like is not None else call.operator.nonneg == "always"
            tag = Tag(engine, t._version, call.depth, first=call.first, nonneg=known and t is target)
            if like is not None and t is target:
                tag = like.renewed(t._version)
            attach(t, tag)
    if engine.watch is not None:
        engine.watch(call, target)


def functional(func: Any) -> Callable[..., Any]:
    """An in-place function as one that returns a new tensor."""

    def run(target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        others = flat([args, list(kwargs.values())])
        if not target.dim() and others:  # the point zero of a chain, which takes the shape of constants
            target = target.expand(torch.broadcast_shapes(*(t.shape for t in others)))
        new = target.clone()
        func(new, *args, **kwargs)
        return new

    return run
