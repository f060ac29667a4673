"""The earthquake paper's experiments: windows, the network, the measures; and a quick run of it all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from experiments.earthquake import classical, maps, optima, series
from experiments.earthquake.data import LENGTH, ONSET, RATE, SECONDS, Archive, Cuts, normalized, split_of
from experiments.earthquake.networks import LAYERS, Detector, PickerAsDetector
from experiments.earthquake.records import FINE, Records
from experiments.earthquake.subjects import APART, Subject, detector, sets
from experiments.reproduction import Reproduction
from headwater.cli import app
from tests.models.waves import PhaseNet


def records(count: int, seconds: int, p: float, distance: float) -> Records:
    """Noise, with a burst a hundred times as strong at P and a larger one at S."""
    waves = torch.randn(count, 3, seconds * FINE)
    s = p + 1.0 + torch.arange(count) % 5
    for wave, late in zip(waves, s, strict=True):
        wave[:, round(p * FINE) : round(p * FINE) + 50] *= 100
        wave[:, round(float(late) * FINE) : round(float(late) * FINE) + 50] *= 200
    ones = torch.ones(count, dtype=torch.float64)
    return Records(waves, p * ones, s.double(), 0 * ones, distance * ones)


@pytest.fixture(scope="module")
def cuts() -> Cuts:
    torch.manual_seed(0)
    return Cuts(records(40, 90, 30.0, torch.nan), records(6, 60, 20.0, 80.0), seed=0)


def test_the_network_is_the_papers() -> None:
    model = Detector()
    assert sum(weight.numel() for weight in model.parameters()) == 35_585
    x, lengths = torch.randn(2, 3, 500), []
    for layer in model.convolutions:
        x = layer(x)
        lengths.append(x.shape[-1])
    assert lengths[::2] == [250, 125, 63, 32, 16, 8, 4]
    assert all(isinstance(model.get_submodule(name), torch.nn.Conv1d) for name in LAYERS)
    assert model(torch.randn(5, 3, 500)).shape == (5,)


def test_events_are_in_one_part_of_the_split() -> None:
    parts = split_of(154, 0)
    assert {name: len(part) for name, part in parts.items()} == {"evaluation": 15, "validation": 15, "train": 124}
    assert torch.equal(torch.cat(list(parts.values())).sort().values, torch.arange(154))


def test_windows_are_scaled_and_hold_what_they_say(cuts: Cuts) -> None:
    windows = cuts.draw("train", 64, torch.Generator().manual_seed(0))
    assert windows.x.shape == (64, 3, LENGTH)
    assert int(windows.y.sum()) == 32
    torch.testing.assert_close(windows.x.abs().amax((1, 2)), torch.ones(64))
    assert torch.isin(windows.event, cuts.splits["train"]).all()
    events, noise = windows.positive, windows.negative
    assert (events.p >= 0.95).all()
    assert (events.s <= SECONDS - 1.95).all()
    assert (noise.start + SECONDS <= 29.05).all()
    assert noise.p.isnan().all()
    loudest = events.x.abs().sum(1).argmax(1) / RATE
    assert ((loudest - events.s) < 0.6).all()
    assert ((loudest - events.s) > -0.1).all()


def test_fixed_windows_are_the_same_again(cuts: Cuts) -> None:
    first, second = cuts.fixed("evaluation"), cuts.fixed("evaluation")
    assert torch.equal(first.x, second.x)
    torch.testing.assert_close(first.positive.p, torch.full((4,), ONSET, dtype=torch.float64), atol=0.026, rtol=0)
    assert len(cuts.fixed("evaluation", 5)) == 40
    assert (cuts.far().distance == 80).all()
    assert cuts.far().positive.event.min() == 40


def test_the_same_seconds_at_either_rate(cuts: Cuts) -> None:
    windows = cuts.fixed("evaluation").positive
    fine = cuts.fine(windows)
    assert fine.shape == (len(windows), 3, SECONDS * FINE)
    loudest = fine.abs().sum(1).argmax(1) / FINE
    assert ((loudest - windows.s - 0.25).abs() < 0.3).all()


def test_the_papers_own_windows_are_read(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 60
    np.savez(
        tmp_path / "aqulo.npz", x=rng.normal(size=(n, 3, LENGTH)), y=np.arange(n) % 2, event=np.arange(n) // 2 + 7,
        p=np.full(n, 5.0), s=np.full(n, 8.0), distance=np.full(n, 60.0),
    )  # fmt: skip
    archive = Archive(tmp_path / "aqulo.npz", 0)
    assert len(archive.fixed("evaluation")) == 6
    assert int(archive.draw("train", 20, torch.Generator()).y.sum()) == 10
    assert archive.fine(archive.far()).shape == (3, 3, SECONDS * FINE)


def test_of_a_large_data_set_a_part_is_looked_at(tmp_path: Path) -> None:
    n = 6000
    np.savez(
        tmp_path / "aqulo.npz", x=np.random.default_rng(0).normal(size=(n, 3, LENGTH)).astype(np.float32),
        y=np.arange(n) % 2, event=np.arange(n), p=np.where(np.arange(n) % 2, 5.0, np.nan),
        s=np.where(np.arange(n) % 2, 5.0 + np.arange(n) % 13, np.nan), distance=np.arange(n) / 100.0,
    )  # fmt: skip
    found = sets(Reproduction("earthquake", "quick", tmp_path, tmp_path), Archive(tmp_path / "aqulo.npz", 0))
    assert len(found.samples) == 12
    assert len(found.evaluation) == 200
    assert len(found.onset) == 100
    assert len(found.pairs[0]) <= 15 * 14
    assert found.samples.distance[6:10].diff().min() > 0


def test_a_picker_detects_where_p_is_likeliest() -> None:
    picker = PhaseNet().eval()
    before = {name: weight.clone() for name, weight in picker.state_dict().items()}
    x = torch.randn(3, 3, 700)
    with torch.no_grad():
        logits = picker(x)
        torch.testing.assert_close(PickerAsDetector(picker)(x), (logits[:, 1] - logits[:, 0]).amax(1))
    assert all(torch.equal(weight, before[name]) for name, weight in picker.state_dict().items())


def test_two_events_in_a_window(cuts: Cuts) -> None:
    subject = detector(Detector().state_dict(), "a")
    windows = cuts.fixed("evaluation").positive[:2]
    x = subject.pairs(cuts, windows[:1], windows[1:])
    late = round(APART * RATE)
    both = normalized(windows.x[0])
    both[:, late:] += windows.x[1][:, :-late]
    torch.testing.assert_close(x[0], normalized(both))


def test_smoothing_is_a_moving_average() -> None:
    x = torch.randn(2, 3, 50)
    expected = torch.stack([x[..., max(0, i - 2) : i + 3].sum(-1) / 5 for i in range(50)], -1)
    torch.testing.assert_close(series.smoothed(x, 5), expected)


def test_power_above_a_frequency() -> None:
    time = torch.arange(500) / 20
    slow, fast = torch.sin(2 * torch.pi * 2 * time), torch.sin(2 * torch.pi * 8 * time)
    share = series.above((2 * slow + fast + 3).expand(1, 3, -1), 20, 5.0)
    torch.testing.assert_close(share, torch.tensor([0.2], dtype=torch.float64), atol=1e-3, rtol=0)


def test_area_under_the_curve() -> None:
    assert series.auc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0])) == pytest.approx(4.5 / 6)


def test_the_threshold_is_right_most_often() -> None:
    statistic, y = torch.rand(60), torch.randint(0, 2, (60,))
    cut = classical.threshold(statistic, y)
    tried = [int(((statistic > t) == (y == 1)).sum()) for t in [-1.0, *statistic.tolist()]]
    assert int(((statistic > cut) == (y == 1)).sum()) >= max(tried[1:])


def test_sta_lta_finds_an_onset() -> None:
    pytest.importorskip("obspy")
    x = 0.01 * torch.randn(1, 3, LENGTH)
    x[..., 300:340] += torch.randn(3, 40)
    ratio = classical.ratios(x)[0]
    assert 300 <= int(ratio.argmax()) <= 320
    assert ratio.max() > 5


def test_channels_alike() -> None:
    x = torch.randn(3, 4, 20)
    found = maps._alike(x)
    expected = np.mean([np.corrcoef(x[0, c], x[1, c])[0, 1] for c in range(4)])
    torch.testing.assert_close(found[0, 1], torch.tensor(expected, dtype=torch.float32))
    torch.testing.assert_close(found.diagonal(), torch.ones(3))


def test_bursts_are_counted() -> None:
    x = torch.zeros(3, 500)
    for first in (50, 200, 400):
        x[:, first : first + 10] = 1
    assert optima._bursts(x, 20) == 3


def test_ascent_makes_an_earthquake_and_a_noise() -> None:
    torch.manual_seed(0)
    subject = Subject("a", Detector(), {}, "", RATE)
    found = optima.search(subject, torch.randn(2, 3, LENGTH), torch.tensor([1.0, -1.0]), 100, progress=False)
    with torch.no_grad():
        quake, noise = subject.model(found["x"])
    assert quake > 0 > noise


@pytest.mark.slow
@pytest.mark.data
def test_a_quick_run(tmp_path: Path, data: Path) -> None:
    done = CliRunner().invoke(app, ["reproduce", "earthquake", "--out", str(tmp_path), "--data", str(data)])
    assert done.exit_code == 0, done.output
    figures = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    themes = {"figure_3", "figure_4", "figure_5", "figure_6", "figure_7", "figure_8", "rules", "two_events"}
    assert figures == {"training", *themes, *(f"{name}_phasenet" for name in themes)}
    assert (tmp_path / "claims.csv").read_text().count("\n") >= 55
    again = Reproduction("earthquake", "quick", tmp_path, data)
    assert again.step("detection", lambda: pytest.fail("the step was kept"))["evaluation"].keys() >= {"STA/LTA"}
