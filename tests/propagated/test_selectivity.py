"""Class selectivity: contrastive and softmax-gradient LRP by their formulas, seeded layer by layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference import rules
from tests.reference.audit import assert_same
from tests.reference.nets import double, draw


def network() -> nn.Sequential:
    return double(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)))


def walked(model: nn.Sequential, x: Tensor, relevance: Tensor) -> Tensor:
    """LRP from relevance at the logits, in loops: LRP-ε with an ε too small to matter."""
    values = [x, torch.relu(model[0](x)).detach()]
    for value, layer in ((values[1], model[2]), (values[0], model[0])):
        relevance = rules.redistribute(rules.layer_of(layer, (layer.in_features,)), rules.zero, value, relevance)
    return relevance


@pytest.mark.parametrize("rectify", [True, False])
def test_contrastive_lrp_subtracts_the_dual_concept(rectify: bool) -> None:
    model, x = network(), draw(3, 6)
    logits = model(x).detach()
    own, dual = torch.zeros_like(logits), torch.zeros_like(logits)
    own[:, 2] = logits[:, 2]
    for k in (0, 1, 3):
        dual[:, k] = logits[:, 2] / 3
    expected = walked(model, x, own) - walked(model, x, dual)
    e = hw.explain(model, x, target=2, method="contrastive_lrp", composite="lrp_0", rectify=rectify)
    assert_same(e.relevance, expected.clamp(min=0) if rectify else expected, 1e-8)
    assert_same(e.output, logits[:, 2])


def test_softmax_gradient_lrp_seeds_the_softmaxs_gradient() -> None:
    model, x = network(), draw(3, 6)
    logits = model(x).detach()
    p = logits.softmax(1)
    seeds = -p * p[:, 1:2]
    seeds[:, 1] = p[:, 1] * (1 - p[:, 1])
    e = hw.explain(model, x, target=1, method="softmax_gradient_lrp", composite="lrp_0")
    assert_same(e.relevance, walked(model, x, seeds), 1e-8)
    assert_same(e.output, logits[:, 1])
    assert e.delta is None


@pytest.mark.parametrize("method", ["contrastive_lrp", "softmax_gradient_lrp"])
def test_each_sample_for_its_own_prediction(method: str) -> None:
    model, x = network(), draw(5, 6)
    together = hw.explain(model, x, method=method)
    assert torch.equal(together.target, model(x).argmax(1))
    apart = [hw.explain(model, x[i : i + 1], method=method).relevance for i in range(5)]
    assert_same(together.relevance, torch.cat(apart))
    assert_same(hw.explain(model, x, method=method, batch_size=2).relevance, together.relevance)


@pytest.mark.parametrize("method", ["contrastive_lrp", "softmax_gradient_lrp"])
def test_what_is_no_class_is_refused(method: str) -> None:
    model, x = network(), draw(2, 6)
    for target in (hw.target.Sum(), lambda y: y[:, 0], hw.target.Margin(0, 1)):
        with pytest.raises(hw.InvalidTarget, match="needs a class"):
            hw.explain(model, x, target=target, method=method)
    with pytest.raises(hw.InvalidTarget):
        hw.explain(double(nn.Sequential(nn.Linear(6, 1))), x, target=0, method=method)
