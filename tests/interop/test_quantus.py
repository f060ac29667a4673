"""The function that Quantus takes, alone and in Quantus's own metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import headwater as hw
from headwater.interop import as_quantus


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 100, 3)).eval()


X = np.random.default_rng(0).normal(size=(4, 1, 12, 12))
Y = np.array([0, 1, 2, 1])


def test_it_is_the_explanation_as_an_array() -> None:
    model = network()
    got = as_quantus("lrp", composite="epsilon")(model=model, inputs=X, targets=Y, device="cpu")
    expected = hw.explain(model, torch.from_numpy(X).float(), target=torch.from_numpy(Y), composite="epsilon")
    assert isinstance(got, np.ndarray)
    assert np.array_equal(got, expected.relevance.numpy())
    predicted = as_quantus("lrp")(model, X.astype(np.float32)[:, :, ::1])
    assert np.array_equal(predicted, hw.explain(model, torch.from_numpy(X).float()).relevance.numpy())


def test_keywords_of_the_call_go_first() -> None:
    model = network()
    function = as_quantus("lrp")
    got = function(model=model, inputs=X, targets=Y, method="gradient")
    assert np.array_equal(got, as_quantus("gradient")(model=model, inputs=X, targets=Y))
    with pytest.raises(hw.InvalidInput, match="Unknown method"):
        as_quantus("nothing")
    with pytest.raises(hw.InvalidInput, match="no option"):
        function(model=model, inputs=X, targets=Y, nothing=3)


@pytest.mark.parametrize("method", ["lrp", "integrated_gradients", "occlusion"])
def test_quantus_takes_it(method: str) -> None:
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed")
    model = network()
    shared = {"disable_warnings": True, "display_progressbar": False, "abs": False, "normalise": False}
    given = {"model": model, "x_batch": X.astype(np.float32), "y_batch": Y, "a_batch": None, "device": "cpu"}
    function = as_quantus(method)
    flipping = quantus.PixelFlipping(features_in_step=24, **shared)(**given, explain_func=function)
    assert len(flipping) == 4
    stability = quantus.MaxSensitivity(nr_samples=2, lower_bound=0.05, **shared)(**given, explain_func=function)
    assert np.isfinite(stability).all()
    assert len(quantus.Sparseness(**{**shared, "abs": True})(**given, explain_func=function)) == 4
    randomized = quantus.MPRT(similarity_func=quantus.similarity_func.correlation_spearman, **shared)(
        **given, explain_func=function
    )
    assert randomized
