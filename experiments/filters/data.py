"""MNIST as the paper's networks take it: pixels in 0 to 1, and for two of them enlarged to 140x140."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.reproduction import Reproduction

SIDE = 28


@dataclass(frozen=True)
class Digits:
    """Images ``[N, 1, 28, 28]`` uint8 and labels ``[N]``, of training and of test."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def digits(run: Reproduction) -> Digits:
    """The full set."""
    train, test = (run.path("mnist", f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k"))
    train_labels, test_labels = (run.path("mnist", f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k"))
    return Digits(_images(train), _labels(train_labels), _images(test), _labels(test_labels))


def prepare(images: Tensor, side: int) -> Tensor:
    """Pixels in 0 to 1, ``[N, 1, side, side]``, interpolated where the network wants more of them."""
    pixels = images.float() / 255
    return pixels if side == SIDE else F.interpolate(pixels, size=(side, side), mode="bilinear")


def _images(path: Path) -> Tensor:
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16)
    return torch.from_numpy(pixels.reshape(-1, 1, SIDE, SIDE).copy())


def _labels(path: Path) -> Tensor:
    return torch.from_numpy(np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=8).astype(np.int64))
