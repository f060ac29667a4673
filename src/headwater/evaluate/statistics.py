"""Are the differences more than chance? Intervals, analysis of variance, Tukey's test, corrections for many tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra

Correction = Literal["none", "bonferroni", "holm", "benjamini_hochberg"]


def bootstrap_interval(
    values: Any, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Percentile bootstrap interval of the mean over samples.

    Args:
        values: ``[N, ...]``, one row a sample.
        confidence: between 0 and 1.
        resamples: how many times N samples are drawn with replacement.
        seed: of the draws.

    Returns:
        low and high, each ``[...]`` in float64; the mean itself where there is one sample.

    Raises:
        InvalidInput: no samples, or a confidence outside 0 to 1.

    Source: Efron, Tibshirani: An Introduction to the Bootstrap, 1993.
    """
    rows = torch.as_tensor(values).detach().double().cpu()
    if not rows.dim() or not len(rows) or not 0 < confidence < 1 or resamples < 1:
        raise InvalidInput(
            f"an interval needs samples, a confidence between 0 and 1 and resamples, not {list(rows.shape)}, "
            f"{confidence} and {resamples}"
        )
    n = len(rows)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    means = (torch.from_numpy(draws).double() @ rows.reshape(n, -1) / n).reshape(resamples, *rows.shape[1:])
    tail = (1 - confidence) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    return low, high


@dataclass(frozen=True)
class Anova:
    """One-way analysis of variance.

    Attributes:
        between, within: sums of squares of the groups and of the residual; ``blocks``: that of the blocks.
        freedom: degrees of freedom of groups and residual.
        f, p: the statistic and its probability under equal means.
        eta_squared: effect size, ``between / (between + within)`` (partial where there are blocks), 0 to 1.
    """

    between: float
    within: float
    blocks: float
    freedom: tuple[int, int]
    f: float
    p: float
    eta_squared: float


