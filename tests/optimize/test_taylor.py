"""Simple Taylor decomposition: roots in closed form, the origin's limit, and networks that have to be searched."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_same
from tests.reference.nets import double, draw


def test_rectifiers_without_biases_have_their_root_at_the_origin() -> None:
    """Thesis, Eq. 3.40: gradient times input, which is LRP-0."""
    layers = [nn.Conv2d(1, 3, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 3, bias=False)]
    model, x = double(nn.Sequential(*layers)), draw(3, 1, 8, 8)
    e = hw.explain(model, x, method="taylor")
    assert e.details["analytic"].all()
    assert_same(e.relevance, hw.explain(model, x, composite="lrp_0").relevance)
    assert e.delta.abs().max() < 1e-9
    assert (e.details["root"] == 0).all()


def test_the_nearest_root_of_a_plane_and_of_a_sphere() -> None:
    w, x = draw(4), draw(3, 4, key=5)
    e = hw.explain(lambda x: x @ w + 2.0, x, method="taylor")
    away = (x @ w + 2.0) / w.norm()
    assert_same(e.details["distance"], away.abs(), 1e-3)
    assert_same(e.relevance, away[:, None] * w.square() / w.norm(), 1e-3)
    assert e.delta.abs().max() < 1e-6
    points = torch.tensor([[2.0, 0, 0], [0.5, 0.5, 0], [3, 4, 0]], dtype=torch.float64)
    e = hw.explain(lambda x: x.square().sum(1) - 1, points, method="taylor")
    unit = points / points.norm(dim=1, keepdim=True)
    assert_same(e.details["root"], unit, 1e-3)
    assert_same(e.relevance, 2 * unit * (points - unit), 2e-3)


def test_roots_of_networks_are_roots_and_no_others_are_much_nearer() -> None:
    """Beside the nearest of many random points beyond the root; a local search may miss some."""
    missed = 0
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1)).double()
        for p in model.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        cloud = x[:, None] + 4 * torch.randn(4, 4000, 3, generator=generator, dtype=torch.float64)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", hw.HeadwaterWarning)
            crossed = model(cloud)[..., 0] * model(x) <= 0
            e = hw.explain(model, x, method="taylor", steps=40)
            nearest = torch.where(crossed, (cloud - x[:, None]).norm(dim=2), torch.inf).amin(1)
            found = model(e.details["root"])[:, 0].abs() <= 1.1e-4 * e.output.abs()
            alone = hw.explain(model, x[1:2], method="taylor", steps=40)
        missed += int((~found & (nearest < torch.inf)).sum())
        assert (e.details["distance"] <= 1.5 * nearest)[found].all()
        assert_same(alone.relevance, e.relevance[1:2], 1e-6)
    assert missed <= 3


def test_no_root_is_told() -> None:
    with pytest.warns(hw.HeadwaterWarning, match="No root"):
        e = hw.explain(lambda x: x.square().sum(1) + 1, draw(2, 3), method="taylor", steps=20)
    assert (e.reference >= 1).all()


def test_bounds_limit_the_root() -> None:
    x = torch.full((1, 2), 0.9, dtype=torch.float64)
    e = hw.explain(lambda x: x.sum(1) * 1.0 - 0.5, x, method="taylor", bounds=(0.0, 1.0))
    assert (e.details["root"] >= 0).all()
    assert_same(e.details["root"], torch.full((1, 2), 0.25, dtype=torch.float64), 1e-2)


def test_token_ids_have_roots_in_their_embedding() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids).sum(1))

    model, ids = double(Reader()), torch.randint(10, (2, 5))
    e = hw.explain(model, ids, method="taylor")
    assert e.relevance.shape == (2, 5, 4)
    assert e.delta.abs().max() < 1e-6
