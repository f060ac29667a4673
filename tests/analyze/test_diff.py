"""Where relevance moved between two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import headwater as hw
from headwater.analyze import boxes, diff

for package in ("zarr", "polars", "scipy"):
    pytest.importorskip(package)


def pair() -> tuple[nn.Module, nn.Module, torch.Tensor, torch.Tensor]:
    """Two linear models; the second looks at the left half instead of the right for class 2."""
    first = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)).eval()
    second = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)).eval()
    with torch.no_grad():
        first[1].weight.uniform_(0.5, 1)
        first[1].weight[2].view(4, 4)[:, :2] = 0
        second[1].weight.copy_(first[1].weight)
        second[1].weight[2].copy_(first[1].weight[2].view(4, 4).flip(1).flatten())
    return first, second, torch.rand(60, 1, 4, 4) + 0.1, torch.arange(60) % 3


def test_the_group_that_moved_is_named_with_the_features() -> None:
    first, second, x, y = pair()
    halves = boxes((1, 4, 4), {"left": (0, 0, 4, 2)})
    found = diff(first, second, (x, y), target=y, features=halves, batch_size=7)
    assert found.rows[0].group == 2
    top = found.rows[0]
    assert top.moved == pytest.approx(1)
    assert top.shifts["left"][0] == pytest.approx(1)
    assert top.shifts["rest"][0] == pytest.approx(-1)
    assert [row.group for row in found.beyond(0.5)] == [2]
    assert found.rows[1].moved == pytest.approx(0, abs=1e-7)
    assert found.maps[0, 0, :, :2].sum() == pytest.approx(1)
    assert "left +100.0%" in str(found)


def test_moved_is_the_plain_formula() -> None:
    torch.manual_seed(1)
    first, second = (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval() for _ in range(2))
    x = torch.randn(20, 6)
    found = diff(first, second, x, by=None)
    a = hw.explain(first, x)
    b = hw.explain(second, x, target=a.target)
    for i in range(20):
        ra, rb = (e.relevance[i].double() / e.relevance[i].double().abs().sum() for e in (a, b))
        assert found.moved[i] == pytest.approx(float((ra - rb).abs().sum() / 2), rel=1e-5)
    row = found.rows[0]
    half = 2.093024 * found.moved.std(ddof=1) / np.sqrt(20)
    assert (row.low, row.high) == pytest.approx((row.moved - half, min(1, row.moved + half)), rel=1e-5)
    assert row.output == pytest.approx(float((b.output - a.output).mean()), rel=1e-4)


def test_equal_models_do_not_move() -> None:
    first, _, x, y = pair()
    found = diff(first, first, (x, y))
    assert max(row.high for row in found.rows) == 0
    assert found.beyond(0) == []


def test_stores_are_compared_as_models_are(tmp_path: Path) -> None:
    from headwater.dataset import run

    first, second, x, y = pair()
    stores = [run(m, (x, y), tmp_path / n, target=y) for m, n in ((first, "a"), (second, "b"))]
    found, direct = diff(*stores), diff(first, second, (x, y), target=y)
    np.testing.assert_allclose(found.moved, direct.moved, atol=1e-7)
    assert [row.group for row in found.rows] == [row.group for row in direct.rows]
    other = run(first, (x[:9], y[:9]), tmp_path / "c")
    with pytest.raises(hw.InvalidInput, match="different samples"):
        diff(stores[0], other)


def test_zero_maps_and_groups_of_one() -> None:
    first, second, x, _ = pair()
    x[0] = 0
    found = diff(first, second, x, by=np.arange(60))
    assert found.moved[0] == 0
    assert all(row.low == 0 for row in found.rows)
    assert found.beyond(0.0) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.0}, "confidence"),
        ({"by": "colour"}, "by="),
        ({"by": [1]}, "one value"),
        ({"by": "label"}, "no labels"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    first, second, x, _ = pair()
    with pytest.raises(hw.InvalidInput, match=message):
        diff(first, second, x, **options)
