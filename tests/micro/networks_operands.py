"""Functions of several operands that are no plain product, losses, matrices, and custom autograd Functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.micro.construct import Case, Table, between, file_functions, ids, linear, net, on_map, w, x

NETWORKS = Table()
homogeneous, other = NETWORKS.homogeneous, NETWORKS.other


def of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Case:
    """A function of two live tensors ``[3, 4]`` between linear layers."""
    return net(lambda m, v: m.c(function(m.a(v), m.b(v))), x(3, 5), a=linear(5, 4), b=linear(5, 4), c=linear(4, 3))


def of_matrices(function: Callable[[Tensor, Tensor], Tensor]) -> Case:
    """A function of well-conditioned matrices ``[3, 4, 4]`` and of columns ``[3, 4, 2]``, both live."""

    def body(m: Any, v: Tensor) -> Tensor:
        return function(m.a(v).unflatten(1, (4, 4)) + 5 * torch.eye(4, dtype=v.dtype), m.b(v).unflatten(1, (4, 2)))

    return net(lambda m, v: body(m, v).flatten(1), x(3, 5), a=linear(5, 16), b=linear(5, 8))


file_functions(
    homogeneous,
    {
        "copysign": lambda a, b: torch.copysign(a, b),
        "hypot": torch.hypot,
        "fmod_of_two": torch.fmod,
        "remainder_of_two": torch.remainder,
        "clamp_between_live_bounds": lambda a, b: torch.clamp(a, min=-b.abs(), max=2 * b.abs()),
        "clamp_max_at_a_live_bound": lambda a, b: a.clamp_max(b),
    },
    of_two,
)
file_functions(
    other,
    {
        "atan2": torch.atan2,
        "power_with_a_live_exponent": lambda a, b: (a.abs() + 0.1) ** b,
        "xlogy": lambda a, b: torch.xlogy(a, b.abs() + 1),
        "logaddexp": torch.logaddexp,
        "mantissa": lambda a, b: torch.frexp(a).mantissa + b,
        "ldexp": lambda a, b: torch.ldexp(a, torch.tensor(2)) * b,
        "cumulative_product": lambda a, b: a.cumprod(1) + b,
        "cumulative_logsumexp": lambda a, b: a.logcumsumexp(1) * b,
        "clamp_between_a_live_and_a_constant_bound": lambda a, b: torch.clamp(a, min=b, max=torch.ones(4).double()),
        "cross_product": lambda a, b: torch.linalg.cross(a[:, :3], b[:, 1:])[:, [0, 1, 2, 0]],
        "renormed": lambda a, b: a.renorm(2, 0, 0.5) + b,
        "squared_error": lambda a, b: F.mse_loss(a, b, reduction="none"),
        "cross_entropy": lambda a, b: F.cross_entropy(a, a.argmax(1), reduction="none")[:, None] * b,
    },
    of_two,
)
file_functions(
    other,
    {
        "linear_system": torch.linalg.solve,
        "inverse_matrix": lambda a, b: torch.linalg.inv(a) @ b,
        "triangular_system": lambda a, b: torch.linalg.solve_triangular(a, b, upper=True),
        "determinant": lambda a, b: torch.linalg.det(a)[:, None, None] * b,
        "cholesky": lambda a, b: torch.linalg.cholesky(a @ a.mT) @ b,
    },
    of_matrices,
)


@homogeneous
def singular_values() -> Case:
    return on_map(lambda v: torch.linalg.svdvals(v))


@homogeneous
def sampled_at_constant_places() -> Case:
    places = torch.rand(1, 3, 3, 2, dtype=torch.float64) * 2 - 1
    return on_map(lambda v: F.grid_sample(v, places.expand(len(v), -1, -1, -1), align_corners=False))


@other
def sampled_at_live_places() -> Case:
    return on_map(lambda v: F.grid_sample(v, torch.tanh(v[:, :2].permute(0, 2, 3, 1)), align_corners=False))


@other
def spatial_transformer() -> Case:
    def body(v: Tensor) -> Tensor:
        return F.grid_sample(v, F.affine_grid(v[:, 0, :2, :3].tanh(), list(v.shape), False), align_corners=False)

    return on_map(body)


@other
def bilinear_with_bias() -> Case:
    return net(lambda m, v: m.f(m.a(v), m.b(v)), x(3, 5), a=linear(5, 4), b=linear(5, 4), f=nn.Bilinear(4, 4, 3))


@other
def masked_exponential() -> Case:
    mask = torch.tensor([True, False, True, True])
    return between(lambda v: v[:, :4].masked_fill(~mask, -torch.inf).exp().sum(1, keepdim=True).expand(-1, 6))


class Rectified(torch.autograd.Function):
    """A ReLU whose author chose another gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 100 * gradient


class Separate(torch.autograd.Function):
    """A scaled sum with a setup of its own, of two results."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + 2 * b, b.tanh()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], gradients[1]


@other
def custom_function() -> Case:
    return between(lambda v: Rectified.apply(v))


@other
def custom_function_of_two_results() -> Case:
    return of_two(lambda a, b: torch.add(*Separate.apply(a, b)))


@homogeneous
def embedding_of_hashed_ids() -> Case:
    table = w(7, 6)
    return net(lambda m, i: m.b(F.embedding((i * 3 + 1) % 7, m.t).mean(1)), ids(3, 4), t=table, b=linear(6, 4))


@other
def channel_gates_seen_as_maps() -> Case:
    def body(v: Tensor) -> Tensor:
        return v * v.mean((2, 3)).sigmoid().view(*v.shape[:2], 1, 1).expand_as(v)

    return on_map(body)
