"""RISE against its sum written out, and its own error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from headwater.remove.features import features_of
from headwater.remove.rise import Soft


def network() -> nn.Module:
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*layers).double().eval()


def masks(x: Tensor, samples: int, cells: Any = 3) -> Soft:
    return Soft.of(features_of(x), x, samples, cells, 0.5, torch.Generator().manual_seed(0))


def test_masks_are_enlarged_grids_shifted_by_less_than_a_cell() -> None:
    x = torch.zeros(1, 2, 13, 10)
    soft = masks(x, 20, (4, 3))
    kept = soft.kept(torch.arange(20), "cpu", torch.float64)
    for i in range(20):
        large = F.interpolate(
            soft.grids[i][None, None].double(), size=(5 * 4, 4 * 4), mode="bilinear", align_corners=False
        )
        down, right = soft.shifts[i].long().tolist()
        assert 0 <= down < 4
        assert 0 <= right < 4
        torch.testing.assert_close(kept[i], large[0, 0, down : down + 13, right : right + 10])


def test_against_the_sum_written_out() -> None:
    model, x = network(), torch.rand(2, 2, 12, 9, dtype=torch.float64)
    found = hw.explain(model, x, target=1, method="rise", samples=60, cells=3, kept=0.5)
    soft = masks(x, 60)
    kept = soft.kept(torch.arange(60), "cpu", torch.float64)
    with torch.no_grad():
        terms = torch.stack([model(x * m)[:, 1, None, None] * m / 0.5 for m in kept])
    torch.testing.assert_close(found.relevance.sum(1), terms.mean(0))
    error = terms.std(0, correction=0) / 59**0.5
    torch.testing.assert_close(found.details["standard_error"].sum(1), error)


def test_columns_are_kept_or_removed_whole() -> None:
    x = torch.rand(2, 5, dtype=torch.float64)
    weight = torch.tensor([5.0, 0.0, 0.0, -5.0, 0.0], dtype=torch.float64)
    found = hw.explain(lambda v: v @ weight, x.abs() + 1, method="rise", samples=2000)
    error = found.details["standard_error"]
    relative = found.relevance - found.relevance[:, 1:2]
    assert ((relative - 0.5 * (x + 1) * weight).abs() < 6 * error).all()


def test_probability_of_the_class() -> None:
    model, x = network(), torch.rand(2, 2, 12, 9, dtype=torch.float64)
    found = hw.explain(model, x, target=1, method="rise", samples=30, probability=True)
    torch.testing.assert_close(found.output, model(x).softmax(1)[:, 1].detach())
    assert (found.relevance >= 0).all()


def test_a_given_picture_of_features() -> None:
    x = torch.rand(1, 2, 12, 9, dtype=torch.float64)
    labels = torch.arange(12 * 9).view(12, 9) // 36
    found = hw.explain(network(), x, target=0, method="rise", samples=30, features=labels)
    for k in range(3):
        assert found.relevance[0, :, labels == k].unique().numel() == 1


@pytest.mark.parametrize(
    "options",
    [{"samples": 1}, {"kept": 0.0}, {"kept": 1.0}, {"cells": 0}, {"cells": (1, 2, 3)}, {"imputer": "inpaint"}],
)
def test_refusals(options: dict[str, Any]) -> None:
    with pytest.raises(hw.HeadwaterError):
        hw.explain(network(), torch.rand(1, 2, 12, 9).double(), target=0, method="rise", **{"samples": 8, **options})
