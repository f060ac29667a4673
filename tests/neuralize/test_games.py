"""A Fisher-vector classifier of six Atari games from the motion in their compressed clips, at full size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.neuralize import (
    FisherVectors,
    figures,
    histogram_intersection,
    motion_vectors,
    neuralize,
    read_frames,
    video_folder,
)
from tests.neuralize.clips import GAMES, library
from tests.reference.audit import assert_accounted

pytest.importorskip("av")
pytest.importorskip("ale_py")
svm = pytest.importorskip("sklearn.svm")
pipeline = pytest.importorskip("sklearn.pipeline")

CLIPS, TRAIN = 10, 6  # of each game


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    return video_folder(library(tmp_path_factory.mktemp("games"), CLIPS))["train"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["fisher", "bag"])
def test_games(clips: list[tuple[Path, str]], encoding: str, tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    fields = [motion_vectors(path) for path, _ in clips]
    games = np.array([game for _, game in clips])
    train = np.arange(len(clips)) % CLIPS < TRAIN

    def of(part: Any) -> list[Any]:
        return [field for field, chosen in zip(fields, part, strict=True) if chosen]

    last = svm.LinearSVC() if encoding == "fisher" else svm.SVC(kernel=histogram_intersection, C=100.0)
    features = FisherVectors("motion", encoding, n_words=16, n_components=16, n_samples=20_000)
    fitted = pipeline.make_pipeline(features, last).fit(of(train), games[train])
    assert fitted.score(of(~train), games[~train]) > 0.8  # chance is one in six
    network = neuralize(fitted)
    chosen = [i for i in np.flatnonzero(~train) if i % CLIPS == TRAIN]
    assert len(chosen) == len(GAMES)
    for i in chosen:
        x = network.encode(fields[i][None])
        e = hw.explain(network, x, ledger=True)
        assert_accounted(e)
        blocks = e.relevance[0].sum(0)
        moving = torch.as_tensor(np.abs(fields[i]).sum(0) > 0)
        assert blocks.abs()[moving].sum() / blocks.abs().sum() > 1.5 * moving.double().mean()  # where things move
        figures.clip_relevance(read_frames(clips[i][0]), blocks).savefig(tmp_path / f"{games[i]}.png")
        pyplot.close("all")
