"""Spectral relevance analysis against plain formulas, other libraries, and strategies that were planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import headwater as hw
from headwater.analyze import Normalization, pool, spray
from headwater.analyze.clusters import cluster, draw_map
from headwater.analyze.fisher import separation
from headwater.analyze.neighbours import neighbours
from headwater.analyze.spectral import spectrum

for package in ("faiss", "sklearn", "scipy"):
    pytest.importorskip(package)


def adjusted_rand_score(first: Any, second: Any) -> float:
    from sklearn.metrics import adjusted_rand_score as score

    return float(score(first, second))


def blobs(n: int, centres: int = 4, d: int = 8, seed: int = 0, distance: float = 6.0) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    middle = generator.standard_normal((centres, d)) * distance / np.sqrt(2)
    label = np.arange(n) % centres
    return (middle[label] + generator.standard_normal((n, d))).astype(np.float32), label


def heatmaps(n: int = 240, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Noisy maps of a bright middle; every twelfth has its relevance in a corner instead."""
    generator = np.random.default_rng(seed)
    maps = 0.3 * generator.standard_normal((n, 1, 12, 12))
    odd = np.arange(n) % 12 == 0
    maps[~odd, :, 4:8, 4:8] += generator.uniform(0.5, 2, ((~odd).sum(), 1, 1, 1))
    maps[odd, :, :3, :3] += 2
    return maps, odd


# ------------------------------------------------------------------ normalize


def test_normalization_step_by_step() -> None:
    from scipy.ndimage import gaussian_filter

    maps = np.random.default_rng(0).standard_normal((3, 2, 9, 7)).astype(np.float32)
    found = Normalization(part="absolute", blur=0.0, size=None, scale="sum")(maps)
    summed = np.abs(maps.sum(1)).reshape(3, -1)
    np.testing.assert_allclose(found, summed / summed.sum(1, keepdims=True), rtol=1e-5)
    pooled = Normalization(blur=0.0, size=3, scale="none", channels="keep", part="positive")(maps)
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(maps).clamp(min=0), (3, 2))
    np.testing.assert_allclose(pooled, expected.flatten(1).numpy(), rtol=1e-5, atol=1e-6)
    inside = np.zeros((1, 1, 31, 31), np.float32)
    inside[0, 0, 14:18, 13:17] = 1
    blurred = Normalization(blur=1.5, size=None, scale="none")(inside).reshape(31, 31)
    np.testing.assert_allclose(blurred, gaussian_filter(inside[0, 0], 1.5, truncate=8), atol=1e-6)
    standard = Normalization(scale="standardize")(maps)
    np.testing.assert_allclose(standard.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(standard.std(1), 1, rtol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (2, 40), (3, 17, 33), (1, 5, 6, 7)])
def test_normalization_of_any_shape(shape: tuple[int, ...]) -> None:
    maps = np.random.default_rng(0).standard_normal((4, *shape))
    for fourier in (False, True):
        found = Normalization(fourier=fourier)(maps)
        assert found.shape[0] == 4
        assert np.isfinite(found).all()
    zero = Normalization(scale="max")(np.zeros((2, *shape)))
    np.testing.assert_array_equal(zero, 0)


def test_the_spectrum_does_not_see_where_something_lies() -> None:
    maps = np.zeros((2, 1, 16, 16))
    maps[0, 0, 2:5, 3:6] = maps[1, 0, 9:12, 8:11] = 1
    found = Normalization(fourier=True, blur=0)(maps)
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


# ------------------------------------------------------------------ neighbours, spectrum


@given(st.integers(3, 60), st.integers(1, 6), st.integers(0, 100))
@settings(max_examples=30)
def test_exact_neighbours_against_a_plain_search(n: int, d: int, seed: int) -> None:
    points = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    k = min(5, n - 1)
    found = neighbours(points, k, exact=True)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(found.distances, np.sort(distances, 1)[:, :k], rtol=1e-2, atol=2e-3)
    assert (found.indices != np.arange(n)[:, None]).all()


def test_approximate_neighbours_are_nearly_all() -> None:
    points, _ = blobs(8000, centres=12, d=16)
    exact, found = (neighbours(points, 10, exact=choice).indices for choice in (True, False))
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert recall > 0.9


def test_equal_points_have_neighbours() -> None:
    points = np.ones((50, 3), np.float32)
    found = neighbours(points, 5, exact=True)
    assert (found.distances == 0).all()
    assert (found.indices != np.arange(50)[:, None]).all()
    assert np.isfinite(found.outlierness()).all()


