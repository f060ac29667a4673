"""Files become the batch that a model takes; what cannot be read is refused in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from headwater.errors import InvalidInput, MissingExtra
from headwater.inputs import Preparation, read


def picture(path: Path, height: int = 4, width: int = 6, colour: tuple[int, int, int] = (255, 0, 51)) -> str:
    Image.new("RGB", (width, height), colour).save(path)
    return str(path)


def test_pictures_are_normalized_and_bounded(tmp_path: Path) -> None:
    samples = read([picture(tmp_path / "red.png")], Preparation(mean=(0.5, 0.5, 0.0), std=(0.5, 0.25, 1.0)))
    assert samples.names == ["red"]
    assert samples.x.shape == (1, 3, 4, 6)
    torch.testing.assert_close(samples.pictures[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.2]))
    torch.testing.assert_close(samples.x[0, :, 0, 0], torch.tensor([1.0, -2.0, 0.2]))
    low, high = samples.bounds
    torch.testing.assert_close(low.flatten(), torch.tensor([-1.0, -2.0, 0.0]))
    torch.testing.assert_close(high.flatten(), torch.tensor([1.0, 2.0, 1.0]))


def test_a_size_crops_around_the_middle(tmp_path: Path) -> None:
    values = np.zeros((4, 8, 3), dtype=np.uint8)
    values[:, 2:6] = 255
    Image.fromarray(values).save(tmp_path / "middle.png")
    samples = read([str(tmp_path / "middle.png")], Preparation(size=(4, 4)))
    assert (samples.x == 1).all()


def test_grey_pictures_get_three_channels(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 255).save(tmp_path / "grey.jpg")
    assert read([str(tmp_path / "grey.jpg")]).x.shape == (1, 3, 2, 2)


def test_a_folder_and_a_glob_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a sample")
    assert read([str(tmp_path)]).names == ["a", "b"]
    assert read([str(tmp_path / "*.png")]).names == ["b"]


def test_arrays_are_batches(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(6.0).reshape(2, 3))
    np.save(tmp_path / "two.npy", np.zeros((1, 3)))
    samples = read([str(tmp_path / "one.npy"), str(tmp_path / "two.npy")])
    assert samples.x.dtype == torch.float32
    assert samples.x.shape == (3, 3)
    assert samples.names == ["one 0", "one 1", "two 0"]


def test_several_arrays_are_passed_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", nodes=np.ones((2, 3)), ids=np.array([[1], [2]]))
    samples = read([str(tmp_path / "both.npz")])
    assert samples.x["nodes"].dtype == torch.float32
    assert samples.x["ids"].dtype == torch.int64


def test_a_table_has_named_columns_and_drops_some(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\ufeffage,height,answer\n1,2.5,yes\n3,4,no\n", encoding="utf-8")
    samples = read([str(path)], Preparation(drop=["answer"]))
    assert samples.columns == ["age", "height"]
    assert samples.x.tolist() == [[1.0, 2.5], [3.0, 4.0]]
    assert samples.names == ["table 0", "table 1"]


def test_a_table_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "bare.csv").write_text("1,2\n3,4\n")
    samples = read([str(tmp_path / "bare.csv")])
    assert samples.columns == ["column 0", "column 1"]
    assert samples.x.shape == (2, 2)


def test_recordings_keep_their_rate(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    soundfile.write(tmp_path / "tone.wav", np.zeros((100, 2), dtype=np.float32), 8000)
    samples = read([str(tmp_path / "tone.wav")])
    assert samples.x.shape == (1, 2, 100)
    assert samples.rate == 8000


class Words:
    """A tokenizer as small as one can be: a word is its length."""

    def __call__(self, texts: list[str], **options: Any) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([[len(word) for word in text.split()] for text in texts])}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"<{number}>" for number in ids]


def test_texts_are_tokenized(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a bb")
    samples = read([str(tmp_path / "text.txt")], Preparation(tokenizer=Words()))
    assert samples.x["input_ids"].tolist() == [[1, 2]]
    assert samples.tokens == [["<1>", "<2>"]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "there is no file"),
        ({"a.xyz": "1"}, "no known kind"),
        ({"a.csv": "1", "b.txt": "word"}, "mixes several kinds"),
        ({"a.txt": "word"}, "needs the tokenizer"),
        ({"a.png": "not a picture"}, "cannot be read as a picture"),
        ({"a.wav": "not a sound"}, "cannot be read as a recording"),
        ({"a.npy": "not an array"}, "cannot be read as arrays"),
        ({"a.csv": ""}, "holds no row"),
        ({"a.csv": "x,y\n"}, "a header and no row"),
        ({"a.csv": "x,y\n1,2\n3\n"}, "row 3 of .* has 1 cells"),
        ({"a.csv": "x,y\n1,two\n"}, "row 2 of .* has 'two' in column 'y'"),
        ({"a.csv": "x,y\n1,2\n", "b.csv": "x,z\n1,2\n"}, "the columns of"),
    ],
)
def test_refusals(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=message):
        read([str(tmp_path / name) for name in files] or [str(tmp_path / "nothing.png")])


def test_refuses_a_column_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(InvalidInput, match="no column 'z'; its columns are x, y"):
        read([str(tmp_path / "a.csv")], Preparation(drop=["z"]))


def test_refuses_pictures_of_several_sizes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--size"):
        read([picture(tmp_path / "a.png"), picture(tmp_path / "b.png", height=5)])


def test_refuses_recordings_of_several_rates(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    for rate in (8000, 16000):
        soundfile.write(tmp_path / f"{rate}.flac", np.zeros(100, dtype=np.float32), rate)
    with pytest.raises(InvalidInput, match="8000, 16000 Hz"):
        read([str(tmp_path)])


def test_refuses_arrays_that_are_no_batch(tmp_path: Path) -> None:
    np.save(tmp_path / "scalar.npy", np.array(1.0))
    np.savez(tmp_path / "objects.npz", a=np.array([None]))
    with pytest.raises(InvalidInput, match="first dimension"):
        read([str(tmp_path / "scalar.npy")])
    with pytest.raises(InvalidInput, match="cannot be read as arrays"):
        read([str(tmp_path / "objects.npz")])


def test_refuses_a_mean_for_another_number_of_channels(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="three channels"):
        read([picture(tmp_path / "a.png")], Preparation(mean=(0.5,), std=(0.5,)))


def test_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtra, match=r"pip install 'headwater\[audio\]'"):
        read([str(tmp_path / "a.wav")])
