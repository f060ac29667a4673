"""Mean Power, spread, redundancy and their course over training, against the formulas in plain loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import headwater as hw
from headwater.analyze import boxes, feature_maps, match, mean_power, over_training, redundancy, spread

pytest.importorskip("scipy")


def plain_mean_power(values: list[float], share: float) -> float:
    t = share * max(abs(v) for v in values)
    sides = []
    for part in ([max(v, 0.0) for v in values], [max(-v, 0.0) for v in values]):
        upper, lower = [v for v in part if v >= t], [v for v in part if v < t]
        if upper:
            mean = sum(lower) / len(lower) if lower else 0.0
            sides.append(sum(upper) / len(upper) / mean if mean else math.inf)
    return sum(sides) / len(sides)


@given(
    st.lists(st.floats(-5, 5).filter(lambda v: abs(v) > 1e-3), min_size=2, max_size=30),
    st.sampled_from([0.1, 0.5, 0.9]),
)
def test_mean_power_is_the_papers(values: list[float], share: float) -> None:
    found = mean_power(np.array([values]), [share])[0, 0]
    assert found == pytest.approx(plain_mean_power(values, share), rel=1e-9)


def test_mean_power_knows_no_amplitude() -> None:
    r = torch.randn(5, 4, 6, 6)
    np.testing.assert_allclose(mean_power(r), mean_power(1e-6 * r), rtol=1e-4)
    spiky = r.clone()
    spiky[:, 0, 0, 0] = 100
    assert (mean_power(spiky)[:, 1] > mean_power(r)[:, 1]).all()
    assert np.isnan(mean_power(torch.zeros(2, 3))).all()


@given(st.integers(1, 4), st.integers(2, 30), st.integers(0, 99))
def test_spread_is_a_weighted_deviation(n: int, steps: int, seed: int) -> None:
    r = np.random.default_rng(seed).standard_normal((n, 3, steps))
    r[:, 0, 0] = np.abs(r[:, 0, 0])
    found = spread(r, rate=10.0)
    for row, sigma in zip(r, found, strict=True):
        w = [max(row[c, t], 0.0) for t in range(steps) for c in range(3)]
        times = [t / 10 for t in range(steps) for _ in range(3)]
        mean = sum(a * t for a, t in zip(w, times, strict=True)) / sum(w)
        assert sigma == pytest.approx(
            math.sqrt(sum(a * (t - mean) ** 2 for a, t in zip(w, times, strict=True)) / sum(w))
        )


def test_spread_of_other_axes_and_signs() -> None:
    r = np.zeros((2, 5, 7))
    r[0, 1, 3], r[0, 3, 3], r[1, 2, 2] = 1, 1, -1
    assert spread(r, axis=1)[0] == pytest.approx(1)
    assert spread(r)[0] == pytest.approx(0)
    assert np.isnan(spread(r)[1])
    assert spread(r, part="negative")[1] == 0
    with pytest.raises(hw.InvalidInput, match="axis 0"):
        spread(r, axis=0)
    with pytest.raises(hw.InvalidInput, match="part"):
        spread(r, part="none")  # type: ignore[arg-type]


def test_redundancy_counts_doubles() -> None:
    generator = np.random.default_rng(0)
    a = generator.standard_normal((6, 50))
    a[3] = 2 * a[0] + 0.1 * generator.standard_normal(50)
    a[5] = 7.0
    found = redundancy(a)
    np.testing.assert_allclose(found.correlation[:5, :5], np.corrcoef(a[:5]), atol=1e-12)
    assert found.share == pytest.approx(2 / 6)
    assert (found.correlation[5] == 0).all()
    assert found.pairs[0] == 3


def test_channels_are_found_again_in_another_order() -> None:
    a = torch.randn(3, 8, 5, 5)
    order = torch.randperm(8)
    found = match(a, a[:, order] * 3 + 1)
    assert found.share == 1
    assert (order[found.pairs] == torch.arange(8)).all()
    assert match(a, torch.randn(3, 4, 5, 5)).pairs.tolist().count(-1) == 4
    with pytest.raises(hw.InvalidInput, match="differ in more"):
        match(a, torch.randn(3, 8, 5, 6))


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()


def test_signals_over_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = network(), torch.randn(5, 1, 6, 6)
    states: dict[Any, Any] = {0: {k: v.clone() for k, v in model.state_dict().items()}}
    trained = {k: v + 0.1 for k, v in states[0].items()}
    torch.save(trained, tmp_path / "1000.pt")
    states[1000] = tmp_path / "1000.pt"
    before = {k: v.clone() for k, v in model.state_dict().items()}
    corner = boxes((1, 6, 6), {"corner": (0, 0, 3, 3)})
    found = over_training(
        model, states, x,
        {"power": lambda e: mean_power(e.layers["0"]), "corner": lambda e: corner(e.relevance)},
        layers=["0"], target=0,
    )  # fmt: skip
    assert found["step"].tolist() == [0, 1000]
    assert found["power"].shape == (2, 5, 3)
    second = network()
    second.load_state_dict(trained)
    r = hw.explain(second, x, target=0).relevance
    np.testing.assert_allclose(found["corner"][1, :, 0], r[:, 0, :3, :3].sum((1, 2)).numpy(), rtol=1e-4, atol=1e-6)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(hw.InvalidInput, match="do not fit"):
        over_training(model, {1: {"x": torch.ones(1)}}, x, {"p": lambda e: e.output})
    with pytest.raises(hw.InvalidInput, match="no checkpoint"):
        over_training(model, {}, x, {"p": lambda e: e.output})


def test_feature_maps_leave_no_hook() -> None:
    model, x = network(), torch.randn(2, 1, 6, 6)
    np.testing.assert_array_equal(feature_maps(model, x, "0").numpy(), model[0](x).detach().numpy())
    assert not model[0]._forward_hooks
    with pytest.raises(hw.InvalidInput, match="no module 'conv'"):
        feature_maps(model, x, "conv")


@pytest.mark.parametrize("wrong", [[], [0.0], [1.5]])
def test_wrong_thresholds(wrong: list[float]) -> None:
    with pytest.raises(hw.InvalidInput, match="thresholds"):
        mean_power(torch.randn(2, 3), wrong)
