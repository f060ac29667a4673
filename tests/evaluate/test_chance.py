from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from headwater.errors import InvalidInput
from headwater.evaluate import permuted_label_maps, randomized_maps, significance
from tests.evaluate import nets


def test_p_values_against_loops() -> None:
    maps, null = torch.randn(2, 3, 4), torch.randn(19, 2, 3, 4)
    found = significance(maps, null, scale="none", correction="none")
    largest = significance(maps, null, scale="none")
    for i in range(2):
        for j in range(3):
            for k in range(4):
                own = float(maps[i, j, k].abs())
                reached = sum(float(n[i, j, k].abs()) >= own for n in null)
                assert float(found.p[i, j, k]) == pytest.approx((1 + reached) / 20)
                reached = sum(float(n[i].abs().max()) >= own for n in null)
                assert float(largest.p[i, j, k]) == pytest.approx((1 + reached) / 20)


@pytest.mark.parametrize("correction", ["maximum", "holm", "bonferroni"])
def test_chance_is_seldom_significant(correction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    false = 0
    for _ in range(60):
        maps, null = torch.randn(1, 40, generator=generator), torch.randn(39, 1, 40, generator=generator)
        false += bool(significance(maps, null, correction=correction).significant.any())  # type: ignore[arg-type]
    assert false / 60 <= 0.12


def test_a_feature_that_stands_out_is_found_whatever_the_models_scale() -> None:
    null = 1000 * torch.randn(99, 1, 50)
    maps = 0.1 * torch.randn(1, 50)
    maps[0, 7] = 5
    found = significance(maps, null)
    assert found.significant.nonzero().tolist() == [[0, 7]]
    assert float(found.share) == pytest.approx(1 / 50)
    assert not significance(maps, null, scale="none").significant.any()


def test_null_maps_of_randomized_models() -> None:
    model, x = nets.visual(), nets.pictures(2)
    state = copy.deepcopy(model.state_dict())
    null = randomized_maps(model, x, "gradient", draws=3)
    assert null.shape == (3, 2, 3, 12, 12)
    assert not null[0].equal(null[1])
    assert null.equal(randomized_maps(model, x, "gradient", draws=3))
    assert all(v.equal(state[k]) for k, v in model.state_dict().items())


def test_null_maps_of_permuted_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 10, generator=generator)
    y = (x[:, 3] > 0).long()

    def train(labels: torch.Tensor) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Linear(10, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()
        return model.eval()

    trained = train(y)
    weight = (trained.weight[1] - trained.weight[0]).detach().expand(1, 10)

    def difference(model: nn.Linear, x: torch.Tensor, target: object) -> torch.Tensor:
        return (model.weight[1] - model.weight[0]).detach().expand(1, 10)

    null = permuted_label_maps(train, y, x[:1], difference, draws=19)
    found = significance(weight, null, scale="none")
    assert found.significant[0].nonzero().flatten().tolist() == [3]


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(InvalidInput, match="null maps"):
        significance(torch.rand(2, 3), torch.rand(5, 2, 4))
    with pytest.raises(InvalidInput, match="scale"):
        significance(torch.rand(2, 3), torch.rand(5, 2, 3), scale="norm")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="draws"):
        randomized_maps(nets.visual(), nets.pictures(), draws=0)
