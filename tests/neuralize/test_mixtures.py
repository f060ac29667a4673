"""Soft minima over soft minima over soft maxima: the review's Eq. 5 against plain loops, and its rules by name."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import headwater as hw
from headwater.neuralize.geometry import AffineMap, Distances
from headwater.neuralize.mixtures import POOLING, LogOdds, against_the_rest
from headwater.propagate.rules import Gradient, Proportional, WinnerTakesAll
from tests.reference.audit import assert_accounted, assert_balanced

SIZES = [3, 1, 4]


class KernelClusters(nn.Module):
    """Eq. 5 as it stands, with neuralized parts."""

    def __init__(self, points: Tensor, log_norms: Tensor, gamma: float, beta: float, pooling: str = "gradient") -> None:
        super().__init__()
        self.distances, self.gamma = Distances(points), gamma
        weights = -log_norms.repeat_interleave(torch.tensor(SIZES))
        self.odds = LogOdds(SIZES, weights, beta / gamma, pooling=pooling)

    def forward(self, x: Tensor) -> Tensor:
        return self.odds(-self.gamma * self.distances(x))


def setting() -> tuple[Tensor, Tensor, Tensor]:
    points, norms = torch.randn(8, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    x = torch.randn(4, 5, dtype=torch.float64)
    x[0, 2] = 0  # a zero takes relevance too
    return points, norms, x


def units(
    x: Tensor, points: Tensor, log_norms: Tensor, gamma: float, c: int
) -> dict[tuple[int, int], tuple[int, Tensor, float]]:
    """The linear units of class ``c`` by (i, j): the rival, the terms ``w_d (x_d - m_d)`` and the rest of the bias."""
    of = [k for k, n in enumerate(SIZES) for _ in range(n)]
    found = {}
    for i in range(len(points)):
        for j in range(len(points)):
            if of[i] == c and of[j] != c:
                w = 2 * (points[i] - points[j])
                bias = points[j].square().sum() - points[i].square().sum()
                rest = float(log_norms[of[j]] - log_norms[c]) / gamma
                terms = w * (x - (points[i] + points[j]) / 2)
                assert torch.isclose(terms.sum(), w @ x + bias)  # the midpoint takes the whole bias but log Z
                found[i, j] = of[j], terms, rest
    return found


def soft_min(values: list[float], stiffness: float) -> tuple[float, list[float]]:
    """``-1/s log Σ exp(-s v)`` and its weights."""
    low = min(values)
    e = [math.exp(-stiffness * (v - low)) for v in values]
    return low - math.log(sum(e)) / stiffness, [v / sum(e) for v in e]


def away_from_zero(unit: float, beta: float) -> float:
    """A linear unit with the stabilizer, which is measured in log-odds."""
    return unit + math.copysign(1e-6 / beta, unit)


def by_loops(
    x: Tensor, points: Tensor, log_norms: Tensor, gamma: float, beta: float, c: int, rule: str
) -> tuple[float, Tensor]:
    """Log-odds and relevance of one sample, by the hierarchy of poolings written out."""
    neurons = units(x, points, log_norms, gamma, c)
    mine = sorted({i for i, _ in neurons})
    share = {}
    layer_k: dict[int, float] = {}
    for k in range(len(SIZES)):
        theirs = sorted({j for (_, j), (r, *_) in neurons.items() if r == k})
        if not theirs:
            continue
        layer_j = []
        for j in theirs:
            a = [-float(neurons[i, j][1].sum() + neurons[i, j][2]) for i in mine]
            value, p = soft_min(a, gamma)  # a soft maximum is the soft minimum of negatives
            layer_j.append(-value)
            share |= {(i, j): w for i, w in zip(mine, p, strict=True)}
        layer_k[k], p = soft_min(layer_j, gamma)
        share |= {(i, j): share[i, j] * w for j, w in zip(theirs, p, strict=True) for i in mine}
    value, p = soft_min(list(layer_k.values()), beta)
    weight = dict(zip(layer_k, p, strict=True))
    share = {(i, j): w * weight[neurons[i, j][0]] for (i, j), w in share.items()}
    f = beta * value
    relevance = torch.zeros_like(x)
    if rule == "winner_takes_all":
        k = max(weight, key=lambda k: weight[k])
        best = max((ij for ij in share if neurons[ij][0] == k), key=lambda ij: share[ij])
        share = {best: 1.0}
    for ij, w in share.items():
        _, terms, rest = neurons[ij]
        relevance += w * terms * (beta if rule == "gradient" else f / away_from_zero(float(terms.sum() + rest), beta))
    return f, relevance


@pytest.mark.parametrize("rule", POOLING)
@pytest.mark.parametrize(("gamma", "beta"), [(0.3, 0.3), (0.2, 1.5), (2.0, 0.5)])
def test_equation_5_and_its_relevance_by_plain_loops(rule: str, gamma: float, beta: float) -> None:
    points, norms, x = setting()
    network = KernelClusters(points, norms, gamma, beta, rule)
    kernels = [
        torch.exp(-gamma * (x[:, None] - p).square().sum(2)).sum(1) / norms[k].exp()
        for k, p in enumerate(points.split(SIZES))
    ]
    powers = torch.stack(kernels, 1) ** (beta / gamma)
    odds = (powers / (powers.sum(1, keepdim=True) - powers)).log()
    assert torch.allclose(network(x), odds, atol=1e-9)
    for c in range(3):
        e = hw.explain(network, x, target=c)
        for n in range(len(x)):
            f, relevance = by_loops(x[n], points, norms, gamma, beta, c, rule)
            assert math.isclose(f, float(e.output[n]), rel_tol=1e-9, abs_tol=1e-9)
            assert torch.allclose(e.relevance[n], relevance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", POOLING)
def test_the_ledger_names_what_pooling_absorbs(rule: str) -> None:
    points, norms, x = setting()
    e = hw.explain(KernelClusters(points, norms, 0.4, 1.0, rule), x, target=[0, 1, 2, 0], ledger=True)
    assert_balanced(e)
    assert_accounted(e)
    causes = set(e.ledger.causes())
    assert causes == ({"entropy", "bias"} if rule == "gradient" else {"stabilizer", "bias"})


@pytest.mark.parametrize("rule", POOLING)
@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_ten_thousand_representatives(rule: str, spread: float) -> None:
    """Sixteen million linear units for a sample, none of which overflows; the value is that of sums in logarithms."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(10_000, 12, dtype=torch.float64, generator=generator) * spread
    head = LogOdds([2_000, 3_000, 5_000], torch.zeros(10_000, dtype=torch.float64), 2.0, pooling=rule)
    network = nn.Sequential(Distances(points), head_of(head))
    x = points[:2] * 0.5 + 1
    e = hw.explain(network, x, target=0, ledger=rule == "gradient")
    ell = -0.5 * (x[:, None] - points).square().sum(2)
    s = 2 * torch.stack([part.logsumexp(1) for part in ell.split(head.sizes, 1)], 1)
    assert torch.allclose(e.output, s[:, 0] - s[:, 1:].logsumexp(1), rtol=1e-9, atol=1e-9)
    assert bool(e.relevance.isfinite().all())
    if rule == "gradient":
        assert_balanced(e)
    else:
        assert e.delta.abs().max() < 1e-2  # no log Z here: only the stabilizer


