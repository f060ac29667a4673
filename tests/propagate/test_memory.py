"""At its peak an explanation needs little more than forward and backward do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import headwater as hw

LIMIT = 1.3


def peak(call: Callable[[], Any]) -> int:
    """The most bytes of tensors that a call holds at once, beside what there was before; its second run counts."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def pictures() -> tuple[nn.Module, Tensor]:
    """Convolutions on signed pixels; deep, so that what one rule needs for itself is small beside what is kept."""
    layers: list[nn.Module] = []
    for inputs in (3, *[16] * 13):
        layers += [nn.Conv2d(inputs, 16, 3, padding=1), nn.ReLU(inplace=True)]
    layers += [nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)), torch.randn(1, 3, 48, 48)


def stages() -> tuple[nn.Module, Tensor]:
    """Stages of which each has half the places and twice the channels: the first two layers decide the peak."""
    layers: list[nn.Module] = []
    for inputs, outputs, depth in ((3, 16, 2), (16, 32, 2), (32, 64, 3), (64, 128, 3), (128, 128, 3)):
        for i in range(depth):
            layers += [nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4, 5)), torch.randn(4, 3, 64, 64)


class Encoder(nn.Module):
    """Transformer blocks whose activation is the largest value, scaled by channel before they are added."""

    def __init__(self, width: int = 32, blocks: int = 12) -> None:
        super().__init__()
        parts = [(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)) for _ in range(blocks)]
        self.norms, self.wide, self.narrow = (nn.ModuleList(m) for m in zip(*parts, strict=True))
        self.scale = nn.Parameter(torch.rand(width))
        self.embed, self.head = nn.Linear(8, width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, T, 8]`` to ``[N, 5]``."""
        x = self.embed(x)
        for norm, wide, narrow in zip(self.norms, self.wide, self.narrow, strict=True):
            x = x + self.scale * narrow(nn.functional.gelu(wide(norm(x))))
        scores: Tensor = self.head(x.mean(1))
        return scores


def tokens() -> tuple[nn.Module, Tensor]:
    """A stack of blocks on a sequence."""
    return Encoder(), torch.randn(1, 512, 8)


@pytest.mark.parametrize("case", [pictures, stages, tokens])
@pytest.mark.parametrize(
    "composite", ["lrp_0", "epsilon", "default", "epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1"]
)
def test_peak_is_that_of_forward_and_backward(case: Callable[[], tuple[nn.Module, Tensor]], composite: str) -> None:
    torch.manual_seed(0)
    model, x = case()
    model.requires_grad_(False).eval()

    def bare() -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(model(leaf).max(), leaf)[0]

    ours = peak(lambda: hw.explain(model, x, composite=composite, bounds=(-6.0, 6.0)))
    assert ours <= LIMIT * peak(bare)
