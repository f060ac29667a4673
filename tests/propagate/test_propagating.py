"""``with hw.propagating(...)``: inside, relevance can be asked for anywhere, of anything."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import headwater as hw
from tests.reference.audit import assert_same, gradient_times_input
from tests.reference.nets import double, draw


def network() -> nn.Sequential:
    return double(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)))


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1", "epsilon_plus_flat"])
@pytest.mark.parametrize("wants_grad", [False, True])
def test_relevance_of_the_input_is_that_of_explain(composite: str, wants_grad: bool) -> None:
    model, x = network(), draw(2, 2, 5, 5).requires_grad_(wants_grad)
    expected = hw.explain(model, x, target=3, composite=composite).relevance
    with hw.propagating(composite=composite) as p:
        y = model(x)
        found = p.relevance(x, of=y[:, 3])
    assert_same(found.detach(), expected)


def test_relevance_of_a_hidden_tensor_and_of_two_scores() -> None:
    model, x = network(), draw(2, 2, 5, 5)
    with hw.propagating(composite="epsilon_plus") as p:
        hidden = model[2](model[1](model[0](x)))
        y = model[3](hidden)
        first, second = (p.relevance(x, of=y[:, k]) for k in (0, 1))
        upper = p.relevance(hidden, of=y[:, 1])
    for k, found in enumerate((first, second)):
        assert_same(found, hw.explain(model, x, target=k, composite="epsilon_plus").relevance)
    expected = hw.explain(model, x, target=1, composite="epsilon_plus", layers=["2"]).layers["2"]
    assert_same(upper, expected)


def test_ordinary_gradients_return_after_the_block() -> None:
    model, x = network(), draw(2, 2, 5, 5)
    expected = gradient_times_input(model, x)
    with hw.propagating(composite="epsilon_plus"):
        model(x)
    assert torch.overrides._get_current_function_mode_stack() == []
    assert_same(gradient_times_input(model, x), expected, 0.0)


def test_inside_the_gradient_of_a_leaf_is_its_factor() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    x = torch.rand(2, 4, requires_grad=True)
    with hw.propagating(composite="epsilon_plus") as p:
        y = model(x)
        (factor,) = torch.autograd.grad(y[:, 1].sum(), x, retain_graph=True)
        relevance = p.relevance(x, of=y[:, 1])
    assert torch.allclose(factor * x, relevance, atol=1e-6)
    expected = hw.explain(model, x.detach(), target=1, composite="epsilon_plus").relevance
    assert torch.allclose(relevance, expected, atol=1e-6)


def test_the_factor_of_a_hidden_tensor_is_what_arrives_at_it() -> None:
    """A rule of the operator that made the tensor does not change it, though the walk ends there."""
    model, x = double(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))), draw(2, 4)
    composite = hw.Composite({"default": hw.rules.Epsilon(2.0)})
    expected = hw.explain(model, x, 1, composite=composite, layers=["0"]).layers["0"]
    with hw.propagating(composite) as p:
        hidden = model[0](x)
        found = p.relevance(hidden, of=model[2](model[1](hidden))[:, 1])
    assert_same(found, expected)
