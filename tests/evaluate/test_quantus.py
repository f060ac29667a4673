"""The same figures as Quantus computes, where its settings are made to mean the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.evaluate import effective_features, gini, mass_accuracy, pixel_flipping, rank_accuracy
from tests.evaluate import nets

quantus = pytest.importorskip("quantus", reason="Quantus is not installed")


def arrays(count: int = 3, side: int = 12) -> dict[str, Any]:
    model, x = nets.visual(side), nets.pictures(count, side)
    explanation = hw.explain(model, x)
    return {
        "model": model, "x_batch": x.numpy(), "y_batch": explanation.target.numpy(),
        "a_batch": explanation.relevance.sum(1, keepdim=True).numpy(),
    }  # fmt: skip


def plain(**options: Any) -> dict[str, Any]:
    """Quantus without its absolute value and normalization."""
    return {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False, **options}


@pytest.mark.parametrize("order", ["most", "least"])
def test_region_perturbation(order: str) -> None:
    given = arrays()
    name = {"most": "morf", "least": "lerf"}[order]
    metric = quantus.RegionPerturbation(**plain(patch_size=4, order=name, regions_evaluation=9, perturb_baseline=0.25))
    theirs = np.array(metric(**given, softmax=False, device="cpu"))
    ours = pixel_flipping(
        given["model"], torch.from_numpy(given["x_batch"]), given["a_batch"], given["y_batch"], features=4,
        imputer=0.25, order=order,
    )  # fmt: skip
    drops = (ours.curves[:, :1] - ours.curves)[:, 1:]
    assert drops.numpy() == pytest.approx(theirs, abs=1e-5)


def test_pixel_flipping_of_single_values() -> None:
    given = arrays(2)
    relevance = np.random.default_rng(0).normal(size=given["x_batch"].shape).astype(np.float32)
    metric = quantus.PixelFlipping(**plain(features_in_step=48, perturb_baseline=0.25))
    theirs = np.array(metric(**{**given, "a_batch": relevance}, softmax=True, device="cpu"))
    for i in range(2):
        x = torch.from_numpy(given["x_batch"][i : i + 1])
        ours = pixel_flipping(
            given["model"], x, relevance[i : i + 1], given["y_batch"][i : i + 1], features="value", imputer=0.25,
            step_size=48, output="probability",
        )  # fmt: skip
        assert ours.curves[0, 1:].numpy() == pytest.approx(theirs[i], abs=1e-5)


def test_complexity_sparseness_and_localization() -> None:
    given = arrays()
    given["a_batch"] = given["a_batch"] * 1e4  # Quantus adds 1e-7 to each value, which counts where they are small
    options = {**plain(), "abs": True}
    theirs = quantus.Complexity(**options)(**given, device="cpu")
    assert effective_features(given["a_batch"]).log().tolist() == pytest.approx(theirs, rel=1e-4)
    theirs = quantus.Sparseness(**options)(**given, device="cpu")
    assert gini(given["a_batch"]).tolist() == pytest.approx(theirs, rel=1e-3)
    mask = np.zeros((3, 1, 12, 12), dtype=bool)
    mask[:, :, 2:7, 3:9] = True
    positive = {**given, "a_batch": np.abs(given["a_batch"])}
    theirs = quantus.RelevanceMassAccuracy(**plain())(**positive, s_batch=mask, device="cpu")
    assert mass_accuracy(positive["a_batch"], mask[:, 0]).tolist() == pytest.approx(theirs, rel=1e-4)
    theirs = quantus.RelevanceRankAccuracy(**plain())(**positive, s_batch=mask, device="cpu")
    assert rank_accuracy(positive["a_batch"], mask[:, 0]).tolist() == pytest.approx(theirs, rel=1e-4)
