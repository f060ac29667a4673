"""Recurrent operators and embedding bags.

A recurrent layer is one native run and one walk back (:mod:`headwater.propagate.recurrent_walk`) or, where something
needs them, its parts (:mod:`headwater.propagate.recurrent_parts`). The values are those of torch's own kernel, bit for
bit.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.propagate import recurrent_parts
from headwater.propagate.kinds import Operator
from headwater.propagate.recurrent_walk import Direction, Layout
from headwater.propagate.rules import Epsilon, Zero
from headwater.propagate.soundness import allow_training
from headwater.propagate.tags import is_live

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

_LINEAR = Operator("linear", "linear", affine=True)
_Epsilons = tuple[float, float, float]


@dataclass
class Recurrence:
    """The arguments of ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` as torch calls them, packed or not.

    Attributes:
        kind: name of the operator.
        x: input ``[T, N, features]`` (``[N, T, features]`` where ``batch_first``), packed ``[rows, features]``.
        batch_sizes: sequences that reach each step of packed data, else None.
        states: initial hidden (and cell) state, ``[layers * directions, N, hidden]``.
        parameters: all weights, as torch lays them out; ``biased``: biases are among them.
        dropout: between layers, 0 unless it is active; ``train``: torch's own flag.
    """

    kind: str
    x: Tensor
    batch_sizes: Tensor | None
    states: tuple[Tensor, ...]
    parameters: Sequence[Tensor]
    biased: bool
    layers: int
    dropout: float
    train: bool
    directions: int
    batch_first: bool

    @staticmethod
    def of(call: Call) -> Recurrence:
        """Read the arguments of a call."""
        packed = isinstance(call.args[3], (list, tuple))
        x, *args = call.args
        batch_sizes = args.pop(0) if packed else None
        hx, parameters, biased, layers, dropout, train, both, *batch_first = args
        states = tuple(hx) if isinstance(hx, (list, tuple)) else (hx,)
        active = dropout if train and layers > 1 else 0.0
        first = bool(batch_first and batch_first[0])
        name = call.operator.name
        return Recurrence(
            name, x, batch_sizes, states, parameters, biased, layers, active, train, 2 if both else 1, first
        )

    @property
    def sizes(self) -> list[int]:
        """Sequences at each step."""
        if self.batch_sizes is not None:
            return [int(s) for s in self.batch_sizes]
        n, steps = self.x.shape[:2] if self.batch_first else (self.x.shape[1], self.x.shape[0])
        return [n] * steps

    @property
    def each(self) -> int:
        """Weights of one direction of one layer."""
        return len(self.parameters) // (self.layers * self.directions)

    def weights(self, k: int) -> tuple[Any, ...]:
        """Weights of input and state, their biases and the projection of the ``k``-th direction (None where absent)."""
        group = self.parameters[k * self.each : (k + 1) * self.each]
        biases = group[2:4] if self.biased else (None, None)
        return (*group[:2], *biases, group[-1] if self.each in (3, 5) else None)

    def rows(self, t: Tensor) -> Tensor:
        """An input or output with the rows of all steps one after another."""
        if self.batch_sizes is not None:
            return t
        return (t.transpose(0, 1) if self.batch_first else t).flatten(0, 1)

    def unrows(self, t: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`rows`, for a tensor shaped like ``like``."""
        if self.batch_sizes is not None or not self.batch_first:
            return t.view(like.shape)
        return t.view(like.shape[1], like.shape[0], -1).transpose(0, 1)


def recurrent(engine: Propagation, call: Call) -> Any:
    """``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` as torch calls them, packed or not."""
    r = Recurrence.of(call)
    if r.dropout:
        allow_training(engine, "A recurrent layer has active dropout")
    epsilons = None if r.dropout else _epsilons(engine, call, r.x, r.states, r.parameters)
    parts = recurrent_parts.layers(engine, r) if epsilons is None else _layers(engine, call, r, epsilons)
    if epsilons is not None and (r.layers == 1 or r.x.device.type == "cpu"):
        return parts
    # The parts round differently, and so may several layers run one by one on other devices.
    return _with_values(engine, call, parts, _native(engine, call))


def _layers(engine: Propagation, call: Call, r: Recurrence, epsilons: _Epsilons) -> tuple[Tensor, ...]:
    """Each layer as one native run and one walk back; outputs and final states as torch returns them."""
    call.depth, call.first = call.depth + 1, False
    y, finals = r.x, []
    for layer in range(r.layers):
        y, *final = _layer(engine, call, r, layer, y, epsilons)
        finals.append(final)
        epsilons = (epsilons[1], *epsilons[1:])  # only the lowest layer may meet the explained input
    if r.layers == 1:
        return (y, *finals[0])
    return (y, *(engine.redo(torch.cat, list(same), 0) for same in zip(*finals, strict=True)))


def _layer(
    engine: Propagation, call: Call, r: Recurrence, layer: int, x: Tensor, epsilons: _Epsilons
) -> tuple[Tensor, ...]:
    """Both directions of one layer of which ``x`` is the input."""
    first, count = layer * r.directions, r.directions
    states = [s if r.layers == 1 else engine.redo(torch.narrow, s, 0, first, count) for s in r.states]
    values = _run_layer(engine, call, r, first, x, states)
    kept = [engine.keeper.keep(t.detach()) for t in (x, values[0], *states)]
    constant = [not is_live(s) for s in states]
    live = [t for t in (x, *states) if is_live(t)]
    carries = [is_live(x), *(not c for c in constant)]

    def walk(*cs: Tensor | None) -> list[Tensor]:
        x, y, *initial = (k.value for k in kept)
        rows, outs = r.rows(x), r.rows(y).chunk(count, 1)
        dys = [None] * count if cs[0] is None else r.rows(cs[0]).chunk(count, 1)
        found = []
        for d in range(count):
            layout = Layout(r.sizes, d == 1, x.device)
            own = [s[d] for s in initial]
            one = Direction(r.kind, layout, rows, outs[d], own, constant, r.weights(first + d), epsilons)
            found.append(one.walk(dys[d], [None if c is None else c[d] for c in cs[1:]]))
        dx = found[0][0] if count == 1 else found[0][0] + found[1][0]
        factors = [r.unrows(dx, x), *(torch.stack(same) for same in zip(*(f for _, f in found), strict=True))]
        return [factor for factor, carried in zip(factors, carries, strict=True) if carried]

    out: tuple[Tensor, ...] = engine.reroute(call, values, live, walk, nonneg=r.kind == "rnn_relu")
    return out


def _run_layer(
    engine: Propagation, call: Call, r: Recurrence, first: int, x: Tensor, states: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The kernel's outputs and final states of the layer whose directions start at ``first``."""
    parameters = list(r.parameters[first * r.each : (first + r.directions) * r.each])
    hx = list(states) if len(states) > 1 else states[0]
    packed = [] if r.batch_sizes is None else [r.batch_sizes]
    order = [r.batch_first] if r.batch_sizes is None else []
    several = r.layers > 1 and x.is_cuda  # then cuDNN says that these weights are a part of a larger block
    with torch.no_grad(), warnings.catch_warnings() if several else contextlib.nullcontext():
        if several:
            warnings.filterwarnings("ignore", ".*single contiguous chunk")
        args = _own(engine, [x, *packed, hx, parameters])
        values: tuple[Tensor, ...] = call.func(*args, r.biased, 1, 0.0, r.train, r.directions == 2, *order)
    return values


