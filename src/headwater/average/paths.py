"""Integrals of factors along paths from starting points to the input (review, Section III-C and Algorithms 1 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.answer import Answer
from headwater.average.means import Ask, Mean, average, check_averaged, explained_by, results
from headwater.errors import InvalidInput
from headwater.method import Method
from headwater.points import Noise, Rows, Starts, baselines, generator, references
from headwater.question import Question
from headwater.walk import Move

Curve = Callable[[Rows, Tensor, Tensor, Tensor], Tensor]  # (rows, t, x, start) -> points


@dataclass(frozen=True)
class Nodes:
    """Places in 0 to 1 at which a path is sampled, and the ends of the stretch that each of them stands for.

    Attributes:
        at, low, high: ``[S, T]`` or ``[1, T]``, for each draw and point.
    """

    at: Tensor
    low: Tensor
    high: Tensor

    @property
    def count(self) -> int:
        """T."""
        return self.at.shape[1]


def nodes(rule: str, steps: int) -> Nodes:
    """The nodes of a rule of quadrature.

    Args:
        rule: "gauss_legendre" (exact for polynomials of degree ``2 steps - 1``; its nodes lie within the stretches
            that its weights divide the path into), "midpoint" (review, Algorithm 5), "trapezoid", or "left" (review,
            Algorithm 1).
        steps: how many stretches; the trapezoid rule has one node more.
    """
    if rule == "gauss_legendre":
        z, weights = np.polynomial.legendre.leggauss(steps)
        at, cuts = torch.from_numpy((1 + z) / 2), torch.from_numpy(np.concatenate([[0.0], np.cumsum(weights / 2)]))
    elif rule == "trapezoid":
        at = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        cuts = torch.cat([at[:1], (at[1:] + at[:-1]) / 2, at[-1:]])
    elif rule in ("midpoint", "left"):
        cuts = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        at = (cuts[1:] + cuts[:-1]) / 2 if rule == "midpoint" else cuts[:-1]
    else:
        raise InvalidInput(f"Unknown rule {rule!r}: choose gauss_legendre, midpoint, trapezoid or left")
    return Nodes(at[None], cuts[None, :-1], cuts[None, 1:])


def random_nodes(steps: int, draws: int, seed: int) -> Nodes:
    """One random node in each of ``steps`` equal stretches, for each draw anew: an unbiased estimate."""
    cuts = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[None]
    drawn = [torch.rand(steps, generator=generator("cpu", seed, -1, s), dtype=torch.float64) for s in range(draws)]
    return Nodes(cuts[:, :-1] + torch.stack(drawn) / steps, cuts[:, :-1], cuts[:, 1:])


def straight(rows: Rows, t: Tensor, x: Tensor, start: Tensor) -> Tensor:
    """The straight line from ``start`` to ``x``."""
    return start + t * (x - start)


@dataclass(frozen=True)
class Paths:
    """Paths to the explained values (or to points beside them): what every row's walk starts from.

    Attributes:
        starts: where they begin; ``nodes``: where they are sampled; ``curve``: their course.
        noise: added to the end; ``draws``: how many paths each sample has.
    """

    starts: Starts
    nodes: Nodes
    curve: Curve = straight
    noise: Noise | None = None
    draws: int = 1

    def move(self, rows: Rows) -> Move:
        """The points of these rows, and by what the factor there is multiplied: the stretch it stands for."""

        def move(argument: int, occurrence: int, value: Tensor) -> tuple[Tensor, Tensor | None]:
            start, x = self._ends(rows, argument, occurrence, value)
            at, low, high = (self._column(t, rows, value) for t in (self.nodes.at, self.nodes.low, self.nodes.high))
            if self.curve is straight:
                way = x - start
                return start + at * way, way.mul_(high - low)
            stretch = self.curve(rows, high, x, start) - self.curve(rows, low, x, start)
            return self.curve(rows, at, x, start).expand_as(value), stretch.expand_as(value)

        return move

    def begin(self, rows: Rows) -> Move:
        """The starting points themselves."""

        def move(argument: int, occurrence: int, value: Tensor) -> tuple[Tensor, Tensor | None]:
            start, x = self._ends(rows, argument, occurrence, value)
            if self.curve is not straight:
                start = self.curve(rows, value.new_zeros(len(value), *[1] * (value.dim() - 1)), x, start)
            return start.expand_as(value).contiguous(), None

        return move

    def _ends(self, rows: Rows, argument: int, occurrence: int, value: Tensor) -> tuple[Tensor, Tensor]:
        place = (argument, occurrence)
        x = value if self.noise is None else value + self.noise(rows, place, value)
        return self.starts(rows, place, value), x

    @staticmethod
    def _column(t: Tensor, rows: Rows, value: Tensor) -> Tensor:
        chosen = t[rows.draw if len(t) > 1 else torch.zeros_like(rows.draw), rows.point]
        return chosen.to(value.device, value.dtype).view(-1, *[1] * (value.dim() - 1))


def integrate(question: Question, of: Method, paths: Paths, ask: Ask | None = None) -> tuple[Answer, list[Mean | None]]:
    """The integral of a method's factor along paths, averaged over draws.

    Args:
        question: as the user put it.
        of: the method whose factor is integrated.
        paths: from where to where.
        ask: in place of the method, answers a question about the rows' points; what it returns beyond the explained
            arguments gets means of its own.

    Returns:
        the answer, and all means.
    """
    fixed, output = question.scored()

    def of_rows(part: Question, rows: Rows) -> Sequence[Tensor | None]:
        return explained_by(of, part, paths.move(rows), path=True) if ask is None else ask(part, rows)

    means = average(fixed, of_rows, paths.draws, paths.nodes.count, label="integrating")
    n = len(fixed.inputs.values)
    answer = Answer(results(means[:n]), output, fixed.target, scores_at_start(fixed, paths))
    if paths.draws > 1:
        answer.details = {"standard_error": fixed.inputs.pack(results(means[:n], "standard_error"))}
    return answer, means


def scores_at_start(question: Question, paths: Paths) -> Tensor:
    """The mean score where the paths of each sample begin, ``[N]``."""

    def ask(part: Question, rows: Rows) -> list[Tensor | None]:
        return [replace(part, move=paths.begin(rows)).scores()]

    (mean,) = average(question, ask, paths.draws, size=question.rows_at_a_time)
    assert mean is not None
    return mean.result


# ---------------------------------------------------------------------- methods


def integrated_gradients(
    question: Question,
    *,
    baselines: Any = None,
    steps: int = 50,
    rule: str = "gauss_legendre",
    path: Any = None,
    of: Any = "gradient",
) -> Answer:
    """Integrated gradients (Sundararajan et al. 2017; review, Section III-C and Algorithm 1).

    ``R = ∫ ∇f(γ(t)) ⊙ γ'(t) dt``, which sums to ``f(x) - f(baseline)``. Each node's factor is multiplied by the stretch
    of the path that it stands for, so that the stretches always sum to the whole way.

    Args:
        question: about N samples.
        baselines: where paths begin: None (zeros), a number, a function of the values, or a tensor that broadcasts to
            x; for token ids also ids. A tuple or dict of these for several inputs; a list of them for several
            baselines, over which the mean is taken.
        steps: nodes on each path.
        rule: see :func:`nodes`.
        path: a function ``(t, x, baseline) -> point`` of ``t [M, 1, ...]`` in 0 to 1, or points ``[P, N, ...]`` that
            a broken line connects, the last of them x (Algorithm 1 is ``steps=P - 1, rule="left"``); None is straight.
        of: the method whose factors are integrated.

    Raises:
        InvalidInput: counts below one, points that do not broadcast to x, an unknown rule.
    """
    check_averaged(question, of, steps=steps)
    grid = nodes(rule, steps)
    curve, starts = _curve(question, path, baselines)
    draws = len(baselines) if isinstance(baselines, list) else 1
    return integrate(question, of, Paths(starts, grid, curve, draws=draws))[0]


def smooth_ig(
    question: Question,
    *,
    starts: int = 5,
    steps: int = 5,
    noise_level: float = 0.1,
    sigma: float | None = None,
    baselines: Any = None,
    of: Any = "gradient",
) -> Answer:
    """Integrated gradients averaged over random starting points near the origin (review, Algorithm 5).

    Args:
        question: about N samples.
        starts, steps: S starting points and T midpoints on each path.
        noise_level: standard deviation of the starting points, as a share of each sample's range of values.
        sigma: the standard deviation itself (σ of Algorithm 5), in place of ``noise_level``.
        baselines: what the starting points lie around; zeros by default.
        of: the method whose factors are integrated.
    """
    check_averaged(question, of, starts=starts, steps=steps)
    noise, centre = Noise(question.seed, noise_level, sigma), _one(question, baselines)

    def start(rows: Rows, place: tuple[int, int], value: Tensor) -> Tensor:
        return noise(rows, place, value) + centre(rows, place, value)

    return integrate(question, of, Paths(start, nodes("midpoint", steps), draws=starts))[0]


def expected_gradients(
    question: Question, *, references: Any = None, draws: int = 10, steps: int = 5, of: Any = "gradient"
) -> Answer:
    """Integrated gradients averaged over baselines from a reference set (Erion et al. 2021).

    Args:
        question: about N samples.
        references: samples to compare with, ``[B, *x.shape[1:]]``, such as some of the training data.
        draws: how many of them are drawn; all where there are no more.
        steps: random points on the path from each, one in each of as many equal stretches. The paper has one.
        of: the method whose factors are integrated.
    """
    return _expected(question, references, draws, steps, of, None)


def gradient_shap(
    question: Question,
    *,
    references: Any = None,
    draws: int = 10,
    steps: int = 5,
    noise_level: float = 0.1,
    sigma: float | None = None,
    of: Any = "gradient",
) -> Answer:
    """Expected gradients whose paths end at noisy copies of the input (Lundberg and Lee 2017, and the library SHAP).

    Args:
        question: about N samples.
        references, draws, steps, of: as for :func:`expected_gradients`.
        noise_level: standard deviation of the noise at the input, as a share of each sample's range of values.
        sigma: the standard deviation itself, in place of ``noise_level``.
    """
    return _expected(question, references, draws, steps, of, Noise(question.seed, noise_level, sigma))


def _expected(question: Question, given: Any, draws: int, steps: int, of: Method, noise: Noise | None) -> Answer:
    check_averaged(question, of, draws=draws, steps=steps)
    starts = references(question, given, draws)
    return integrate(question, of, Paths(starts, random_nodes(steps, draws, question.seed), noise=noise, draws=draws))[
        0
    ]


def _one(question: Question, given: Any) -> Starts:
    if isinstance(given, list):
        raise InvalidInput("baselines= takes one baseline here, not a list")
    return baselines(question, given)


def _curve(question: Question, path: Any, given: Any) -> tuple[Curve, Starts]:
    """The course of the paths, and where they begin."""
    if path is None:
        return straight, baselines(question, given)
    if callable(path) and not isinstance(path, Tensor):
        return lambda rows, t, x, start: path(t, x, start), baselines(question, given)
    if given is not None:
        raise InvalidInput("path= as a sequence of points has its own first point: leave baselines= out")
    if not question.inputs.single or not question.inputs.values[0].is_floating_point():
        raise InvalidInput("path= as a sequence of points is for one tensor of floats; pass a function instead")
    x = question.inputs.values[0]
    points = torch.as_tensor(path, dtype=x.dtype, device=x.device)
    if points.dim() < 1 or len(points) < 2 or points.shape[1:] != x.shape:
        wanted = ", ".join(map(str, ("P", *x.shape)))
        raise InvalidInput(f"path= must be at least two points, [{wanted}], not {tuple(points.shape)}")
    if not torch.allclose(points[-1], x, rtol=1e-3):
        raise InvalidInput("path= must end at x: its last point differs")

    def along(rows: Rows, t: Tensor, x: Tensor, start: Tensor) -> Tensor:
        place, sample = t.view(-1) * (len(points) - 1), rows.sample.to(x.device)
        before = place.floor().clamp(max=len(points) - 2).long()
        share = (place - before).view_as(t)
        return torch.lerp(points[before, sample], points[before + 1, sample], share)

    return along, lambda rows, place, value: points[0, rows.sample.to(x.device)]
