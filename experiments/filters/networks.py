"""S1, S2, AL1 and AL2: small networks and AlexNets, of the paper's numbers of parameters to within 1 %."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import headwater as hw
from headwater.propagate.filters import Filter

CLASSES = 10
LAYERS = ("conv1", "conv2", "conv3", "conv4")  # the paper's "first four convolutional layers"


@dataclass(frozen=True)
class Convolution:
    """A convolution with ReLU; ``pool`` is the size of the maximum pooling after it (stride 2), 0 for none."""

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0


@dataclass(frozen=True)
class Subject:
    """One of the paper's networks.

    Attributes:
        name: the paper's.
        side: of the images it takes.
        parameters: how many the paper's has.
        convolutions, hidden: the sizes chosen here; the paper prints none.
        trend: of Mean Power over training, as the paper found it.
    """

    name: str
    side: int
    parameters: int
    convolutions: tuple[Convolution, ...]
    hidden: tuple[int, ...]
    trend: str

    def network(self) -> nn.Sequential:
        """Untrained, with torch's own initialization."""
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 1
        for i, c in enumerate(self.convolutions, 1):
            layers[f"conv{i}"] = nn.Conv2d(inputs, c.channels, c.kernel, c.stride, c.padding)
            layers[f"relu{i}"] = nn.ReLU()
            if c.pool:
                layers[f"pool{i}"] = nn.MaxPool2d(c.pool, 2)
            inputs = c.channels
        layers["flatten"] = nn.Flatten()
        with torch.no_grad():
            features = nn.Sequential(layers)(torch.zeros(1, 1, self.side, self.side)).shape[1]
        sizes = (features, *self.hidden)
        for i, (narrow, wide) in enumerate(pairwise(sizes), 1):
            layers[f"dense{i}"], layers[f"bend{i}"] = nn.Linear(narrow, wide), nn.ReLU()
        layers["out"] = nn.Linear(sizes[-1], CLASSES)
        return nn.Sequential(layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


_SMALL = (Convolution(32, pool=2), Convolution(64), Convolution(64, pool=2))
_ALEX = (Convolution(128), Convolution(128))
SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("S1", 28, 270_578, (Convolution(16, pool=2), *_SMALL), (358,), "rises"),
        Subject(
            "S2", 140, 273_381,
            (Convolution(16, 5, 2, 2, 2), Convolution(32, pool=2), Convolution(64, pool=2), Convolution(64, pool=2)),
            (206,), "rises",
        ),
        Subject(
            "AL1", 28, 2_664_138,
            (Convolution(32, pool=2), Convolution(64, 5, 1, 2, pool=2), *_ALEX, Convolution(128, pool=2)),
            (1024, 1024), "rises",
        ),
        Subject(
            "AL2", 140, 2_874_810,
            (Convolution(32, 11, 4, 2, pool=3), Convolution(64, 5, 1, 2, pool=3), *_ALEX, Convolution(128, pool=3)),
            (1088, 1088), "falls",
        ),
    )
}  # fmt: skip


def parameters(model: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(p.numel() for p in model.parameters())


def everywhere(filter_: Filter) -> dict[str, Filter]:
    """The same filter at each of the first four convolutions."""
    return dict.fromkeys(LAYERS, filter_)


def composite(filters: Mapping[str, Filter] | None = None) -> hw.Composite:
    """LRP-ε, with z^B at the pixels, and filters on the relevance at the output of some convolutions.

    With ε alone a black pixel gets exactly nothing, whatever the network does: no noise could lie outside the digit.
    """
    rules = {"conv1": hw.rules.Box()}
    filtered = {f"layer:{at}": (rules.get(at, hw.rules.Epsilon(1e-6)), f) for at, f in (filters or {}).items()}
    return hw.Composite({**filtered, "input": hw.rules.Box(), "affine": hw.rules.Epsilon(1e-6)})


def lrp(
    model: nn.Module, x: Tensor, filters: Mapping[str, Filter] | None = None, *, layers: tuple[str, ...] = (),
    target: Any = None, training: bool = False,
) -> hw.Explanation:  # fmt: skip
    """Relevance by :func:`composite`, of the predicted class by default; also of the outputs of ``layers``."""
    return hw.explain(
        model, x, target, method="lrp", composite=composite(filters), bounds=(0.0, 1.0), layers=layers,
        batch_size=60, progress=False, allow_training=training,
    )  # fmt: skip
