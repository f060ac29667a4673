"""Means over draws, in place and in one pass: what each row brings is added to its sample's mean and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.method import Method
from headwater.points import Rows
from headwater.question import Question
from headwater.walk import Move

WALKED_AT_A_TIME = 1 << 21  # values of the input in one batch that is walked back by default: it keeps activations


Ask = Callable[[Question, Rows], Sequence[Tensor | None]]


class Mean:
    """Mean over draws of the sum over a draw's points, and the squared deviations, of one tensor for each sample.

    Half precision is added up in float32.
    """

    def __init__(self, samples: int, squares: bool) -> None:
        self.samples, self.squares = samples, squares
        self.count = torch.zeros(samples, dtype=torch.float64)
        self.dtype = torch.float32
        self.mean = self.deviations = torch.empty(0)
        self._open: Tensor | None = None  # the sum so far of a draw that goes on in the next batch

    def add(self, rows: Rows, values: Tensor) -> Callable[[], None]:
        """Prepare what rows ``[M, ...]`` add; calling the result adds it, so that a batch counts in full or not."""
        sums = _sums(_wide(values), rows.group_sizes) if rows.points > 1 else _wide(values)
        if self._open is not None:
            sums[0] += self._open
        ends = rows.point == rows.points - 1
        rest = None if bool(ends[-1]) else sums[-1]
        finished, sample = sums[: int(ends.sum())], rows.sample[ends]
        if not len(sample):
            return lambda: self._commit(rest)
        indices, counts = torch.unique_consecutive(sample, return_counts=True)
        mean = _sums(finished, counts.tolist()) / _column(counts, finished)
        deviations = None
        if self.squares:
            repeated = mean.repeat_interleave(counts.to(mean.device), 0)
            deviations = _sums((finished - repeated).square_(), counts.tolist())
        where = slice(int(indices[0]), int(indices[-1]) + 1)

        def commit() -> None:
            self._begin(values)
            self._merge(where, counts, mean, deviations)
            self._commit(rest)

        return commit

    def _commit(self, rest: Tensor | None) -> None:
        self._open = rest

    def _begin(self, like: Tensor) -> None:
        if self.mean.numel() or self.mean.dim() > 1:
            return
        self.dtype = like.dtype
        self.mean = _wide(like).new_zeros((self.samples, *like.shape[1:]))
        self.deviations = torch.zeros_like(self.mean) if self.squares else self.deviations

    def _merge(self, where: slice, counts: Tensor, mean: Tensor, deviations: Tensor | None) -> None:
        """Chan, Golub and LeVeque's update of mean and squared deviations by those of a further part."""
        before = self.count[where].clone()
        self.count[where] += counts
        share = _column(counts / self.count[where], mean)
        difference = mean - self.mean[where]
        if deviations is not None:
            self.deviations[where] += deviations + difference.square() * share * _column(before, mean)
        self.mean[where] += difference * share

    @property
    def result(self) -> Tensor:
        """The mean, ``[N, ...]``."""
        return self.mean.to(self.dtype)

    @property
    def variance(self) -> Tensor:
        """The variance over draws (divided by their number), ``[N, ...]``."""
        return (self.deviations / _column(self.count, self.deviations)).to(self.dtype)

    @property
    def second_moment(self) -> Tensor:
        """The mean of squares, ``[N, ...]``."""
        return (self.mean.square() + self.deviations / _column(self.count, self.deviations)).to(self.dtype)

    @property
    def spread(self) -> Tensor:
        """The standard deviation over draws (divided by one less than their number), ``[N, ...]``."""
        return (self.deviations / _column(self.count - 1, self.deviations)).sqrt().to(self.dtype)

    @property
    def standard_error(self) -> Tensor:
        """The standard error of the mean, ``[N, ...]``, of independent draws."""
        return self.spread / _column(self.count, self.deviations).sqrt().to(self.dtype)


