"""Fisher vectors and bags of words: against plain loops, from pixels and from the motion of compressed clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.neuralize import (
    FisherVectors,
    histogram_intersection,
    motion_vectors,
    neuralize,
    read_frames,
    video_folder,
)
from headwater.neuralize.encodings import Encoding, LocalDescriptors, Normalize
from tests.neuralize.clips import library
from tests.reference.audit import assert_accounted, assert_balanced

pytest.importorskip("sklearn")

from sklearn import pipeline, svm

chain = pipeline.make_pipeline


def mixture(words: int = 3, size: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weights = torch.rand(words, dtype=torch.float64).softmax(0)
    return weights, torch.randn(words, size, dtype=torch.float64), torch.rand(words, size, dtype=torch.float64) + 0.5


def contributions(t: torch.Tensor, encoder: Encoding) -> torch.Tensor:
    """What each of ``[L, D]`` descriptors adds to the vector ``[F]``, by plain loops."""
    found = []
    for row in t:
        densities = [
            float(w) * float(torch.exp(-0.5 * ((row - m) ** 2 / v).sum()) / v.prod().sqrt())
            for w, m, v in zip(encoder.weights, encoder.means, encoder.variances, strict=True)
        ]
        q = [d / sum(densities) for d in densities]
        if encoder.order == 0:
            found.append(torch.tensor(q, dtype=torch.float64))
            continue
        by_mean, by_deviation = [], []
        for p, w, m, v in zip(q, encoder.weights, encoder.means, encoder.variances, strict=True):
            u = (row - m) / v.sqrt()
            by_mean.append(p * u / w.sqrt())
            by_deviation.append(p * (u**2 - 1) / (2 * w).sqrt())
        found.append(torch.cat([*by_mean, *by_deviation]))
    return torch.stack(found) / len(t)


@pytest.mark.parametrize("order", [0, 2])
def test_encodings_by_plain_loops(order: int) -> None:
    encoder = Encoding(*mixture(), order=order)
    t = torch.randn(2, 7, 4, dtype=torch.float64)
    each = torch.stack([contributions(row, encoder) for row in t])
    assert torch.allclose(encoder(t), each.sum(1))
    c = torch.randn(2, each.shape[2], dtype=torch.float64)
    assert torch.allclose(encoder.shares(t, c), (each * c[:, None]).sum(2))
    e = hw.explain(encoder, t, target=1, ledger=True)
    assert torch.allclose(e.relevance.sum(2), each[:, :, 1])
    assert_balanced(e)
    assert e.delta.abs().max() < 1e-9


def test_normalization_passes_relevance_one_to_one() -> None:
    z = torch.randn(3, 6, dtype=torch.float64)
    z[0, 2] = 0
    network = torch.nn.Sequential(Normalize(), torch.nn.Linear(6, 2, bias=False).double())
    y = Normalize()(z)
    assert torch.allclose(y.norm(dim=1), torch.ones(3, dtype=torch.float64))
    e = hw.explain(network, z, target=0, composite="lrp_0", ledger=True)
    assert torch.allclose(e.relevance, y * network[1].weight[0])
    assert_balanced(e)


@pytest.mark.parametrize(("kind", "shape"), [("gradients", (3, 27, 33)), ("motion", (2, 16, 7, 9))])
def test_windows_spread_relevance_evenly(kind: str, shape: tuple[int, ...]) -> None:
    cell, cells = ((4, 4), (3, 2)) if kind == "gradients" else ((5, 2, 2), (2, 2, 3))
    local = LocalDescriptors(kind, cell, cells)
    x = torch.randn(2, *shape, dtype=torch.float64)
    t = local(x)
    grid = local.grid(x.shape[2:])
    assert t.shape[1] == int(np.prod(grid))
    relevance = torch.randn(2, t.shape[1], dtype=torch.float64)
    spread = local.places(relevance, x)
    expected = torch.zeros_like(x)
    window = tuple(a * b for a, b in zip(cell, cells, strict=True))
    for n in range(2):
        for i, r in enumerate(relevance[n]):
            place = np.unravel_index(i, grid)
            at = tuple(slice(p * c, p * c + w) for p, c, w in zip(place, cell, window, strict=True))
            expected[(n, slice(None), *at)] += r / (np.prod(window) * shape[0])
    assert torch.allclose(spread, expected)
    assert torch.allclose(spread.flatten(1).sum(1), relevance.sum(1))


def stripes(count: int) -> tuple[Any, Any, Any]:
    """Noise with a square of stripes of one of three directions; where the square is."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    pictures, squares, labels = [], [], np.arange(count) % 3
    for label in labels:
        row, column = random.integers(12, 36, 2)
        square = (abs(y - row) < 11) & (abs(x - column) < 11)
        angle = label * np.pi / 4
        pictures.append(
            random.normal(0, 0.3, (48, 48)) + 2 * square * np.sin(0.9 * (x * np.cos(angle) + y * np.sin(angle)))
        )
        squares.append(square)
    return np.stack(pictures)[:, None], np.stack(squares), labels


