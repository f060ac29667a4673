"""Activations, fused and written out, and elementwise functions."""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.micro.construct import Case, Table, between, file_functions, linear, net, up, w, x

NETWORKS = Table()
homogeneous, other = NETWORKS.homogeneous, NETWORKS.other


def of_positive(body: Callable[[Tensor], Tensor]) -> Case:
    """A function of a positive map of the input."""
    return net(lambda m, v: m.b(body(F.linear(v, m.a.exp()))), up(3, 5), a=w(6, 5), b=linear(6, 4))


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu_module": nn.ReLU(),
    "relu_module_in_place": nn.ReLU(inplace=True),
    "relu_function": F.relu,
    "relu_function_in_place": lambda v: F.relu(v, inplace=True),
    "relu_underscore": torch.relu_,
    "relu_method": lambda v: v.relu(),
    "clamp_at_zero": lambda v: v.clamp(min=0),
    "clamp_underscore_at_zero": lambda v: v.clamp_(min=0),
    "clamp_min": lambda v: v.clamp_min(0.0),
    "maximum_with_zero": lambda v: torch.maximum(v, torch.zeros_like(v)),
    "maximum_with_zero_scalar_tensor": lambda v: torch.maximum(v, torch.tensor(0.0, dtype=v.dtype)),
    "multiplied_by_its_step": lambda v: v * (v > 0),
    "where_positive": lambda v: torch.where(v > 0, v, 0.0),
    "masked_fill_negative": lambda v: v.masked_fill(v < 0, 0.0),
    "assigned_zero_where_negative": lambda v: v.clone().index_put_((v < 0,), torch.zeros((), dtype=v.dtype)),
    "half_of_sum_and_absolute": lambda v: (v + v.abs()) / 2,
    "leaky_relu": nn.LeakyReLU(0.1),
    "leaky_relu_in_place": nn.LeakyReLU(0.1, inplace=True),
    "leaky_relu_written_out": lambda v: torch.where(v > 0, v, 0.1 * v),
    "randomized_relu_evaluated": nn.RReLU().eval(),
    "prelu": nn.PReLU(6).double().eval(),
    "threshold_at_zero": nn.Threshold(0.0, 0.0),
    "absolute": torch.abs,
    "negated": lambda v: -v.relu(),
    "both_halves": lambda v: torch.cat([v.relu(), (-v).relu()], 1)[:, ::2],
    "maxout": lambda v: torch.cat([v, -2 * v], 1).unflatten(1, (6, 2)).amax(2),
    "minimum_of_two": lambda v: torch.minimum(v, 0.3 * v.flip(1)),
    "root_of_the_square": lambda v: v.square().sqrt(),
    "sign_times_itself": lambda v: v.sign() * v,
    "identity_modules": nn.Sequential(nn.Identity(), nn.Dropout(0.5), nn.AlphaDropout(0.5)).eval(),
}