def average(
    question: Question, ask: Ask, draws: int, points: int = 1, size: int | None = None, label: str = "averaging"
) -> list[Mean | None]:
    """Means over ``draws`` of sums over ``points``, of whatever is asked at each, all samples' rows in full batches.

    Args:
        question: with a target that is fixed.
        ask: answers the question about some rows: tensors ``[M, ...]``, each of which gets a mean, or None.
        size: rows in a batch; by default the question's, or fewer where inputs are large.
    """
    samples = question.inputs.samples
    means: list[Mean | None] = []

    def work(rows: slice) -> None:
        places = Rows.of(rows, draws, points)
        found = ask(replace(question.select(places.sample), progress=False), places)
        if not means:
            means.extend(None if value is None else Mean(samples, draws > 1) for value in found)
        commits = [m.add(places, v) for m, v in zip(means, found, strict=True) if m is not None and v is not None]
        for commit in commits:
            commit()

    question.in_batches(work, samples * draws * points, size or rows_walked(question), label)
    return means


def rows_walked(question: Question) -> int:
    """How many rows are walked back at a time."""
    if question.batch_size is not None:
        return question.batch_size
    values = [question.inputs.values[i] for i in question.explained]
    return min(question.rows_at_a_time, max(1, WALKED_AT_A_TIME // max(1, sum(v[0].numel() for v in values))))


def explained_by(of: Method, part: Question, move: Move, *, path: bool = False) -> list[Tensor | None]:
    """What a method of explanation answers at points other than the question's inputs.

    Raises:
        InvalidInput: where the method does not walk back and the points are those of a path or of embeddings.
    """
    assert of.run is not None
    values = list(part.inputs.values)
    floats = all(values[i].is_floating_point() for i in part.explained)
    # Rules look at the input's bounds, which moved points may exceed; other methods may do more than walk back.
    if of.family == "propagate" and (of.rules or path or not floats):
        return of.run(replace(part, move=move)).relevance
    for i in part.explained:
        if not values[i].is_floating_point():
            raise InvalidInput(f"of={of.name!r} cannot be averaged over embeddings: pass floats, or {WALKING}")
        values[i], multiplier = move(i, 0, values[i])
        if multiplier is not None:
            raise InvalidInput(f"of={of.name!r} has no factor to integrate along a path: pass {WALKING}")
    return of.run(part.about(values)).relevance


def results(means: Sequence[Mean | None], what: str = "result") -> list[Tensor | None]:
    """One of the properties of each mean, argument by argument."""
    return [None if mean is None else getattr(mean, what) for mean in means]


WALKING = "of= a method of the family propagate, such as 'gradient' or 'lrp'"


def check_averaged(question: Question, of: Method, **counts: int) -> None:
    """Refuse what cannot be averaged, before work starts.

    Raises:
        InvalidInput: a method without a run, rules for a method that has its own, counts below one, an explained
            argument without samples along its first axis.
    """
    if of.run is None:
        raise InvalidInput(f"of={of.name!r} is no single explanation: it is run by {of.call}")
    if question.composite is not None and not of.rules:
        raise InvalidInput(f"of={of.name!r} takes no composite; it is defined by its own: pass of='lrp'")
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidInput(f"{name} must be a whole number of at least 1, not {count!r}")
    inputs = question.inputs
    for i in question.explained:
        if len(inputs.values[i]) != inputs.samples:
            raise InvalidInput(
                f"Argument {i} of the model has {len(inputs.values[i])} rows for {inputs.samples} samples: an average "
                "needs one row a sample in each explained argument"
            )


def _wide(values: Tensor) -> Tensor:
    return values.detach().float() if values.dtype in (torch.float16, torch.bfloat16) else values.detach()


def _sums(values: Tensor, sizes: list[int]) -> Tensor:
    """Sums over consecutive rows; in a fixed order on every device, unlike scattered addition."""
    return torch.stack([part.sum(0) for part in values.split(sizes)])


def _column(counts: Tensor, like: Tensor) -> Tensor:
    """``[L]`` as a column that broadcasts to ``like``, ``[L, ...]``."""
    return counts.to(like.device, like.dtype).view(-1, *[1] * (like.dim() - 1))
