"""A rule broken on purpose: the ledger points at its operator, and at no other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.evaluate.axioms import completeness_gap
from tests.reference.audit import TIGHT, assert_balanced, magnitude, score
from tests.reference.nets import double, draw

RULES = {
    "zero": hw.rules.Zero(),
    "epsilon": hw.rules.Epsilon(1e-2),
    "gamma": hw.rules.Gamma(0.25),
    "alpha beta": hw.rules.AlphaBeta(2, 1),
    "z plus": hw.rules.ZPlus(),
}
INPUT_RULES = {"box": hw.rules.Box(-4.0, 4.0), "w squared": hw.rules.WSquare(), "flat": hw.rules.Flat()}
LOST = 0.1


def network() -> nn.Sequential:
    """Layers "0", "2" and "5" are affine."""
    return double(
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    )


def lossy(monkeypatch: pytest.MonkeyPatch, rule: Any) -> None:
    """From here on every rule of this class loses a tenth of the relevance."""
    honest = type(rule).split

    def split(self: Any, op: Any, c: Tensor) -> tuple[Tensor | None, Tensor | None]:
        factor, relevance = honest(self, op, c)
        return tuple(None if t is None else (1 - LOST) * t for t in (factor, relevance))

    monkeypatch.setattr(type(rule), "split", split)


def assert_points_at(layer: str, e: hw.Explanation) -> None:
    guilty = [row for row in e.ledger if row.layer == layer and row.rule]
    innocent = [row for row in e.ledger if row.layer != layer]
    assert len(guilty) == 1
    lost = LOST / (1 - LOST) * guilty[0].outgoing
    assert ((guilty[0].unexplained - lost).abs() <= TIGHT * magnitude(e)).all()
    assert (guilty[0].unexplained.abs() > 1e-3 * magnitude(e)).all()
    assert innocent
    for row in innocent:
        assert (row.unexplained.abs() <= TIGHT * magnitude(e)).all()
    assert torch.equal(e.ledger.unexplained(), guilty[0].unexplained.abs())


@pytest.mark.parametrize("name", RULES)
def test_the_ledger_points_at_a_rule_that_loses_relevance(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, model, x = RULES[name], network(), draw(2, 2, 5, 5)
    others = hw.rules.ZPlus() if name == "epsilon" else hw.rules.Epsilon(1e-6)
    composite = hw.Composite({"layer:2": rule, "default": others})
    assert_balanced(hw.explain(model, x, target=score, composite=composite, ledger=True))
    lossy(monkeypatch, rule)
    broken = hw.explain(model, x, target=score, composite=composite, ledger=True)
    assert_points_at("2", broken)
    with pytest.raises(AssertionError, match="unexplained"):
        assert_balanced(broken)


@pytest.mark.parametrize("name", INPUT_RULES)
def test_the_ledger_points_at_an_input_rule_that_loses_relevance(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, model, x = INPUT_RULES[name], network(), draw(2, 2, 5, 5).clamp(-4, 4)
    composite = hw.Composite({"input": rule, "default": hw.rules.Epsilon(1e-6)})
    assert_balanced(hw.explain(model, x, target=score, composite=composite, ledger=True))
    lossy(monkeypatch, rule)
    assert_points_at("0", hw.explain(model, x, target=score, composite=composite, ledger=True))


def test_the_ledger_points_at_a_rule_of_the_users_own() -> None:
    class Forgetful(hw.rules.Epsilon):
        """Loses a tenth of what it should hand on."""

        def factor(self, op: Any, c: Tensor) -> Tensor:
            return (1 - LOST) * super().factor(op, c)

    composite = hw.Composite({"layer:5": Forgetful(1e-6), "default": hw.rules.ZPlus()})
    assert_points_at("5", hw.explain(network(), draw(2, 2, 5, 5), target=score, composite=composite, ledger=True))


def test_the_selfcheck_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(), draw(2, 2, 5, 5)
    assert hw.selfcheck(model, x)
    lossy(monkeypatch, hw.rules.Gamma())
    assert not hw.selfcheck(model, x)


def test_the_selfcheck_of_a_model_that_needs_its_whole_batch() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.linear(x + x[[1, 2, 0]])  # the neighbours of three nodes
            return out

    report = hw.selfcheck(Graph(), torch.randn(3, 4))
    assert report
    assert "does not apply: the model does not run on one sample alone" in str(report)


def test_an_input_may_be_one_number_a_sample() -> None:
    class Timed(nn.Module):
        """Features ``[N, 4]`` and a time step ``[N]``."""

        def __init__(self) -> None:
            super().__init__()
            self.features, self.time = nn.Linear(4, 3), nn.Linear(1, 3)

        def forward(self, x: Tensor, step: Tensor) -> Tensor:
            out: Tensor = self.features(x) + self.time(step[:, None])
            return out

    model, x = Timed().eval(), (torch.randn(2, 4), torch.rand(2))
    assert hw.selfcheck(model, x, 1)
    e = hw.explain(model, x, target=1)
    biases = (model.features.bias + model.time.bias)[1].detach().expand(2)
    assert torch.allclose(completeness_gap(e, relative=False).float(), biases, atol=1e-6)


class Detector(nn.Module):
    """Boxes and scores of each image in a dictionary, as detectors have them; of no box in the second."""

    def __init__(self, moves: bool = False) -> None:
        super().__init__()
        self.score, self.moves, self.calls = nn.Linear(4, 1), moves, 0

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        self.calls += self.moves
        found = {"boxes": x + self.calls, "scores": self.score(x)[:, 0], "labels": torch.ones(len(x)) > 0}
        return [found, {"boxes": x[:0], "scores": x[:0, 0], "labels": x[:0, 0] > 0}]


def test_the_selfcheck_of_a_detector() -> None:
    x = torch.randn(1, 4)
    assert hw.selfcheck(Detector().eval(), x, lambda found: found[0]["scores"])
    report = hw.selfcheck(Detector(moves=True).eval(), x, lambda found: found[0]["scores"])
    assert [c.name for c in report if not c.passed] == ["the model's output is as before"]
