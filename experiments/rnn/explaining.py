"""The thesis's four explanations of the true class, and those that its methods leave to modern cells."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

import headwater as hw
from experiments.rnn.data import HIGH, LOW
from experiments.rnn.layers import Gates

BATCH = 100
BOUNDS = (LOW, HIGH)
ALPHA, BETA = 1.5, 0.5
Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]


def sensitivity(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Squared gradient (Eq. 3.26)."""
    return asked(model, x, y, method="sensitivity", squared=True)


def guided_backprop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Squared guided gradient (Eq. 3.30); sigmoid gates pass none (Section 4.4.2)."""
    gates = [module for module in model.modules() if isinstance(module, Gates)]
    for module in gates:
        module.constant = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", hw.HeadwaterWarning)  # that relevance ends at the gates, as it is to
            return asked(model, x, y, method="guided_backprop").square()
    finally:
        for module in gates:
            module.constant = False


def deep_taylor(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """z⁺, and z^B on pixels, with which recurrent activations may share a denominator (Table 3.1)."""
    return asked(model, x, y, method="deep_taylor", bounds=BOUNDS)


def alpha_beta(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """LRP-α1.5β0.5 without biases (Eq. 3.34), z^B on pixels."""
    rules = {"input": hw.rules.Box(), "default": hw.rules.AlphaBeta(ALPHA, BETA, bias=False)}
    return asked(model, x, y, method="lrp", composite=hw.Composite(rules), bounds=BOUNDS)


def simple_taylor(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient times input (Eq. 3.40)."""
    return asked(model, x, y, method="gradient_x_input")


def lrp_epsilon(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """LRP-ε; the signal of a gate takes all, attention by AttnLRP."""
    return asked(model, x, y, method="lrp", composite="epsilon")


def lrp_gamma(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """LRP-γ with z^B on pixels; the signal of a gate takes all, attention by AttnLRP."""
    rules = {"input": hw.rules.Box(), "default": hw.rules.Gamma(0.25)}
    return asked(model, x, y, method="lrp", composite=hw.Composite(rules), bounds=BOUNDS)


METHODS: dict[str, Explain] = {
    "SA": sensitivity,
    "GB": guided_backprop,
    "DTD": deep_taylor,
    "LRP-α1.5β0.5": alpha_beta,
}
MODERN_METHODS: dict[str, Explain] = {
    "SA": sensitivity,
    "Gradient × input": simple_taylor,
    "LRP-ε": lrp_epsilon,
    "LRP-γ": lrp_gamma,
}


def asked(model: nn.Module, x: Tensor, y: Tensor, **how: object) -> Tensor:
    """Relevance of the true class ``y``, shaped like ``x``."""
    explanation = hw.explain(model, x, target=y, batch_size=BATCH, **how)  # type: ignore[arg-type]
    assert isinstance(explanation.relevance, torch.Tensor)
    return explanation.relevance