@pytest.mark.parametrize("encoding", ["fisher", "bag"])
def test_images(encoding: str) -> None:
    x, squares, y = stripes(90)
    last = svm.LinearSVC() if encoding == "fisher" else svm.SVC(kernel=histogram_intersection)
    fitted = chain(FisherVectors(encoding=encoding, n_words=8, n_components=10), last).fit(x[:60], y[:60])
    assert fitted.score(x[60:], y[60:]) > 0.8
    network = neuralize(fitted)
    v = network.encode(x[60:66])
    assert np.abs(network(v).detach().numpy() - fitted.decision_function(x[60:66])).max() < 1e-9
    e = hw.explain(network, v, ledger=True)
    assert e.relevance.shape == v.shape
    assert_balanced(e)
    assert_accounted(e)
    evidence = e.relevance[:, 0].clamp(min=0)
    inside = (evidence * torch.as_tensor(squares[60:66])).flatten(1).sum(1) / evidence.flatten(1).sum(1)
    assert inside.mean() > 1.3 * squares[60:66].mean()  # where the stripes are


def test_refusals_of_fields() -> None:
    x, _, y = stripes(6)
    with pytest.raises(hw.InvalidInput, match="no window"):
        FisherVectors().fit(x[:, :, :10, :10])
    with pytest.raises(hw.InvalidInput, match="choose from"):
        FisherVectors("sounds").fit(x)
    with pytest.raises(hw.InvalidInput, match="no field"):
        FisherVectors().fit([])
    with pytest.raises(hw.InvalidInput, match="too few"):
        FisherVectors(n_words=10_000).fit(x, y)


# ---------------------------------------------------------------------- compressed video


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("av")
    pytest.importorskip("ale_py")
    return library(tmp_path_factory.mktemp("clips"), 4, ("pong", "boxing", "freeway"), frames=30)


def test_motion_of_what_moves(tmp_path: Path) -> None:
    """A square that moves three pixels a frame to the right, and two down."""
    av = pytest.importorskip("av")
    texture = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    path = tmp_path / "square.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "crf": "18", "refs": "1"})
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for i in range(12):
            picture = np.full((128, 160, 3), 90, dtype=np.uint8)
            picture[16 + 2 * i : 64 + 2 * i, 16 + 3 * i : 64 + 3 * i] = texture
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    motion = motion_vectors(path)
    assert motion.shape == (2, 12, 8, 10)
    assert read_frames(path).shape == (12, 128, 160, 3)
    assert not motion[:, 0].any()  # a first frame is predicted from none
    inside = motion[:, 6, 3:4, 3:5]  # blocks that the square covers wholly by then
    assert np.allclose(inside[0], 3, atol=0.5)
    assert np.allclose(inside[1], 2, atol=0.5)
    assert np.array_equal(motion_vectors(path, frames=4, start=2), motion[:, 2:6])


def test_a_classifier_of_compressed_clips(clips: Path) -> None:
    found = video_folder(clips)["train"]
    fields = [motion_vectors(path, frames=30) for path, _ in found]
    games = np.array([name for _, name in found])
    train = np.arange(len(games)) % 4 < 3
    features = FisherVectors("motion", n_words=6, n_components=10, n_samples=6_000)
    fitted = chain(features, svm.LinearSVC()).fit([f for f, t in zip(fields, train, strict=True) if t], games[train])
    rest = np.stack([f for f, t in zip(fields, train, strict=True) if not t])
    assert fitted.score(rest, games[~train]) >= 2 / 3
    network = neuralize(fitted)
    x = network.encode(rest)
    assert np.abs(network(x).detach().numpy() - fitted.decision_function(rest)).max() < 1e-9
    e = hw.explain(network, x, ledger=True)
    assert e.relevance.shape == (3, 2, 30, 27, 20)
    assert_balanced(e)
    assert_accounted(e)
    blocks = e.relevance.sum(1)
    moving = torch.as_tensor(np.abs(rest).sum(1) > 0)
    shares = [(r.abs() * m).sum() / r.abs().sum() / m.double().mean() for r, m in zip(blocks, moving, strict=True)]
    assert min(shares) > 1  # what moves has more than its share


def test_files_that_are_no_clips(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(hw.InvalidInput, match="cannot be read"):
        motion_vectors(tmp_path / "text.mp4")
    with pytest.raises(hw.InvalidInput, match="cannot be read"):
        read_frames(tmp_path / "absent.mp4")
    with pytest.raises(hw.InvalidInput, match="no folder of clips"):
        video_folder(tmp_path)


def test_a_folder_with_hmdb51_splits(tmp_path: Path) -> None:
    for name in ("sit", "wave"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "clips" / name / f"{name}_{i}.avi").touch()
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "sit_test_split1.txt").write_text("sit_0.avi 1\nsit_1.avi 2\nsit_2.avi 0\n")
    with pytest.raises(hw.InvalidInput, match=r"wave.*split 1"):
        video_folder(tmp_path / "clips", splits / "1")
    (splits / "wave_test_split1.txt").write_text("wave_0.avi 2\nwave_1.avi 1\nwave_2.avi 1\n")
    parts = video_folder(tmp_path / "clips", splits / "1")
    assert [p.name for p, _ in parts["train"]] == ["sit_0.avi", "wave_1.avi", "wave_2.avi"]
    assert [p.name for p, _ in parts["test"]] == ["sit_1.avi", "wave_0.avi"]


@pytest.mark.data
def test_real_clips(data: Path) -> None:
    pytest.importorskip("av")
    for name in ("demo.mp4", "test.avi", "test.mp4"):
        motion = motion_vectors(data / "video_clips" / name, frames=20)
        assert motion.shape[:2] == (2, 20)
        assert np.isfinite(motion).all()
        assert np.abs(motion[:, 1:]).max() > 1
