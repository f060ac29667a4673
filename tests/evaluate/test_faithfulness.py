from __future__ import annotations

import pytest
import torch
from torch import nn

import headwater as hw
from headwater.errors import InvalidInput
from headwater.evaluate import (
    faithfulness_correlation,
    infidelity,
    max_sensitivity,
    remove_and_retrain,
    road,
    sensitivity_n,
)
from headwater.remove.imputers import Constant
from tests.evaluate import nets


def linear() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    model, x = nn.Linear(7, 3).double(), torch.randn(5, 7, dtype=torch.float64)
    index = model(x).argmax(1)
    return model, x, (model.weight[index] * x).detach()


def test_a_linear_models_relevance_is_perfectly_faithful() -> None:
    model, x, relevance = linear()
    assert sensitivity_n(model, x, relevance, sizes=[1, 3]).correlations.flatten().tolist() == pytest.approx([1] * 10)
    assert faithfulness_correlation(model, x, relevance).tolist() == pytest.approx([1] * 5)
    assert infidelity(model, x, relevance).tolist() == pytest.approx([0] * 5, abs=1e-20)
    assert infidelity(model, x, relevance, perturbation="noise").tolist() == pytest.approx([0] * 5, abs=1e-20)
    assert infidelity(model, x, 5 * relevance, normalize=True).tolist() == pytest.approx([0] * 5, abs=1e-20)
    assert bool((infidelity(model, x, 5 * relevance) > 1e-3).all())
    assert faithfulness_correlation(model, x, -relevance).tolist() == pytest.approx([-1] * 5)


def test_sensitivity_n_of_all_single_features_against_a_loop() -> None:
    model, x = nets.tabular(), torch.randn(4, 6)
    relevance = torch.randn(4, 6)
    found = sensitivity_n(model, x, relevance, 1, sizes=[1], subsets=3000, imputer=0.5).correlations[0]
    for i in range(4):
        drops = []
        for j in range(6):
            changed = x[i].clone()
            changed[j] = 0.5
            drops.append(float((model(x[i])[1] - model(changed)[1]).detach()))
        expected = torch.corrcoef(torch.stack([relevance[i], torch.tensor(drops)]))[0, 1]
        assert float(found[i]) == pytest.approx(float(expected), abs=0.05)  # features are drawn, not counted


def test_sizes_are_checked_and_chosen() -> None:
    model, x, relevance = linear()
    sizes = sensitivity_n(model, x, relevance).sizes
    assert sizes[0] == 1
    assert sizes[-1] <= 6
    with pytest.raises(InvalidInput, match="sizes"):
        sensitivity_n(model, x, relevance, sizes=[8])
    with pytest.raises(InvalidInput, match="size"):
        faithfulness_correlation(model, x, relevance, size=0)
    with pytest.raises(InvalidInput, match="perturbation"):
        infidelity(model, x, relevance, perturbation="blur")
    with pytest.raises(InvalidInput, match="same shape"):
        infidelity(model, x, relevance[:, :3])


def test_infidelity_against_a_loop() -> None:
    model, x = nets.tabular(), torch.randn(2, 6)
    relevance = torch.randn(2, 6)
    generator = torch.Generator().manual_seed(0)
    taken = torch.rand(2 * 9, 6, generator=generator) < 0.5
    expected = []
    for i in range(2):
        total = 0.0
        for z in taken[9 * i : 9 * i + 9]:
            lost = float((model(x[i])[2] - model(torch.where(z, 0.0, x[i]))[2]).detach())
            total += (float(relevance[i][z].sum()) - lost) ** 2
        expected.append(total / 9)
    assert infidelity(model, x, relevance, 2, draws=9).tolist() == pytest.approx(expected, rel=1e-4)


def test_max_sensitivity_of_maps_that_do_and_do_not_move() -> None:
    model, x, _ = linear()
    assert max_sensitivity(model, x, "gradient").tolist() == pytest.approx([0] * 5, abs=1e-12)
    moved = max_sensitivity(model, x, "gradient_x_input", radius=0.1, draws=50)
    assert bool((moved > 0).all())
    # R = w x moves by at most |w| 0.1
    index = model(x).argmax(1)
    bound = 0.1 * model.weight[index].norm(dim=1) / (model.weight[index] * x).norm(dim=1)
    assert bool((moved <= bound + 1e-9).all())
    with pytest.raises(InvalidInput, match="radius"):
        max_sensitivity(model, x, radius=0)


def test_road_prefers_the_right_order() -> None:
    torch.manual_seed(0)
    x = torch.rand(12, 1, 10, 10)
    bright = torch.arange(12) % 2 == 0
    x[bright, :, 2:4, 2:4] += 3

    def model(pixels: torch.Tensor) -> torch.Tensor:
        score = pixels[:, 0, 2:4, 2:4].mean((1, 2)) - 2
        return torch.stack([-score, score], 1)

    relevance = torch.zeros(12, 1, 10, 10)
    relevance[:, :, 2:4, 2:4] = 1
    found = road(model, x[bright], relevance[bright])
    assert found.most.curve[1:].max() < found.least.curve[1:5].min()
    assert found.gap > 0
    assert road(model, x[bright], -relevance[bright]).gap < 0


def test_remove_and_retrain_tells_a_good_map_from_a_bad_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=generator)
    y = (x[:, 0] > 0).long()  # one feature decides

    def train(samples: torch.Tensor, labels: torch.Tensor, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = nn.Linear(8, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(samples), labels).backward()
            optimizer.step()
        return model.eval()

    def right(model: object, samples: torch.Tensor, target: object) -> torch.Tensor:
        return torch.eye(8)[0].expand(len(samples), 8)

    def wrong(model: object, samples: torch.Tensor, target: object) -> torch.Tensor:
        return -torch.eye(8)[0].expand(len(samples), 8)

    sets = (x[:300], y[:300]), (x[300:], y[300:])
    good = remove_and_retrain(train, *sets, right, fractions=[0.125, 0.5], imputer=Constant(), repeats=2)
    bad = remove_and_retrain(train, *sets, wrong, fractions=[0.125, 0.5], imputer=Constant())
    assert good.accuracies.shape == (3, 2)
    assert float(good.accuracies[0].min()) > 0.9
    assert float(good.accuracies[1].max()) < 0.75
    assert float(bad.accuracies[2].min()) > 0.9
    assert good.gap > 0 > bad.gap
    with pytest.raises(InvalidInput, match="fractions"):
        remove_and_retrain(train, *sets, right, fractions=[0.5, 0.1])


def test_an_explanation_brings_its_target() -> None:
    model, x = nets.tabular(), torch.randn(3, 6)
    explanation = hw.explain(model, x, target=1)
    direct = faithfulness_correlation(model, x, explanation.relevance, 1)
    assert faithfulness_correlation(model, x, explanation).equal(direct)


@pytest.mark.parametrize("perturbation", ["removal", "noise"])
@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "guided_backprop"])
def test_a_linear_models_map_is_faithful_in_units_of_the_input_and_of_the_output(
    method: str, perturbation: str
) -> None:
    model, x = nn.Linear(5, 1, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    explanation = hw.explain(model, x, method=method)
    error = infidelity(model, x, explanation, perturbation=perturbation)
    torch.testing.assert_close(error, torch.zeros_like(error), atol=1e-20, rtol=0)
    slope = hw.explain(model, x, method="gradient").relevance
    error = infidelity(model, x, slope, perturbation=perturbation, per_unit=True)
    torch.testing.assert_close(error, torch.zeros_like(error), atol=1e-20, rtol=0)
