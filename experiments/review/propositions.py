"""Section V: propositions 1 to 4, checked on random rectifier networks without biases; Sections III-C, III-D."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import headwater as hw
from experiments.reproduction import Reproduction

WIDTHS = (12, 16, 16, 8, 1)
GAMMA = 0.25
STEPS = (5, 20, 80, 320)  # of integrated gradients


def network(rectified_output: bool = True) -> nn.Module:
    """``f(x) = ρ(W_L ρ(... ρ(W_1 x)))`` in float64, without biases, whose output is positive on enough inputs."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(WIDTHS):
        linear = nn.Linear(inputs, outputs, bias=False, dtype=torch.float64)
        nn.init.kaiming_normal_(linear.weight)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[: None if rectified_output else -1], nn.Flatten(0)).requires_grad_(False)


def inputs(model: nn.Module, count: int) -> Tensor:
    """``count`` inputs with a positive output, ``[count, 12]``."""
    x = torch.randn(200 * count, WIDTHS[0], dtype=torch.float64)
    return x[model(x) > 0][:count]


def gap(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in parts of the largest magnitude."""
    return float((found - expected).abs().max() / expected.abs().max())


def gradient_at(model: nn.Module, x: Tensor) -> Tensor:
    """By autograd alone, ``[N, D]``."""
    leaf = x.detach().clone().requires_grad_()
    return torch.autograd.grad(model(leaf).sum(), leaf)[0]


def occlusion_is_taylor(count: int) -> float:
    """Proposition 1: occlusion of single features by zero against Taylor at zero, on linear models."""
    model = nn.Sequential(nn.Linear(12, 1, bias=False, dtype=torch.float64), nn.Flatten(0)).requires_grad_(False)
    x = torch.randn(count, 12, dtype=torch.float64)
    occlusion = hw.explain(model, x, method="occlusion", window=1, stride=1, imputer="zero")
    return gap(occlusion.relevance, gradient_at(model, torch.zeros_like(x)) * x)


def integrated_is_taylor(count: int) -> float:
    """Proposition 2: integrated gradients from zero against Taylor at ``1e-6 x``."""
    return _against_taylor(count, lambda model, x: hw.explain(model, x, method="integrated_gradients").relevance)


def lrp_zero_is_taylor(count: int) -> float:
    """Proposition 3: LRP-0 against Taylor at ``1e-6 x``."""
    return _against_taylor(
        count, lambda model, x: hw.explain(model, x, composite=hw.Composite({"default": hw.rules.Zero()})).relevance
    )


def _against_taylor(count: int, explain: Callable[[nn.Module, Tensor], Tensor], epsilon: float = 1e-6) -> float:
    model = network()
    x = inputs(model, count)
    return gap(explain(model, x), (gradient_at(model, epsilon * x) * (x - epsilon * x)) / (1 - epsilon))


def lrp_gamma_is_deep_taylor(count: int) -> float:
    """Proposition 4: LRP-γ against Taylor steps at the root found by bisection on each neuron's own line.

    The relevance model of neuron k is ``a_k(a) c_k``; its root lies at ``a - t a ⊙ (1 + γ 1[w_k >= 0])`` for the
    smallest positive t at which the neuron falls silent.
    """
    model = network()
    x = inputs(model, count)
    found = hw.explain(model, x, composite=hw.Composite({"default": hw.rules.Gamma(GAMMA)})).relevance
    weights = [layer.weight for layer in model.children() if isinstance(layer, nn.Linear)]
    expected = torch.stack([_deep_taylor(weights, sample) for sample in x])
    return gap(found, expected)


def _deep_taylor(weights: list[Tensor], x: Tensor) -> Tensor:
    activations = [x]
    for weight in weights:
        activations.append((weight @ activations[-1]).clamp(min=0))
    relevance = activations[-1]
    for weight, a in zip(weights[::-1], activations[-2::-1], strict=True):
        rows = [_messages(w, a, float(r)) for w, r in zip(weight, relevance, strict=True) if r != 0]
        relevance = torch.stack(rows).sum(0)
    return relevance


def _messages(weight: Tensor, a: Tensor, relevance: float) -> Tensor:
    """First-order terms of one neuron: its gradient times the way to its root, for inputs of any sign.

    With signed inputs the search direction prefers what adds, ``a w > 0``, as the rule does.
    """
    direction = a * (1 + GAMMA * (a * weight > 0))
    low, high = 0.0, 1.0
    while float(weight @ (a - high * direction)) > 0:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if float(weight @ (a - middle * direction)) > 0 else (low, middle)
    constant = relevance / float(weight @ a)  # c_k of the relevance model
    return weight * constant * high * direction


def completeness(count: int) -> list[float]:
    """What integrated gradients by the paper's sum (left ends) miss of ``f(x) - f(0)``, by the number of steps."""
    model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 1), nn.Flatten(0)).double().requires_grad_(False)
    x = 2 * torch.randn(count, 12, dtype=torch.float64)
    gaps = []
    for steps in STEPS:
        e = hw.explain(model, x, method="integrated_gradients", steps=steps, rule="left")
        lost = (e.relevance.sum(1) - (model(x) - model(torch.zeros_like(x)))).abs()
        gaps.append(float(lost.mean() / model(x).abs().mean()))
    return gaps


