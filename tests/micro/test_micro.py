"""Every micro network: exact where homogeneous, balanced everywhere, batch equal to single, the model unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import headwater as hw
from tests.micro.construct import Case
from tests.micro.networks import NETWORKS
from tests.reference.audit import (
    assert_accounted,
    assert_balanced,
    assert_same,
    assert_unchanged,
    call,
    fingerprint,
    gradient_times_input,
    mapped,
    tensors,
)

ZERO = hw.Composite({"default": hw.rules.Zero()})
KINDS = {
    "signs": {"default": hw.rules.AlphaBeta(2, 1)},
    "input": {"input": hw.rules.Flat(), "default": hw.rules.Epsilon(0.25, relative=True)},
    "filtered": {"affine": (hw.rules.Gamma(0.25), hw.filters.Clamp(0.3)), "default": hw.rules.Zero()},
}
HOMOGENEOUS = [name for name, network in NETWORKS.items() if network.homogeneous]

pytestmark = [
    pytest.mark.filterwarnings("ignore::headwater.HeadwaterWarning"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning"),
]


def case_of(name: str) -> Case:
    return NETWORKS[name].fresh()


class Embedded(TorchFunctionMode):
    """Collects what embeddings look up, so that plain autograd can be asked for gradients there."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.embedding:
            self.outputs.append(out)
        return out


def expected_relevance(case: Case) -> Any:
    """Gradient x input by plain autograd; for token ids, gradient x embedding."""
    if any(t.is_floating_point() for t in tensors(case.inputs)):
        return gradient_times_input(case.model, case.inputs, case.score)
    with Embedded() as embedded:
        scores = case.score(call(case.model, case.inputs))
    (looked_up,) = embedded.outputs
    return (looked_up * torch.autograd.grad(scores.sum(), looked_up)[0]).detach()


def test_there_are_enough_networks() -> None:
    assert len(NETWORKS) >= 80


@pytest.mark.parametrize("name", [name for name in HOMOGENEOUS if not name.startswith("embedding")])
def test_the_network_is_homogeneous(name: str) -> None:
    case = case_of(name)
    with torch.no_grad():
        once = case.score(call(case.model, case.inputs))
        thrice = case.score(call(case.model, mapped(lambda t: 3.0 * t, case.inputs)))
    assert_same(thrice, 3 * once, 1e-12)


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_lrp_0_is_gradient_times_input_and_nothing_is_absorbed(name: str) -> None:
    case = case_of(name)
    e = hw.explain(case.model, case.inputs, target=case.score, composite=ZERO, ledger=True)
    if name.startswith("embedding_bag"):  # plain autograd sees the pooled sum only
        assert_same(e.tokens().sum(1), e.output)
    else:
        assert_same(e.relevance, expected_relevance(case))
    assert_balanced(e)
    assert (e.ledger.absorbed() == 0).all(), [(r.layer, r.operator, r.absorbed) for r in e.ledger if r.absorbed]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_recipe_balances_and_leaves_the_model_as_it_was(name: str) -> None:
    case = case_of(name)
    with torch.no_grad():
        expected = case.score(call(case.model, case.inputs))
    before, given = fingerprint(case.model), mapped(lambda t: t.clone(), case.inputs)
    e = hw.explain(case.model, case.inputs, target=case.score, ledger=True)
    assert_unchanged(before, case.model)
    assert_same(case.inputs, given, 0.0)
    assert_same(e.output, expected, 1e-12)
    assert all(torch.isfinite(r).all() for r in tensors(e.relevance))
    assert_balanced(e)
    assert_accounted(e)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_is_its_samples(name: str) -> None:
    case = case_of(name)
    together = hw.explain(case.model, case.inputs, target=case.score)
    for n in range(len(together.output)):
        alone = hw.explain(case.model, mapped(lambda t, n=n: t[n : n + 1], case.inputs), target=case.score)
        assert_same(alone.relevance, mapped(lambda t, n=n: t[n : n + 1], together.relevance))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_rule(name: str, kind: str) -> None:
    case, composite = case_of(name), hw.Composite(KINDS[kind])
    audited = hw.explain(case.model, case.inputs, target=case.score, composite=composite, ledger=True)
    assert_balanced(audited)
    assert_accounted(audited)
    together = hw.explain(case.model, case.inputs, target=case.score, composite=composite)
    assert_same(together.relevance, audited.relevance)
    for n in range(len(together.output)):
        one = mapped(lambda t, n=n: t[n : n + 1], case.inputs)
        alone = hw.explain(case.model, one, target=case.score, composite=composite)
        assert_same(alone.relevance, mapped(lambda t, n=n: t[n : n + 1], together.relevance))


def test_explaining_leaves_no_trace_in_ordinary_gradients() -> None:
    case = case_of("residual_in_place_after_batch_norm")
    before = gradient_times_input(case.model, case.inputs)
    hw.explain(case.model, case.inputs, target=case.score)
    assert_same(gradient_times_input(case.model, case.inputs), before, 0.0)


def test_selfcheck_passes_on_a_micro_network() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4)).double()
    assert hw.selfcheck(model, torch.randn(3, 5, dtype=torch.float64))
