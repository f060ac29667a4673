"""The walk back through one direction of a recurrent layer, from its states alone.

One product gives every gate of every step; only the recurrence of the factors loops, and only over what carries
relevance: the candidate's quarter (LSTM), third (GRU) or all (RNN) of the weights. With ``e`` the factor of the cell
state (LSTM) or of the hidden state, a step back is

    e_t = dc_t + o tanh(c)/c dh_t  (LSTM; else dh_t),  dh_{t-1} = dy_{t-1} + U_nᵀ(k_t e_t) [+ z e_t],  dc_{t-1} = f e_t

where ``k`` leads from ``e`` to the candidate ``n`` before its tanh: ``i tanh(n)/n``, ``(1 - z) r tanh(n)/n`` or
``tanh(n)/n``, times ``|z| / (|z| + ε)`` where the product's rule is LRP-ε. Gates are constant and the signal takes all
(Arras et al. 2017), except where a gate multiplies an initial state that is constant itself: there the gate's own
secant from zero passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Layout:
    """Rows of all steps one after another, ``sizes[t]`` at step ``t``, never growing (as packed data lies).

    Attributes:
        sizes: rows of each step; ``backward``: the recurrence begins at the last step.
        first: the row of each sequence's first step, in the order of the sequences.
    """

    first: slice | Tensor

    def __init__(self, sizes: Sequence[int], backward: bool, device: torch.device) -> None:
        self.sizes, self.backward = list(sizes), backward
        self._before: Tensor | None = None  # where each row's previous state lies; the initial states follow the rows
        total, n = sum(self.sizes), self.sizes[0]
        if n == self.sizes[-1]:  # all sequences are equally long
            self.first = slice(total - n, total) if backward else slice(n)
            return
        count = torch.tensor(self.sizes, device=device)
        end = count.cumsum(0)
        start, rows = end - count, torch.arange(total, device=device)
        step, sequences = torch.searchsorted(end, rows, right=True), torch.arange(n, device=device)
        initial = total + rows - start[step]
        if not backward:
            self._before, self.first = torch.where(step == 0, initial, rows - count[step - 1]), sequences
            return
        going_on = torch.cat([count[1:], count.new_zeros(1)])[step]  # sequences with a step after this one
        self._before = torch.where(initial - total < going_on, rows + count[step], initial)
        lengths = torch.searchsorted(-count, -sequences)
        self.first = start[lengths - 1] + sequences

    def previous(self, y: Tensor, initial: Tensor) -> Tensor:
        """The state that each row starts from, of the outputs ``[rows, hidden]`` and initial states of sequences."""
        if self._before is not None:
            return torch.cat([y, initial])[self._before]
        n = len(initial)
        return torch.cat([y[n:], initial] if self.backward else [initial, y[:-n]])

    @property
    def times(self) -> list[int]:
        """Steps in the order of the recurrence."""
        times = range(len(self.sizes))
        return list(reversed(times) if self.backward else times)


@dataclass
class Direction:
    """One direction of one layer.

    Attributes:
        kind: name of the operator (``lstm``, ``gru``, ``rnn_tanh``, ``rnn_relu``) or of its cell.
        x: input ``[rows, features]``; ``y``: outputs ``[rows, hidden]``.
        states: initial hidden (and cell) state, each ``[sequences, hidden]``.
        constant: which of the initial states carry no relevance.
        weights: of input and state, their biases (or None), and the projection (or None), as torch lays them out.
        epsilons: stabilizers of the products with input, state and projection; 0 is LRP-0.
    """

    kind: str
    layout: Layout
    x: Tensor
    y: Tensor
    states: Sequence[Tensor]
    constant: Sequence[bool]
    weights: Sequence[Any]
    epsilons: tuple[float, float, float]

    def walk(self, dy: Tensor | None, ends: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        """Factors of the input's rows and of the initial states.

        Args:
            dy: factors of the outputs ``[rows, hidden]``, None for zero.
            ends: factors of the final states ``[sequences, hidden]``, None for zero.
        """
        terms = _TERMS[self.kind.partition("_")[0]](self)
        e, initial = self._recur(terms, dy, ends)
        w, u, *_ = self.weights
        own = self.block(terms.own)
        dx = (e * terms.into_input).matmul(w[own])
        started = e[self.layout.first]
        for opening in terms.openings:
            gate = self.block(opening.block)
            dx[self.layout.first] += (started * opening.into_input).matmul(w[gate])
            if not self.constant[0]:
                initial[0] = initial[0] + (started * opening.into_state).matmul(u[gate])
        return dx, initial

    def _recur(self, terms: _Terms, dy: Tensor | None, ends: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        """``e`` of every row, and the factors of the initial states."""
        sizes, projection = self.layout.sizes, self.weights[4]
        candidate = self.weights[1][self.block(terms.own)]
        into_state, keep, lift, shrink, given = (
            self._by_step(t) for t in (terms.into_state, terms.keep, terms.lift, terms.shrink, dy)
        )
        final = [torch.zeros_like(s) if c is None else c for s, c in zip(self.states, ends, strict=True)]
        times = list(reversed(self.layout.times))
        carried = [s[: sizes[times[0]]] for s in final]
        begun: list[list[Tensor]] = []
        found: list[Any] = [None] * len(sizes)
        for t, following in zip(times, [*times[1:], None], strict=True):
            n = sizes[t]
            if len(carried[0]) > n:  # sequences that begin after this step are done
                begun.append([s[n:] for s in carried])
                carried = [s[:n] for s in carried]
            elif len(carried[0]) < n:  # sequences that end at this step bring the factors of their final states
                carried = [torch.cat([s, more[len(s) : n]]) for s, more in zip(carried, final, strict=True)]
            dh = carried[0] if given[t] is None else carried[0] + given[t]
            if lift[t] is None:
                e = dh
            else:
                dh = dh if shrink[t] is None else dh * shrink[t]
                e = torch.addcmul(carried[1], dh if projection is None else dh.mm(projection), lift[t])
            found[t] = e
            if following is None or given[following] is None or sizes[following] != n:
                dh = (e * into_state[t]).mm(candidate)
            else:  # what the step before is given is added in the same go
                dh, given[following] = torch.addmm(given[following], e * into_state[t], candidate), None
            if lift[t] is not None:
                carried = [dh, e * keep[t]]
            else:
                carried = [dh if keep[t] is None else torch.addcmul(dh, e, keep[t])]
        parts = [carried, *reversed(begun)]
        return torch.cat(found), [torch.cat(same) for same in zip(*parts, strict=True)]

    def _by_step(self, t: Tensor | None) -> list[Any]:
        """The rows of each step; Nones for None."""
        return [None] * len(self.layout.sizes) if t is None else list(t.split(self.layout.sizes))

    def block(self, k: int) -> slice:
        """Rows of the weights that make the ``k``-th of the gates and the candidate."""
        width = self.states[-1].shape[1]
        return slice(k * width, (k + 1) * width)

    def products(self) -> tuple[Tensor, Tensor]:
        """The products of all blocks with input and previous state, ``[rows, blocks * hidden]`` each."""
        w, u, b, b_h, _ = self.weights
        return F.linear(self.x, w, b), F.linear(self.layout.previous(self.y, self.states[0]), u, b_h)

    def first_products(self, k: int) -> tuple[Tensor, Tensor]:
        """The products of block ``k`` with input and initial state at the first steps, ``[sequences, hidden]`` each."""
        own = self.block(k)
        w, u, *biases = self.weights[:4]
        b, b_h = (None if t is None else t[own] for t in biases)
        return F.linear(self.x[self.layout.first], w[own], b), F.linear(self.states[0], u[own], b_h)

    def cells(self, forget: Tensor, new: Tensor) -> Tensor:
        """Cell states ``c_t = f c_{t-1} + new`` of an LSTM, ``[rows, hidden]``."""
        sizes, initial = self.layout.sizes, self.states[1]
        forgets, news = forget.split(sizes), new.split(sizes)
        found: list[Any] = [None] * len(sizes)
        c = initial[: sizes[self.layout.times[0]]]
        for t in self.layout.times:
            n = sizes[t]
            c = c[:n] if len(c) >= n else torch.cat([c, initial[len(c) : n]])
            c = found[t] = torch.addcmul(news[t], forgets[t], c)
        return torch.cat(found)


@dataclass
class _Opening:
    """A gate that opens on a constant initial state: factors from ``e`` of the first steps to its two products."""

    block: int
    into_input: Tensor
    into_state: Tensor


@dataclass
class _Terms:
    """What the recurrence multiplies with, ``[rows, hidden]`` each.

    Attributes:
        own: which block of the weights makes the candidate.
        into_input, into_state: from ``e`` to the candidate's two products.
        keep: what a step keeps of the state before it (the forget or update gate).
        lift: from the hidden to the cell state; ``shrink``: the share of a projection's stabilizer (LSTM only).
        openings: gates that open on a constant initial state.
    """

    own: int
    into_input: Tensor
    into_state: Tensor
    keep: Tensor | None = None
    lift: Tensor | None = None
    shrink: Tensor | None = None
    openings: list[_Opening] = field(default_factory=list)


def _lstm(d: Direction) -> _Terms:
    pre, recurrent = d.products()
    own = d.block(2)
    shares = _share(pre[:, own], d.epsilons[0]), _share(recurrent[:, own], d.epsilons[1])
    take, forget, g, give = pre.add_(recurrent).chunk(4, 1)
    del pre, recurrent
    take, forget, give = take.sigmoid_(), forget.sigmoid_(), give.sigmoid_()
    into, new = _secant(g).mul_(take), g.tanh().mul_(take)
    lift = _secant(d.cells(forget, new)).mul_(give)
    shrink = None if d.weights[4] is None else _share(d.y, d.epsilons[2])
    terms = _Terms(2, _scaled(into, shares[0]), _scaled(into, shares[1]), forget, lift, shrink)
    if d.constant[1]:
        terms.openings = _openings(d, {1: d.states[1]})
    return terms


def _gru(d: Direction) -> _Terms:
    pre, recurrent = d.products()
    own, gates = d.block(2), slice(2 * d.states[0].shape[1])
    shares = _share(pre[:, own], d.epsilons[0]), _share(recurrent[:, own], d.epsilons[1])
    reset, update = pre[:, gates].add_(recurrent[:, gates]).sigmoid_().chunk(2, 1)
    into = _secant(pre[:, own].add_(recurrent[:, own].mul_(reset))).mul_(1 - update)
    terms = _Terms(2, _scaled(into, shares[0]), _scaled(reset.mul_(into), shares[1]), update)
    if d.constant[0]:
        held = into[d.layout.first] * d.first_products(2)[1]
        terms.openings = _openings(d, {0: held, 1: d.states[0]})
    return terms


def _rnn(d: Direction) -> _Terms:
    pre, recurrent = d.products()
    shares = _share(pre, d.epsilons[0]), _share(recurrent, d.epsilons[1])
    total = pre.add_(recurrent)
    into = total.gt(0).to(total.dtype) if "relu" in d.kind else _secant(total)
    return _Terms(0, _scaled(into, shares[0]), _scaled(into, shares[1]))


_TERMS = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}


def _openings(d: Direction, scales: dict[int, Tensor]) -> list[_Opening]:
    """Gates, by their blocks, that multiply constants ``[sequences, hidden]``; those that are zero open on nothing."""
    return [_opening(d, k, scale) for k, scale in scales.items() if bool(scale.any())]


def _opening(d: Direction, k: int, scale: Tensor) -> _Opening:
    """The gate of block ``k`` where it multiplies a constant ``scale``: ``scale (σ(a) - σ(0)) / a``."""
    parts = d.first_products(k)
    a = parts[0] + parts[1]
    near = a.abs() < torch.finfo(a.dtype).eps ** (1 / 3)  # where the difference cancels
    secant = scale * torch.where(near, 0.25, (a.sigmoid() - 0.5) / torch.where(near, 1.0, a))
    return _Opening(k, *(_scaled(secant, _share(z, epsilon)) for z, epsilon in zip(parts, d.epsilons, strict=False)))


def _secant(z: Tensor) -> Tensor:
    """``tanh(z) / z``, 1 at zero."""
    return z.tanh().div_(z).nan_to_num_(1.0)


def _share(z: Tensor, epsilon: float) -> Tensor | None:
    """What LRP-ε passes on of an output's relevance, ``|z| / (|z| + ε)``; None (all of it) for LRP-0."""
    if not epsilon:
        return None
    magnitude = z.abs()
    return magnitude / (magnitude + epsilon)


def _scaled(t: Tensor, share: Tensor | None) -> Tensor:
    return t if share is None else share.mul_(t)