def conservation(count: int) -> tuple[float, float]:
    """The largest loss of relevance by LRP-γ in parts of the output: without biases, and with them."""
    losses = []
    for biased in (False, True):
        model = network(rectified_output=False)
        if biased:
            model = nn.Sequential(*(_with_bias(layer) for layer in model.children())).requires_grad_(False)
        x = torch.randn(20 * count, WIDTHS[0], dtype=torch.float64)
        x = x[model(x) > 0.3][:count]
        e = hw.explain(model, x, composite=hw.Composite({"default": hw.rules.Gamma(GAMMA)}))
        losses.append(float(((e.output - e.relevance.sum(1)) / e.output).abs().max()))
    return losses[0], losses[1]


def _with_bias(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Linear):
        return layer
    biased = nn.Linear(layer.in_features, layer.out_features, dtype=torch.float64)
    biased.weight = layer.weight
    return biased


CHECKS: dict[str, tuple[Callable[[int], float], str, str]] = {
    "proposition 1": (
        occlusion_is_taylor, "Section V-C",
        "On linear models, occlusion of single features by zero is the Taylor decomposition at zero.",
    ),
    "proposition 2": (
        integrated_is_taylor, "Section V-C",
        "On rectifier networks without biases, integrated gradients from zero are the Taylor decomposition near zero.",
    ),
    "proposition 3": (
        lrp_zero_is_taylor, "Section V-C",
        "On rectifier networks without biases, LRP-0 is the Taylor decomposition near zero.",
    ),
    "proposition 4": (
        lrp_gamma_is_deep_taylor, "Section V-C",
        "LRP-γ is one step of deep Taylor decomposition a layer, at the nearest root on a line that prefers what adds.",
    ),
}  # fmt: skip


def study(count: int) -> dict[str, Any]:
    """All checks on ``count`` inputs each."""
    gaps = {name: check(count) for name, (check, _, _) in CHECKS.items()}
    return {"gaps": gaps, "completeness": completeness(count), "conservation": list(conservation(count))}


def reproduce(run: Reproduction) -> None:
    """The rows of the four propositions, of completeness and of conservation."""
    count = run.pick(quick=8, full=100)
    found = run.step("propositions", lambda: study(count))
    for name, (_, source, text) in CHECKS.items():
        run.claim(
            name, source=source, text=text, paper="proved",
            ours=f"largest relative difference {found['gaps'][name]:.1e}",
            verdict="reproduced" if found["gaps"][name] < 1e-8 else "not reproduced",
            why=f"{count} inputs, float64",
        )  # fmt: skip
    gaps = found["completeness"]
    run.claim(
        "integrated gradients are complete", source="Section III-C, Algorithm 1",
        text="Scores sum to the output; the more steps, the closer the sum of Algorithm 1 comes to the integral.",
        paper="equality in the limit",
        ours=", ".join(f"{steps} steps {gap:.1%}" for steps, gap in zip(STEPS, gaps, strict=True)) + " missing",
        verdict="reproduced" if gaps == sorted(gaps, reverse=True) and gaps[-1] < 0.02 else "not reproduced",
        why="a network of tanh units; the sum is f(x) - f(0), which is f(x) where the baseline is a root",
    )  # fmt: skip
    without, with_biases = found["conservation"]
    run.claim(
        "LRP conserves", source="Section III-D, Eq. 2",
        text="In absence of biases relevance is conserved from layer to layer.",
        paper="equality", ours=f"lost without biases {without:.1e}, with biases up to {with_biases:.1%} of the output",
        verdict="reproduced" if without < 1e-10 else "not reproduced",
    )  # fmt: skip