def cell(engine: Propagation, call: Call) -> Any:
    """``lstm_cell``, ``gru_cell``, ``rnn_tanh_cell`` and ``rnn_relu_cell``."""
    x, hx, w, u, *biases = call.args
    b, b_h = biases if biases else (None, None)
    kind, states = call.operator.name, tuple(hx) if isinstance(hx, (list, tuple)) else (hx,)
    weights = (w, u, b, b_h, None)
    values = _native(engine, call)
    results = (values,) if isinstance(values, Tensor) else tuple(values)
    epsilons = _epsilons(engine, call, x, states, [t for t in weights if t is not None])
    if epsilons is None or x.dim() != 2:
        pre = engine.redo(torch.nn.functional.linear, x, w, b)
        out = _with_values(engine, call, recurrent_parts.step(engine, kind, pre, states, u, b_h, None), results)
        return out[0] if isinstance(values, Tensor) else out
    kept = [engine.keeper.keep(t.detach()) for t in (x, results[0], *states)]
    constant = [not is_live(s) for s in states]
    carries = [is_live(x), *(not c for c in constant)]

    def walk(*cs: Tensor | None) -> list[Tensor]:
        x, h, *initial = (k.value for k in kept)
        layout = Layout([len(x)], False, x.device)
        dx, factors = Direction(kind, layout, x, h, initial, constant, weights, epsilons).walk(None, cs)
        return [factor for factor, carried in zip([dx, *factors], carries, strict=True) if carried]

    call.depth, call.first = call.depth + 1, False
    live = [t for t in (x, *states) if is_live(t)]
    return engine.reroute(call, values, live, walk, nonneg=kind == "rnn_relu_cell")