def test_the_spectrum_against_a_dense_one() -> None:
    points, _ = blobs(400, distance=2.0)
    around = neighbours(points, 8, exact=True)
    graph = np.zeros((400, 400))
    for i, row in enumerate(around.indices):
        graph[i, row] = 1
    graph = (graph + graph.T) / 2
    root = 1 / np.sqrt(graph.sum(1))
    expected = np.linalg.eigvalsh(np.eye(400) - root[:, None] * graph * root)
    for exact in (True, False):
        found = spectrum(around, points, 6, exact)
        np.testing.assert_allclose(found.eigenvalues, expected[:6], atol=1e-6 if exact else 2e-3)
    assert found.residual < 0.02


def test_islands_are_no_clusters() -> None:
    """Two groups and a dozen pairs of doubles far from all: the second eigenvector parts the groups."""
    points, label = blobs(600, centres=2, distance=4.0)
    islands = np.repeat(np.random.default_rng(1).standard_normal((12, 8)) * 60, 4, axis=0).astype(np.float32)
    points = np.concatenate([points, islands])
    around = neighbours(points, 3, exact=True)
    found = spectrum(around, points, 4, exact=True)
    assert (found.eigenvalues < 1e-9).sum() <= 2
    own = cluster(found.embedding()[:, :2], "kmeans", 2, 1, 0)
    assert adjusted_rand_score(own[:600], label) > 0.95


def test_the_gap_counts_clusters() -> None:
    points, _ = blobs(500, centres=5)
    assert spectrum(neighbours(points, 10, True), points, 12, True).gap() == 5


@pytest.mark.parametrize("method", ["kmeans", "hdbscan"])
def test_clusters_are_numbered_by_size(method: Any) -> None:
    points, label = blobs(300, centres=3)
    points, label = points[50:][label[50:] != 0], label[50:][label[50:] != 0]
    found = cluster(points, method, 2, 20, 0)
    sizes = np.bincount(found[found >= 0])
    assert (np.diff(sizes) <= 0).all()
    assert adjusted_rand_score(found, label) > 0.9


def test_separation_is_fishers() -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    points, label = blobs(4000, centres=2, d=5, distance=3.0)
    found = separation(points, label)
    covariance = (np.cov(points[label == 0].T) + np.cov(points[label == 1].T)) / 2
    gap = points[label == 0].mean(0) - points[label == 1].mean(0)
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert found[0] == pytest.approx(gap @ np.linalg.solve(covariance, gap), rel=0.05)
    direction = LinearDiscriminantAnalysis(solver="eigen").fit(points, label).coef_[0]
    projected = points @ direction
    along = (projected[label == 0].mean() - projected[label == 1].mean()) ** 2
    along /= (projected[label == 0].var() + projected[label == 1].var()) / 2
    assert found[0] == pytest.approx(along, rel=0.05)


