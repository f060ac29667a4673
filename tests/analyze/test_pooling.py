"""Relevance pooling: nothing is lost, whatever the groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import headwater as hw
from headwater.analyze import boxes, channels, kmeans, masks, objects, pool, segments, windows, words

pytest.importorskip("zarr")


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 1000))
def test_sums_are_conserved(n: int, groups: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    relevance = generator.standard_normal((n, 2, 5, 4)).astype(np.float32)
    labels = generator.integers(0, groups, n)
    found = pool(relevance, labels, segments(generator.integers(0, 3, (2, 5, 4))))
    assert found.total == pytest.approx(relevance.sum(dtype=np.float64), rel=1e-12, abs=1e-9)
    assert found.sizes.sum() == n


def test_every_sum_is_the_plain_one() -> None:
    relevance = np.random.default_rng(0).standard_normal((9, 1, 6, 8))
    labels = np.arange(9) % 2
    found = pool(relevance, labels, boxes((1, 6, 8), {"top": (0, 0, 2, 8), "dot": (4, 5, 6, 8)}))
    assert found.features == ["top", "dot", "rest"]
    for row, name in enumerate(found.samples):
        own = relevance[labels == name]
        top, dot = own[:, :, :2].sum(), own[:, :, 4:6, 5:8].sum()
        np.testing.assert_allclose(found.values[row], [top, dot, own.sum() - top - dot], rtol=1e-12)
    np.testing.assert_allclose(found.means[0] * found.sizes[0], found.values[0])


def test_vectors_are_pooled_by_feature() -> None:
    relevance = torch.randn(7, 3)
    found = pool(relevance)
    np.testing.assert_allclose(found.values[0], relevance.double().sum(0).numpy(), rtol=1e-6)
    assert "sum" in str(found)


def test_windows_channels_and_frames() -> None:
    relevance = np.random.default_rng(0).standard_normal((4, 3, 10))
    steps = pool(relevance, features=windows((3, 10)))
    np.testing.assert_allclose(steps.values[0, :-1], relevance.sum((0, 1)), rtol=1e-12)
    bands = pool(relevance, features=windows((3, 10), edges=[0, 4, 9], names=["early", "late"]))
    np.testing.assert_allclose(
        bands.values[0], [relevance[..., :4].sum(), relevance[..., 4:9].sum(), relevance[..., 9:].sum()], rtol=1e-12
    )
    parts = pool(relevance, features=channels((3, 10), {"vertical": [2]}))
    np.testing.assert_allclose(parts.values[0], [relevance[:, 2].sum(), relevance[:, :2].sum()], rtol=1e-12)


def test_objects_of_each_sample_share_where_they_overlap() -> None:
    relevance = np.ones((3, 1, 4, 4))
    found = [[("ball", (0, 0, 2, 2))], [("ball", (0, 0, 4, 4)), ("paddle", (0, 0, 4, 2))], []]
    pooled = objects((1, 4, 4), ["ball", "paddle"], lambda i: found[i]).pool(relevance)
    np.testing.assert_allclose(pooled, [[4, 0, 12], [12, 4, 0], [0, 0, 16]])


def test_words() -> None:
    relevance = np.arange(12.0).reshape(2, 3, 2)
    names = [["noun", "verb", "noun"], ["verb", "?", "noun"]]
    pooled = words(3, lambda i: names[i], ["noun", "verb"], width=2).pool(relevance)
    np.testing.assert_allclose(pooled, [[0 + 1 + 4 + 5, 2 + 3, 0], [10 + 11, 6 + 7, 8 + 9]])


def test_from_a_store_by_its_columns(tmp_path: Path) -> None:
    from headwater.dataset import run

    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(4, 3).eval(), torch.randn(50, 4), torch.arange(50) % 5
    x[7] = torch.nan
    with pytest.warns(hw.HeadwaterWarning, match="1 of 50"):
        store = run(model, (x, y), tmp_path / "s", skip_bad=True)
    assert pool(store).samples == [0, 1, 2, 3, 4]
    assert pool(store).sizes.tolist() == [10, 10, 9, 10, 10]
    assert pool(str(tmp_path / "s"), "target").total == pytest.approx(np.nansum(store.relevance[:], dtype=np.float64))
    assert pool(store, "lrp.target").samples == pool(store, "target").samples
    with pytest.raises(hw.InvalidInput, match="no column 'colour'"):
        pool(store, "colour")


def test_groups_as_measures_of_a_job(tmp_path: Path) -> None:
    from headwater.dataset import run

    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval(), torch.randn(6, 1, 4, 4)
    groups = boxes((1, 4, 4), {"corner": (0, 0, 2, 2)})
    store = run(model, x, tmp_path / "s", pooled={"corner": groups})
    r = hw.explain(model, x).relevance
    np.testing.assert_allclose(store.pooled["corner"][:, 0], r[:, 0, :2, :2].sum((1, 2)).numpy(), rtol=1e-5)


def test_kmeans_groups() -> None:
    x = torch.cat([torch.zeros(9, 3), torch.ones(5, 3) * 4]) + 0.1 * torch.randn(14, 3)
    pytest.importorskip("sklearn")
    assert kmeans(x, 2).tolist() == [0] * 9 + [1] * 5
    with pytest.raises(hw.InvalidInput, match="cannot be divided"):
        kmeans(x, 15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: masks({}), "no mask"),
        (lambda: masks({"a": np.ones((2, 2)), "b": np.ones((2, 3))}), "different shapes"),
        (lambda: masks({"a": np.ones((2, 2)), "b": np.eye(2)}), "overlap"),
        (lambda: masks({"a": -np.ones(3)}), "outside 0 to 1"),
        (lambda: boxes((1, 4, 4), {"a": (0, 0, 5, 5)}), "does not lie"),
        (lambda: channels((2, 4), {"a": [2]}), "names channels"),
        (lambda: windows((3, 4), edges=[0, 2, 2]), "must rise"),
        (lambda: windows((3, 4), edges=[0, 2], names=["a", "b"]), "2 names for 1"),
        (lambda: pool(np.zeros((3, 4)), features=windows((5,))), "samples of shape"),
        (lambda: pool(np.zeros((3, 4)), [1, 2]), "one value for each"),
    ],
)
def test_wrong_groups(make: Any, message: str) -> None:
    with pytest.raises(hw.InvalidInput, match=message):
        make()


def test_overlapping_masks_may_share() -> None:
    found = pool(np.ones((1, 2, 2)), features=masks({"a": np.ones((2, 2)), "b": np.eye(2)}, share=True))
    np.testing.assert_allclose(found.values, [[3, 1, 0]])
