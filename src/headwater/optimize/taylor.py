"""Simple Taylor decomposition: the first-order terms at a root near the input."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from headwater.answer import Answer
from headwater.arguments import bounds_of
from headwater.errors import HeadwaterWarning, InvalidInput
from headwater.optimize.climb import climb, places
from headwater.points import Place
from headwater.question import Question

Points = dict[Place, Tensor]

_BEYOND = 0.05  # how far past its root the search aims, as a share of the score
_PATIENCE = 10


def taylor(question: Question, *, steps: int = 100, tolerance: float = 1e-4) -> Answer:
    """Simple Taylor decomposition: ``R = ∇f(ξ) ⊙ (x - ξ)``, ``f(ξ) = 0`` (thesis, Eq. 3.36 to 3.40; review, V-A).

    A network of rectified linear units without biases has its root in the limit at the origin, where the gradient is
    that at x (thesis, Eq. 3.38): ``R = ∇f(x) ⊙ x``. Whether a model is such a one is seen from its values: scores halve
    with the input, and equal ``∇f(x) · x``. For all others the nearest root, ``min ‖ξ - x‖²``, is searched
    (Eq. 3.37) by projections onto the linearized root set (Hasofer-Lind and Rackwitz-Fiessler), their length controlled
    by a merit function (Zhang and Der Kiureghian 1995); the root is where the line from x to the nearest point beyond
    crosses it.

    Args:
        question: about N samples; its ``bounds`` limit the root.
        steps: of the search at most.
        tolerance: what counts as zero, ``|f(ξ)| <= tolerance · |f(x)|``.

    Returns:
        an answer whose details hold "root" shaped like x (zeros for the limit at the origin), "distance" ``[N]``, and
        "analytic" ``[N]``; its reference is ``f(ξ)``, and what is missing in the sum are the higher orders.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidInput(f"steps must be a whole number of at least 1, not {steps!r}")
    fixed, output = question.scored()
    x = places(fixed)
    if len(x) != len(fixed.explained):
        raise InvalidInput("Token ids that the model embeds several times have no root here: pass embeddings")
    halves = {p: v / 2 for p, v in x.items()}
    products, scores = _products(fixed, x, x), climb(fixed, halves)[0]
    euler = torch.stack([r.flatten(1).sum(1) for r in products if r is not None]).sum(0)
    slack = 1e-3 if output.dtype.itemsize < 4 else 1e-4
    allowed = slack * output.abs()
    analytic = ((scores - output / 2).abs() <= allowed) & ((euler - output).abs() <= allowed)
    root = {p: torch.zeros_like(v) for p, v in x.items()}
    relevance, reference = products, torch.zeros_like(output)
    rest = (~analytic).nonzero().squeeze(1).cpu()
    if len(rest):
        part = fixed.select(rest)
        found, at_root = _Root(part, {p: v[rest] for p, v in x.items()}, output[rest], tolerance).search(steps)
        terms = _products(part, found, {p: x[p][rest] - v for p, v in found.items()})
        for p in root:
            root[p][rest] = found[p]
        for whole, own in zip(relevance, terms, strict=True):
            if whole is not None and own is not None:
                whole[rest] = own
        reference[rest] = at_root
    distance = _norm({p: v - root[p] for p, v in x.items()})
    packed = fixed.inputs.pack([root.get((i, 0)) for i in range(len(fixed.inputs.values))])
    details = {"root": packed, "distance": distance, "analytic": analytic}
    return Answer(relevance, output, fixed.target, reference, details=details)


def _products(question: Question, points: Points, multipliers: Points) -> list[Tensor | None]:
    return climb(question, points, multipliers)[1]


