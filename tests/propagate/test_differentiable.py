"""``differentiable=True``: the true derivatives of relevance, beside the rules that made it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_same
from tests.test_explanation import given

PRESETS = [None, "epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1"]
PRESETS += ["cmp", "deep_taylor"]


def relevance_loss(model: nn.Module, x: Tensor, **options: Any) -> Tensor:
    """A loss on the relevance in which every element has a weight of its own; shape ``()``."""
    e = hw.explain(model, x, target=1, differentiable=True, **options)
    weights = torch.cos(torch.arange(e.relevance.numel(), dtype=e.relevance.dtype)).view_as(e.relevance)
    return (weights * e.relevance).sum()


def assert_derivatives(model: nn.Module, x: Tensor, **options: Any) -> None:
    """Derivatives of the loss along a random direction, of input and of parameters, against central differences."""
    x = x.clone().requires_grad_()
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(relevance_loss(model, x, **options), [x, *parameters], allow_unused=True)
    generator, step = torch.Generator().manual_seed(3), 1e-6
    for name, tensor, gradient in zip(["x", *dict(model.named_parameters())], [x, *parameters], found, strict=True):
        direction = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                tensor.add_(sign * step * direction)
            values.append(relevance_loss(model, x, **options).item())
            with torch.no_grad():
                tensor.sub_(sign * step * direction)
        expected = (values[0] - values[1]) / (2 * step)
        mine = 0.0 if gradient is None else (gradient * direction).sum().item()
        assert mine == pytest.approx(expected, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("preset", PRESETS)
def test_derivatives_of_every_preset(preset: str | None) -> None:
    model, x = given()
    assert_derivatives(model, x[:2], composite=preset, bounds=(-4.0, 4.0))


def test_derivatives_through_products_and_attention() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = nn.TransformerEncoderLayer(4, 2, 6, activation="gelu", batch_first=True)
            self.gate, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.core(x)
            return self.head((torch.sigmoid(self.gate(x)) * x).mean(1))

    # A wide stabilizer, so that no sum near zero is too steep for differences.
    composite = hw.Composite({"default": hw.rules.Epsilon(0.01), "attention": hw.rules.AttnLRP()})
    assert_derivatives(Attending().double().eval(), torch.randn(2, 5, 4, dtype=torch.float64), composite=composite)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_derivatives_through_recurrence(kind: type[nn.LSTM | nn.GRU]) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core, self.head = kind(3, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.core(x)[0][:, -1])

    assert_derivatives(Recurrent().double().eval(), torch.randn(2, 4, 3, dtype=torch.float64))


@pytest.mark.parametrize("preset", [None, "epsilon", "epsilon_plus", "epsilon_alpha2_beta1", "epsilon_gamma_box"])
def test_second_derivatives(preset: str | None) -> None:
    """Twice differentiable in the input, where the activation is smooth."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 2)).double().eval()

    def relevance(x: Tensor) -> Tensor:
        return hw.explain(model, x, target=0, composite=preset, bounds=(-3.0, 3.0), differentiable=True).relevance

    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(relevance, x)
    assert torch.autograd.gradgradcheck(relevance, x)


def test_a_differentiable_explanation_equals_the_plain_one() -> None:
    model, x = given()
    plain = hw.explain(model, x)
    live = hw.explain(model, x.clone().requires_grad_(), differentiable=True)
    assert live.relevance.requires_grad
    assert_same(live.relevance.detach(), plain.relevance, 1e-12)
    frozen = model.requires_grad_(False)
    assert hw.explain(frozen, x.clone().requires_grad_(), differentiable=True).relevance.requires_grad


def test_an_explanation_can_be_trained() -> None:
    """A penalty on one feature's relevance moves the relevance off it."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double().eval()
    x = torch.rand(16, 4, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def share() -> Tensor:
        relevance = hw.explain(model, x, target=0, differentiable=True).relevance
        return relevance[:, 0].abs().sum() / relevance.abs().sum()

    before = share().item()
    for _ in range(20):
        optimizer.zero_grad()
        share().backward()
        optimizer.step()
    assert share().item() < before / 2
