"""The explained input on its way to the first affine operators.

Rules that give relevance to inputs that are zero (z^B, w², flat) cannot speak in factors. Their relevance goes to a
dummy that follows the input through views, padding, concatenation and elementwise affine preprocessing; the bounds
follow too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.propagate.nested import flat, replace
from headwater.propagate.pointwise import BENT
from headwater.propagate.tags import Source

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

_SHIFTS = {"add", "sub", "rsub", "mul", "div", "neg", "batch_norm"}
_JOINS = {"cat", "stack", "hstack", "vstack", "dstack", "column_stack"}


def move(engine: Propagation, call: Call, out: Any) -> None:
    """Carry the source of a call's input on to its result, where the call only moves, shifts or scales values."""
    tagged = [t for t in call.live if t.requires_grad and engine.tag(t).source is not None]
    if not tagged or call.operator.affine:
        return
    name = call.operator.name
    if call.operator.view or name in _JOINS or name in ("pad", "constant_pad_nd"):
        _move(engine, call, out)
    elif name in _SHIFTS and len(call.live) == 1 and isinstance(out, Tensor) and out.shape == tagged[0].shape:
        chain = engine.tag(out).chain
        if chain is None or chain.degree != BENT:
            _shift(engine, call, tagged[0], out)


def _outputs(out: Any) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else [t for t in out if isinstance(t, Tensor)]


def _run(call: Call, swap: dict[int, Tensor], **changed: Any) -> list[Tensor]:
    return _outputs(call.func(*replace(call.args, swap), **{k: replace(v, swap) for k, v in call.kwargs.items()}))


def _move(engine: Propagation, call: Call, out: Any) -> None:
    """Views, padding and joins: do to dummy, bounds and mask what was done to the input."""
    operands = [t for t in flat([call.args, list(call.kwargs.values())]) if t.dtype.is_floating_point]
    sources = {id(t): engine.tag(t).source if t.requires_grad else None for t in operands}
    partial = any(s is None or s.pixels is not None for s in sources.values()) or "pad" in call.operator.name
    bounded = all(s is None or s.low is not None for s in sources.values())
    dummies, lows, highs, masks = {}, {}, {}, {}
    for t in operands:
        source, value = sources[id(t)], t.detach()
        nothing = value.new_zeros(()).expand(value.shape)
        dummies[id(t)] = nothing if source is None else source.dummy
        masks[id(t)] = nothing if source is None else torch.ones_like(nothing)
        if source is not None and source.pixels is not None:
            masks[id(t)] = source.pixels.to(value.dtype)
        if bounded:
            lows[id(t)] = value if source is None or source.low is None else source.low.expand(value.shape)
            highs[id(t)] = value if source is None or source.high is None else source.high.expand(value.shape)
    with torch.enable_grad():
        moved = _run(call, dummies)
    low = _run(call, lows) if bounded else [None] * len(moved)
    high = _run(call, highs) if bounded else [None] * len(moved)
    mask: list[Any] = [m == 1 for m in _run(call, masks)] if partial else [None] * len(moved)
    for t, d, a, b, m in zip(_outputs(out), moved, low, high, mask, strict=True):
        if t.requires_grad:
            engine.tag(t).source = Source(d, a, b, m)
            engine.mark(d)


def _shift(engine: Propagation, call: Call, x: Tensor, out: Tensor) -> None:
    """Elementwise affine preprocessing: relevance passes one to one, bounds are mapped and put in order."""
    source = engine.tag(x).source
    assert source is not None
    low, high = source.low, source.high
    if low is not None and high is not None:
        (a,), (b,) = _run(call, {id(x): low.expand(x.shape)}), _run(call, {id(x): high.expand(x.shape)})
        low, high = torch.minimum(a, b), torch.maximum(a, b)
    engine.tag(out).source = Source(source.dummy, low, high, source.pixels)