@pytest.mark.parametrize("alone", [1, 2])
def test_few_points_of_the_same_kind_lie_no_further_than_chance(alone: int) -> None:
    """One point has no spread of its own: it counted as infinitely sharp, and came before every strategy."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(20):
        points = generator.standard_normal((40, 64)).astype(np.float32)
        found.append(separation(points, (np.arange(40) < alone).astype(np.int64))[1])
    assert np.mean(found) < 25
    apart = np.concatenate([points[:20], points[20:] + 4])
    label = np.where(np.arange(40) < alone, 2, np.arange(40) // 20)
    assert separation(apart, label)[1] > 10 * np.mean(found)


@pytest.mark.parametrize("n", [4, 30])
def test_maps_of_few_points(n: int) -> None:
    points, _ = blobs(n)
    assert draw_map(points, "tsne", 0).shape == (n, 2)


# ------------------------------------------------------------------ all together


@pytest.mark.parametrize("exact", [20_000, 0])
@pytest.mark.parametrize("clustering", ["kmeans", "hdbscan"])
def test_a_planted_strategy_is_the_first_suspect(exact: int, clustering: Any) -> None:
    maps, odd = heatmaps(1200 if exact == 0 else 240)
    found = spray(maps, exact=exact, clustering=clustering, smallest=0.03)
    first = found.suspects[0]
    members = found.members(first.label)
    assert odd[members].mean() == 1
    assert len(members) > 0.9 * odd.sum()
    assert odd[first.representatives].all()
    np.testing.assert_allclose(found.means[first.label], maps[members].mean(0), atol=1e-6)
    np.testing.assert_allclose(found.totals[first.label], maps[members].sum(), rtol=1e-6)
    assert f"{first.size}" in str(found)


def test_groups_are_analyzed_by_themselves() -> None:
    maps, odd = heatmaps()
    by = np.arange(240) // 120
    found = spray(torch.from_numpy(maps), by=by, clusters=2)
    assert [group.name for group in found.groups] == [0, 1]
    for c in found.clusters:
        assert set(by[found.members(c.label)]) == {c.group}
    assert odd[found.members(found.suspects[0].label)].all()
    assert found.suspicious_groups[0][1] >= found.suspicious_groups[1][1]


def test_the_same_seed_gives_the_same() -> None:
    maps, _ = heatmaps()
    first, second = (spray(maps, exact=exact, clusters=3, seed=4) for exact in (0, 0))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.embedding, second.embedding)


def test_approximation_agrees_with_the_exact_method() -> None:
    generator = np.random.default_rng(0)
    maps = 0.4 * generator.standard_normal((3000, 1, 16, 16))
    place = generator.integers(0, 5, 3000)
    for i, (y, x) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]):
        maps[place == i, :, y : y + 6, x : x + 6] += 1
    exact, rough = (spray(maps, exact=limit, clusters=5).labels for limit in (10_000, 0))
    assert adjusted_rand_score(exact, rough) > 0.95


def test_results_are_saved_without_pickle(tmp_path: Path) -> None:
    maps, _ = heatmaps()
    found = spray(maps, clusters=3)
    found.save(tmp_path)
    with np.load(tmp_path / "spray.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["labels"], found.labels)


@pytest.mark.parametrize("n", [3, 4, 9, 25])
def test_few_samples(n: int) -> None:
    found = spray(np.random.default_rng(0).standard_normal((n, 1, 5, 5)))
    assert (found.labels >= 0).all()


def test_groups_of_one_and_maps_of_zeros() -> None:
    maps = np.random.default_rng(0).standard_normal((30, 7))
    maps[4] = 0
    by = np.where(np.arange(30) == 3, 1, 0)
    found = spray(maps, by=by)
    assert found.clusters[-1].size == 1
    assert (spray(np.zeros((20, 1, 4, 4))).labels >= 0).all()


@pytest.mark.parametrize("maps", [np.zeros((40, 1, 6, 6)), np.ones((40, 1, 6, 6))])
def test_maps_that_are_all_alike_are_one_strategy(maps: NDArray[Any]) -> None:
    found = spray(maps)
    assert [c.size for c in found.clusters] == [40]
    assert not found.suspects


@pytest.mark.parametrize("kinds", [2, 3])
def test_copies_are_one_cluster_each(kinds: int) -> None:
    """More equal maps than a graph has neighbours: none is split, whatever their order."""
    made = np.random.default_rng(0).standard_normal((kinds, 8, 8))
    kind = np.arange(60 * kinds) % kinds
    found = spray(made[kind], by=None)
    assert len(found.clusters) == kinds
    assert [len(set(found.labels[kind == k])) for k in range(kinds)] == [1] * kinds


@pytest.mark.parametrize("by", [np.where(np.arange(30) < 3, np.nan, 1.0), np.array([None] * 3 + ["a"] * 27)])
def test_samples_without_a_group_are_told_of(by: NDArray[Any]) -> None:
    maps = np.random.default_rng(0).standard_normal((30, 6, 6))
    for analyze in (spray, pool):
        with pytest.raises(hw.InvalidInput, match="3 of 30 samples have no value to group by"):
            analyze(maps, by)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, "clusters must be at least 1"),
        ({"eigenvalues": 1}, "eigenvalues"),
        ({"clustering": "dbscan"}, "clustering"),
        ({"map": "pca"}, "map must be"),
        ({"smallest": 0.0}, "smallest"),
        ({"by": "label"}, "names a column of a store"),
        ({"by": np.zeros(3)}, "one value for each"),
        ({"normalization": Normalization}, ""),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    if not message:
        with pytest.raises(hw.InvalidInput, match="part must be one of"):
            Normalization(part="negative")  # type: ignore[arg-type]
        return
    with pytest.raises(hw.InvalidInput, match=message):
        spray(np.zeros((10, 1, 4, 4)), **options)


@pytest.mark.parametrize("wrong", [np.zeros((2, 4)), np.zeros(5), np.full((9, 2), np.nan), "/nowhere"])
def test_wrong_relevance(wrong: Any) -> None:
    with pytest.raises(hw.HeadwaterError):
        spray(wrong)
