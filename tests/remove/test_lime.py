"""LIME: the regression against scikit-learn's, the original package and trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.remove.lime import proximity
from headwater.remove.sampling import subsets


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).double().eval()


def sampled(model: nn.Module, x: Tensor, samples: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sets that are asked, the scores of one sample, and the weights."""
    kept = subsets(x.shape[1], samples, torch.Generator().manual_seed(0))
    kept[0] = True
    with torch.no_grad():
        scores = model(x[:1] * kept)[:, target]
    return kept.double().numpy(), scores.numpy(), proximity(kept, 0.25).numpy()


@pytest.mark.parametrize("alpha", [0.0, 1.0, 30.0])
def test_ridge_against_scikit_learn(alpha: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    model, x = network(), torch.randn(2, 8).double()
    found = hw.explain(model, x, target=1, method="lime", samples=300, alpha=alpha)
    design, scores, weights = sampled(model, x, 300, 1)
    fitted = linear.Ridge(alpha=alpha).fit(design, scores, sample_weight=weights)
    np.testing.assert_allclose(found.relevance[0].numpy(), fitted.coef_, rtol=1e-8)
    assert float(found.details["intercept"][0]) == pytest.approx(fitted.intercept_)
    assert float(found.details["fit"][0]) == pytest.approx(fitted.score(design, scores, weights))


def test_the_kernel_is_the_original_packages() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    kept = subsets(20, 50, torch.Generator().manual_seed(0))
    kept[0] = True
    distances = metrics.pairwise_distances(kept.double().numpy(), kept[:1].double().numpy(), metric="cosine").ravel()
    expected = np.sqrt(np.exp(-(distances**2) / 0.25**2))  # lime.lime_base, lime_image
    np.testing.assert_allclose(proximity(kept, 0.25).numpy(), expected, rtol=1e-10)


def test_against_the_original_package() -> None:
    base = pytest.importorskip("lime.lime_base")
    metrics = pytest.importorskip("sklearn.metrics")
    model, x = network(), torch.randn(1, 8).double()
    design, scores, _ = sampled(model, x, 400, 2)
    distances = metrics.pairwise_distances(design, design[:1], metric="cosine").ravel()
    original = base.LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)))
    for most in (8, 3):
        intercept, coefficients, fit, _ = original.explain_instance_with_data(
            design, scores[:, None], distances, 0, most, feature_selection="none" if most == 8 else "lasso_path"
        )
        expected = np.zeros(8)
        expected[[i for i, _ in coefficients]] = [v for _, v in coefficients]
        found = hw.explain(model, x, target=2, method="lime", samples=400, most=most)
        np.testing.assert_allclose(found.relevance[0].numpy(), expected, rtol=1e-6, atol=1e-12)
        assert float(found.details["fit"][0]) == pytest.approx(float(fit), rel=1e-6)
        assert float(found.details["intercept"][0]) == pytest.approx(float(intercept), rel=1e-6)


def test_a_tree_is_walked_to_the_leaf_with_everything() -> None:
    pytest.importorskip("sklearn")
    x = torch.ones(1, 5).double()
    found = hw.explain(lambda v: v[:, 1] * (2 + v[:, 3]), x, method="lime", surrogate="tree", samples=400)
    relevance = found.relevance[0]
    assert relevance[1] > 0
    assert relevance[3] > 0
    assert relevance[[0, 2, 4]].abs().max() < 1e-12
    assert float(found.details["intercept"][0] + relevance.sum()) == pytest.approx(3.0)
    assert float(found.details["fit"][0]) == pytest.approx(1.0)
    assert "value 1" in found.details["rules"][0]


def test_errors_are_those_of_repeated_draws() -> None:
    model, x = network(), torch.randn(2, 8).double()
    runs = [hw.explain(model, x, target=0, method="lime", samples=300, seed=s) for s in range(40)]
    scatter = torch.stack([r.relevance for r in runs]).std(0)
    told = torch.stack([r.details["standard_error"] for r in runs]).mean(0)
    assert 0.7 < float((told / scatter).mean()) < 1.4


def test_pictures_by_superpixels() -> None:
    data = pytest.importorskip("skimage.data")
    picture = torch.from_numpy(data.astronaut()[::8, ::8].copy()).movedim(-1, 0)[None].float() / 255
    model = nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 2)
    )
    found = hw.explain(model.eval(), picture, method="lime", samples=60)
    masks = found.details["masks"][0, 0]
    assert 10 < len(masks.unique()) < 90
    for k in masks.unique()[:5]:
        assert found.relevance[0, :, masks == k].unique().numel() == 1


@pytest.mark.parametrize(
    "options",
    [{"surrogate": "forest"}, {"samples": 3}, {"kernel_width": 0}, {"alpha": -1}, {"most": 0}, {"depth": 0}],
)
def test_refusals(options: dict[str, Any]) -> None:
    with pytest.raises(hw.HeadwaterError):
        hw.explain(network(), torch.randn(1, 8).double(), method="lime", **options)
