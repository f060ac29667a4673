"""Recurrent operators and embedding bags, written as their parts: the engine treats each part as it stands.

Gates are constant, cell states share by value ("signal takes all"), tanh passes by its secant. The values are those of
torch's own kernel, bit for bit; only the factors walk through the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.propagate.soundness import allow_training

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

State = tuple[Tensor, ...]


def _step(engine: Propagation, kind: str, pre: Tensor, state: State, u: Tensor, b: Any, proj: Tensor | None) -> State:
    """One step of a cell from the input's product ``pre`` (W x + b)."""
    redo = engine.redo
    h = state[0]
    recurrent = redo(torch.nn.functional.linear, h, u, b)
    if kind.startswith("lstm"):
        i, f, g, o = redo(torch.chunk, redo(torch.add, pre, recurrent), 4, -1)
        i, f, o = (redo(torch.sigmoid, t) for t in (i, f, o))
        c = redo(torch.add, redo(torch.mul, f, state[1]), redo(torch.mul, i, redo(torch.tanh, g)))
        h = redo(torch.mul, o, redo(torch.tanh, c))
        return (h if proj is None else redo(torch.nn.functional.linear, h, proj), c)
    if kind.startswith("gru"):
        reset, update, new = redo(torch.chunk, pre, 3, -1)
        reset_h, update_h, new_h = redo(torch.chunk, recurrent, 3, -1)
        r = redo(torch.sigmoid, redo(torch.add, reset, reset_h))
        z = redo(torch.sigmoid, redo(torch.add, update, update_h))
        n = redo(torch.tanh, redo(torch.add, new, redo(torch.mul, r, new_h)))
        return (redo(torch.add, redo(torch.mul, redo(torch.rsub, z, 1), n), redo(torch.mul, z, h)),)
    activation = torch.relu if "relu" in kind else torch.tanh
    return (redo(activation, redo(torch.add, pre, recurrent)),)


def _direction(
    engine: Propagation, kind: str, steps: Sequence[Tensor], state: State, weights: Sequence[Any], sizes: Sequence[int],
    backward: bool,
) -> tuple[list[Tensor], State]:  # fmt: skip
    """Run one direction over ``steps`` (each ``[n_t, features]``, ``n_t`` not growing); outputs in order of time."""
    redo = engine.redo
    w, u, b, b_h, proj = weights
    joined = redo(torch.cat, list(steps), 0)
    pres = redo(torch.split, redo(torch.nn.functional.linear, joined, w, b), list(sizes), 0)
    outputs: list[Tensor] = []
    ended: list[State] = []
    times = range(len(steps))
    n = sizes[-1] if backward else sizes[0]
    current = tuple(redo(torch.narrow, s, 0, 0, n) for s in state)
    for t in reversed(times) if backward else times:
        if sizes[t] < n:  # sequences that end here keep their state
            ended.append(tuple(redo(torch.narrow, s, 0, sizes[t], n - sizes[t]) for s in current))
            current = tuple(redo(torch.narrow, s, 0, 0, sizes[t]) for s in current)
        begun = sizes[t] - n
        if begun > 0:  # walking back, sequences join; their first step is their own, from the initial state
            old, new = redo(torch.split, pres[t], [n, begun], 0)
            start = tuple(redo(torch.narrow, s, 0, n, begun) for s in state)
            pairs = zip(
                _step(engine, kind, old, current, u, b_h, proj),
                _step(engine, kind, new, start, u, b_h, proj),
                strict=True,
            )
            current = tuple(redo(torch.cat, pair, 0) for pair in pairs)
        else:
            current = _step(engine, kind, pres[t], current, u, b_h, proj)
        n = sizes[t]
        outputs.append(current[0])
    for rest in reversed(ended):
        current = tuple(redo(torch.cat, [s, more], 0) for s, more in zip(current, rest, strict=True))
    return outputs[::-1] if backward else outputs, current


