from __future__ import annotations

import pytest
import torch
from torch import nn

import headwater as hw
from headwater.evaluate import check
from headwater.evaluate.health import stabilized
from headwater.propagate.composites import preset
from tests.evaluate import nets


def clean() -> nn.Module:
    """Without biases, positive weights alone: nothing is absorbed and nothing cancels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    return model


def test_a_healthy_map_is_trusted() -> None:
    x = torch.rand(3, 5)
    found = check(hw.explain(clean(), x, composite="epsilon", ledger=True), clean())
    assert found.verdict == "trust"
    assert found.reasons == ((), (), ())
    assert not found.unknown
    assert found.unexplained is not None
    assert float(found.unexplained.max()) < 1e-6
    assert found.cancellation.tolist() == pytest.approx([1, 1, 1])
    assert "trust" in str(found)


def test_a_map_that_misses_the_output_is_not() -> None:
    model, x = clean(), torch.rand(2, 5)
    with torch.no_grad():
        model[2].bias = nn.Parameter(torch.full((2,), 100.0))
    found = check(hw.explain(model, x), model)
    assert found.verdict == "read with care"
    assert all("delta" in reasons[0] for reasons in found.reasons)
    assert found.absorbed is not None
    assert float(found.absorbed["bias"].min()) > 0.8
    explanation = hw.explain(model, x)
    explanation.relevance = explanation.relevance * -1000
    assert check(explanation).verdict == "do not use"


def test_cancellation_and_zero_maps() -> None:
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -0.99]]))
    found = check(hw.explain(model, torch.ones(1, 2)))
    assert found.verdict == "do not use"
    assert "cancel" in found.reasons[0][0]
    assert check(hw.explain(clean(), torch.rand(1, 5)).__class__(
        relevance=torch.zeros(1, 5), output=torch.ones(1), reference=torch.zeros(1), target=None, method="lrp"
    )).reasons == (("the map is zero everywhere",),)  # fmt: skip


def test_weak_denominators_show_under_ten_times_epsilon() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False))
    x = torch.randn(2, 4)
    strong = hw.Composite({"default": hw.rules.Epsilon(0.1)})
    gentle = check(hw.explain(model, x, composite="epsilon"), model)
    assert gentle.epsilon_change is not None
    assert float(gentle.epsilon_change.max()) < 0.05
    before = hw.explain(model, x, composite="epsilon").relevance
    after = hw.explain(model, x, composite=hw.Composite({"default": hw.rules.Epsilon(1e-5)})).relevance
    expected = (after - before).norm(dim=1) / before.norm(dim=1)
    assert gentle.epsilon_change.tolist() == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-6)
    own = check(hw.explain(model, x, composite=strong), model)
    assert own.epsilon_change is None  # an own table is told by its text alone
    assert any("ten times" in text for text in own.unknown)


def test_what_is_unknown_is_said() -> None:
    explanation = hw.explain(nets.visual(), nets.pictures())
    found = check(explanation)
    assert found.absorbed is None
    assert len(found.unknown) == 2
    assert "not measured" in str(found)
    gradient = check(hw.explain(nets.visual(), nets.pictures(), method="gradient"))
    assert gradient.delta is None
    assert gradient.verdict == "trust"


def test_words_and_several_inputs() -> None:
    model = nets.Words()
    ids = torch.randint(1, 20, (2, 6))
    found = check(hw.explain(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ledger=True), model)
    assert len(found.verdicts) == 2


def test_every_epsilon_grows() -> None:
    table = stabilized(preset("cmp"), 10)
    assert table.rows["depth:0.4375-0.8125"] == hw.rules.Epsilon(2.5, relative=True)
    assert table.rows["depth:0-0.4375"] == preset("cmp").rows["depth:0-0.4375"]