@dataclass(frozen=True)
class Pair:
    """One comparison of two groups: the difference of their means ``b - a``, its interval, and the p-value."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    rejected: bool


def anova(scores: Mapping[str, Any], *, blocks: Sequence[Any] | None = None) -> Anova:
    """Do the groups' means differ?

    Args:
        scores: for each group its scores, at least two groups of at least two scores.
        blocks: a label for each place in the groups (the data set, the fold), whose means are taken out first; every
            group must then have one score for each place.

    Raises:
        InvalidInput: groups that cannot be compared.
        MissingExtra: SciPy is not installed.

    Source: as the thesis uses it (Chormai 2018, Section 4.3.2 and Appendix 2).
    """
    stats = _scipy_stats()
    groups = _groups(scores)
    values = np.concatenate(list(groups.values()))
    count, total = len(groups), len(values)
    between = float(sum(len(g) * (g.mean() - values.mean()) ** 2 for g in groups.values()))
    around = float(((values - values.mean()) ** 2).sum())
    taken, block_freedom = _blocked(groups, blocks)
    within = max(around - between - taken, 0.0)
    freedom = (count - 1, total - count - block_freedom)
    if freedom[1] < 1:
        raise InvalidInput("there are too few scores for so many groups and blocks")
    f = (between / freedom[0]) / (within / freedom[1]) if within else (np.inf if between else np.nan)
    size = between / (between + within) if between + within else np.nan
    return Anova(between, within, taken, freedom, float(f), float(stats.f.sf(f, *freedom)), float(size))


def tukey_hsd(scores: Mapping[str, Any], *, confidence: float = 0.95) -> list[Pair]:
    """Which pairs of groups differ? Tukey's honestly significant difference: all pairs at one family-wise level.

    Args:
        scores: as for :func:`anova`.
        confidence: 1 less the family-wise error rate.

    Raises:
        InvalidInput: groups that cannot be compared.
        MissingExtra: SciPy is not installed.

    Source: as the thesis uses it (Chormai 2018, Appendix 2); computed by SciPy.
    """
    stats = _scipy_stats()
    groups = _groups(scores)
    names = list(groups)
    found = stats.tukey_hsd(*groups.values())
    interval = found.confidence_interval(confidence)
    return [
        Pair(
            names[i], names[j], float(found.statistic[j, i]), float(interval.low[j, i]), float(interval.high[j, i]),
            float(found.pvalue[j, i]), bool(found.pvalue[j, i] < 1 - confidence),
        )
        for i in range(len(names))
        for j in range(i + 1, len(names))
    ]  # fmt: skip


def cohens_d(a: Any, b: Any, *, paired: bool = False) -> float:
    """Effect size: the difference of two means in units of their pooled deviation, or of the differences' own.

    Args:
        a, b: scores ``[N]`` and ``[M]``; of one length where ``paired``.
        paired: the scores belong to the same samples.

    Raises:
        InvalidInput: fewer than two scores, or lengths that differ where paired.
    """
    first, second = (np.asarray(torch.as_tensor(v).detach().cpu(), dtype=np.float64).reshape(-1) for v in (a, b))
    if min(len(first), len(second)) < 2 or (paired and len(first) != len(second)):
        raise InvalidInput(f"cannot compare {len(first)} with {len(second)} scores{' in pairs' if paired else ''}")
    if paired:
        return float((first - second).mean() / (first - second).std(ddof=1))
    n, m = len(first), len(second)
    pooled = ((n - 1) * first.var(ddof=1) + (m - 1) * second.var(ddof=1)) / (n + m - 2)
    return float((first.mean() - second.mean()) / np.sqrt(pooled))


def adjusted(p: Any, correction: Correction = "benjamini_hochberg") -> Tensor:
    """p-values corrected for how many there are, of the same shape: reject those at most the level.

    Args:
        p: any shape, all of one family.
        correction: ``"bonferroni"`` and ``"holm"`` bound the chance of any false rejection, ``"benjamini_hochberg"``
            the expected share of false ones among the rejected; ``"none"`` leaves them.

    Raises:
        InvalidInput: values outside 0 to 1, or another correction.
        MissingExtra: SciPy is not installed.

    Source: Holm 1979; Benjamini, Hochberg 1995.
    """
    values = torch.as_tensor(p).detach().double()
    if not values.numel() or not bool(((values >= 0) & (values <= 1)).all()):
        raise InvalidInput("p-values must lie between 0 and 1, and there must be some")
    flat, count = values.flatten().cpu(), values.numel()
    if correction == "none":
        return values
    if correction == "bonferroni":
        return (values * count).clamp(max=1)
    if correction == "holm":
        order = flat.argsort()
        steps = (flat[order] * torch.arange(count, 0, -1)).cummax(0).values.clamp(max=1)
        return torch.empty_like(flat).scatter_(0, order, steps).reshape(values.shape)
    if correction == "benjamini_hochberg":
        found = _scipy_stats().false_discovery_control(flat.numpy(), method="bh")
        return torch.as_tensor(found).reshape(values.shape)
    raise InvalidInput(f"correction must be 'none', 'bonferroni', 'holm' or 'benjamini_hochberg', not {correction!r}")


def _groups(scores: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    groups = {k: torch.as_tensor(v).detach().double().cpu().numpy().reshape(-1) for k, v in scores.items()}
    if len(groups) < 2 or any(len(g) < 2 or not np.isfinite(g).all() for g in groups.values()):
        raise InvalidInput("a comparison needs at least two groups of at least two finite scores each")
    return groups


def _blocked(groups: Mapping[str, NDArray[np.float64]], blocks: Sequence[Any] | None) -> tuple[float, int]:
    """Sum of squares and degrees of freedom of the blocks' means; the design is complete, so they stand alone."""
    if blocks is None:
        return 0.0, 0
    labels = list(blocks)
    if any(len(g) != len(labels) for g in groups.values()):
        raise InvalidInput(f"with {len(labels)} block labels every group needs {len(labels)} scores")
    table = np.stack(list(groups.values()))
    kinds = sorted(set(labels), key=labels.index)
    columns = {kind: [i for i, label in enumerate(labels) if label == kind] for kind in kinds}
    squares = sum(len(c) * len(table) * (table[:, c].mean() - table.mean()) ** 2 for c in columns.values())
    return float(squares), len(kinds) - 1


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ModuleNotFoundError as error:
        raise MissingExtra("evaluate", "scipy") from error
    return stats