def head_of(head: LogOdds) -> nn.Module:
    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, d: Tensor) -> Tensor:
            return self.head(-0.5 * d)

    return Weighed()


@given(st.integers(2, 6), st.floats(0.01, 500), st.integers(0, 10**6))
def test_against_the_rest_is_stable(classes: int, scale: float, seed: int) -> None:
    z = torch.randn(3, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale
    for hard in (False, True):
        found = against_the_rest(z, hard)
        for c in range(classes):
            others = torch.cat([z[:, :c], z[:, c + 1 :]], 1)
            rest = others.amax(1) if hard else others.logsumexp(1)
            assert torch.allclose(found[:, c], z[:, c] - rest, rtol=1e-9, atol=1e-9)


def test_a_hard_margin_is_one_linear_unit() -> None:
    points, _, x = setting()
    network = nn.Sequential(
        Distances(points[:3]), head_of(LogOdds([1, 1, 1], torch.zeros(3, dtype=torch.float64), hard=True))
    )
    d = (x[:, None] - points[:3]).square()
    e = hw.explain(network, x)
    for n in range(len(x)):
        near, second = d[n].sum(1).argsort()[:2]
        assert torch.allclose(e.relevance[n], 0.5 * (d[n, second] - d[n, near]))
    assert e.delta.abs().max() < 1e-12


def test_a_row_of_a_composite_chooses_the_pooling() -> None:
    points, norms, x = setting()
    network = KernelClusters(points, norms, 0.4, 1.0)
    for name, rule in POOLING.items():
        table = hw.Composite({"softmax": rule, "default": hw.rules.Epsilon(1e-6)})
        by_row = hw.explain(network, x, target=1, composite=table).relevance
        by_name = hw.explain(KernelClusters(points, norms, 0.4, 1.0, name), x, target=1).relevance
        assert torch.allclose(by_row, by_name)


# ---------------------------------------------------------------------- log-sum-exp in any model


def test_log_sum_exp_by_its_three_rules() -> None:
    x = torch.tensor([[1.0, -2.0, 0.5, 0.0]], dtype=torch.float64)

    def model(v: Tensor) -> Tensor:
        return v.logsumexp(1)

    y, p = x.logsumexp(1), x.softmax(1)
    expected = {
        Gradient(): p * x,
        Proportional(): p * y * torch.tensor([1.0, 1, 1, 0]),  # what falls on a zero has nowhere to go
        WinnerTakesAll(): y * torch.tensor([1.0, 0, 0, 0]),
    }
    for rule, relevance in expected.items():
        e = hw.explain(model, x, composite=hw.Composite({"logsumexp": rule}), ledger=True)
        assert torch.allclose(e.relevance, relevance), rule
        assert_balanced(e)
        assert_accounted(e)
    e = hw.explain(model, x, ledger=True)
    assert torch.allclose(e.ledger.causes()["entropy"], -(p * p.log()).sum())


@pytest.mark.parametrize("rule", [Gradient(), Proportional(), WinnerTakesAll()])
def test_log_odds_of_a_network_take_the_same_rules(rule: hw.rules.Rule) -> None:
    network = nn.Linear(6, 4, bias=False).double()
    x = torch.randn(3, 6, dtype=torch.float64)
    table = hw.Composite({"softmax": rule, "default": hw.rules.Zero()})
    e = hw.explain(network, x, target=hw.target.LogOdds(1), composite=table, ledger=True)
    z = network(x)
    others = z[:, [0, 2, 3]]
    p, rest = others.softmax(1), others.logsumexp(1, keepdim=True)
    if isinstance(rule, WinnerTakesAll):
        p = nn.functional.one_hot(p.argmax(1), 3).double()
    factors = p if isinstance(rule, Gradient) else p * rest / others
    c = torch.stack([-factors[:, 0], torch.ones(3, dtype=torch.float64), -factors[:, 1], -factors[:, 2]], 1)
    assert torch.allclose(e.relevance, (c @ network.weight) * x)
    assert_balanced(e)


# ---------------------------------------------------------------------- distances behind affine maps


def test_distances_behind_a_projection_are_explained_in_its_input() -> None:
    matrix, shift = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    front = AffineMap.of(matrix, shift)
    points = torch.randn(4, 3, dtype=torch.float64)
    x = torch.randn(2, 5, dtype=torch.float64)
    distances = Distances(points, front)
    expected = (x @ matrix.T + shift - points[:, None]).square().sum(2).T
    assert torch.allclose(distances(x), expected)
    e = hw.explain(lambda v: distances(v).sum(1), x)
    assert torch.allclose(e.relevance.sum(1), expected.sum(1))


def test_distances_keep_what_no_input_reaches() -> None:
    """Points off the plane that a map reaches: the rest of their distance is a constant, and booked as one."""
    matrix = torch.randn(5, 2, dtype=torch.float64)
    front = AffineMap.of(matrix, torch.randn(5, dtype=torch.float64))
    points, x = torch.randn(4, 5, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    network = Distances(points, front)
    z = (x - front.origin) @ matrix.T + front.offset
    assert torch.allclose(network(x), torch.cdist(z, points).square())
    e = hw.explain(network, x, target=2, ledger=True)
    assert_balanced(e)
    assert_accounted(e)
    assert bool((e.ledger.causes()["constant"] > 0).all())


def test_distances_to_hidden_activations_pass_on_to_the_input() -> None:
    """Clusters in the feature space of a network: what falls on zero activations is named."""
    encoder = nn.Sequential(nn.Linear(6, 10, bias=False), nn.ReLU()).double()
    network = nn.Sequential(
        encoder,
        Distances(torch.randn(3, 10, dtype=torch.float64)),
        LogOdds([1, 1, 1], torch.zeros(3, dtype=torch.float64)),
    )
    e = hw.explain(network, torch.randn(4, 6, dtype=torch.float64), ledger=True)
    assert_balanced(e)
    assert_accounted(e)
    assert "zero input" in e.ledger.causes()


def test_relevance_of_zero_pixels_survives_views() -> None:
    network = nn.Sequential(nn.Flatten(), Distances(torch.randn(2, 12, dtype=torch.float64)))
    x = torch.zeros(1, 1, 3, 4, dtype=torch.float64)
    e = hw.explain(network, x, target=0)
    assert e.relevance.shape == x.shape
    assert torch.allclose(e.relevance.flatten(1), network[1].points[:1].square())
