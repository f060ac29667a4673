from __future__ import annotations

import pytest
import torch
from torch import nn

import headwater as hw
from headwater.errors import InvalidInput, InvalidTarget
from headwater.evaluate import (
    completeness_gap,
    continuity,
    input_invariance,
    logit_randomization,
    parameter_randomization,
    redraw,
    segment,
    symmetry,
)
from headwater.evaluate.randomization import running_order
from tests.evaluate import nets


def test_the_gap_is_the_delta_where_a_method_claims_to_be_complete() -> None:
    model, x = nets.visual(), nets.pictures()
    explanation = hw.explain(model, x)
    assert explanation.delta is not None
    assert completeness_gap(explanation).tolist() == pytest.approx(explanation.delta.tolist(), rel=1e-4)
    absolute = completeness_gap(explanation, relative=False)
    missing = explanation.output - explanation.relevance.flatten(1).sum(1)
    assert absolute.tolist() == pytest.approx(missing.tolist(), abs=1e-6)
    assert completeness_gap(hw.explain(model, x, method="gradient")).shape == (3,)


def test_input_invariance_of_the_gradient_and_not_of_its_product_with_the_input() -> None:
    model, x = nets.visual().double(), nets.pictures().double()
    assert float(input_invariance(model, x, 0.5, "gradient").max()) < 1e-12
    changed = input_invariance(model, x, 0.5, "gradient_x_input")
    shifted = hw.explain(lambda v: model(v - 0.5), x + 0.5, model(x).argmax(1), "gradient_x_input").relevance
    original = hw.explain(model, x, method="gradient_x_input").relevance
    expected = (shifted - original).flatten(1).norm(dim=1) / original.flatten(1).norm(dim=1)
    assert changed.tolist() == pytest.approx(expected.tolist())
    with pytest.raises(InvalidInput, match="shift"):
        input_invariance(model, x, torch.zeros(5, 1, 1, 1))


def test_symmetry_where_the_model_has_it() -> None:
    model = nn.Sequential(nn.Linear(3, 2, bias=False)).double()
    with torch.no_grad():
        model[0].weight[:, 1] = model[0].weight[:, 0]
    x = torch.randn(4, 3, dtype=torch.float64)
    assert float(symmetry(model, x, lambda v: v[:, [1, 0, 2]], "gradient_x_input").max()) < 1e-12

    def first(model: object, x: torch.Tensor, target: object) -> torch.Tensor:
        return torch.eye(3)[0].expand(len(x), 3)

    assert symmetry(model, x, lambda v: v[:, [1, 0, 2]], first).tolist() == pytest.approx([2**0.5] * 4)
    with pytest.raises(InvalidInput, match="not symmetric"):
        symmetry(model, x, lambda v: v[:, [2, 1, 0]])


def test_continuity_of_a_smooth_and_a_broken_map() -> None:
    model = nets.tabular()
    path = segment(torch.zeros(6), torch.ones(6), 11)
    assert path.shape == (11, 6)
    assert path[5].tolist() == pytest.approx([0.5] * 6)
    found = continuity(model, path, "gradient_x_input")
    assert found.map_changes.shape == found.score_changes.shape == (10,)
    target = int(model(path[:1]).argmax())
    assert found.scores.tolist() == pytest.approx(model(path)[:, target].tolist(), rel=1e-5)

    def jumping(model: object, x: torch.Tensor, target: object) -> torch.Tensor:
        return torch.where(torch.arange(len(x))[:, None] % 2 == 0, 1.0, -1.0).expand(len(x), 6)

    assert continuity(model, path, jumping).ratio > found.ratio
    assert continuity(model, path, jumping).steepness == pytest.approx(12 / (0.1 * 6**0.5), rel=1e-4)
    with pytest.raises(InvalidInput, match="two points"):
        continuity(model, path[:1])


class Late(nn.Module):
    """Registers its layers in another order than it runs them, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first, self.idle = nn.Linear(4, 2), nn.Linear(3, 4), nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def test_layers_are_randomized_in_the_order_they_run() -> None:
    assert running_order(Late(), torch.rand(1, 3)) == ["first", "last", "idle"]
    found = parameter_randomization(Late().eval(), torch.rand(2, 3), "gradient")
    assert found.layers == ("idle", "last", "first")
    assert found.similarity[0].tolist() == pytest.approx([1, 1])  # the idle layer decides nothing


@pytest.mark.parametrize("how", ["reset", "normal", "permute"])
def test_cascading_and_independent_randomization(how: str) -> None:
    model, x = nets.visual(), nets.pictures()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    cascade = parameter_randomization(model, x, "gradient", how=how)  # type: ignore[arg-type]
    alone = parameter_randomization(model, x, "gradient", how=how, order="independent")  # type: ignore[arg-type]
    assert cascade.layers == ("6", "3", "0")
    assert cascade.similarity.shape == (3, 3)
    assert cascade.similarity[0].equal(alone.similarity[0])
    assert float(cascade.similarity[-1].abs().max()) < 0.5
    assert all(v.equal(state[k]) for k, v in model.state_dict().items())
    again = parameter_randomization(model, x, "gradient", how=how)  # type: ignore[arg-type]
    assert again.similarity.equal(cascade.similarity)


def test_a_map_that_ignores_the_model_is_found_out() -> None:
    def edges(model: object, x: torch.Tensor, target: object) -> torch.Tensor:
        return x

    model, x = nets.visual(), nets.pictures()
    assert parameter_randomization(model, x, edges).mean == pytest.approx(1)
    assert logit_randomization(model, x, edges).tolist() == pytest.approx([1, 1, 1])
    assert float(logit_randomization(model, x, "gradient").abs().max()) < 0.9


def test_redraw_leaves_torchs_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    torch.manual_seed(5)
    redraw(model, how="reset", seed=1)
    assert torch.rand(3).equal(expected)
    weight = model[0].weight.clone()
    assert redraw(model, ["0"], "permute")[0].weight.flatten().sort().values.equal(weight.flatten().sort().values)


def test_what_cannot_be_randomized_is_told() -> None:
    model, x = nets.visual(), nets.pictures()
    with pytest.raises(InvalidInput, match="Unknown layers"):
        parameter_randomization(model, x, layers=["7"])
    with pytest.raises(InvalidInput, match="only a torch module"):
        parameter_randomization(lambda v: v, x)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no parameters"):
        parameter_randomization(nn.ReLU(), x)
    with pytest.raises(InvalidInput, match="order"):
        parameter_randomization(model, x, order="upwards")  # type: ignore[arg-type]
    with pytest.raises(InvalidTarget, match="another class"):
        logit_randomization(lambda v: v.flatten(1).sum(1), x)