BENT: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "gelu_written_out": lambda v: v * 0.5 * (1.0 + torch.erf(v / 2.0**0.5)),
    "new_gelu": lambda v: 0.5 * v * (1.0 + torch.tanh((2.0 / pi) ** 0.5 * (v + 0.044715 * torch.pow(v, 3.0)))),
    "quick_gelu": lambda v: v * torch.sigmoid(1.702 * v),
    "silu": nn.SiLU(),
    "silu_in_place": nn.SiLU(inplace=True),
    "silu_written_out": lambda v: v * torch.sigmoid(v),
    "silu_as_quotient": lambda v: v / (1 + torch.exp(-v)),
    "mish": nn.Mish(),
    "mish_written_out": lambda v: v * torch.tanh(F.softplus(v)),
    "hardswish": nn.Hardswish(),
    "hardswish_written_out": lambda v: v * F.relu6(v + 3) / 6,
    "relu6": lambda v: F.relu6(20 * v),
    "relu6_clamped": lambda v: (20 * v).clamp(0, 6),
    "hardtanh": nn.Hardtanh(-0.5, 0.4),
    "clamped_away_from_zero": lambda v: v.clamp(0.2, 0.9),
    "tanh": torch.tanh,
    "tanh_in_place": lambda v: v.tanh_(),
    "sigmoid": torch.sigmoid,
    "sigmoid_written_out": lambda v: 1 / (1 + torch.exp(-v)),
    "hard_sigmoid": nn.Hardsigmoid(),
    "log_sigmoid": nn.LogSigmoid(),
    "elu": nn.ELU(),
    "elu_in_place": nn.ELU(inplace=True),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.7),
    "softplus": nn.Softplus(),
    "softplus_written_out": lambda v: torch.log1p(torch.exp(v)),
    "softsign": nn.Softsign(),
    "softshrink": nn.Softshrink(0.2),
    "hardshrink": nn.Hardshrink(0.2),
    "tanhshrink": nn.Tanhshrink(),
    "threshold_above_zero": nn.Threshold(0.3, 0.1),
    "exponential": torch.exp,
    "expm1": torch.expm1,
    "sine": torch.sin,
    "cosine": torch.cos,
    "arctangent": torch.atan,
    "error_function": torch.erf,
    "square": lambda v: v**2,
    "cube": lambda v: torch.pow(v, 3),
    "polynomial": lambda v: v + 0.5 * v * v - 0.1 * v**3,
    "product_with_its_tanh": lambda v: v * torch.tanh(v),
    "snake": lambda v: v + torch.sin(v) ** 2,
}

POSITIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "square_root": torch.sqrt,
    "power_one_half": lambda v: v**0.5,
    "reciprocal_square_root": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "one_over": lambda v: 1 / v,
    "logarithm": torch.log,
    "log1p": torch.log1p,
    "log10_of_the_power": lambda v: 10 * torch.log10(v**2),
    "decibels_clamped": lambda v: torch.log(v.clamp(min=1e-5)),
}


file_functions(homogeneous, RECTIFIERS, between)
file_functions(other, BENT, between)
file_functions(other, POSITIVE, of_positive)


@homogeneous
def power_and_its_root() -> Case:
    return of_positive(lambda v: (v**3).mean(1, keepdim=True).expand(-1, 6) ** (1 / 3))


@other
def geometric_mean() -> Case:
    """Homogeneous as a whole, though neither its logarithm nor its exponential is."""
    return of_positive(lambda v: v.log().mean(1, keepdim=True).exp().expand(-1, 6))


@other
def swiglu() -> Case:
    return net(lambda m, v: m.b(F.silu(m.a(v)) * m.c(v)), x(3, 5), a=linear(5, 6), c=linear(5, 6), b=linear(6, 4))


@other
def swiglu_by_chunks() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        gate, value = m.a(v).chunk(2, -1)
        return m.b(F.silu(gate) * value)

    return net(body, x(3, 5), a=linear(5, 12), b=linear(6, 4))


@other
def geglu() -> Case:
    return net(lambda m, v: m.b(m.c(v) * F.gelu(m.a(v))), x(3, 5), a=linear(5, 6), c=linear(5, 6), b=linear(6, 4))


@other
def glu_module() -> Case:
    return net(lambda m, v: m.b(m.g(m.a(v))), x(3, 5), a=linear(5, 12), g=nn.GLU(), b=linear(6, 4))


@other
def glu_written_out() -> Case:
    return net(
        lambda m, v: m.b(m.c(v) * torch.sigmoid(m.a(v))), x(3, 5), a=linear(5, 6), c=linear(5, 6), b=linear(6, 4)
    )


@other
def bilinear_module() -> Case:
    return net(lambda m, v: m.a(v[:, :3], v[:, 3:]), x(3, 5), a=nn.Bilinear(3, 2, 4, bias=False))


@other
def two_activations_of_one_tensor() -> Case:
    return between(lambda v: v.tanh() + v.sigmoid() + v)


@other
def sigmoid_output() -> Case:
    return net(lambda m, v: torch.sigmoid(m.a(v)), x(3, 5), a=linear(5, 4))
