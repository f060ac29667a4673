"""Shapley values: the axioms on random games, and the estimators against all coalitions, SHAP and Captum."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import headwater as hw
from headwater.remove.sampling import orders, shapley_kernel, subsets
from headwater.remove.shapley import exact_values


def game(players: int, seed: int, games: int = 2) -> Tensor:
    """Values of all coalitions, ``[games, 2^players]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(games, 1 << players, generator=generator, dtype=torch.float64)


def played(values: Tensor) -> Any:
    """A model whose score for rows of zeros and ones is that coalition's value; the first column says which game."""

    def model(rows: Tensor) -> Tensor:
        here = (rows[:, 1:] != 0).long()
        index = (here << torch.arange(here.shape[1])).sum(1)
        return values[rows[:, 0].long(), index]

    return model


def slow_shapley(values: Tensor, players: int) -> Tensor:
    """The mean over all orders, in plain loops."""
    total = torch.zeros(players, dtype=torch.float64)
    for order in itertools.permutations(range(players)):
        index = 0
        for player in order:
            total[player] += values[index | (1 << player)] - values[index]
            index |= 1 << player
    return total / math.factorial(players)


def ask(values: Tensor, method: str, **options: Any) -> hw.Explanation:
    players = values.shape[1].bit_length() - 1
    x = torch.cat([torch.arange(len(values), dtype=torch.float64)[:, None], torch.ones(len(values), players)], 1)
    labels = torch.tensor([-1, *range(players)])
    return hw.explain(played(values), x, method=method, features=labels, **options)


@pytest.mark.parametrize("players", [1, 2, 3, 5])
def test_all_coalitions_against_all_orders(players: int) -> None:
    values = game(players, players)
    expected = torch.stack([slow_shapley(v, players) for v in values])
    torch.testing.assert_close(exact_values(values), expected)
    for method in ("shapley_exact", "kernel_shap"):
        found = ask(values, method)
        torch.testing.assert_close(found.relevance[:, 1:], expected)
        assert found.relevance[:, 0].eq(0).all()
        torch.testing.assert_close(found.output, values[:, -1])
        torch.testing.assert_close(found.reference, values[:, 0])
        assert found.delta is not None
        assert found.delta.abs().max() < 1e-9


@given(st.integers(0, 10_000), st.integers(2, 6))
@settings(max_examples=25)
def test_axioms(seed: int, players: int) -> None:
    first, second = game(players, seed, 1), game(players, seed + 1, 1)
    a, b = exact_values(first), exact_values(second)
    torch.testing.assert_close(a.sum(1), first[:, -1] - first[:, 0])  # efficiency
    torch.testing.assert_close(exact_values(2 * first - 3 * second), 2 * a - 3 * b)  # linearity
    index = torch.arange(1 << players)
    dummy = first[:, index & ~1] + 0.7 * (index & 1)
    torch.testing.assert_close(exact_values(dummy)[:, 0], torch.tensor([0.7], dtype=torch.float64))
    swapped = (index & ~3) | ((index & 1) << 1) | ((index >> 1) & 1)
    symmetric = exact_values(first + first[:, swapped])
    torch.testing.assert_close(symmetric[:, 0], symmetric[:, 1])


@given(st.integers(0, 10_000), st.integers(2, 7))
@settings(max_examples=15)
def test_every_order_is_efficient(seed: int, players: int) -> None:
    values = game(players, seed)
    found = ask(values, "shapley_sampling", permutations=3, seed=seed)
    torch.testing.assert_close(found.relevance.sum(1), values[:, -1] - values[:, 0])


@pytest.mark.parametrize("method", ["shapley_sampling", "kernel_shap"])
def test_sampling_stays_within_its_own_error(method: str) -> None:
    players = 9
    values = game(players, 3, 4) + torch.arange(1 << players) / 50
    exact = exact_values(values)
    options = {"permutations": 60} if method == "shapley_sampling" else {"samples": 160}
    scores = []
    for seed in range(12):
        found = ask(values, method, seed=seed, **options)
        error = found.details["standard_error"]
        assert (error > 0).all()
        scores.append((found.details["features"] - exact) / error)
    z = torch.stack(scores)
    assert z.abs().max() < 6
    assert 0.7 < z.std() < 1.4
    assert z.mean((0, 1, 2)).abs() < 0.35


