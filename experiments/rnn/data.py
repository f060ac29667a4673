"""MNIST and Fashion-MNIST as the thesis takes them: pixels in -1 to 1, in folds, three side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments import idx
from experiments.reproduction import Reproduction
from headwater.evaluate import majority_sequences

SETS = ("mnist", "fashion_mnist")
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
FOLDS = 7  # as many as keep the sets' own proportion of training and test, 60,000 to 10,000
LOW, HIGH = -1.0, 1.0  # the domain of a pixel
SIDE = 28
CLASSES = {
    "mnist": tuple(f"Digit {digit}" for digit in range(10)),
    "fashion_mnist": (
        "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Images:
    """Images ``[N, 28, 28]`` uint8 and labels ``[N]``: training, and after it test."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def sets(run: Reproduction) -> tuple[str, ...]:
    """The sets that a run looks at; a quick one only at the one whose accuracy is sooner reached."""
    return run.pick(quick=SETS[1:], full=SETS)


def load(run: Reproduction, name: str) -> Images:
    """All 70,000 images of a set, the 60,000 of training first."""
    parts = [
        [idx.read(run.path(name, f"{part}-{what}-ubyte.gz")) for part in ("train", "t10k")]
        for what in ("images-idx3", "labels-idx1")
    ]
    return Images(torch.cat(parts[0]), torch.cat(parts[1]).long())


def split(images: Images, fold: int | None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of training and of test: of one of seven folds over all, or (``None``) as the set itself is divided."""
    order = torch.arange(len(images))
    if fold is not None:
        order = order[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))].roll(
            fold * len(images) // FOLDS
        )
    return order[: -len(images) // FOLDS], order[-len(images) // FOLDS :]


def scaled(pixels: Tensor) -> Tensor:
    """Bytes as numbers from -1 to 1."""
    return pixels.float() / 127.5 - 1


@dataclass(frozen=True)
class Examples:
    """Images side by side, as rows of a set of images.

    Attributes:
        images: all that the rows name.
        rows: ``[N, k]``, which k images stand side by side.
        labels: ``[N]``.
        marks: ``[N, k]``, the images of the label's class.
    """

    images: Images
    rows: Tensor
    labels: Tensor
    marks: Tensor

    @classmethod
    def single(cls, images: Images, rows: Tensor) -> Examples:
        """The images of some rows, each by itself."""
        return cls(images, rows.unsqueeze(1), images.labels[rows], torch.ones(len(rows), 1, dtype=torch.bool))

    @classmethod
    def majority(cls, images: Images, rows: Tensor, count: int, seed: int) -> Examples:
        """The thesis's sequences of three images of some rows, two of them of the class that is the label."""
        made = majority_sequences(rows.unsqueeze(1), images.labels[rows], count=count, seed=seed)
        return cls(images, made.x, made.y, made.truth)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice | Tensor) -> Examples:
        return Examples(self.images, self.rows[part], self.labels[part], self.marks[part])

    def x(self, at: Tensor | slice = slice(None)) -> Tensor:
        """Pixels in -1 to 1, ``[n, 28, 28 k]``."""
        return scaled(self.images.pixels[self.rows[at]]).movedim(1, 2).flatten(2)
