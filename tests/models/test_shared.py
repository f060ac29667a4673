"""Trained networks on real data: each does what its authors published, and is explained in one call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater import toolbox
from tests.models import shared, waves
from tests.models.checks import assert_explains
from tests.reference.audit import assert_accounted

pytestmark = pytest.mark.data

SINGLE, DOUBLE = 1e-4, 1e-9


def assert_explains_in_both(model: nn.Module, x: Tensor | tuple[Tensor, ...]) -> None:
    """In single precision; and in double, where the relevance and what was absorbed also add up to the output."""
    assert_explains(model, x, SINGLE)
    wide = tuple(t.double() for t in x) if isinstance(x, tuple) else x.double()
    assert_accounted(assert_explains(model.double(), wide, DOUBLE), DOUBLE)


def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        return (model(x).argmax(1) == labels).double().mean().item()


def test_lenet_of_the_lrp_toolbox(data: Path) -> None:
    model = toolbox.load(data / "lrp_toolbox_mnist" / "LeNet-5.txt")
    x, labels = shared.digits(data, 500)
    assert accuracy(model, x, labels) == 0.99
    assert_explains_in_both(model, x[:4])


def test_squeezenet(data: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    model = shared.squeezenet(data)
    pictures, labels = shared.photographs(data, every=40, size=227)
    x = shared.caffe_pixels(pictures)
    assert accuracy(model, x, labels) >= 0.56  # 64 % of a larger sample
    assert_explains(model, x[:2], SINGLE)


def test_mobilenet_v2(data: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    model = shared.mobilenet_v2(data)
    pictures, labels = shared.photographs(data, every=40, size=224)
    x = shared.normalized(pictures)
    assert accuracy(model, x, labels) >= 0.76  # 83 % of a larger sample
    assert_explains(model, x[:2], SINGLE)


def test_phasenet(data: Path) -> None:
    model = waves.phasenet(data)
    x, s_arrivals = waves.records(data, range(0, 154, 10), first=1800, length=3000)
    with torch.inference_mode():
        chances = model(x).softmax(1)
    p_picks, s_picks = chances[:, 1].argmax(1), chances[:, 2].argmax(1)
    assert ((p_picks - 1200).abs() <= 50).double().mean() >= 0.9  # half a second
    assert ((s_picks - s_arrivals).abs() <= 50).double().mean() >= 0.9
    e = explain_pick(model, x[:1], phase=1)
    # The evidence for the P arrival lies about it: more in these two seconds than in all the other 28.
    weight = e.relevance.abs().sum(1)[0]
    assert weight[1100:1300].sum() > weight.sum() / 2


def explain_pick(model: nn.Module, x: Tensor, phase: int) -> hw.Explanation:
    """Explain the highest logit of one phase, and what is explained by default of scores with three axes."""
    assert_explains(model, x, SINGLE)
    e = hw.explain(model, x, target=lambda scores: scores[:, phase].amax(1), ledger=True)
    assert torch.isfinite(e.relevance).all()
    assert (e.ledger.unexplained() <= SINGLE * (e.output.abs() + e.relevance.abs().sum((1, 2)))).all()
    return e


def test_small_phasenet(data: Path) -> None:
    model = waves.small_phasenet(data)
    x, s_arrivals = waves.records(data, range(0, 154, 10), first=1800, length=3001)
    x = waves.peaked(x)
    with torch.inference_mode():
        chances = model(x).softmax(1)
    assert ((chances[:, 0].argmax(1) - 1200).abs() <= 50).double().mean() >= 0.8
    assert ((chances[:, 1].argmax(1) - s_arrivals).abs() <= 100).double().mean() >= 0.9
    explain_pick(model, x[:2], phase=0)


def test_breakout_agent(data: Path) -> None:
    ale_py = pytest.importorskip("ale_py", reason="ale-py (the game) is not installed")
    rom = pytest.importorskip("ale_py.roms").get_rom_path("breakout")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    game = ale_py.ALEInterface()
    game.setInt("random_seed", 0)
    game.setFloat("repeat_action_probability", 0.0)
    game.loadROM(rom)
    model, actions = shared.breakout_agent(data), game.getMinimalActionSet()
    state, score = torch.zeros(1, 256), 0
    for _ in range(500):
        frame = shared.frame_of(game.getScreenRGB())
        with torch.inference_mode():
            action = model(frame, state).argmax(1).item()
            last, state = state, model.remember(frame, state)
        score += sum(game.act(actions[action]) for _ in range(4))
    assert score >= 10  # chance scores 0 or 1 in a whole game
    assert_explains_in_both(model, (frame, last))


def test_crepe(data: Path) -> None:
    pytest.importorskip("soundfile", reason="soundfile is not installed")
    model = waves.crepe(data)
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(8000) / 16000)
    with torch.inference_mode():
        pitch = waves.hertz(model(waves.sound_frames(tone)).argmax(1).float())
    assert pitch.median() == pytest.approx(440, rel=0.012)  # one of its steps
    frames = waves.sound_frames(waves.spoken(data, "01", 1, 1))
    assert_explains_in_both(model, frames[40:42])


def test_voice_detector(data: Path) -> None:
    pytest.importorskip("soundfile", reason="soundfile is not installed")
    model = waves.voice_detector(data)
    speech = waves.spoken(data, "04", 1, 1)[None]
    hiss = torch.randn(speech.shape) * speech.std()
    with torch.inference_mode():
        heard, unheard = model(speech).sigmoid(), model(hiss).sigmoid()
    assert heard.max() > 0.9
    assert unheard.max() < 0.2
    # A stretch about the beginning of the word; then silence, where the magnitude's root has no derivative.
    assert_explains_in_both(model, speech[:, 512 * 5 : 512 * 10])
    assert torch.isfinite(hw.explain(model.float(), torch.zeros(1, 1024)).relevance).all()
