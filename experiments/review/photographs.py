"""The networks and photographs that stand in for VGG-16, ResNet-50 and the paper's pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import evaluation
from tests.models import shared

# the classes of Fig. 5, of which the shared photographs have one each
OF_FIGURE_5 = ("space_bar", "beacon", "snowmobile", "viaduct", "Greater_Swiss_Mountain_dog")
CLASSES = 1000


@dataclass(frozen=True)
class Pictures:
    """Some photographs as one network takes them.

    Attributes:
        model: frozen; ``composite``: LRP's rules on it.
        pixels: in 0 to 1, and ``x``: the network's inputs, both ``[N, 3, H, W]``; ``low``, ``high``: black and white.
        labels: ImageNet classes ``[N]``; ``names``: of the classes.
    """

    model: nn.Module
    composite: str
    pixels: Tensor
    x: Tensor
    low: Tensor
    high: Tensor
    labels: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def right(self) -> Tensor:
        """Whether the network names each rightly, ``[N]``."""
        with torch.inference_mode():
            return self.model(self.x).argmax(1) == self.labels


def named(data: Path, network: str, wanted: tuple[str, ...]) -> Pictures:
    """The photographs of classes, by name, for one of the benchmark's networks."""
    subject = evaluation.SUBJECTS[network]
    names = class_names(data)
    labels = torch.tensor([names.index(name) for name in wanted])
    pixels = torch.cat([_one(data, label, subject.side) for label in labels.tolist()])
    low, high = evaluation.bounds(subject)
    x = subject.prepare(pixels)
    spoken = tuple(name.replace("_", " ") for name in wanted)
    return Pictures(subject.network(data), subject.composite, pixels, x, low, high, labels, spoken)


def spread(data: Path, count: int, first: int, step: int, side: int) -> Tensor:
    """Every ``step``-th, from ``first`` on, of ``count`` photographs that are spread over the classes; 0 to 1."""
    files = sorted((data / "imagenet_sample_1000").glob("*.JPEG"))
    return torch.stack([shared.photograph(file, side) for file in files[:: CLASSES // count][:count][first::step]])


def class_names(data: Path) -> list[str]:
    """ImageNet's classes in order: the photographs' file names without their WordNet ids."""
    files = sorted((data / "imagenet_sample_1000").glob("*.JPEG"))
    return [file.stem.partition("_")[2] for file in files]


def _one(data: Path, label: int, side: int) -> Tensor:
    return shared.photograph(sorted((data / "imagenet_sample_1000").glob("*.JPEG"))[label], side)[None]


def alike(maps: Tensor, apart: int) -> float:
    """Mean correlation of a map ``[N, H, W]`` with itself shifted by some pixels: near 1 where it is coarse."""
    found = [
        torch.corrcoef(torch.stack([m[:, apart:].flatten(), m[:, :-apart].flatten()]))[0, 1] for m in maps.double()
    ]
    return float(torch.stack(found).mean())


def negative(maps: Tensor) -> float:
    """The mean share of negative relevance, ``Σ R⁻ / Σ |R|``."""
    maps = maps.double().flatten(1)
    return float((maps.clamp(max=0).abs().sum(1) / maps.abs().sum(1)).mean())


def sign_changes(maps: Tensor) -> float:
    """The mean share of neighbouring pixels, across and down, whose relevance has opposite signs."""
    across, down = maps[:, :, 1:] * maps[:, :, :-1] < 0, maps[:, 1:] * maps[:, :-1] < 0
    return float((across.double().mean() + down.double().mean()) / 2)
