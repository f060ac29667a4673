"""Pixel-flipping: what takes the most relevant features away first lowers the score soonest (review, Section IV-C)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import headwater as hw
from headwater.neuralize import neuralize

pytest.importorskip("sklearn")

from sklearn import cluster, datasets, svm

Score = Callable[[Tensor], Tensor]


def flipped(score: Score, x: Tensor, relevance: Tensor, fill: Tensor) -> float:
    """Mean of the score while features are replaced one by one in order of relevance, in units of its first mean."""
    order = relevance.argsort(1, descending=True)
    x, curve = x.clone(), [score(x)]
    for column in order.T:
        x = x.scatter(1, column[:, None], fill.gather(1, column[:, None]))
        curve.append(score(x))
    means = torch.stack(curve).mean(1)
    return float(means.mean() / means[0].abs())


def occlusion(score: Score, x: Tensor, value: float) -> Tensor:
    """By how much the score falls when a feature is set to a value."""
    found = torch.empty_like(x)
    for d in range(x.shape[1]):
        hidden = x.clone()
        hidden[:, d] = value
        found[:, d] = score(x) - score(hidden)
    return found


def assert_falls_fastest(score: Score, x: Tensor, relevance: Tensor, fill: Tensor) -> None:
    area = flipped(score, x, relevance, fill)
    by_occlusion = flipped(score, x, occlusion(score, x, 0.0), fill)
    by_chance = flipped(score, x, torch.rand(x.shape, dtype=x.dtype), fill)
    assert area < by_occlusion - 0.05, f"{area:.3f}, occlusion {by_occlusion:.3f}"
    assert area < by_chance - 0.05, f"{area:.3f}, random {by_chance:.3f}"


@pytest.mark.parametrize("stiffness", [None, 3.0])
def test_why_this_cluster(stiffness: float | None) -> None:
    images = torch.as_tensor(datasets.load_digits().data) / 16
    fitted = cluster.KMeans(10, n_init=3, random_state=0).fit(images.numpy())
    x = images[:60]
    network, margin = neuralize(fitted, stiffness=stiffness), neuralize(fitted)
    own = margin(x).argmax(1)
    relevance = hw.explain(network, x, target=own).relevance

    def score(v: Tensor) -> Tensor:
        return margin(v).gather(1, own[:, None])[:, 0]

    assert_falls_fastest(score, x, relevance, images.mean(0).expand_as(x))
    some = images[torch.randint(len(images), x.shape), torch.arange(64)]
    assert_falls_fastest(score, x, relevance, some)


def test_why_this_is_no_face() -> None:
    """A one-class SVM of faces, asked about other pictures."""
    data = pytest.importorskip("skimage.data")
    pictures = torch.as_tensor(data.lfw_subset()).double().flatten(1)
    faces, x = pictures[:100], pictures[150:180]
    network = neuralize(svm.OneClassSVM(gamma="scale", nu=0.1).fit(faces.numpy()), "outlierness")
    e = hw.explain(network, x)
    assert bool((e.relevance >= 0).all())  # every difference from the nearest faces makes a picture stranger
    assert_falls_fastest(network, x, e.relevance, faces.mean(0).expand_as(x))


def test_why_this_class() -> None:
    digits = datasets.load_digits()
    chosen = (digits.target == 3) | (digits.target == 8)
    images, labels = torch.as_tensor(digits.data[chosen]) / 16, digits.target[chosen] == 3
    network = neuralize(svm.SVC().fit(images.numpy(), labels))
    x = images[:60]
    sign = torch.sign(network(x))
    relevance = hw.explain(network, x).relevance * sign[:, None]
    assert_falls_fastest(lambda v: network(v) * sign, x, relevance, images.mean(0).expand_as(x))
