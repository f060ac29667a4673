from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from headwater.errors import InvalidInput, NonFinite
from headwater.show import colour

# Machado, Oliveira and Fernandes (2009), severity 1: what a reader without one kind of cone sees, on linear RGB
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    channels = colours / 255.0
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    lights = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def test_zero_is_white_and_the_signs_are_red_and_blue() -> None:
    blue, white, red = colour.rgb(torch.tensor([-1.0, 0.0, 1.0]))
    assert white.tolist() == [255, 255, 255]
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]


def test_the_scale_is_symmetric_about_zero_whatever_the_range() -> None:
    one_sided = torch.linspace(0.2, 3.0, 50)
    # the colour of a value depends on the value and the limit alone
    assert (colour.rgb(one_sided) == colour.rgb(torch.cat([one_sided, -one_sided]))[:50]).all()
    norm = colour.norm(colour.limit_of([one_sided]))
    assert (norm.vmin, norm.vmax) == (-3.0, 3.0)
    positive, negative = colour.rgb(one_sided, 3.0), colour.rgb(-one_sided, 3.0)
    lightness = [linear(c) @ [0.2126, 0.7152, 0.0722] for c in (positive, negative)]
    assert np.abs(lightness[0] - lightness[1]).max() < 0.12


def test_a_zero_map_is_blank_and_its_limit_zero() -> None:
    zeros = torch.zeros(4, 5)
    assert colour.limit_of([zeros]) == 0.0
    assert (colour.rgb(zeros) == 255).all()


def test_the_limit_is_shared_by_the_maps_and_what_lies_beyond_a_given_one_takes_its_colour() -> None:
    maps = [torch.tensor([0.5, -1.0]), torch.tensor([-4.0, 2.0])]
    assert colour.limit_of(maps) == 4.0
    assert colour.limit_of(maps, 1.5) == 1.5
    assert (colour.rgb(torch.tensor([7.0]), 1.0) == colour.rgb(torch.tensor([1.0]), 1.0)).all()


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_readers_with_a_colour_vision_deficiency_can_tell_the_signs_apart(deficiency: str) -> None:
    strengths = torch.tensor([0.25, 0.5, 0.75, 1.0])
    seen = [
        np.clip(linear(colour.rgb(sign * strengths, 1.0)) @ np.array(DEFICIENCIES[deficiency]).T, 0, 1)
        for sign in (1.0, -1.0)
    ]
    assert (np.abs(seen[0] - seen[1]).max(axis=1) > 0.1).all()


def test_the_ink_is_readable_on_every_colour_of_the_scale() -> None:
    for ground in colour.rgb(torch.linspace(-1, 1, 201)):
        ink = np.array([int(colour.ink_on(ground)[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
        assert contrast(ground, ink) >= 4.5  # WCAG 2.2, level AA


def test_the_figures_colour_map_has_the_same_colours() -> None:
    values = torch.linspace(-2, 2, 101)
    drawn = colour.colour_map()(colour.norm(2.0)(values.numpy()))[:, :3] * 255
    assert np.abs(drawn - colour.rgb(values)).max() <= 4  # a map of 257 entries
    assert colour.colour_map()(0.5)[:3] == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(NonFinite, match="the relevance holds 1 NaN or infinite values among 2"):
        colour.rgb(torch.tensor([1.0, value]))


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_not_positive_is_refused(limit: float) -> None:
    with pytest.raises(InvalidInput, match="positive"):
        colour.rgb(torch.ones(2), limit)


def test_half_precision_and_graphs_are_no_obstacle() -> None:
    values = torch.tensor([1.0, -1.0], dtype=torch.bfloat16, requires_grad=True)
    assert colour.rgb(values).shape == (2, 3)
