from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headwater.errors import InvalidInput
from headwater.evaluate import adjusted, anova, bootstrap_interval, cohens_d, tukey_hsd

GROUPS = {"a": [1.0, 2, 3, 4], "b": [2.0, 3, 5, 4], "c": [7.0, 8, 8, 9]}


def test_anova_is_scipys_with_the_effect_size() -> None:
    found = anova(GROUPS)
    f, p = stats.f_oneway(*GROUPS.values())
    assert (found.f, found.p) == pytest.approx((f, p))
    assert found.freedom == (2, 9)
    assert found.eta_squared == pytest.approx(found.between / (found.between + found.within))


def test_the_thesiss_table_follows_from_its_sums_of_squares() -> None:
    # Appendix 2: architecture 0.017522 with 3, residual 0.017870 with 52 degrees of freedom.
    f = (0.017522 / 3) / (0.017870 / 52)
    assert f == pytest.approx(16.995769, rel=1e-4)
    assert stats.f.sf(f, 3, 52) == pytest.approx(8.038269e-08, rel=1e-3)
    assert pytest.approx(0.495083, rel=1e-4) == 0.017522 / (0.017522 + 0.017870)
    groups = {k: torch.randn(14) for k in ("convdeep", "deep", "deep_v2", "shallow")}
    assert anova(groups).freedom == (3, 52)


def test_blocks_are_taken_out() -> None:
    rng = np.random.default_rng(0)
    effect = np.repeat([0.0, 10.0], 5)  # two data sets that differ much more than the groups
    groups = {k: shift + effect + rng.normal(size=10) for k, shift in (("a", 0.0), ("b", 1.0), ("c", 2.0))}
    plain, blocked = anova(groups), anova(groups, blocks=["u"] * 5 + ["v"] * 5)
    assert blocked.p < plain.p
    assert blocked.freedom == (2, 26)
    # against least squares on dummy variables
    y = np.concatenate(list(groups.values()))
    group = np.repeat(np.eye(3), 10, axis=0)
    block = np.tile(np.repeat(np.eye(2), 5, axis=0), (3, 1))

    def residual(design: np.ndarray) -> float:
        return float(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())

    both, alone = residual(np.hstack([group, block])), residual(block)
    assert blocked.within == pytest.approx(both)
    assert blocked.between == pytest.approx(alone - both)


def test_tukey_is_scipys() -> None:
    pairs = tukey_hsd(GROUPS)
    found = stats.tukey_hsd(*GROUPS.values())
    assert [(p.a, p.b) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [p.p for p in pairs] == pytest.approx([found.pvalue[0, 1], found.pvalue[0, 2], found.pvalue[1, 2]])
    assert [p.rejected for p in pairs] == [False, True, True]
    assert pairs[1].difference == pytest.approx(5.5)
    assert pairs[1].low < 5.5 < pairs[1].high


def test_effect_sizes() -> None:
    a, b = [1.0, 2, 3], [2.0, 4, 6]
    pooled = ((1.0 * 2 + 4.0 * 2) / 4) ** 0.5
    assert cohens_d(b, a) == pytest.approx(2 / pooled)
    assert cohens_d(b, a, paired=True) == pytest.approx(2 / 1)


def test_bootstrap_covers_the_mean() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(200):
        low, high = bootstrap_interval(rng.normal(size=40), seed=i, resamples=400)
        hits += float(low) <= 0 <= float(high)
    assert 0.88 <= hits / 200 <= 0.98
    low, high = bootstrap_interval(torch.ones(1, 3))
    assert low.tolist() == high.tolist() == [1, 1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrections_against_loops(p: list[float]) -> None:
    n, order = len(p), sorted(range(len(p)), key=lambda i: p[i])
    assert adjusted(p, "bonferroni").tolist() == pytest.approx([min(1, n * v) for v in p])
    holm, worst = [0.0] * n, 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1, (n - rank) * p[i]))
        holm[i] = worst
    assert adjusted(p, "holm").tolist() == pytest.approx(holm)
    benjamini, best = [0.0] * n, 1.0
    for rank in range(n, 0, -1):
        best = min(best, p[order[rank - 1]] * n / rank)
        benjamini[order[rank - 1]] = best
    assert adjusted(p, "benjamini_hochberg").tolist() == pytest.approx(benjamini)
    assert adjusted(p, "none").tolist() == pytest.approx(p)


def test_what_cannot_be_compared_is_told() -> None:
    with pytest.raises(InvalidInput, match="two groups"):
        anova({"a": [1.0, 2]})
    with pytest.raises(InvalidInput, match="block labels"):
        anova(GROUPS, blocks=["u", "v"])
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        adjusted([2.0])
    with pytest.raises(InvalidInput, match="correction"):
        adjusted([0.2], "sidak")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="interval"):
        bootstrap_interval([])
    with pytest.raises(InvalidInput, match="pairs"):
        cohens_d([1.0, 2], [1.0, 2, 3], paired=True)
