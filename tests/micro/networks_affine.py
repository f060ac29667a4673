"""Affine operators in every spelling, without biases, and weights that are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from tests.micro.construct import Case, Table, conv, ids, linear, net, w, x

NETWORKS = Table()
homogeneous, other = NETWORKS.homogeneous, NETWORKS.other


def spelled(multiply: Callable[[Tensor, Tensor], Tensor]) -> Case:
    """A weight of shape ``[6, 5]`` applied to ``[3, 5]`` by a spelling, rectified, then a linear layer."""
    return net(lambda m, v: m.b(torch.relu(multiply(m.a, v))), x(3, 5), a=w(6, 5), b=linear(6, 4))


@homogeneous
def linear_module() -> Case:
    return Case(nn.Sequential(linear(5, 9), nn.ReLU(), linear(9, 4)).double(), x(3, 5))


@homogeneous
def linear_function() -> Case:
    return spelled(lambda a, v: F.linear(v, a))


@homogeneous
def at_operator() -> Case:
    return spelled(lambda a, v: v @ a.T)


@homogeneous
def at_operator_from_the_left() -> Case:
    return spelled(lambda a, v: (a @ v.T).T)


@homogeneous
def matmul() -> Case:
    return spelled(lambda a, v: torch.matmul(v, a.t()))


@homogeneous
def mm() -> Case:
    return spelled(lambda a, v: v.mm(a.transpose(0, 1)))


@homogeneous
def bmm_with_weights() -> Case:
    return spelled(lambda a, v: torch.bmm(v.unsqueeze(1), a.T.expand(len(v), 5, 6)).squeeze(1))


@homogeneous
def einsum() -> Case:
    return spelled(lambda a, v: torch.einsum("nj,kj->nk", v, a))


@homogeneous
def einsum_weight_first() -> Case:
    return spelled(lambda a, v: torch.einsum("kj,nj->nk", a, v))


@homogeneous
def tensordot() -> Case:
    return spelled(lambda a, v: torch.tensordot(v, a, dims=([1], [1])))


@homogeneous
def addmm_without_bias() -> Case:
    return spelled(lambda a, v: torch.addmm(v.new_zeros(6), v, a.T))


@homogeneous
def product_and_sum() -> Case:
    return spelled(lambda a, v: (v.unsqueeze(1) * a).sum(-1))


@homogeneous
def matrix_vector_per_sample() -> Case:
    return spelled(lambda a, v: torch.stack([torch.mv(a, sample) for sample in v]))


@homogeneous
def multiplied_by_a_parameter() -> Case:
    return net(lambda m, v: m.b((v * m.a).relu()), x(3, 5), a=w(5), b=linear(5, 4))


@homogeneous
def multiplied_by_a_parameter_in_place() -> Case:
    return net(lambda m, v: m.b(v.clone().mul_(m.a)), x(3, 5), a=w(5), b=linear(5, 4))


@homogeneous
def three_dimensional_linear() -> Case:
    return net(lambda m, v: m.b(m.a(v).relu()).flatten(1), x(3, 2, 5), a=linear(5, 6), b=linear(6, 4))


@homogeneous
def conv1d() -> Case:
    return net(
        lambda m, v: m.b(m.a(v).relu()).flatten(1), x(3, 2, 9),
        a=nn.Conv1d(2, 4, 3, padding=1, bias=False), b=nn.Conv1d(4, 3, 3, stride=2, bias=False),
    )  # fmt: skip


@homogeneous
def conv2d() -> Case:
    return net(
        lambda m, v: m.b(m.a(v).relu()).flatten(1), x(3, 2, 6, 6), a=conv(2, 4, padding=1), b=conv(4, 3, stride=2)
    )


@homogeneous
def conv2d_function() -> Case:
    return net(lambda m, v: F.conv2d(v, m.a, padding=1, groups=2).relu().flatten(1), x(3, 2, 5, 5), a=w(4, 1, 3, 3))


@homogeneous
def conv2d_same_padding() -> Case:
    return net(lambda m, v: m.a(v).relu().flatten(1), x(3, 2, 5, 5), a=conv(2, 4, padding="same"))


@homogeneous
def conv2d_reflected() -> Case:
    return net(lambda m, v: m.a(v).relu().flatten(1), x(3, 2, 5, 5), a=conv(2, 4, padding=1, padding_mode="reflect"))


@homogeneous
def conv2d_depthwise_separable() -> Case:
    return net(lambda m, v: m.b(m.a(v)).relu().flatten(1), x(3, 4, 5, 5), a=conv(4, 4, groups=4), b=conv(4, 3, 1))


@homogeneous
def conv2d_by_unfolding() -> Case:
    return net(lambda m, v: (m.a @ F.unfold(v, 3)).relu().flatten(1), x(3, 2, 5, 5), a=w(4, 18))


@homogeneous
def conv3d() -> Case:
    return net(lambda m, v: m.a(v).relu().flatten(1), x(2, 1, 4, 4, 4), a=nn.Conv3d(1, 2, 3, padding=1, bias=False))


@homogeneous
def transposed_conv1d() -> Case:
    return net(lambda m, v: m.a(v).relu().flatten(1), x(3, 2, 5), a=nn.ConvTranspose1d(2, 3, 3, stride=2, bias=False))


@homogeneous
def transposed_conv2d() -> Case:
    return net(lambda m, v: m.a(v).relu().flatten(1), x(3, 2, 4, 4), a=nn.ConvTranspose2d(2, 3, 3, 2, 1, 1, bias=False))


@homogeneous
def transposed_conv3d() -> Case:
    return net(lambda m, v: m.a(v).relu().flatten(1), x(2, 2, 3, 3, 3), a=nn.ConvTranspose3d(2, 2, 2, 2, bias=False))


@homogeneous
def batch_norm_of_zero_mean() -> Case:
    return net(lambda m, v: m.n(m.a(v)).relu().flatten(1), x(3, 2, 5, 5), a=conv(2, 4), n=nn.BatchNorm2d(4))


@other
def batch_norm() -> Case:
    case = batch_norm_of_zero_mean()
    case.model.n.running_mean.normal_()
    case.model.n.running_var.uniform_(0.5, 2.0)
    return case


@other
def batch_norm_before_relu_and_conv() -> Case:
    n = nn.BatchNorm2d(2)
    n.running_mean.normal_()
    return net(lambda m, v: m.a(m.n(v).relu()).flatten(1), x(3, 2, 5, 5), a=conv(2, 4), n=n)


@other
def batch_norm_after_linear_on_sequences() -> Case:
    n = nn.BatchNorm1d(4)
    n.running_mean.normal_()
    return net(lambda m, v: m.n(m.a(v)).relu().flatten(1), x(3, 4, 5), a=linear(5, 6), n=n)


@other
def biased_linear() -> Case:
    return net(lambda m, v: m.b(m.a(v).relu()), x(3, 5), a=nn.Linear(5, 6), b=nn.Linear(6, 4))


@other
def parameter_added() -> Case:
    return net(lambda m, v: m.b((m.a(v) + m.shift).relu()), x(3, 5), a=linear(5, 6), b=linear(6, 4), shift=w(6))


@homogeneous
def embedding_module() -> Case:
    return net(lambda m, v: m.b(m.a(v).relu().mean(1)), ids(3, 5), a=nn.Embedding(11, 6), b=linear(6, 4))


@homogeneous
def embedding_function() -> Case:
    return net(lambda m, v: m.b(F.embedding(v, m.a).relu().sum(1)), ids(3, 5), a=w(11, 6), b=linear(6, 4))


@homogeneous
def embedding_with_padding() -> Case:
    return net(lambda m, v: m.b(m.a(v).amax(1)), ids(3, 5), a=nn.Embedding(11, 6, padding_idx=2), b=linear(6, 4))


@other
def embedding_with_positions() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        return m.b((m.a(v) + m.p(torch.arange(5))).relu().mean(1))

    return net(body, ids(3, 5), a=nn.Embedding(11, 6), p=nn.Embedding(5, 6), b=linear(6, 4))


@homogeneous
def embedding_bag_sum() -> Case:
    return net(lambda m, v: m.b(m.a(v).relu()), ids(3, 5), a=nn.EmbeddingBag(11, 6, mode="sum"), b=linear(6, 4))


@homogeneous
def embedding_bag_mean() -> Case:
    return net(lambda m, v: m.b(m.a(v).relu()), ids(3, 5), a=nn.EmbeddingBag(11, 6, mode="mean"), b=linear(6, 4))


@homogeneous
def weight_norm() -> Case:
    return net(lambda m, v: m.b(m.a(v).relu()), x(3, 5), a=parametrizations.weight_norm(linear(5, 6)), b=linear(6, 4))


@homogeneous
def weight_norm_by_hooks() -> Case:
    return net(lambda m, v: m.b(m.a(v).relu()), x(3, 5), a=nn.utils.weight_norm(linear(5, 6)), b=linear(6, 4))


@homogeneous
def spectral_norm() -> Case:
    return net(lambda m, v: m.b(m.a(v).relu()), x(3, 5), a=parametrizations.spectral_norm(linear(5, 6)), b=linear(6, 4))


@homogeneous
def orthogonal_weight() -> Case:
    return net(lambda m, v: m.b(m.a(v).relu()), x(3, 5), a=parametrizations.orthogonal(linear(5, 5)), b=linear(5, 4))


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


@homogeneous
def own_parametrization() -> Case:
    a = linear(5, 5)
    parametrize.register_parametrization(a, "weight", Symmetric())
    return net(lambda m, v: m.b(m.a(v).relu()), x(3, 5), a=a, b=linear(5, 4))


@homogeneous
def standardized_weight() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        weight = (m.a - m.a.mean((1, 2, 3), keepdim=True)) / m.a.std((1, 2, 3), keepdim=True)
        return F.conv2d(v, weight).relu().flatten(1)

    return net(body, x(3, 2, 5, 5), a=w(4, 2, 3, 3))


@homogeneous
def tied_weights() -> Case:
    return net(lambda m, v: F.linear(F.linear(v, m.a).relu(), m.a.T), x(3, 5), a=w(6, 5))


@homogeneous
def masked_weights() -> Case:
    return net(lambda m, v: F.linear(v, m.a * torch.ones(6, 5).double().tril()).relu(), x(3, 5), a=w(6, 5))


@homogeneous
def low_rank_update() -> Case:
    return net(lambda m, v: F.linear(v, m.a + m.p @ m.q).relu(), x(3, 5), a=w(6, 5), p=w(6, 2), q=w(2, 5))
