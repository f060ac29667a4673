"""Rules that tell signs apart: what made an input non-negative, and what made it signed again, must not be mistaken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from tests.reference import rules
from tests.reference.audit import TIGHT, relative_error, seed
from tests.reference.nets import double, draw, explain

RULES: dict[str, tuple[Any, rules.Rule]] = {
    "gamma": (hw.rules.Gamma(0.25), rules.generalized_gamma(0.25)),
    "z plus": (hw.rules.ZPlus(), rules.z_plus),
    "alpha 2 beta 1": (hw.rules.AlphaBeta(2, 1), rules.alpha_beta(2, 1, True)),
}


def through_a_view(h: Tensor) -> Tensor:
    h.flatten()[::3].sub_(1.0)
    return h


def half_negated(h: Tensor) -> Tensor:
    h[:, :2] = -h[:, :2]
    return h


def slice_lowered(h: Tensor) -> Tensor:
    h[:, 1, 1:] -= 2.0
    return h


def lowered_alias(h: Tensor) -> Tensor:
    alias = h.view_as(h)
    alias -= 0.5
    return h


# What stands between a ReLU (values [N, 3, 4, 4], none negative) and the convolution under test.
BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda h: h,
    "a view": lambda h: h.transpose(2, 3),
    "max pooling": lambda h: F.max_pool2d(h, 3, 1, 1),
    "average pooling": lambda h: F.avg_pool2d(h, 3, 1, 1),
    "bilinear": lambda h: F.interpolate(F.interpolate(h, size=(5, 3), mode="bilinear"), size=(4, 4), mode="bilinear"),
    "bicubic": lambda h: F.interpolate(h, scale_factor=2, mode="bicubic")[..., ::2, 1::2],
    "minus a number": lambda h: h - 0.5,
    "minus a number in place": lambda h: h.sub_(0.5),
    "minus its mean": lambda h: h - h.mean((2, 3), keepdim=True),
    "minus its mean in place": lambda h: h.sub_(h.mean((2, 3), keepdim=True)),
    "augmented assignment": lambda h: h.__isub__(h.amax((2, 3), keepdim=True) / 2),
    "negated": lambda h: -h,
    "negated in place": lambda h: h.neg_(),
    "times minus two": lambda h: h * -2,
    "times minus two in place": lambda h: h.mul_(-2),
    "divided by minus two": lambda h: h / -2,
    "reversed subtraction": lambda h: 1 - h,
    "added with a negative factor": lambda h: torch.add(h, h.flip(1), alpha=-2),
    "extrapolated": lambda h: torch.lerp(h, h.flip(1), 2.5),
    "difference of two": lambda h: h - h.flip(2),
    "part by a view in place": through_a_view,
    "slice negated": half_negated,
    "slice lowered": slice_lowered,
    "alias lowered": lowered_alias,
    "concatenated with its negative": lambda h: torch.cat([h[:, :1], -h[:, 1:]], 1),
    "stacked with its negative": lambda h: torch.stack([h[:, 0], -h[:, 1], h[:, 2]], 1),
    "padded by a negative number": lambda h: F.pad(h[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=-1.0),
    "filled with a negative number": lambda h: h.masked_fill(h == 0, -0.3),
    "negative where zero": lambda h: torch.where(h == 0, -0.7, h),
    "clamped below zero": lambda h: (h - 1).clamp(min=-0.5),
    "logarithm": lambda h: torch.log(h + 0.5),
    "leaky": lambda h: F.leaky_relu(h - 0.5, 0.1),
    "hyperbolic tangent of less": lambda h: torch.tanh(h - 0.5),
    "elu": lambda h: F.elu(h - 1),
    "log softmax": lambda h: h.log_softmax(1),
    "normalized": lambda h: F.group_norm(h, 1),
    "minimum with negative": lambda h: torch.minimum(h, -h.flip(1)),
    "product with a signed branch": lambda h: h * (h.flip(1) - 0.5),
    "signed by cosine": lambda h: h * torch.cos(torch.arange(4.0).double()),
    "matrix with a constant": lambda h: h @ torch.eye(4).double().roll(1, 0).sub(0.5),
    "differences": lambda h: F.pad(h.diff(dim=2), (0, 0, 0, 1)),
    "added to the signed input": lambda h: h + torch.linspace(-1, 1, 4).double(),
}


class Model(nn.Module):
    def __init__(self, between: Callable[[Tensor], Tensor], in_place: bool) -> None:
        super().__init__()
        self.first, self.relu = double(nn.Conv2d(2, 3, 3, padding=1)), nn.ReLU(in_place)
        self.between, self.last = Named(between), double(nn.Conv2d(3, 2, 3))

    def forward(self, v: Tensor) -> Tensor:
        return self.last(self.between(self.relu(self.first(v))))


class Named(nn.Module):
    """A module, so that the relevance of its output can be asked for."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, h: Tensor) -> Tensor:
        return self.function(h)


@pytest.mark.parametrize("in_place", [False, True], ids=["relu", "relu in place"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("between", BETWEEN)
def test_rule_behind(between: str, rule: str, in_place: bool) -> None:
    model, x = Model(BETWEEN[between], in_place).eval(), draw(2, 2, 4, 4)
    ours, formula = RULES[rule]
    with torch.no_grad():
        a = model.between(model.relu(model.first(x))).clone()
        z = model.last(a)
    expected = rules.redistribute(rules.layer_of(model.last, (3, 4, 4)), formula, a, z * seed(z))
    e = explain(model, x, {"layer:last": ours, "default": hw.rules.Zero()}, layers=["between"])
    assert relative_error(e.layers["between"], expected) <= TIGHT
