"""One network in several spellings (modular, functional, in place, written out, folded) has one explanation."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from tests.micro.construct import Net, ids, w, x
from tests.reference.audit import assert_balanced, assert_same, score
from tests.reference.nets import double, folded, norm

Spelling = Callable[[Any, Tensor], Tensor]


def attend(m: Any, v: Tensor, multiply: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """The projections of ``nn.MultiheadAttention`` by hand, around the product of queries, keys and values."""
    a = m.attention
    q, k, value = (
        t.unflatten(-1, (2, 3)).transpose(1, 2) for t in F.linear(v, a.in_proj_weight, a.in_proj_bias).chunk(3, -1)
    )
    return a.out_proj(multiply(q, k, value).transpose(1, 2).flatten(2))


def around(constant: str) -> dict[str, Spelling]:
    """Attention of which one operand does not depend on the input, as where a learnt query pools tokens."""

    def put(multiply: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Spelling:
        def multiplied(m: Any, *operands: Tensor) -> Tensor:
            q, k, value = (m.fixed if name == constant else t for name, t in zip("qkv", operands, strict=True))
            return multiply(q, k, value)

        return lambda m, v: attend(m, v, lambda *operands: multiplied(m, *operands)).mean(1)

    return {"fused": put(F.scaled_dot_product_attention), "written out": put(soft), "einsum": put(soft_by_einsum)}


def soft(q: Tensor, k: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) / sqrt(3), -1) @ value


def soft_by_einsum(q: Tensor, k: Tensor, value: Tensor) -> Tensor:
    weights = (torch.einsum("bhid,bhjd->bhij", q, k) * 3**-0.5).softmax(dim=-1)
    return torch.einsum("bhij,bhjd->bhid", weights, value)


def stepwise(m: Any, v: Tensor) -> Tensor:
    """``nn.LSTM`` by its equations, gates in torch's order i, f, g, o."""
    r = m.recurrent
    h, c = v.new_zeros(len(v), 6), v.new_zeros(len(v), 6)
    for step in v.unbind(1):
        z = F.linear(step, r.weight_ih_l0, r.bias_ih_l0) + F.linear(h, r.weight_hh_l0, r.bias_hh_l0)
        i, f, g, o = z.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return h


def stepwise_gru(m: Any, v: Tensor) -> Tensor:
    """``nn.GRU`` by its equations, gates in torch's order r, z, n."""
    g = m.recurrent
    h = v.new_zeros(len(v), 6)
    for step in v.unbind(1):
        xr, xz, xn = F.linear(step, g.weight_ih_l0, g.bias_ih_l0).chunk(3, 1)
        hr, hz, hn = F.linear(h, g.weight_hh_l0, g.bias_hh_l0).chunk(3, 1)
        z, n = torch.sigmoid(xz + hz), torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
        h = (1 - z) * n + z * h
    return h


def cells(kind: Any) -> Spelling:
    """A loop over cells that hold the recurrent module's own weights."""

    def loop(m: Any, v: Tensor) -> Tensor:
        r = m.recurrent
        cell = kind(4, 6, dtype=torch.float64)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(cell, name, getattr(r, f"{name}_l0"))
        state = None
        for step in v.unbind(1):
            state = cell(step, state)
        return state[0] if isinstance(state, tuple) else state

    return loop


def in_place(m: Any, v: Tensor) -> Tensor:
    out = m.first(v)
    out += v
    return out.relu_()