def recurrent(engine: Propagation, call: Call) -> Any:
    """``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` as torch calls them, packed or not."""
    kind, args = call.operator.name, call.args
    packed = isinstance(args[3], (list, tuple))
    if packed:
        data, batch_sizes, hx, weights, has_biases, layers, dropout, train, both = args
        sizes = [int(s) for s in batch_sizes]
        steps = list(engine.redo(torch.split, data, sizes, 0))
    else:
        x, hx, weights, has_biases, layers, dropout, train, both, batch_first = args
        steps = list(engine.redo(torch.unbind, x, 1 if batch_first else 0))
        sizes = [s.shape[0] for s in steps]
    if dropout and train and layers > 1:
        allow_training(engine, "A recurrent layer has active dropout")
    initial = tuple(hx) if isinstance(hx, (list, tuple)) else (hx,)
    values = _native(engine, call)
    directions = 2 if both else 1
    per = len(weights) // (layers * directions)
    finals: list[State] = []
    for layer in range(layers):
        outs: list[list[Tensor]] = []
        for d in range(directions):
            k = layer * directions + d
            group = list(weights[k * per : (k + 1) * per])
            biases = group[2:4] if has_biases else [None, None]
            proj = group[-1] if per in (3, 5) else None
            state = tuple(engine.redo(torch.select, s, 0, k) for s in initial)
            out, final = _direction(engine, kind, steps, state, (*group[:2], *biases, proj), sizes, d == 1)
            outs.append(out)
            finals.append(final)
        steps = outs[0]
        if both:
            steps = [engine.redo(torch.cat, [a, b], -1) for a, b in zip(*outs, strict=True)]
        if dropout and train and layer < layers - 1:
            steps = [engine.redo(torch.dropout, s, dropout, True) for s in steps]
    states = [engine.redo(torch.stack, [f[i] for f in finals], 0) for i in range(len(initial))]
    y = engine.redo(torch.cat, steps, 0) if packed else engine.redo(torch.stack, steps, 1 if batch_first else 0)
    return tuple(_with_values(engine, call, part, value) for part, value in zip((y, *states), values, strict=True))


def cell(engine: Propagation, call: Call) -> Any:
    """``lstm_cell``, ``gru_cell``, ``rnn_tanh_cell`` and ``rnn_relu_cell``."""
    x, hx, w, u, *biases = call.args
    b, b_h = biases if biases else (None, None)
    values = _native(engine, call)
    state = tuple(hx) if isinstance(hx, (list, tuple)) else (hx,)
    pre = engine.redo(torch.nn.functional.linear, x, w, b)
    parts = _step(engine, call.operator.name, pre, state, u, b_h, None)
    if isinstance(values, Tensor):
        return _with_values(engine, call, parts[0], values)
    return tuple(_with_values(engine, call, part, value) for part, value in zip(parts, values, strict=True))


def _native(engine: Propagation, call: Call) -> Any:
    """The kernel's own result, from the model's own parameters: its path depends on who requires grad."""
    live = {id(t) for t in call.live}

    def own(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [own(v) for v in value]
        return value.detach() if id(value) in live else engine.original(value)

    with torch.no_grad():
        return call.func(*[own(a) for a in call.args], **call.kwargs)


def _with_values(engine: Propagation, call: Call, part: Tensor, value: Tensor) -> Tensor:
    """The kernel's own values with the backward of the parts."""
    if engine.differentiable or not part.requires_grad or (engine.allow_training and not torch.equal(part, value)):
        return part
    return engine.stand_in(call, engine.materialize(part), value)


def embedding_bag(engine: Propagation, call: Call) -> Any:
    """``embedding_bag`` with live weights of its samples or as the embedding of explained ids: rows, then sums."""
    weight, indices, offsets, _, mode, _, per_sample, include_last, padding = [*call.args, *[None] * 9][:9]
    redo = engine.redo
    rows = redo(torch.embedding, weight, indices)
    bounds = offsets.tolist() if include_last else [*offsets.tolist(), indices.shape[0]]
    counts = torch.tensor([b - a for a, b in pairwise(bounds)], device=indices.device)
    bag = torch.repeat_interleave(torch.arange(len(counts), device=indices.device), counts)
    if padding is not None and padding >= 0:
        seen = indices != padding
        rows, bag = redo(torch.Tensor.__getitem__, rows, seen), bag[seen]
        per_sample = per_sample if per_sample is None else redo(torch.Tensor.__getitem__, per_sample, seen)
        counts = torch.bincount(bag, minlength=len(counts))
    if per_sample is not None:
        rows = redo(torch.mul, rows, redo(torch.unsqueeze, per_sample, 1))
    empty = rows.new_zeros((len(counts), rows.shape[1])).detach()
    if mode == 2:
        index = bag[:, None].expand(-1, rows.shape[1])
        out = redo(torch.scatter_reduce, empty, 0, index, rows, "amax", include_self=False)
    else:
        out = redo(torch.index_add, empty, 0, bag, rows)
        if mode == 1:
            out = redo(torch.div, out, counts.clamp(min=1)[:, None].to(out.dtype))
    return out, bag, counts, counts
