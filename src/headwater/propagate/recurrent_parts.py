"""Recurrent operators written as their parts: the engine treats each part as it stands.

Gates are constant, cell states share by value ("signal takes all"), tanh passes by its secant. This serves what
:mod:`headwater.propagate.recurrent_walk` does not: a ledger, true derivatives, rules that look at signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from headwater.propagate.engine import Propagation
    from headwater.propagate.recurrent import Recurrence

State = tuple[Tensor, ...]


def step(engine: Propagation, kind: str, pre: Tensor, state: State, u: Tensor, b: Any, proj: Tensor | None) -> State:
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
                step(engine, kind, old, current, u, b_h, proj),
                step(engine, kind, new, start, u, b_h, proj),
                strict=True,
            )
            current = tuple(redo(torch.cat, pair, 0) for pair in pairs)
        else:
            current = step(engine, kind, pres[t], current, u, b_h, proj)
        n = sizes[t]
        outputs.append(current[0])
    for rest in reversed(ended):
        current = tuple(redo(torch.cat, [s, more], 0) for s, more in zip(current, rest, strict=True))
    return outputs[::-1] if backward else outputs, current


def layers(engine: Propagation, r: Recurrence) -> State:
    """All layers step by step: outputs and final states, shaped as torch returns them."""
    redo = engine.redo
    axis = 1 if r.batch_first else 0
    steps = list(redo(torch.unbind, r.x, axis) if r.batch_sizes is None else redo(torch.split, r.x, r.sizes, 0))
    finals: list[State] = []
    for layer in range(r.layers):
        outs: list[list[Tensor]] = []
        for d in range(r.directions):
            k = layer * r.directions + d
            state = tuple(redo(torch.select, s, 0, k) for s in r.states)
            out, final = _direction(engine, r.kind, steps, state, r.weights(k), r.sizes, d == 1)
            outs.append(out)
            finals.append(final)
        steps = outs[0]
        if r.directions == 2:
            steps = [redo(torch.cat, [a, b], -1) for a, b in zip(*outs, strict=True)]
        if r.dropout and layer < r.layers - 1:
            steps = [redo(torch.dropout, s, r.dropout, True) for s in steps]
    states = [redo(torch.stack, [f[i] for f in finals], 0) for i in range(len(r.states))]
    y = redo(torch.stack, steps, axis) if r.batch_sizes is None else redo(torch.cat, steps, 0)
    return (y, *states)
