"""The LRP Toolbox's plain-text networks: layouts, exact pooling, errors that name the line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import headwater as hw
from headwater import toolbox

NETWORK = """\
Convolution 2 1 1 2 1 1
1 2 3 4
0.5 -0.5
SumPool 2 2 2 2
Flatten
Linear 4 3
1 0 0 0 1 0 0 0 1 1 1 1
0 0 10
Rect
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "network.txt"
    path.write_text(text)
    return path


def test_layouts(tmp_path: Path) -> None:
    """Worked out by hand in the toolbox's order: height, width, channel."""
    model = toolbox.load(write(tmp_path, NETWORK))
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    # Filter 1 is (1, 3) downwards, filter 2 is (2, 4); the 2x4 map is pooled to one row of two, sums over root 4.
    first = x[0, 0, :2] + 3 * x[0, 0, 1:] + 0.5
    second = 2 * x[0, 0, :2] + 4 * x[0, 0, 1:] - 0.5
    pooled = [[m[:, :2].sum() / 2, m[:, 2:].sum() / 2] for m in (first, second)]
    flat = torch.stack([pooled[0][0], pooled[1][0], pooled[0][1], pooled[1][1]])  # channels fastest
    expected = flat @ torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]) + torch.tensor([0.0, 0, 10])
    torch.testing.assert_close(model(x)[0], expected)
    assert not model.training


def test_older_layout(tmp_path: Path) -> None:
    """Older versions wrote one line for each row of a weight matrix."""
    new = toolbox.load(write(tmp_path, "Linear 2 3\n1 2 3 4 5 6\n7 8 9\nTanh\nSoftMax\n"))
    old = toolbox.load(write(tmp_path, "Linear 2 3\n1 2 3\n4 5 6\n7 8 9\nTanh\nSoftMax\n\n"))
    x = torch.randn(4, 2)
    assert torch.equal(new(x), old(x))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Rect\nTango\n", r"line 2: unknown layer 'Tango'; known are Linear"),
        ("Rect\nLinear 2\n", r"line 2: Linear has 2 sizes in its header, found 1"),
        ("Linear 2 x\n", r"line 1: a layer's sizes must be whole numbers"),
        ("Linear 2 2\n1 2 3\n", r"line 1: 4 numbers must follow, only 3 do"),
        ("Linear 2 2\n1 2 3 4\n1\nRect\n", r"line 2: 2 numbers must follow, only 1 do"),
        ("Linear 2 2\n1 2 3 4 5\n1 1\n", r"line 1: 4 numbers must follow, not 5"),
        ("Linear 2 2\n1 2 three 4\n1 1\n", r"line 2: not a number .*'three'"),
        ("\n\n", r"holds no layer"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(hw.HeadwaterError, match=message):
        toolbox.load(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        toolbox.load(tmp_path / "nothing.txt")


@pytest.mark.data
def test_exclusive_or(data: Path) -> None:
    model = toolbox.load(data / "lrp_toolbox_mnist" / "xor_net_small.txt")
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert model(corners).argmax(1).tolist() == [0, 1, 1, 0]
