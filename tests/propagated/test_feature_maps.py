"""Feature maps are what the layers return, their statistics plain reductions, and the pictures hold what they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.feature_maps import feature_maps, filter_weights
from headwater.show.maps import feature_maps as draw_maps
from headwater.show.maps import filters as draw_filters
from tests.reference.audit import assert_same, fingerprint
from tests.reference.audit import assert_unchanged as unchanged
from tests.reference.nets import double, draw


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True)
        self.up, self.norm, self.head = nn.ConvTranspose2d(6, 4, 2), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(self.act(self.first(x)))
        return self.head(self.norm(h.flatten(2).transpose(1, 2)).mean(1))


def test_maps_are_what_layers_return_with_channels_first() -> None:
    model, x = double(Net()), draw(2, 3, 8, 8)
    before = fingerprint(model)
    maps = feature_maps(model, x)
    assert list(maps) == ["first", "up"]
    assert_same(maps["first"], model.first(x).detach())  # before the activation in place
    chosen = feature_maps(model, x, ["act", "norm", "head"])
    assert_same(chosen["act"], model.first(x).relu().detach())
    tokens = model.norm(model.up(model.first(x).relu()).flatten(2).transpose(1, 2)).detach()
    assert_same(chosen["norm"], tokens.transpose(1, 2))
    assert chosen["head"].shape == (2, 2)
    assert "first" in repr(maps)
    unchanged(before, model)


def test_statistics_of_each_channel() -> None:
    maps = feature_maps(double(Net()), draw(4, 3, 8, 8), "first")
    values, found = maps["first"], maps.statistics("first")
    for k in range(6):
        one = values[:, k].flatten()
        for name, expected in {
            "mean": one.mean(), "std": one.std(unbiased=False), "low": one.min(), "high": one.max(),
            "active": (one > 0).double().mean(), "norm": one.square().mean().sqrt(),
        }.items():  # fmt: skip
            assert_same(getattr(found, name)[k], expected)


def test_filters_of_the_first_convolution() -> None:
    model = double(Net())
    assert torch.equal(filter_weights(model), model.first.weight)
    assert torch.equal(filter_weights(model, "up"), model.up.weight.transpose(0, 1))
    with pytest.raises(hw.InvalidInput, match="no convolution 'head'"):
        filter_weights(model, "head")
    with pytest.raises(hw.InvalidInput, match="no convolution;"):
        filter_weights(nn.Linear(2, 2))


def test_refusals() -> None:
    model, x = double(Net()), draw(2, 3, 8, 8)
    model.spare = nn.Linear(2, 2).double()
    with pytest.raises(hw.InvalidInput, match="no module"):
        feature_maps(model, x, ["nowhere"])
    with pytest.raises(hw.InvalidInput, match="did not run"):
        feature_maps(model, x, ["spare"])
    with pytest.raises(hw.InvalidInput, match="layers="):
        feature_maps(double(nn.Sequential(nn.Linear(3, 2))), draw(2, 3))


def test_pictures() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib, which draws, is not installed")
    maps = feature_maps(double(Net()), draw(2, 3, 8, 8))
    figure = maps.plot("first", sample=1)
    assert len([a for a in figure.axes if a.get_title().startswith("channel")]) == 6
    assert len(maps.plot("first", channels=[4, 1]).axes) == 3  # and the colour bar
    assert draw_maps(draw(20, 50)).axes[0].lines  # a series
    assert draw_maps(draw(3, 4, 5, 6)).axes[0].images  # the middle slice of a volume
    assert draw_filters(draw(10, 3, 5, 5)).axes[0].images
    assert draw_filters(draw(70, 2, 5, 5)).axes
    for wrong in (lambda: draw_maps(draw(4)), lambda: draw_maps(draw(4, 5), [9]), lambda: draw_filters(draw(4, 5))):
        with pytest.raises(hw.InvalidInput):
            wrong()
