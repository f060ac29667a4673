"""The overview's experiments: texts, clips and their truth, verdicts; and a quick run of it all."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from experiments.overview import clips, corpus, texts, videos, wordmap
from experiments.reproduction import Reproduction
from experiments.verdicts import below, verdict
from headwater.cli import app


@pytest.fixture
def run(tmp_path: Path) -> Reproduction:
    return Reproduction("overview", "quick", tmp_path / "out", tmp_path / "data")


def news(run: Reproduction) -> corpus.Corpus:
    folder = run.data / "text_bbc"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "bbc.zip", "w") as archive:
        for i in range(20):
            archive.writestr(f"bbc/sport/{i:03}.txt", f"The ball, the goal; ball! Player number {i}")
            archive.writestr(f"bbc/business/{i:03}.txt", "The bank's money and the market money")
    return corpus.topics(run, 8)


def test_texts_become_numbers(run: Reproduction) -> None:
    found_ = news(run)
    assert found_.name == "BBC news"
    assert found_.classes == ["business", "sport"]
    assert found_.ids.shape == (40, 8)
    assert len(found_.train) == 30
    assert len(found_.test) == 10
    assert found_.vocabulary[:2] == ["", "?"]
    row = int((found_.labels == 1).nonzero()[0])
    assert [found_.vocabulary[i] for i in found_.ids[row, :5]] == ["the", "ball", "the", "goal", "ball"]
    assert int(found_.ids[row, -1]) == corpus.PAD


def test_words_are_typical_of_their_class(run: Reproduction) -> None:
    found_ = news(run)
    odds = corpus.log_odds(found_)
    ball, money, the = (found_.vocabulary.index(word) for word in ("ball", "money", "the"))
    assert odds[1, ball] > 1 > -1 > odds[1, money]
    assert abs(odds[1, the]) < 1


def test_the_usual_newsgroups_are_taken_where_they_are(run: Reproduction) -> None:
    for part in ("train", "test"):
        for kind in ("sci.med", "sci.space"):
            file = run.data / f"20news-bydate-{part}" / kind / "1"
            file.parent.mkdir(parents=True)
            file.write_text(f"{kind} words words words {part}")
    found_ = corpus.topics(run, 6)
    assert found_.name == "20 Newsgroups"
    assert len(found_.test) == 2


@pytest.mark.parametrize("build", [lambda: texts.Convolved(30, 3, 8, 12), lambda: texts.Read(30, 3, 8)])
def test_relevance_of_words(build: object) -> None:
    torch.manual_seed(0)
    model = build().eval()  # type: ignore[operator]
    ids = torch.randint(2, 30, (4, 7))
    ids[:, -2:] = corpus.PAD
    target = torch.tensor([0, 1, 2, 0])
    maps = texts.relevances(model, ids, target)
    assert set(maps) == {"LRP", "sensitivity", "random"}
    assert all(values.shape == ids.shape for values in maps.values())
    assert bool((maps["sensitivity"] >= 0).all())
    assert float(maps["LRP"][:, -2:].abs().max()) < 1e-12
    assert float(maps["LRP"].min()) < 0


def test_deleting_the_lowest_words_by_hand() -> None:
    torch.manual_seed(0)
    model = texts.Convolved(30, 3, 8, 12).eval().requires_grad_(False)
    ids, labels = torch.randint(2, 30, (2, 9)), torch.tensor([1, 2])
    relevance = torch.randn(2, 9)
    rise = texts._without(model, ids, labels, relevance)
    for i in range(2):
        shorter = ids[i].clone()
        shorter[relevance[i].argsort()[: texts.AGAINST]] = corpus.PAD
        expected = model(shorter[None])[0, labels[i]] - model(ids[i][None])[0, labels[i]]
        assert float(rise[i]) == pytest.approx(float(expected), abs=1e-6)


def test_word_maps_hold_every_word() -> None:
    words = ["word"] * 60
    figure = wordmap.word_maps(words, {"a": np.linspace(-1, 1, 60), "b": np.zeros(60)})
    assert [len(ax.texts) for ax in figure.axes] == [60, 60]


def test_paired_differences() -> None:
    worse, better = torch.linspace(1, 2, 50).double(), torch.linspace(0, 1, 50).double()
    assert below(worse, better)[0]
    assert not below(better, worse)[0]
    assert verdict(True) == "reproduced"


@pytest.mark.parametrize("action", clips.ACTIONS)
def test_a_clip_moves_where_and_when_it_says(action: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    pytest.importorskip("PIL")
    from PIL import Image

    from headwater.neuralize import motion_vectors

    random = np.random.default_rng(0)
    small = random.integers(0, 255, (30, 30, 3), dtype=np.uint8)
    photograph = tmp_path / "texture.png"
    Image.fromarray(small).resize((300, 300), Image.Resampling.BICUBIC).save(photograph)
    still = np.asarray(Image.fromarray(small).resize((clips.WIDTH, clips.HEIGHT), Image.Resampling.BICUBIC))
    behind = [np.repeat(still[None], 2 * clips.FRAMES, 0)]
    clip = clips.make(tmp_path / "clip.mp4", action, behind, photograph, 1)
    assert int(clip.active.sum()) == clips.ACTIVE
    field = np.abs(motion_vectors(clip.path)).sum(0)
    assert field.shape == clip.inside.shape == (clips.FRAMES, 15, 20)
    assert field[clip.active].sum() > 0.9 * field.sum()
    assert field[clip.inside].sum() > 0.6 * field.sum()
    assert clips.make(tmp_path / "clip.mp4", action, behind, photograph, 1).path == clip.path


def test_shares_by_hand() -> None:
    relevance = np.array([[[2.0, -1.0], [1.0, 1.0]]])
    mask = np.array([[[True, False], [False, True]]])
    assert videos._shares(relevance, np.abs(relevance), mask) == (0.75, 0.6, 0.5)


@pytest.mark.slow
@pytest.mark.data
def test_a_quick_run(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["reproduce", "overview", "--scale", "quick", "--out", str(tmp_path), "--data", str(data)]
    )
    assert result.exit_code == 0, result.output
    claims = (tmp_path / "claims.csv").read_text()
    for key in (
        "conservation", "perturbation-SqueezeNet", "sky", "cup", "noise", "deletion-topics-sensitivity",
        "deletion-reviews-random", "signs-topics", "video-where", "video-when", "video-classes",
    ):  # fmt: skip
        assert f"\n{key}," in claims or claims.startswith(f"{key},")
    for name in ("heatmaps", "perturbation", "deletion", "words_topics", "words_reviews", "video", "video_course"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5000
