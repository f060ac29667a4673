"""A small job that many tests run, and how two stores are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headwater.dataset import Store, run

SAMPLES = 45


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 4)).eval()


def samples(n: int = SAMPLES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.arange(n) % 3


def job(path: Path, **options: Any) -> Store:
    """Six chunks of two batches, the last of them not full."""
    return run(network(), samples(), path, **{"batch_size": 4, "chunk": 8, "threads": 1, "progress": False, **options})


def content(path: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
