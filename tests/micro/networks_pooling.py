"""Pooling and normalization in every form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.micro.construct import Case, Table, between, conv, linear, net, on_map, up, w, x

NETWORKS = Table()
homogeneous, other = NETWORKS.homogeneous, NETWORKS.other


def on_series(body: nn.Module) -> Case:
    """Pooling of ``[3, 3, 8]`` after a convolution."""
    return net(lambda m, v: m.f(m.a(v)).flatten(1), x(3, 2, 8), a=nn.Conv1d(2, 3, 3, padding=1, bias=False), f=body)


def on_volume(body: nn.Module) -> Case:
    """Pooling of ``[2, 2, 4, 4, 4]`` after a convolution."""
    a = nn.Conv3d(1, 2, 3, padding=1, bias=False)
    return net(lambda m, v: m.f(m.a(v)).flatten(1), x(2, 1, 4, 4, 4), a=a, f=body)


# Pooling ----------------------------------------------------------------------------------------------------


@homogeneous
def max_pool1d() -> Case:
    return on_series(nn.MaxPool1d(2))


@homogeneous
def max_pool2d() -> Case:
    return on_map(nn.MaxPool2d(3, stride=2, padding=1))


@homogeneous
def max_pool2d_function() -> Case:
    return on_map(lambda v: F.max_pool2d(v, 2, ceil_mode=True))


@homogeneous
def max_pool3d() -> Case:
    return on_volume(nn.MaxPool3d(2))


@homogeneous
def max_pool_and_unpool() -> Case:
    return on_map(lambda v: F.max_unpool2d(*F.max_pool2d(v.relu(), 2, return_indices=True), 2))


@homogeneous
def adaptive_max_pool1d() -> Case:
    return on_series(nn.AdaptiveMaxPool1d(3))


@homogeneous
def adaptive_max_pool2d() -> Case:
    return on_map(nn.AdaptiveMaxPool2d((2, 3)))


@homogeneous
def avg_pool1d() -> Case:
    return on_series(nn.AvgPool1d(3, stride=2, padding=1))


@homogeneous
def avg_pool2d() -> Case:
    return on_map(nn.AvgPool2d(2))


@homogeneous
def avg_pool2d_padded() -> Case:
    return on_map(lambda v: F.avg_pool2d(v, 3, 2, 1, count_include_pad=False))


@homogeneous
def avg_pool3d() -> Case:
    return on_volume(nn.AvgPool3d(2))


@homogeneous
def adaptive_avg_pool1d() -> Case:
    return on_series(nn.AdaptiveAvgPool1d(3))


@homogeneous
def adaptive_avg_pool2d() -> Case:
    return on_map(nn.AdaptiveAvgPool2d(4))


@homogeneous
def adaptive_avg_pool3d() -> Case:
    return on_volume(nn.AdaptiveAvgPool3d(1))


@homogeneous
def global_average() -> Case:
    return on_map(lambda v: v.mean((2, 3)))


@homogeneous
def global_maximum() -> Case:
    return on_map(lambda v: v.amax((2, 3)))


@homogeneous
def maximum_over_a_dimension() -> Case:
    return on_map(lambda v: v.max(dim=1).values)


@homogeneous
def minimum_over_a_dimension() -> Case:
    return on_map(lambda v: torch.min(v, dim=2)[0])


@homogeneous
def lp_pool1d() -> Case:
    return on_series(nn.LPPool1d(2, 2))


@homogeneous
def lp_pool2d() -> Case:
    return on_map(lambda v: F.lp_pool2d(v.abs(), 3, 2))


@homogeneous
def fractional_max_pool2d() -> Case:
    samples = torch.rand(3, 4, 2, dtype=torch.float64)
    return on_map(lambda v: F.fractional_max_pool2d(v, 2, output_size=3, _random_samples=samples[: len(v)]))


@other
def log_sum_exp_pool() -> Case:
    return on_map(lambda v: torch.logsumexp(v, dim=(2, 3)))


@other
def log_mean_exp_pool_sharp() -> Case:
    return on_map(lambda v: torch.logsumexp(5.0 * v.flatten(2), dim=2) / 5.0)


@other
def log_sum_exp_written_out() -> Case:
    return on_map(lambda v: v.exp().sum((2, 3)).log())


@other
def soft_max_pool() -> Case:
    return on_map(lambda v: (v.flatten(2).softmax(2) * v.flatten(2)).sum(2))


@homogeneous
def norm_pool() -> Case:
    return on_map(lambda v: v.norm(dim=1))


@homogeneous
def linalg_norm_pool() -> Case:
    return on_map(lambda v: torch.linalg.vector_norm(v, dim=(2, 3)))


@homogeneous
def standard_deviation_pool() -> Case:
    return on_map(lambda v: v.std((2, 3)))


@homogeneous
def root_mean_square_pool() -> Case:
    return on_map(lambda v: v.square().mean((2, 3)).sqrt())


@other
def variance_pool() -> Case:
    return on_map(lambda v: v.var((2, 3)))


# Normalization ----------------------------------------------------------------------------------------------


@other
def layer_norm() -> Case:
    return between(nn.LayerNorm(6, dtype=torch.float64))


@other
def layer_norm_drawn() -> Case:
    return net(
        lambda m, v: m.b(F.layer_norm(m.a(v), (6,), m.g, m.s)), x(3, 5), a=linear(5, 6), b=linear(6, 4), g=w(6), s=w(6)
    )


@other
def layer_norm_written_out() -> Case:
    def body(v: Tensor) -> Tensor:
        centred = v - v.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    return between(body)


@other
def layer_norm_by_var() -> Case:
    return between(
        lambda v: (v - v.mean(-1, keepdim=True)) / torch.sqrt(v.var(-1, keepdim=True, unbiased=False) + 1e-5)
    )


@other
def standardized() -> Case:
    return between(lambda v: (v - v.mean(1, keepdim=True)) / (v.std(1, keepdim=True) + 1e-6))


@other
def rms_norm() -> Case:
    return between(nn.RMSNorm(6, dtype=torch.float64))


@other
def rms_norm_written_out() -> Case:
    return between(lambda v: v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + 1e-6))


@other
def group_norm() -> Case:
    return on_map(nn.GroupNorm(2, 4, dtype=torch.float64))


@other
def instance_norm1d() -> Case:
    return on_series(nn.InstanceNorm1d(3, affine=True, dtype=torch.float64))


@other
def instance_norm2d() -> Case:
    return on_map(nn.InstanceNorm2d(4))


@other
def instance_norm_with_running_statistics() -> Case:
    norm = nn.InstanceNorm2d(4, track_running_stats=True, dtype=torch.float64).eval()
    norm.running_mean.normal_()
    return net(lambda m, v: m.n(m.a(v)).flatten(1), x(3, 2, 5, 5), a=conv(2, 4), n=norm)


@other
def local_response_norm() -> Case:
    return on_map(nn.LocalResponseNorm(3))


@other
def unit_length() -> Case:
    return between(lambda v: F.normalize(v, dim=-1))


@other
def unit_length_written_out() -> Case:
    return between(lambda v: v / v.norm(dim=-1, keepdim=True))


@other
def divided_by_its_sum() -> Case:
    return net(lambda m, v: m.b(v / v.sum(1, keepdim=True)), up(3, 5), b=linear(5, 4))


@other
def divided_by_its_maximum() -> Case:
    return between(lambda v: v / v.abs().amax(1, keepdim=True))


@other
def cosine_to_prototypes() -> Case:
    return net(lambda m, v: F.cosine_similarity(m.a(v).unsqueeze(1), m.p, dim=-1), x(3, 5), a=linear(5, 6), p=w(4, 6))


@other
def cosine_classifier() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        return F.linear(F.normalize(m.a(v)), F.normalize(m.p))

    return net(body, x(3, 5), a=linear(5, 6), p=w(4, 6))


@other
def softmax_output() -> Case:
    return net(lambda m, v: m.a(v).softmax(-1), x(3, 5), a=linear(5, 4))


@other
def log_softmax_output() -> Case:
    return net(lambda m, v: F.log_softmax(m.a(v), -1), x(3, 5), a=linear(5, 4))


@other
def softmax_written_out() -> Case:
    def body(v: Tensor) -> Tensor:
        shifted = (v - v.amax(1, keepdim=True)).exp()
        return shifted / shifted.sum(1, keepdim=True)

    return between(body)


@other
def softmin() -> Case:
    return between(nn.Softmin(1))
