"""Every treatment that is no affine rule, against an ordinary network that says the same in plain autograd.

A surrogate computes the same values, but detaches what a treatment holds constant: gates, divisors, the other operands
of a product (each with its share), the secant of an activation. Gradient x input of the surrogate, by autograd alone,
is then what LRP-0 with these treatments must give. Conservation alone would not notice a treatment that is wrong but
balanced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from tests.reference.audit import TIGHT, assert_balanced, assert_same, gradient_times_input, score
from tests.reference.nets import double, draw

Body = Callable[[Any, Tensor], Tensor]


class Model(nn.Module):
    """Linear layers ``a``, ``b``, ``c`` of width 6 and the recurrent modules, without biases, around a body."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body
        self.a, self.b, self.c, self.d = (nn.Linear(6, 6, bias=False) for _ in range(4))
        self.lstm = nn.LSTM(6, 6, bias=False, batch_first=True)
        self.gru = nn.GRU(6, 6, bias=False, batch_first=True)
        double(self, 0.5)

    def forward(self, v: Tensor) -> Tensor:
        return self.body(self, v)


# Pieces of surrogates ------------------------------------------------------------------------------------------------


def secant(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """f(z), with the slope of the line from (0, f(0)) to (z, f(z)) as its gradient."""
    start = f(torch.zeros_like(z)).detach()
    slope = (f(z).detach() - start) / z.detach()
    return z * slope + start


def shared(f: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    """A product of k operands: each carries 1/k while the others are held."""
    terms = [
        f(*(t if i == j else t.detach() for j, t in enumerate(operands))) / len(operands) for i in range(len(operands))
    ]
    return torch.stack(terms).sum(0)


def held(gate: Tensor) -> Tensor:
    return gate.detach()


def heads(t: Tensor) -> Tensor:
    return t.unflatten(-1, (2, 3)).transpose(1, 2)


def projected(m: Any, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return heads(m.a(v)), heads(m.b(v)), heads(m.c(v))


def causal(scores: Tensor) -> Tensor:
    return scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), float("-inf"))


def attention(q: Tensor, k: Tensor, value: Tensor, mask: Callable[[Tensor], Tensor] = lambda s: s) -> Tensor:
    """AttnLRP: both products halved, the softmax by its gradient."""
    weights = mask(shared(torch.matmul, q, k.mT) * 3**-0.5).softmax(-1)
    return shared(torch.matmul, weights, value)


def constant_attention(q: Tensor, k: Tensor, value: Tensor) -> Tensor:
    """CP-LRP: the attention weights are held."""
    return held((q @ k.mT * 3**-0.5).softmax(-1)) @ value


def normalized(z: Tensor, axes: Any, eps: float = 1e-5) -> Tensor:
    """The divisor is held, the mean is not."""
    centred = z - z.mean(axes, keepdim=True)
    return centred / held((centred.square().mean(axes, keepdim=True) + eps).sqrt())


def lstm(m: Any, v: Tensor) -> Tensor:
    h, c = v.new_zeros(len(v), 6), v.new_zeros(len(v), 6)
    for step in v.unbind(1):
        i, f, g, o = (step @ m.lstm.weight_ih_l0.T + h @ m.lstm.weight_hh_l0.T).chunk(4, 1)
        c = held(f.sigmoid()) * c + held(i.sigmoid()) * secant(torch.tanh, g)
        h = held(o.sigmoid()) * secant(torch.tanh, c)
    return h


def gru(m: Any, v: Tensor) -> Tensor:
    h = v.new_zeros(len(v), 6)
    for step in v.unbind(1):
        xr, xz, xn = (step @ m.gru.weight_ih_l0.T).chunk(3, 1)
        hr, hz, hn = (h @ m.gru.weight_hh_l0.T).chunk(3, 1)
        z = held((xz + hz).sigmoid())
        n = secant(torch.tanh, xn + held((xr + hr).sigmoid()) * hn)
        h = (1 - z) * n + z * h
    return h


def channels(v: Tensor) -> Tensor:
    """``[N, 4, 6]`` as four channels of a picture."""
    return v.unflatten(-1, (2, 3))


def response_normalized(z: Tensor) -> Tensor:
    """Over three neighbouring channels, missing ones counting as zero."""
    padded = F.pad(z.square(), (0, 0, 0, 0, 1, 1))
    return z / held((1 + 0.5 * (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3) ** 0.75)


BENT: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "elu": F.elu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "exp": torch.exp,
    "relu6": lambda z: F.relu6(20 * z),
    "hardswish": lambda z: F.hardswish(5 * z),
    "square": torch.square,
    "new gelu": lambda z: 0.5 * z * (1 + torch.tanh(0.7978845608 * (z + 0.044715 * z**3))),
}

# Name: the network and its surrogate, on rows [N, 6].
ROWS: dict[str, tuple[Body, Body]] = {
    f"activation {name}": (
        lambda m, v, f=f: m.d(f(m.a(v))),
        lambda m, v, f=f: m.d(secant(f, m.a(v))),
    )
    for name, f in BENT.items()
} | {
    "product": (lambda m, v: m.d(m.a(v) * m.b(v)), lambda m, v: m.d(shared(torch.mul, m.a(v), m.b(v)))),
    "product of three": (
        lambda m, v: torch.einsum("ni,ni,ni->ni", m.a(v), m.b(v), m.c(v)),
        lambda m, v: shared(lambda a, b, c: a * b * c, m.a(v), m.b(v), m.c(v)),
    ),
    "matrix product": (
        lambda m, v: torch.bmm(m.a(v).unsqueeze(2), m.b(v).unsqueeze(1)).flatten(1),
        lambda m, v: shared(torch.bmm, m.a(v).unsqueeze(2), m.b(v).unsqueeze(1)).flatten(1),
    ),
    "sigmoid gate": (lambda m, v: m.a(v) * m.b(v).sigmoid(), lambda m, v: m.a(v) * held(m.b(v).sigmoid())),
    "gated linear unit": (
        lambda m, v: F.glu(torch.cat([m.a(v), m.b(v)], 1)),
        lambda m, v: m.a(v) * held(m.b(v).sigmoid()),
    ),
    "swiglu": (
        lambda m, v: m.d(F.silu(m.a(v)) * m.b(v)),
        lambda m, v: m.d(shared(torch.mul, secant(F.silu, m.a(v)), m.b(v))),
    ),
    "highway": (
        lambda m, v: (lambda g: g * m.a(v).relu() + (1 - g) * v)(m.b(v).sigmoid()),
        lambda m, v: (lambda g: g * m.a(v).relu() + (1 - g) * v)(held(m.b(v).sigmoid())),
    ),
    "softmax gate": (
        lambda m, v: m.d(m.a(v).softmax(1) * m.b(v)),
        lambda m, v: m.d(held(m.a(v).softmax(1)) * m.b(v)),
    ),
    "quotient": (
        lambda m, v: m.a(v) / (1 + m.b(v).abs()),
        lambda m, v: m.a(v) / held(1 + m.b(v).abs()),
    ),
    "softmax": (lambda m, v: m.d(m.a(v).softmax(1)), lambda m, v: m.d(m.a(v).softmax(1))),
    "log softmax": (lambda m, v: m.a(v).log_softmax(1), lambda m, v: m.a(v).log_softmax(1)),
    "log-sum-exp": (
        lambda m, v: torch.stack([m.a(v).logsumexp(1), m.b(v).logsumexp(1)], 1),
        lambda m, v: torch.stack([m.a(v).logsumexp(1), m.b(v).logsumexp(1)], 1),
    ),
    "layer norm": (lambda m, v: m.d(F.layer_norm(m.a(v), (6,))), lambda m, v: m.d(normalized(m.a(v), -1))),
    "root mean square norm": (
        lambda m, v: m.d(F.rms_norm(m.a(v), (6,), eps=1e-5)),
        lambda m, v: m.d((lambda z: z / held((z.square().mean(-1, keepdim=True) + 1e-5).sqrt()))(m.a(v))),
    ),
    "unit length": (
        lambda m, v: m.d(F.normalize(m.a(v))),
        lambda m, v: m.d((lambda z: z / held(z.norm(dim=1, keepdim=True)))(m.a(v))),
    ),
    "variance": (
        lambda m, v: torch.stack([m.a(v).var(1), m.b(v).var(1)], 1),
        lambda m, v: (
            torch.stack([m.a(v).var(1), m.b(v).var(1)], 1) * 0.5
            + torch.stack([m.a(v).var(1), m.b(v).var(1)], 1).detach() * 0.5
        ),
    ),
}

# On sequences [N, 4, 6].
SEQUENCES: dict[str, tuple[Body, Body]] = {
    "fused attention": (
        lambda m, v: F.scaled_dot_product_attention(*projected(m, v)).mean(2),
        lambda m, v: attention(*projected(m, v)).mean(2),
    ),
    "fused causal attention": (
        lambda m, v: F.scaled_dot_product_attention(*projected(m, v), is_causal=True).mean(2),
        lambda m, v: attention(*projected(m, v), causal).mean(2),
    ),
    "attention written out": (
        lambda m, v: (lambda q, k, u: (q @ k.mT * 3**-0.5).softmax(-1) @ u)(*projected(m, v)).mean(2),
        lambda m, v: attention(*projected(m, v)).mean(2),
    ),
    "LSTM": (lambda m, v: m.lstm(v)[0][:, -1], lstm),
    "GRU": (lambda m, v: m.gru(v)[0][:, -1], gru),
    "group norm": (
        lambda m, v: F.group_norm(m.a(v), 2).flatten(1).cumsum(1),
        lambda m, v: normalized(m.a(v).unflatten(1, (2, 2)), (2, 3)).flatten(1).cumsum(1),
    ),
    "instance norm": (
        lambda m, v: F.instance_norm(m.a(v)).flatten(1).cumsum(1),
        lambda m, v: normalized(m.a(v), 2).flatten(1).cumsum(1),
    ),
    "local response norm": (
        lambda m, v: F.local_response_norm(channels(m.a(v)), 3, alpha=0.5).flatten(1),
        lambda m, v: response_normalized(channels(m.a(v))).flatten(1),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::headwater.HeadwaterWarning")
@pytest.mark.parametrize(
    ("pair", "shape"),
    [pytest.param(pair, (6,), id=name) for name, pair in ROWS.items()]
    + [pytest.param(pair, (4, 6), id=name) for name, pair in SEQUENCES.items()],
)
def test_treatment_is_that_of_its_surrogate(pair: tuple[Body, Body], shape: tuple[int, ...]) -> None:
    network, surrogate = (Model(body) for body in pair)
    x = draw(3, *shape)
    assert_same(surrogate(x).detach(), network(x).detach(), 1e-12)
    e = hw.explain(network, x, target=score, composite=hw.Composite({"default": hw.rules.Zero()}), ledger=True)
    assert_balanced(e)
    assert_same(e.relevance, gradient_times_input(surrogate, x), TIGHT)


@pytest.mark.parametrize("spelling", ["fused attention", "attention written out"])
def test_cp_lrp_holds_the_attention_weights(spelling: str) -> None:
    network = Model(SEQUENCES[spelling][0])
    surrogate = Model(lambda m, v: constant_attention(*projected(m, v)).mean(2))
    x = draw(3, 4, 6)
    composite = hw.Composite({"attention": hw.rules.CPLRP(), "default": hw.rules.Zero()})
    e = hw.explain(network, x, target=score, composite=composite, ledger=True)
    assert_balanced(e)
    assert_same(e.relevance, gradient_times_input(surrogate, x), TIGHT)
    by_method = hw.explain(network, x, target=score, method="cplrp").relevance
    assert_same(by_method, gradient_times_input(surrogate, x), 1e-3)
