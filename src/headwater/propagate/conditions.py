"""Conditional propagation: at a layer's output, only the factors of chosen channels go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.propagate.calls import Call
from headwater.propagate.kinds import Operator
from headwater.propagate.layouts import Layouts
from headwater.propagate.places import module_named
from headwater.propagate.tags import product

if TYPE_CHECKING:
    from headwater.propagate.engine import Propagation

_KEEP = Operator("keep", "condition")


def conditions(model: Any, through: Any, keep: Any) -> dict[str, Tensor]:
    """What is kept at each layer, from the arguments of ``hw.explain``.

    Args:
        model: has the layers.
        through: a module's name, or a dictionary from names to what is kept there.
        keep: with one name: channels as an int or a sequence of ints, or a mask of booleans: one for each channel,
            ``[C]``, for each sample and channel, ``[N, C]``, or for each value of a sample's output, ``[*output]`` (in
            doubt ``[1, *output]``).

    Raises:
        InvalidInput: where one comes without the other, for an unknown layer, or for what names no channels.
    """
    if through is None:
        if keep is not None:
            raise InvalidInput("keep= chooses channels of a layer: name the layer with through=")
        return {}
    if isinstance(through, Mapping):
        if keep is not None:
            raise InvalidInput("through= as a dictionary says what is kept at each layer: leave keep= out")
        chosen = dict(through)
    elif isinstance(through, str):
        if keep is None:
            raise InvalidInput(f"through={through!r} needs keep=: the channels of that layer to go through")
        chosen = {through: keep}
    else:
        raise InvalidInput(f"through must be a layer's name or a dictionary of them, not {type(through).__name__}")
    for name in chosen:
        module_named(model, name)
    return {name: _channels(name, value) for name, value in chosen.items()}


def _channels(name: str, keep: Any) -> Tensor:
    listed = [keep] if isinstance(keep, int) and not isinstance(keep, bool) else keep
    try:
        found = torch.as_tensor(list(listed) if isinstance(listed, (set, range)) else listed)
    except (TypeError, ValueError, RuntimeError):
        found = torch.zeros(0, dtype=torch.float32)
    if found.dtype == torch.bool and found.dim():
        return found[None] if found.dim() > 2 and len(found) != 1 else found  # only [N, C] is one for each sample
    if found.is_floating_point() or found.dtype == torch.bool or found.is_complex() or found.dim() != 1:
        raise InvalidInput(f"keep at {name!r} must be channels (ints) or a mask of booleans, not {keep!r}")
    return found.long()


def select(through: Mapping[str, Tensor], rows: Tensor, n: int) -> dict[str, Tensor]:
    """The conditions of the samples at these indices: masks ``[N, C]`` for each of ``n`` samples are selected."""
    return {
        name: keep[rows.to(keep.device)] if keep.dtype == torch.bool and keep.dim() == 2 and len(keep) == n else keep
        for name, keep in through.items()
    }


def mask(name: str, keep: Tensor, value: Tensor, layouts: Layouts) -> Tensor:
    """What is kept as ones and zeros, broadcastable to a layer's output ``value``.

    Raises:
        InvalidInput: for channels that the output does not have, or a mask of another shape.
    """
    axis = layouts.axis(value)
    channels, n = value.shape[axis], len(value)
    shape = [1] * value.dim()
    shape[axis] = channels
    keep = keep.to(value.device)
    if keep.dtype != torch.bool:
        wrong: Sequence[int] = keep[(keep < -channels) | (keep >= channels)].tolist()
        if wrong:
            raise InvalidInput(f"Layer {name!r} has channels 0 to {channels - 1}; keep= names {wrong[0]}")
        return value.new_zeros(channels).index_fill_(0, keep % channels, 1.0).view(shape)
    if keep.shape == (channels,):
        return keep.to(value.dtype).view(shape)
    if keep.shape == (n, channels):
        return keep.to(value.dtype).view(n, *shape[1:])
    if keep.shape in ((1, *value.shape[1:]), value.shape[1:]):
        return keep.to(value.dtype)
    raise InvalidInput(
        f"The mask for layer {name!r} has shape {tuple(keep.shape)}; its output {tuple(value.shape)} has "
        f"{channels} channels: pass [{channels}], [{n}, {channels}] or {tuple(value.shape[1:])}"
    )


def restrict(engine: Propagation, name: str, value: Tensor, kept: Tensor) -> Tensor:
    """``value`` with a backward that lets pass only what is ``kept``, a mask that broadcasts to it.

    It is an operator of its own in the ledger. An affine call that made ``value`` may be folded into what follows, past
    this one: it is told, too.
    """
    tag = engine.tag(value)
    call = Call(engine, _KEEP, None, (), {}, [value])
    call.layer = name
    if engine.ledger:
        engine.calls.append(call)
    memory = engine.keeper.keep(value.detach())

    def walk(c: Tensor) -> list[Tensor]:
        if engine.ledger:
            call.book("not kept", product(memory.value, c * (1 - kept)))
        return [c * kept]

    out: Tensor = engine.reroute(call, value, [value], walk, tag.nonneg, alias=True)
    fresh = engine.tag(out)
    fresh.first, fresh.depth, fresh.gate = tag.first, tag.depth, tag.gate
    fresh.affine, fresh.operand = tag.affine, tag.operand
    if tag.affine is not None:
        tag.affine.kept = kept
    call.release()
    return out
