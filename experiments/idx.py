"""The idx files that MNIST and Fashion-MNIST come in."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def read(path: Path) -> Tensor:
    """What a gzipped idx file of bytes holds, uint8, in the shape that its head gives."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(tuple(shape)).copy())