# Group: input, parts, and spellings of a layer; what comes out is read by a dense layer.
GROUPS: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, Any]], dict[str, Spelling]]] = {
    "linear": (
        lambda: x(3, 5),
        lambda: {"first": nn.Linear(5, 6)},
        {
            "module": lambda m, v: m.first(v).relu(),
            "function": lambda m, v: F.linear(v, m.first.weight, m.first.bias).relu(),
            "at operator": lambda m, v: (v @ m.first.weight.T + m.first.bias).relu(),
            "bias first": lambda m, v: (m.first.bias + torch.matmul(v, m.first.weight.t())).relu(),
            "bias in place": lambda m, v: v.mm(m.first.weight.T).add_(m.first.bias).relu_(),
            "einsum": lambda m, v: (torch.einsum("nj,kj->nk", v, m.first.weight) + m.first.bias).relu(),
            "addmm": lambda m, v: torch.addmm(m.first.bias, v, m.first.weight.T).relu(),
            "tensordot": lambda m, v: (torch.tensordot(v, m.first.weight, ([1], [1])) + m.first.bias).relu(),
            "function without its bias": lambda m, v: (F.linear(v, m.first.weight) + m.first.bias).relu(),
        },
    ),
    "linear on sequences": (
        lambda: x(3, 2, 5),
        lambda: {"first": nn.Linear(5, 3)},
        {
            "module": lambda m, v: m.first(v).relu().flatten(1),
            "at operator": lambda m, v: (v @ m.first.weight.T + m.first.bias).relu().flatten(1),
            "einsum": lambda m, v: (torch.einsum("ntj,kj->ntk", v, m.first.weight) + m.first.bias).relu().flatten(1),
            "step by step": lambda m, v: torch.cat([m.first(step).relu() for step in v.unbind(1)], 1),
            "bmm": lambda m, v: torch.bmm(v, m.first.weight.T.expand(len(v), 5, 3)).add(m.first.bias).relu().flatten(1),
        },
    ),
    "convolution and batch norm": (
        lambda: x(3, 2, 3, 3),
        lambda: {"first": double(nn.Conv2d(2, 6, 3)), "norm": norm(nn.BatchNorm2d(6))},
        {
            "folded": lambda m, v: folded(m.first, m.norm)(v).relu().flatten(1),
            "modules": lambda m, v: m.norm(m.first(v)).relu().flatten(1),
            "functions": lambda m, v: (
                F.batch_norm(
                    F.conv2d(v, m.first.weight, m.first.bias),
                    m.norm.running_mean,
                    m.norm.running_var,
                    m.norm.weight,
                    m.norm.bias,
                    eps=m.norm.eps,
                )
                .relu()
                .flatten(1)
            ),
            "bias apart": lambda m, v: (
                m.norm(F.conv2d(v, m.first.weight) + m.first.bias[:, None, None]).relu().flatten(1)
            ),
            "scale and shift": lambda m, v: scaled_and_shifted(m, m.first(v)).relu().flatten(1),
            "rectified in place": lambda m, v: F.relu(m.norm(m.first(v)), inplace=True).flatten(1),
        },
    ),
    "rectifier": (
        lambda: x(3, 5),
        lambda: {"first": nn.Linear(5, 6)},
        {
            "function": lambda m, v: F.relu(m.first(v)),
            "module in place": lambda m, v: nn.ReLU(inplace=True)(m.first(v)),
            "underscore": lambda m, v: m.first(v).relu_(),
            "clamp": lambda m, v: m.first(v).clamp(min=0),
            "clamp in place": lambda m, v: m.first(v).clamp_(min=0),
            "maximum": lambda m, v: (lambda z: torch.maximum(z, torch.zeros_like(z)))(m.first(v)),
            "step": lambda m, v: (lambda z: z * (z > 0))(m.first(v)),
            "where": lambda m, v: (lambda z: torch.where(z > 0, z, 0.0))(m.first(v)),
            "masked fill": lambda m, v: (lambda z: z.masked_fill(z < 0, 0.0))(m.first(v)),
            "threshold": lambda m, v: F.threshold(m.first(v), 0.0, 0.0),
            "half the sum": lambda m, v: (lambda z: 0.5 * (z + z.abs()))(m.first(v)),
        },
    ),
    "gelu": (
        lambda: x(3, 5),
        lambda: {"first": nn.Linear(5, 6)},
        {
            "fused": lambda m, v: F.gelu(m.first(v)),
            "module": lambda m, v: nn.GELU()(m.first(v)),
            "by erf": lambda m, v: (lambda z: z * 0.5 * (1.0 + torch.erf(z / sqrt(2.0))))(m.first(v)),
            "by erf, in another order": lambda m, v: (lambda z: (1 + torch.erf(z * 0.5**0.5)) * z / 2)(m.first(v)),
            "in steps": lambda m, v: (lambda z: torch.special.ndtr(z) * z)(m.first(v)),
        },
    ),
    "gelu by tanh": (
        lambda: x(3, 5),
        lambda: {"first": nn.Linear(5, 6)},
        {
            "fused": lambda m, v: F.gelu(m.first(v), approximate="tanh"),
            "written out": lambda m, v: (
                lambda z: 0.5 * z * (1.0 + torch.tanh(sqrt(2.0 / pi) * (z + 0.044715 * torch.pow(z, 3.0))))
            )(m.first(v)),
            "factored": lambda m, v: (
                lambda z: 0.5 * z * (1.0 + torch.tanh(z * sqrt(2.0 / pi) * (1.0 + 0.044715 * z * z)))
            )(m.first(v)),
        },
    ),
    "silu": (
        lambda: x(3, 5),
        lambda: {"first": nn.Linear(5, 6)},
        {
            "fused": lambda m, v: F.silu(m.first(v)),
            "in place": lambda m, v: F.silu(m.first(v), inplace=True),
            "product": lambda m, v: (lambda z: z * torch.sigmoid(z))(m.first(v)),
            "product in place": lambda m, v: (lambda z: z.sigmoid().mul_(z))(m.first(v)),
            "quotient": lambda m, v: (lambda z: z / (1 + torch.exp(-z)))(m.first(v)),
        },
    ),
    "mish": (
        lambda: x(3, 5),
        lambda: {"first": nn.Linear(5, 6)},
        {
            "fused": lambda m, v: F.mish(m.first(v)),
            "written out": lambda m, v: (lambda z: z * torch.tanh(F.softplus(z)))(m.first(v)),
            "by logarithm": lambda m, v: (lambda z: z * torch.tanh(torch.log1p(torch.exp(z))))(m.first(v)),
        },
    ),
    "hardswish": (
        lambda: 3 * x(3, 5),
        lambda: {"first": nn.Linear(5, 6)},
        {
            "fused": lambda m, v: F.hardswish(m.first(v)),
            "by relu6": lambda m, v: (lambda z: z * F.relu6(z + 3) / 6)(m.first(v)),
            "by clamp": lambda m, v: (lambda z: z * (z + 3).clamp(0, 6) / 6)(m.first(v)),
            "by hard sigmoid": lambda m, v: (lambda z: z * F.hardsigmoid(z))(m.first(v)),
        },
    ),
    "gate": (
        lambda: x(3, 5),
        lambda: {"first": nn.Linear(5, 12)},
        {
            "glu": lambda m, v: F.glu(m.first(v)),
            "chunks": lambda m, v: (lambda value, gate: value * torch.sigmoid(gate))(*m.first(v).chunk(2, 1)),
            "slices": lambda m, v: (lambda z: torch.sigmoid(z[:, 6:]) * z[:, :6])(m.first(v)),
            "in place": lambda m, v: (lambda value, gate: gate.sigmoid().mul_(value))(*m.first(v).chunk(2, 1)),
        },
    ),
    "layer norm": (
        lambda: x(3, 5),
        lambda: {"first": nn.Linear(5, 6), "norm": double(nn.LayerNorm(6))},
        {
            "module": lambda m, v: m.norm(m.first(v)),
            "function": lambda m, v: F.layer_norm(m.first(v), (6,), m.norm.weight, m.norm.bias, m.norm.eps),
            "by mean and square": lambda m, v: (
                lambda d: d / (d.pow(2).mean(-1, keepdim=True) + m.norm.eps).sqrt() * m.norm.weight + m.norm.bias
            )((lambda z: z - z.mean(-1, keepdim=True))(m.first(v))),
            "by variance": lambda m, v: (
                lambda z: (
                    (z - z.mean(-1, keepdim=True))
                    / torch.sqrt(z.var(-1, keepdim=True, unbiased=False) + m.norm.eps)
                    * m.norm.weight
                    + m.norm.bias
                )
            )(m.first(v)),
        },
    ),
    "root mean square norm": (
        lambda: x(3, 5),
        lambda: {"first": nn.Linear(5, 6), "norm": double(nn.RMSNorm(6, eps=1e-6))},
        {
            "module": lambda m, v: m.norm(m.first(v)),
            "written out": lambda m, v: (
                lambda z: m.norm.weight * (z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-6))
            )(m.first(v)),
            "as quotient": lambda m, v: (
                lambda z: z / (z.square().mean(-1, keepdim=True) + 1e-6).sqrt() * m.norm.weight
            )(m.first(v)),
        },
    ),
    "unit length": (
        lambda: x(3, 5),
        lambda: {"first": nn.Linear(5, 6)},
        {
            "function": lambda m, v: F.normalize(m.first(v)),
            "quotient": lambda m, v: (lambda z: z / z.norm(dim=1, keepdim=True))(m.first(v)),
            "by square": lambda m, v: (lambda z: z * z.square().sum(1, keepdim=True).rsqrt())(m.first(v)),
        },
    ),
    "residual": (
        lambda: x(3, 6),
        lambda: {"first": nn.Linear(6, 6)},
        {
            "sum": lambda m, v: (v + m.first(v)).relu(),
            "in place": in_place,
            "function": lambda m, v: torch.add(m.first(v), v).relu(),
            "stacked": lambda m, v: torch.stack([v, m.first(v)]).sum(0).relu(),
            "built-in sum": lambda m, v: sum([v, m.first(v)]).relu(),
        },
    ),
    "pooling": (
        lambda: x(3, 2, 4, 4),
        lambda: {"first": nn.Conv2d(2, 6, 3, padding=1)},
        {
            "adaptive": lambda m, v: F.adaptive_avg_pool2d(m.first(v).relu(), 1).flatten(1),
            "module": lambda m, v: nn.AvgPool2d(4)(m.first(v).relu()).flatten(1),
            "mean": lambda m, v: m.first(v).relu().mean((-2, -1)),
            "mean in two steps": lambda m, v: m.first(v).relu().mean(3).mean(2),
            "sum": lambda m, v: m.first(v).relu().flatten(2).sum(2) / 16,
            "einsum": lambda m, v: torch.einsum("nchw->nc", m.first(v).relu()) * (1 / 16),
        },
    ),
    "max pooling": (
        lambda: x(3, 2, 4, 4),
        lambda: {"first": nn.Conv2d(2, 6, 3, padding=1)},
        {
            "module": lambda m, v: nn.MaxPool2d(4)(m.first(v)).flatten(1),
            "adaptive": lambda m, v: F.adaptive_max_pool2d(m.first(v), 1).flatten(1),
            "largest": lambda m, v: m.first(v).amax((2, 3)),
            "values": lambda m, v: m.first(v).flatten(2).max(2).values,
            "top": lambda m, v: m.first(v).flatten(2).topk(1, 2).values.squeeze(2),
        },
    ),
    "token ids": (
        lambda: ids(3, 4),
        lambda: {"table": nn.Embedding(11, 6)},
        {
            "module": lambda m, v: m.table(v).mean(1),
            "function": lambda m, v: F.embedding(v, m.table.weight).mean(1),
            "indexed": lambda m, v: m.table.weight[v].mean(1),
        },
    ),
    "attention": (
        lambda: x(3, 4, 6),
        lambda: {"attention": nn.MultiheadAttention(6, 2, batch_first=True)},
        {
            "module": lambda m, v: m.attention(v, v, v)[0].mean(1),
            "module without weights": lambda m, v: m.attention(v, v, v, need_weights=False)[0].mean(1),
            "fused": lambda m, v: attend(m, v, F.scaled_dot_product_attention).mean(1),
            "written out": lambda m, v: attend(m, v, soft).mean(1),
            "einsum": lambda m, v: attend(m, v, soft_by_einsum).mean(1),
        },
    ),
    "LSTM": (
        lambda: x(3, 5, 4),
        lambda: {"recurrent": nn.LSTM(4, 6, batch_first=True)},
        {
            "module": lambda m, v: m.recurrent(v)[0][:, -1],
            "last state": lambda m, v: m.recurrent(v)[1][0][0],
            "cells": cells(nn.LSTMCell),
            "written out": stepwise,
        },
    ),
    "GRU": (
        lambda: x(3, 5, 4),
        lambda: {"recurrent": nn.GRU(4, 6, batch_first=True)},
        {
            "module": lambda m, v: m.recurrent(v)[0][:, -1],
            "cells": cells(nn.GRUCell),
            "written out": stepwise_gru,
        },
    ),
    "RNN": (
        lambda: x(3, 5, 4),
        lambda: {"recurrent": nn.RNN(4, 6, batch_first=True)},
        {
            "module": lambda m, v: m.recurrent(v)[0][:, -1],
            "cells": cells(nn.RNNCell),
        },
    ),
}


