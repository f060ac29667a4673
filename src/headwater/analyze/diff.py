"""``hw.diff``: where relevance moved between two models, group by group, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.groups import FeatureGroups
from headwater.analyze.maps import Maps, array_of
from headwater.dataset.sources import Source, place, source_of, stack
from headwater.dataset.store import Store
from headwater.errors import InvalidInput
from headwater.explain import explain


@dataclass(frozen=True)
class Row:
    """What changed within one group of samples.

    Attributes:
        group: their common value; ``size``: how many.
        moved: mean share of relevance that lies elsewhere, 0 to 1; ``low``, ``high``: its confidence interval.
        output: mean change of the explained score.
        shifts: of each group of features, the mean change of its share with its interval.
    """

    group: Any
    size: int
    moved: float
    low: float
    high: float
    output: float
    shifts: dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Diff:
    """Where relevance moved between two models.

    Attributes:
        rows: of the groups, the one that surely moved most (by ``low``) first.
        moved: of each sample ``[N]``; ``ids``: the samples' names.
        maps: of each group in ``rows`` the mean change of normalized relevance, ``[groups, *shape]``.
        confidence: of the intervals.
    """

    rows: list[Row]
    moved: NDArray[np.float64]
    ids: list[str]
    maps: NDArray[np.float64]
    confidence: float

    def beyond(self, threshold: float) -> list[Row]:
        """The groups whose relevance moved by more than ``threshold``, at this confidence."""
        return [row for row in self.rows if row.low > threshold]

    def __str__(self) -> str:
        interval = f"{self.confidence:.0%} interval"
        lines = [f"{'group':>12}  {'size':>7}  {'moved':>6}  {interval:>15}  {'output':>9}  features that moved most"]
        for row in self.rows:
            sure = sorted(row.shifts.items(), key=lambda item: -abs(item[1][0]))[:3]
            shifts = ", ".join(f"{name} {mean:+.1%} ({low:+.1%} to {high:+.1%})" for name, (mean, low, high) in sure)
            span = f"{row.low:.3f} to {row.high:.3f}"
            name = "all" if row.group is None else str(row.group)
            lines.append(
                f"{name:>12}  {row.size:>7}  {row.moved:>6.3f}  {span:>15}  {row.output:>+9.3g}  {shifts}".rstrip()
            )
        return "\n".join(lines)


def diff(
    first: Any,
    second: Any,
    data: Any = None,
    by: Any = "auto",
    *,
    features: FeatureGroups | None = None,
    target: Any = None,
    method: str = "lrp",
    batch_size: int = 32,
    confidence: float = 0.95,
    seed: int = 0,
    **options: Any,
) -> Diff:
    """Compare what two models (or two checkpoints of one) look at on the same data.

    Each sample's relevance is divided by the sum of its magnitudes; ``moved = ½ Σ |r₁ - r₂|`` is then the share of
    relevance that lies elsewhere: 0 for equal explanations, 1 where they share nothing.

    Args:
        first, second: models; or stores (or their paths) of the same data set, with ``data=None``.
        data: as for :func:`headwater.run`.
        by: groups of samples: "label", one value a sample, or None for all in one; "auto" takes labels where there are.
        features: groups of features whose shares are compared too; see :mod:`headwater.analyze.groups`.
        target: what both explain; by default the class that the first model predicts.
        method, batch_size, seed, options: as for :func:`headwater.run`.
        confidence: of the intervals, by Student's t.

    Raises:
        InvalidInput: explanations of different shapes, stores of different samples, or groups that do not fit.
    """
    if not 0 < confidence < 1:
        raise InvalidInput(f"confidence must lie in (0, 1), not {confidence}")
    if data is None:
        pairs, n, labels, ids = _of_stores(first, second)
    else:
        source = source_of(data)
        n, ids = len(source), [source.id(i) for i in range(len(source))]
        pairs = _of_models(first, second, source, target, method, batch_size, seed, options)
        labels = None  # they come with the samples
    grouped = _Grouping(by, labels, n)
    return _ranked(_Movement.over(pairs, n, features, grouped), features, ids, confidence)


@dataclass
class _Batch:
    numbers: NDArray[np.int64]
    first: NDArray[Any]
    second: NDArray[Any]
    output: NDArray[np.float64]
    labels: list[Any]


def _of_models(
    first: Callable[..., Any], second: Callable[..., Any], source: Source, target: Any, method: str, size: int,
    seed: int, options: Mapping[str, Any],
) -> Iterator[_Batch]:  # fmt: skip
    if size < 1:
        raise InvalidInput(f"batch_size must be at least 1, not {size}")
    for start in range(0, len(source), size):
        rows = range(start, min(start + size, len(source)))
        loaded = source.load_all(rows, seed)
        x = stack([sample for sample, _ in loaded])
        own = target[start : rows.stop] if hasattr(target, "__len__") and len(target) == len(source) else target
        a = explain(first, place(x, first), target=own, method=method, progress=False, seed=seed, **options)
        b = explain(second, place(x, second), target=a.target, method=method, progress=False, seed=seed, **options)
        change = array_of(b.output.double().detach()) - array_of(a.output.double().detach())
        maps = [_one(e.relevance) for e in (a, b)]
        yield _Batch(np.arange(start, rows.stop), maps[0], maps[1], change, [label for _, label in loaded])


def _one(relevance: Any) -> NDArray[Any]:
    """The relevance of all inputs side by side, where there are several."""
    if not isinstance(relevance, (Mapping, tuple, list)):
        return array_of(relevance)
    parts = relevance.values() if isinstance(relevance, Mapping) else relevance
    arrays = [array_of(part) for part in parts if part is not None]
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], 1)


def _of_stores(first: Any, second: Any) -> tuple[Iterator[_Batch], int, Any, list[str]]:
    maps = Maps.of(first), Maps.of(second)
    stores = maps[0].store, maps[1].store
    if not isinstance(stores[0], Store) or not isinstance(stores[1], Store):
        raise InvalidInput("without data, pass two stores that headwater.run wrote")
    if len(stores[0]) != len(stores[1]) or (stores[0].ids != stores[1].ids).any():
        raise InvalidInput(f"{stores[0].path} and {stores[1].path} hold different samples")
    valid = np.intersect1d(maps[0].valid, maps[1].valid)
    change = stores[1].outputs - stores[0].outputs

    def batches() -> Iterator[_Batch]:
        for start in range(0, len(valid), 2048):
            rows = valid[start : start + 2048]
            yield _Batch(rows, maps[0].take(rows), maps[1].take(rows), change[rows], [None] * len(rows))

    labels = np.full(len(stores[0]), None) if stores[0].labels is None else stores[0].labels
    return batches(), len(stores[0]), labels, [str(i) for i in stores[0].ids]


class _Grouping:
    """The group of each sample, told before or found in the labels as they are read."""

    def __init__(self, by: Any, labels: Any, n: int) -> None:
        if isinstance(by, str) and by not in ("auto", "label"):
            raise InvalidInput(f"by={by!r}: group by 'label', by one value a sample, or by None")
        self.by, self.values = by, labels if isinstance(by, str) else None
        if by is not None and not isinstance(by, str):
            self.values = array_of(by)
            if self.values.shape != (n,):
                raise InvalidInput(f"groups of shape {self.values.shape} for {n} samples: pass one value for each")

    def of(self, batch: _Batch) -> list[Any]:
        """The groups of the samples of a batch."""
        if self.by is None:
            return [None] * len(batch.numbers)
        found = batch.labels if self.values is None else self.values[batch.numbers].tolist()
        if isinstance(self.by, str) and self.by == "label" and any(label is None for label in found):
            raise InvalidInput("the data set has no labels to group by: pass one value a sample, or None")
        return list(found)


@dataclass
class _Movement:
    """What is kept of each sample, and of each group the sum of its normalized maps' changes."""

    numbers: NDArray[np.int64]
    groups: list[Any]
    moved: NDArray[np.float64]
    output: NDArray[np.float64]
    shares: NDArray[np.float64] | None
    sums: dict[Any, NDArray[np.float64]]

    @staticmethod
    def over(pairs: Iterator[_Batch], n: int, features: FeatureGroups | None, grouping: _Grouping) -> _Movement:
        moved, output = np.full(n, np.nan), np.full(n, np.nan)
        shares = None if features is None else np.full((n, len(features.names)), np.nan)
        numbers, groups, sums = [], [], dict[Any, NDArray[np.float64]]()
        for batch in pairs:
            if batch.first.shape != batch.second.shape:
                raise InvalidInput(f"the explanations differ in shape: {batch.first.shape} and {batch.second.shape}")
            change = _normalized(batch.second) - _normalized(batch.first)
            moved[batch.numbers] = np.abs(change).reshape(len(change), -1).sum(1) / 2
            output[batch.numbers] = batch.output
            if shares is not None and features is not None:
                shares[batch.numbers] = features.pool(change, batch.numbers)
            numbers.append(batch.numbers)
            own = grouping.of(batch)
            groups += own
            for name in dict.fromkeys(own):
                sums[name] = sums.get(name, 0.0) + change[[group == name for group in own]].sum(0)
        return _Movement(np.concatenate(numbers), groups, moved, output, shares, sums)


def _normalized(maps: NDArray[Any]) -> NDArray[np.float64]:
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    total = np.abs(flat).sum(1, keepdims=True)
    return np.divide(flat, total, out=np.zeros_like(flat), where=total > 0).reshape(maps.shape)


def _ranked(found: _Movement, features: FeatureGroups | None, ids: list[str], confidence: float) -> Diff:
    rows = []
    for name in found.sums:
        own = found.numbers[[group == name for group in found.groups]]
        mean, low, high = _interval(found.moved[own], confidence)
        shifts = {}
        if found.shares is not None and features is not None:
            shifts = {part: _interval(found.shares[own, i], confidence) for i, part in enumerate(features.names)}
        low, high = max(0.0, low), min(1.0, high)
        rows.append(Row(name, len(own), mean, low, high, float(found.output[own].mean()), shifts))
    rows.sort(key=lambda row: (-row.low, -row.moved))
    maps = np.stack([found.sums[row.group] / row.size for row in rows])
    return Diff(rows, found.moved, ids, maps, confidence)


def _interval(values: NDArray[np.float64], confidence: float) -> tuple[float, float, float]:
    """Mean with Student's interval; a single value says nothing of its spread."""
    from scipy.stats import t

    mean = float(values.mean())
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = float(t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half
