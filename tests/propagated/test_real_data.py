"""The methods on trained networks and real pictures: the answers are right, complete, and say something."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import headwater as hw
from headwater import concepts, toolbox
from headwater.patterns import patterns
from headwater.similarity import bilrp
from tests.models import shared
from tests.reference.audit import assert_same

pytestmark = pytest.mark.data


def test_photographs_through_mobilenet(data: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    model = shared.mobilenet_v2(data)
    pictures, _ = shared.photographs(data, every=400, size=224)
    x = shared.normalized(pictures)
    coarse = hw.explain(model, x, method="cam")
    bias = model.classifier[1].bias.detach()[coarse.target]
    assert_same(coarse.details["map"].flatten(1).mean(1) + bias, coarse.output, 1e-4)
    assert_same(hw.explain(model, x, method="grad_cam").details["map"], coarse.details["map"].clamp(min=0) / 49, 1e-4)
    lifted = hw.explain(model, x, method="deeplift")
    assert lifted.delta is not None
    assert lifted.delta.abs().max() < 1e-3


def test_deleting_what_a_map_shows_hurts_more_than_deleting_the_rest(data: Path) -> None:
    """Digits: the tenth of the pixels that a method names first, set to background, against a random tenth."""
    model = toolbox.load(data / "lrp_toolbox_mnist" / "LeNet-5.txt")
    x, labels = shared.digits(data, 200)
    found = patterns(model, x[100:])
    given = {
        "deeplift": {"baselines": -1.0}, "contrastive_lrp": {}, "pattern_attribution": {"patterns": found},
        "guided_grad_cam": {},
    }  # fmt: skip
    some, right = x[:50], labels[:50]

    def score(y: torch.Tensor) -> float:
        with torch.no_grad():
            return float(model(y).softmax(1).gather(1, right[:, None]).mean())

    def without(order: torch.Tensor) -> float:
        return score(some.flatten(1).scatter(1, order[:, :100], -1.0).view_as(some))

    chance = without(torch.rand(50, 1024, generator=torch.Generator().manual_seed(0)).argsort(1))
    for method, options in given.items():
        relevance = hw.explain(model, some, target=right, method=method, **options).relevance
        assert without(relevance.flatten(1).argsort(1, descending=True)) < chance - 0.2, method


def test_digits_are_alike_where_their_strokes_are(data: Path) -> None:
    model = toolbox.load(data / "lrp_toolbox_mnist" / "LeNet-5.txt")
    x, labels = shared.digits(data, 60)
    one = x[labels == 7][:2]
    pairs = bilrp(model, one[:1], one[1:], pool=8)
    assert pairs.relevance.shape == (1, 4, 4, 4, 4)
    channels = concepts.channel_relevance(model, x[:8], "2", target=labels[:8])
    references = concepts.reference_samples(model, x, "2", count=3)
    assert channels.relevance.shape[1] == references.indices.shape[0]
    assert references.indices.unique().numel() > 3  # not all channels speak for the same digits