def scaled_and_shifted(m: Any, z: Tensor) -> Tensor:
    """Batch norm as a frozen product and sum, as detection networks write it."""
    scale = m.norm.weight * (m.norm.running_var + m.norm.eps).rsqrt()
    shift = m.norm.bias - m.norm.running_mean * scale
    return z * scale[:, None, None] + shift[:, None, None]


def network(group: str, spelling: str) -> tuple[nn.Module, Any]:
    """The same weights and input for every spelling of a group."""
    torch.manual_seed(0)
    make_input, make_parts, spellings = GROUPS[group]
    body = spellings[spelling]
    model = Net(lambda m, v: m.read(body(m, v)), **make_parts(), read=nn.Linear(6, 4), unused=w(2))
    torch.manual_seed(1)
    return model, make_input()


@pytest.mark.parametrize("composite", [None, "epsilon_plus", "epsilon_alpha2_beta1"], ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_spellings_agree(group: str, composite: str | None) -> None:
    first, *others = GROUPS[group][2]
    model, given = network(group, first)
    expected = hw.explain(model, given, target=score, composite=composite, ledger=True)
    assert_balanced(expected)
    failures = []
    for spelling in others:
        model, given = network(group, spelling)
        try:
            found = hw.explain(model, given, target=score, composite=composite, ledger=True)
            assert_same(found.output, expected.output, 1e-12)
            assert_balanced(found)
            assert_same(found.relevance, expected.relevance)
        except (AssertionError, RuntimeError, hw.HeadwaterError) as error:
            failures.append(f"{spelling}: {error}")
    assert not failures, f"spellings that differ from {first!r}:\n" + "\n".join(failures)


@pytest.mark.parametrize("constant", ["q", "k", "v"])
def test_a_constant_operand_of_attention_has_no_share(constant: str) -> None:
    """Where written out, its product is affine, which ε would stabilize: so by LRP-0."""
    found = []
    for spelling in around(constant).values():
        torch.manual_seed(0)
        attention = nn.MultiheadAttention(6, 2, batch_first=True)
        model = Net(
            lambda m, v, body=spelling: m.read(body(m, v)),
            attention=attention,
            fixed=w(3, 2, 4, 3),
            read=nn.Linear(6, 4),
        )
        torch.manual_seed(1)
        found.append(hw.explain(model, x(3, 4, 6), target=score, composite="lrp_0", ledger=True))
        assert_balanced(found[-1])
    for other in found[1:]:
        assert_same(other.relevance, found[0].relevance)
