"""TCAV finds a concept that was built into a model, and none where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater import concepts
from tests.reference.nets import double

pytest.importorskip("sklearn", reason="scikit-learn, which fits the directions, is not installed")


class Planted(nn.Module):
    """Logit 0 rises with the brightness of the first channel, falls with the second and ignores the third."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = (
            nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
            nn.Linear(6, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


def planted() -> Planted:
    model = double(Planted())
    with torch.no_grad():
        model.features[0].weight.copy_(torch.eye(3).repeat(2, 1)[..., None, None] + 0.0)
        model.features[0].bias.zero_()
        model.head.weight.copy_(torch.tensor([[1.0, -1.0, 0.0, 1.0, -1.0, 0.0], [0.0] * 6]))
    return model


def samples(count: int, key: int, bright: int | None = None) -> Tensor:
    x = torch.rand((count, 3, 4, 4), generator=torch.Generator().manual_seed(key), dtype=torch.float64)
    if bright is not None:
        x[:, bright] += 1.0
    return x


def test_planted_concepts_are_found_with_their_signs() -> None:
    given = {f"channel {k}": samples(40, k, k) for k in range(3)}
    found = concepts.tcav(planted(), samples(30, 10), given, samples(400, 11), "features.2", target=0, runs=40)
    assert found["channel 0"].score > 0.95
    assert found["channel 0"].significant
    assert found["channel 1"].score < 0.05
    assert found["channel 1"].significant
    assert not found["channel 2"].significant
    assert all(c.accuracy > 0.9 for c in found.concepts)
    assert found["channel 0"].vectors.shape == (40, 6)
    assert torch.allclose(found["channel 0"].vectors.norm(dim=1), torch.ones(40, dtype=torch.float64))
    assert "channel 1" in str(found)
    assert "random" in str(found)


def test_random_concepts_are_not_significant_and_the_seed_decides() -> None:
    model, x, pool = planted(), samples(30, 10), samples(400, 11)
    given = {"nothing": samples(40, 12)}
    one = concepts.tcav(model, x, given, pool, "features.1", target=0, runs=6, seed=3)
    two = concepts.tcav(model, x, given, pool, "features.1", target=0, runs=6, seed=3, batch_size=7)
    assert not one["nothing"].significant
    assert abs(one["nothing"].accuracy - 0.5) < 0.25
    assert torch.equal(one["nothing"].scores, two["nothing"].scores)


def test_scores_are_shares_of_positive_derivatives() -> None:
    model, x = planted(), samples(12, 10)
    found = concepts.tcav(model, x, {"c": samples(20, 1, 0)}, samples(80, 2), "features.2", target=0, runs=3)
    hidden = model.features(x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(hidden.flatten(1))[:, 0].sum(), hidden)
    expected = (gradient.flatten(1) @ found["c"].vectors.t() > 0).double().mean(0)
    assert torch.equal(found["c"].scores, expected)


def test_refusals() -> None:
    model, x, pool = planted(), samples(5, 1), samples(60, 2)
    with pytest.raises(hw.InvalidInput, match="dictionary"):
        concepts.tcav(model, x, {}, pool, "features.2")
    with pytest.raises(hw.InvalidInput, match="runs"):
        concepts.tcav(model, x, {"c": samples(9, 3)}, pool, "features.2", runs=1)
    with pytest.raises(hw.InvalidInput, match="at least 4"):
        concepts.tcav(model, x, {"c": samples(2, 3)}, pool, "features.2")
    with pytest.raises(hw.InvalidInput, match="twice as many"):
        concepts.tcav(model, x, {"c": samples(40, 3)}, pool, "features.2")
    with pytest.raises(hw.InvalidInput, match="no module"):
        concepts.tcav(model, x, {"c": samples(9, 3)}, pool, "nowhere")
