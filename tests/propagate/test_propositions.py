"""Propositions 1 to 4 of the review (Samek et al., 2020, section V-C), each as it is stated there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import TIGHT, assert_balanced, relative_error, score

ZERO = hw.Composite({"default": hw.rules.Zero()})
NEARLY_ZERO = 1e-6  # the propositions' epsilon


def rectifier_net() -> nn.Sequential:
    """f(x) = rho(W_L rho(... rho(W_1 x))), without biases, in float64."""
    torch.manual_seed(11)
    layers: list[nn.Module] = []
    for inputs, outputs in [(6, 9), (9, 8), (8, 3)]:
        layers += [nn.Linear(inputs, outputs, bias=False), nn.ReLU()]
    return nn.Sequential(*layers).double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(12), dtype=torch.float64)


def gradient_at(f: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    point = point.clone().requires_grad_()
    return torch.autograd.grad(f(point).sum(), point)[0]


def first_order_taylor(f: Callable[[Tensor], Tensor], x: Tensor, root: Tensor) -> Tensor:
    """R_i = [grad f(root)]_i (x_i - root_i)."""
    return gradient_at(f, root) * (x - root)


@pytest.mark.parametrize("method", ["lrp", "gradient_x_input"])
def test_proposition_1_occlusion_of_a_homogeneous_linear_model_is_taylor_at_zero(method: str, x: Tensor) -> None:
    torch.manual_seed(1)
    model = nn.Linear(6, 1, bias=False).double()

    def f(v: Tensor) -> Tensor:
        return model(v).squeeze(1)

    occlusion = torch.stack([f(x) - f(x * (1 - torch.eye(6, dtype=x.dtype)[i])) for i in range(6)], 1).detach()
    taylor = first_order_taylor(f, x, torch.zeros_like(x))
    found = hw.explain(model, x, target=0, method=method, composite=ZERO if method == "lrp" else None).relevance
    assert relative_error(occlusion, taylor) <= TIGHT
    assert relative_error(found, taylor) <= TIGHT


def test_proposition_2_integrated_gradients_on_the_ray_is_taylor_near_zero(x: Tensor) -> None:
    model = rectifier_net()

    def f(v: Tensor) -> Tensor:
        return score(model(v))

    times = torch.linspace(NEARLY_ZERO, 1, 50, dtype=x.dtype)
    heights = torch.stack([x * gradient_at(f, t * x) for t in times])
    integrated = torch.trapezoid(heights, times, dim=0)
    taylor = first_order_taylor(f, x, NEARLY_ZERO * x)
    assert relative_error(integrated, taylor) <= TIGHT
    found = hw.explain(model, x, target=score, method="gradient_x_input").relevance * (1 - NEARLY_ZERO)
    assert relative_error(found, taylor) <= TIGHT


def test_proposition_3_lrp_0_is_taylor_near_zero(x: Tensor) -> None:
    model = rectifier_net()
    taylor = first_order_taylor(lambda v: score(model(v)), x, NEARLY_ZERO * x)
    e = hw.explain(model, x, target=score, composite=ZERO, ledger=True)
    assert_balanced(e)
    assert relative_error(e.relevance * (1 - NEARLY_ZERO), taylor) <= TIGHT


def deep_taylor_step(linear: nn.Linear, a: Tensor, relevance: Tensor, gamma: float) -> Tensor:
    """One step of deep Taylor decomposition of the relevance models R_k(a) = rho(w_k a) c_k with c_k constant.

    The root point is the nearest one on the line a - t a (1 + gamma 1[w_k >= 0]) (Proposition 4), found by solving for
    the t at which the pre-activation reaches zero; messages are first-order Taylor terms there, summed over k (Eq. 4).
    """
    received = torch.zeros_like(a)
    for n in range(len(a)):
        for k, w in enumerate(linear.weight.detach()):
            output = torch.relu(w @ a[n])
            if output == 0:
                continue
            c = relevance[n, k] / output
            direction = a[n] * (1 + gamma * (w >= 0))
            low, high = 0.0, 1.0
            while w @ (a[n] - high * direction) > 0:
                high *= 2
            for _ in range(200):
                t = (low + high) / 2
                low, high = (t, high) if w @ (a[n] - t * direction) > 0 else (low, t)
            root = a[n] - low * direction
            gradient = gradient_at(lambda v, w=w: torch.relu(w @ v), root)
            received[n] += c * gradient * (a[n] - root)
    return received


@pytest.mark.parametrize("gamma", [0.0, 0.25, 2.0])
def test_proposition_4_lrp_gamma_is_deep_taylor_from_the_nearest_root_on_a_line(gamma: float, x: Tensor) -> None:
    model, a = rectifier_net(), x.abs()
    activations = [a]
    for module in model:
        activations.append(module(activations[-1]).detach())
    output = activations[-1]
    relevance = output * torch.autograd.functional.jacobian(lambda v: score(v).sum(), output)
    for i in (4, 2, 0):
        relevance = deep_taylor_step(model[i], activations[i], relevance, gamma)
    e = hw.explain(model, a, target=score, composite=hw.Composite({"default": hw.rules.Gamma(gamma)}), ledger=True)
    assert_balanced(e)
    assert relative_error(e.relevance, relevance) <= TIGHT
    assert relative_error(e.relevance.sum(1), e.output) <= TIGHT