class _Root:
    """The search for a root near each sample.

    Args:
        question: about N samples.
        x: their values; ``output``: their scores.
        tolerance: of the root, as a share of the score.
    """

    def __init__(self, question: Question, x: Points, output: Tensor, tolerance: float) -> None:
        self.question, self.x, self.output = question, x, output
        self.allowed = tolerance * output.abs()
        self.level = -_BEYOND * output  # aimed at, so that the root is passed
        self.end = {p: v.clone() for p, v in x.items()}  # the nearest point beyond the root, or else nearest to it
        self.end_score = output.clone()
        self.distance = torch.full_like(output, torch.inf)
        self.idle = torch.zeros_like(output)  # steps since a root came nearer by more than a thousandth

    def search(self, steps: int) -> tuple[Points, Tensor]:
        """The roots, and the scores there."""
        at, weight, length = self.x, torch.zeros_like(self.output), torch.ones_like(self.output)
        score, gradient = self._look(at)

        def step(rows: slice) -> None:
            nonlocal at, score, gradient, weight, length
            if bool(((length < 1e-4) | (self.idle >= _PATIENCE)).all()):
                return
            target, slope = self._projected(at, score, gradient)
            away = _norm({p: v - self.x[p] for p, v in target.items()})
            weight = torch.maximum(weight, 2 * away / slope.clamp(min=1e-30))
            tried = self._bounded({p: v + _column(length, v) * (target[p] - v) for p, v in at.items()})
            tried_score, tried_gradient = self._look(tried)
            gain = self._merit(at, score, weight) - self._merit(tried, tried_score, weight)
            taken = gain > 0
            at = {p: torch.where(_column(taken, v) > 0, tried[p], v) for p, v in at.items()}
            gradient = {p: torch.where(_column(taken, v) > 0, tried_gradient[p], v) for p, v in gradient.items()}
            score = torch.where(taken, tried_score, score)
            length = torch.where(taken, (2 * length).clamp(max=1), length / 2)

        replace(self.question, batch_size=None).in_batches(step, steps, 1, "searching roots")
        self.idle.zero_()
        for further in (2.0, 4.0, 8.0, -2.0, -8.0):  # a search that came to rest before a root looks along its way
            if bool((self.end_score * self.output <= 0).all()):
                break
            self._look(self._bounded(self._on_the_way(torch.full_like(self.output, further))))
        missed = (self.end_score * self.output > 0) & (self.end_score.abs() > self.allowed)
        if bool(missed.any()):
            warnings.warn(
                f"No root was found for {int(missed.sum())} of {len(missed)} samples: their score may have none. The "
                "decomposition starts from the score nearest to zero, e.reference.",
                HeadwaterWarning,
                stacklevel=2,
            )
        return self._between(~missed)

    def _between(self, passed: Tensor) -> tuple[Points, Tensor]:
        """The root on the way from x to a point that lies beyond it, by the Illinois variant of false position."""
        low, high = torch.zeros_like(self.output), torch.ones_like(self.output)
        f_low, f_high, at, score = self.output, self.end_score, high, self.end_score
        for _ in range(60):
            open_ = passed & (score.abs() > self.allowed)
            if not bool(open_.any()):
                break
            at = torch.where(open_, (low * f_high - high * f_low) / (f_high - f_low), at)
            score = torch.where(open_, self._score(self._on_the_way(at)), score)
            near = score * self.output > 0  # still on the side of x
            f_high = torch.where(near, f_high / 2, score)
            f_low = torch.where(near, score, f_low / 2)
            low, high = torch.where(near, at, low), torch.where(near, high, at)
        return self._on_the_way(at), score

    def _on_the_way(self, share: Tensor) -> Points:
        return {p: torch.lerp(self.x[p], v, _column(share, v)) for p, v in self.end.items()}

    def _score(self, at: Points) -> Tensor:
        def move(argument: int, occurrence: int, value: Tensor) -> tuple[Tensor, None]:
            return at[argument, occurrence], None

        return replace(self.question, move=move).scores()

    def _look(self, at: Points) -> tuple[Tensor, Points]:
        """Score and gradient, and a note of the point where it lies beyond the root and nearer than the last."""
        score, found = climb(self.question, at)
        distance = _norm({p: v - self.x[p] for p, v in at.items()})
        beyond = score * self.output <= 0
        passed = self.end_score * self.output <= 0
        closer = ~beyond & ~passed & (score.abs() < self.end_score.abs())
        better = ((beyond & (~passed | (distance < self.distance))) | closer) & (self.idle < _PATIENCE)
        nearer = better & ~(distance > 0.999 * self.distance)
        self.idle = torch.where(nearer, 0, self.idle + 1)
        self.end = {p: torch.where(_column(better, v) > 0, at[p], v) for p, v in self.end.items()}
        self.end_score = torch.where(better, score, self.end_score)
        self.distance = torch.where(better, distance, self.distance)
        gradient = {}
        for p in at:
            g = found[p[0]]
            assert g is not None
            gradient[p] = g
        return score.detach(), gradient

    def _projected(self, at: Points, score: Tensor, gradient: Points) -> tuple[Points, Tensor]:
        """The point nearest to x where the linear model at ``at`` has the level aimed at, and the gradient's length."""
        slope = _norm(gradient)
        ahead = torch.stack([(g * (at[p] - self.x[p])).flatten(1).sum(1) for p, g in gradient.items()]).sum(0)
        ahead = ahead - score + self.level
        share = torch.where(slope > 0, ahead / slope.square().clamp(min=1e-30), torch.zeros_like(slope))
        return {p: self.x[p] + _column(share, g) * g for p, g in gradient.items()}, slope

    def _merit(self, at: Points, score: Tensor, weight: Tensor) -> Tensor:
        away = _norm({p: v - self.x[p] for p, v in at.items()})
        return away.square() / 2 + weight * (score - self.level).abs()

    def _bounded(self, points: Points) -> Points:
        """Points within the bounds of the input, where the user gave some and it holds floats."""
        found = {}
        for (i, occurrence), value in points.items():
            bounds = bounds_of(self.question.bounds, self.question.inputs, i)
            floats = self.question.inputs.values[i].is_floating_point()
            if bounds is not None and floats:
                low, high = (torch.as_tensor(b, dtype=value.dtype, device=value.device) for b in bounds)
                value = torch.minimum(torch.maximum(value, low), high)
            found[i, occurrence] = value
        return found


def _norm(values: Mapping[Place, Tensor]) -> Tensor:
    """Euclidean length over all arguments, ``[N]``."""
    return torch.stack([v.square().flatten(1).sum(1) for v in values.values()]).sum(0).sqrt()


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).view(-1, *[1] * (like.dim() - 1))
