"""Decision fields and clips as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.neuralize import KernelKMeans, figures, neuralize

datasets = pytest.importorskip("sklearn.datasets")
svm = pytest.importorskip("sklearn.svm")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def no_window() -> None:
    pyplot.switch_backend("Agg")


def test_a_plane_and_a_line(tmp_path: Path) -> None:
    x, y = datasets.make_moons(60, noise=0.1, random_state=0)
    network = neuralize(KernelKMeans(2, gamma=3.0, random_state=0).fit(x))
    field = figures.grid(x, steps=20)
    assert field.shape == (400, 2)
    figure = figures.decision_field(hw.explain(network, field, target=0), x, y)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["score", "relevance of $x_1$", "relevance of $x_2$"]
    figure.savefig(tmp_path / "plane.png")
    one = svm.SVC().fit(x[:, :1], y)
    figures.decision_field(hw.explain(neuralize(one), figures.grid(x[:, :1])), x[:, :1], y).savefig(
        tmp_path / "line.png"
    )
    pyplot.close("all")


def test_clips(tmp_path: Path) -> None:
    frames, relevance = np.zeros((9, 40, 48, 3), dtype=np.uint8), torch.randn(9, 3, 3)
    figures.clip_relevance(frames, relevance).savefig(tmp_path / "clip.png")
    figures.clip_relevance(frames, torch.zeros(9, 3, 3)).savefig(tmp_path / "blank.png")
    pyplot.close("all")
    with pytest.raises(hw.InvalidInput, match="pass"):
        figures.clip_relevance(frames[:4], relevance)
    with pytest.raises(hw.InvalidInput, match="is drawn of samples"):
        figures.grid(np.zeros((4, 3)))
