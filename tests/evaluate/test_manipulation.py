from __future__ import annotations

import copy

import pytest
import torch

import headwater as hw
from headwater.errors import InvalidInput
from headwater.evaluate import cosine, manipulate_input, manipulate_model
from tests.evaluate import nets


@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "lrp"])
def test_a_map_is_moved_by_the_input_at_a_fixed_output(method: str) -> None:
    model, x = nets.visual(), nets.pictures(2)
    state = copy.deepcopy(model.state_dict())
    found = manipulate_input(model, x, method, radius=0.1, steps=40)
    assert float((found.changed - x).abs().max()) <= 0.1 * float(x.max() - x.min()) + 1e-6
    assert float(found.output_change.max()) <= 0.05
    assert float(found.similarity.min()) < 0.99
    target = model(x).argmax(1)
    before, after = (hw.explain(model, v, target, method).relevance for v in (x, found.changed))
    assert found.similarity.tolist() == pytest.approx(cosine(before, after).tolist(), abs=1e-6)
    drift = (model(found.changed) - model(x)).abs().amax(1) / model(x).abs().amax(1)
    assert found.output_change.tolist() == pytest.approx(drift.tolist(), abs=1e-6)
    assert all(v.equal(state[k]) for k, v in model.state_dict().items())


def test_a_map_is_moved_towards_a_goal_within_bounds() -> None:
    model, x = nets.visual(), nets.pictures(1)
    goal = torch.zeros_like(x)
    goal[..., :3, :3] = 1
    before = hw.explain(model, x, method="gradient")
    found = manipulate_input(model, x, "gradient", goal=goal, radius=0.2, steps=60, bounds=(0.0, 1.0))
    assert float(cosine(found.relevance, goal)) > float(cosine(before, goal))
    assert 0 <= float(found.changed.min()) <= float(found.changed.max()) <= 1


def test_a_map_is_moved_by_fine_tuning() -> None:
    model, x = nets.visual(), nets.pictures(4)
    state = copy.deepcopy(model.state_dict())
    found = manipulate_model(model, x, steps=60)
    assert float(found.similarity.mean()) < 0.98
    assert float(found.output_change.max()) <= 0.05
    assert found.changed is not model
    assert all(v.equal(state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in found.changed.parameters())
    assert found.relevance.allclose(hw.explain(found.changed, x, model(x).argmax(1)).relevance, atol=1e-5)


def test_a_linear_models_gradient_cannot_be_moved_by_the_input() -> None:
    model, x = torch.nn.Linear(4, 3), torch.randn(2, 4)
    still = manipulate_input(model, x, "gradient", steps=5)
    assert still.similarity.tolist() == pytest.approx([1, 1])
    found = manipulate_input(model, x, "gradient_x_input", radius=0.3, steps=30)
    assert float(found.similarity.min()) < 1


def test_bad_arguments_are_told() -> None:
    model, x = nets.visual(), nets.pictures()
    with pytest.raises(InvalidInput, match="floats"):
        manipulate_input(model, torch.ones(1, 3, 12, 12, dtype=torch.long))
    with pytest.raises(InvalidInput, match="name the method"):
        manipulate_input(model, x, lambda m, v, t: v)
    with pytest.raises(InvalidInput, match="goal"):
        manipulate_input(model, x, "gradient", goal=torch.rand(2, 2), steps=1)
    with pytest.raises(InvalidInput, match="torch module"):
        manipulate_model(lambda v: v, x)  # type: ignore[arg-type]