def test_orders_and_subsets_do_not_depend_on_further_features() -> None:
    many = subsets(9, 40, torch.Generator().manual_seed(0))
    assert torch.equal(subsets(5, 40, torch.Generator().manual_seed(0)), many[:, :5])
    present = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    both = orders(present, 7, torch.Generator().manual_seed(0))
    alone = orders(present[1:, :4], 7, torch.Generator().manual_seed(0))
    assert torch.equal(both[1, :, :4], alone[0])
    assert both.sort(2).values.eq(torch.arange(6)).all()


@pytest.mark.parametrize(("count", "samples"), [(4, 100), (7, 126), (8, 60), (12, 300), (30, 2108), (64, 2176), (2, 2)])
def test_the_kernel_of_every_size_has_its_weight(count: int, samples: int) -> None:
    kept, weights, drawn = shapley_kernel(count, samples, torch.Generator().manual_seed(0))
    assert len(kept) == len(weights) <= samples
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    sizes = kept.sum(1)
    assert sizes.min() >= 1
    assert sizes.max() <= count - 1
    whole, size_weights = kept[: len(kept) - drawn], weights[: len(kept) - drawn]
    assert len(whole.unique(dim=0)) == len(whole)
    normal = sum((count - 1) / (s * (count - s)) for s in range(1, count))
    for s in whole.sum(1).unique().tolist():
        own = whole.sum(1) == s
        assert int(own.sum()) == math.comb(count, s)
        assert float(size_weights[own].sum()) == pytest.approx((count - 1) / (s * (count - s)) / normal)
    pairs = kept[len(kept) - drawn :].view(-1, 2, count)
    assert (pairs[:, 0] ^ pairs[:, 1]).all()


def network() -> tuple[nn.Module, Tensor, Tensor]:
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)).double().eval()
    return model, torch.randn(3, 6).double(), torch.randn(8, 6).double()


def test_against_shap() -> None:
    shap = pytest.importorskip("shap")
    model, x, background = network()

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(rows))[:, 1].numpy()

    expected = shap.KernelExplainer(predict, background.numpy()).shap_values(x.numpy(), silent=True)
    for method in ("kernel_shap", "shapley_exact"):
        found = hw.explain(model, x, target=1, method=method, imputer=hw_marginal(background))
        torch.testing.assert_close(found.relevance, torch.from_numpy(expected), rtol=1e-6, atol=1e-8)


def hw_marginal(background: Tensor) -> Any:
    from headwater.remove.references import Marginal

    return Marginal(background, None)


def test_against_captum() -> None:
    captum = pytest.importorskip("captum.attr")
    model, x, _ = network()
    expected = captum.ShapleyValues(model).attribute(x, target=2)
    found = hw.explain(model, x, target=2, method="shapley_exact")
    torch.testing.assert_close(found.relevance, expected.double(), rtol=1e-5, atol=1e-6)


def test_samples_with_different_numbers_of_features() -> None:
    model, x, _ = network()
    labels = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    for method in ("shapley_exact", "kernel_shap", "shapley_sampling", "lime", "contextual_prediction_difference"):
        found = hw.explain(model, x, target=0, method=method, features=labels)
        for n in range(3):
            alone = hw.explain(model, x[n : n + 1], target=0, method=method, features=labels[n])
            torch.testing.assert_close(found.relevance[n], alone.relevance[0])
        assert (found.details["features"][1, 2:] == 0).all()


def test_refusals() -> None:
    model, x, _ = network()
    wide = torch.randn(1, 20).double()
    with pytest.raises(hw.InvalidInput, match="shapley_sampling"):
        hw.explain(lambda v: v.sum(1), wide, method="shapley_exact")
    with pytest.raises(hw.InvalidInput, match="at least 2"):
        hw.explain(model, x, method="shapley_sampling", permutations=1)
    with pytest.raises(hw.InvalidInput, match="at least 2"):
        hw.explain(lambda v: v.sum(1), wide, method="kernel_shap", samples=1)