def _epsilons(
    engine: Propagation, call: Call, x: Tensor, states: Sequence[Tensor], parameters: Sequence[Tensor]
) -> _Epsilons | None:
    """Stabilizers of the products with input, state and projection; None where the parts are needed."""
    composite = engine.composite
    audited = engine.ledger or engine.differentiable or engine.planning
    if audited or composite.has_filters or composite.depths or torch.is_autocast_enabled(x.device.type):
        return None
    if len({t.dtype for t in (x, *states, *parameters)}) > 1:
        return None
    inputs = {id(t) for t in (x, *states)}
    if any(id(t) not in inputs for t in call.live):  # weights that are made of the input
        return None
    entering = [is_live(t) and engine.tag(t).first for t in (x, *states)]
    if "input" in composite.named and any(entering[1:]):  # the first step takes another rule than the rest
        return None
    found = [_stabilizer(engine, call, x.dtype, at_input) for at_input in (entering[0], False)]
    return None if found[0] is None or found[1] is None else (found[0], found[1], found[1])


def _stabilizer(engine: Propagation, call: Call, dtype: torch.dtype, at_input: bool) -> float | None:
    """ε of the composite's rule for the products inside a call, 0 for LRP-0; None for a rule of another kind."""
    product = copy.copy(call)
    product.operator, product.at_input = _LINEAR, at_input
    rule = engine.composite.early(product)
    if type(rule) is Zero:
        return 0.0
    if type(rule) is not Epsilon or rule.relative:  # what is made of them may differ
        return None
    return max(rule.epsilon, torch.finfo(dtype).smallest_normal) if rule.epsilon else 0.0


def _own(engine: Propagation, value: Any) -> Any:
    """Arguments for the kernel, whose path depends on who requires grad: the model's own parameters, values else."""
    if isinstance(value, (list, tuple)):
        return [_own(engine, v) for v in value]
    return value.detach() if is_live(value) else engine.original(value)


def _native(engine: Propagation, call: Call) -> Any:
    """The kernel's own result."""
    with torch.no_grad():
        return call.func(*_own(engine, call.args), **call.kwargs)


def _with_values(
    engine: Propagation, call: Call, parts: Sequence[Tensor], values: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The kernel's own values with the backward of the parts."""

    def one(part: Tensor, value: Tensor) -> Tensor:
        if engine.differentiable or not part.requires_grad or (engine.allow_training and not torch.equal(part, value)):
            return part
        return engine.stand_in(call, engine.materialize(part), value)

    return tuple(one(part, value) for part, value in zip(parts, values, strict=True))


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
