"""The filters paper's experiments: the networks, the terms of Eq. 5, planted errors; and a quick run of it all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from experiments.filters import bounds, data, heatmaps, masks, planted, training, trends
from experiments.filters.networks import LAYERS, SUBJECTS, Subject, lrp, parameters
from headwater.cli import app
from headwater.propagate.filters import Clamp, FractionPass


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_the_networks_are_as_large_as_the_papers(subject: Subject) -> None:
    model = subject.network()
    assert abs(parameters(model) / subject.parameters - 1) < 0.01
    assert model(torch.rand(2, 1, subject.side, subject.side)).shape == (2, 10)
    assert [name for name, m in model.named_children() if isinstance(m, torch.nn.Conv2d)][:4] == list(LAYERS)


def test_digits_are_enlarged_by_interpolation() -> None:
    images = torch.randint(256, (2, 1, 28, 28)).to(torch.uint8)
    assert torch.equal(data.prepare(images, 28), images.float() / 255)
    assert data.prepare(images, 140).shape == (2, 1, 140, 140)


def test_black_pixels_can_have_relevance() -> None:
    model, x = SUBJECTS["S1"].network().eval(), torch.rand(2, 1, 28, 28)
    x[..., :14, :] = 0
    assert float(lrp(model, x).relevance[..., :14, :].abs().sum()) > 0


def test_a_filter_acts_below_the_convolution_that_holds_it() -> None:
    model, x = SUBJECTS["S1"].network().eval(), torch.rand(3, 1, 28, 28)
    plain, culled = (lrp(model, x, filters, layers=LAYERS) for filters in (None, {"conv3": Clamp(0.2)}))
    assert torch.allclose(plain.output, culled.output)
    assert torch.allclose(plain.layers["conv4"], culled.layers["conv4"], rtol=1e-3)
    assert not torch.allclose(plain.layers["conv2"], culled.layers["conv2"])


@pytest.mark.parametrize("level", bounds.LEVELS)
def test_the_terms_of_eq5_by_hand(level: float) -> None:
    torch.manual_seed(1)
    truth, seen = torch.randn(2, 50, dtype=torch.float64), torch.randn(2, 50, dtype=torch.float64)
    found = bounds.eq5(truth, seen, level)
    for row in range(2):
        theta = level * float(seen[row].abs().max())
        error, small, large = {"none": 0.0, "clamp": 0.0, "zero": 0.0}, [], []
        for g, h in zip(truth[row].tolist(), seen[row].tolist(), strict=True):
            sign = 1 if h > 0 else -1
            for name, kept in (("none", h), ("clamp", sign * theta), ("zero", 0.0)):
                error[name] += abs(g - (kept if abs(h) >= theta else h)) / 50
            (large if abs(h) >= theta else small).append(abs(g))
        for name, value in error.items():
            assert float(found[name]["mae"][row]) == pytest.approx(value)
            assert abs(float(found[name]["identity"][row])) < 1e-12
            assert float(found[name]["second"][row]) <= float(found[name]["bound"][row]) + 1e-12
        assert float(found["p"][row]) == pytest.approx(len(large) / 50)
        if small:
            assert float(found["zero"]["papers"][row]) == pytest.approx(len(large) / 50 * np.mean(small))


def test_planted_spikes_are_where_relevance_is() -> None:
    relevance = torch.randn(4, 3, 8, 8)
    relevance[:, 0] = 0
    spikes = bounds.Spikes(size=10.0, share=0.1)
    planted_ = spikes.planted(relevance)
    changed = planted_ != relevance
    assert 0.02 < float(changed.float().mean()) < 0.12
    assert not bool(changed[:, 0].any())
    assert torch.allclose(relevance * spikes.multiplier(relevance), planted_, rtol=1e-4)
    met = bounds.Spikes(10.0, 0.1, FractionPass(0.5))
    kept = relevance * met.multiplier(relevance)
    assert float(kept.abs().max()) < float(planted_.abs().max()) / 2 + 1e-3


def test_noise_is_measured_outside_the_digit() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., :2, :] = 1
    relevance = torch.zeros(1, 1, 4, 4)
    relevance[..., 0, 0], relevance[..., 3, 3] = -4.0, 2.0
    assert float(masks.outside(relevance, x)) == pytest.approx(0.5 / 8)
    assert float(heatmaps.normalized(relevance).min()) == -1


def test_marks_decide_and_digits_do_not() -> None:
    images = torch.randint(128, (60, 1, 28, 28)).to(torch.uint8)
    sample = planted.marked(images, 3)
    assert torch.equal(sample.truth.flatten(1).any(1), sample.y == 1)
    assert 10 < int(sample.y.sum()) < 50
    again = planted.marked(images, 3)
    assert torch.equal(sample.x, again.x)


def test_trends_tell_up_from_down() -> None:
    rising = np.exp(np.linspace(0, 1, 12))[:, None, None] * np.ones((12, 4, 3))
    steps = np.arange(1, 13) * 1000
    up = training.History(SUBJECTS["S1"], steps, np.ones(12), rising, rising, {})
    down = training.History(SUBJECTS["AL2"], steps, np.ones(12), rising[::-1], rising, {})
    assert trends.net(up) == 1
    assert trends.net(down) == -1
    assert trends.growth(up) > 1 > trends.growth(down)


@pytest.mark.slow
@pytest.mark.data
def test_a_quick_run(data: Path, tmp_path: Path) -> None:
    found = CliRunner().invoke(
        app, ["reproduce", "filters", "--scale", "quick", "--out", str(tmp_path), "--data", str(data)]
    )
    assert found.exit_code == 0, found.output
    claims = (tmp_path / "claims.csv").read_text()
    for key in ("parameters", "trend-S1", "trend-AL2", "amplifier-S1", "planted", "eq5", "bound-clamp", "unrectified"):
        assert f"\n{key}," in claims
    for name in ("mean_power", "heatmaps_S1", "heatmaps_S2", "sweep", "optimum"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5000
