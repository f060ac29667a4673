"""Small models that are taken elsewhere and brought back, and what must hold of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_balanced

BALANCED = 1e-4  # of |f| + sum |R|, in float32


class Convolutional(nn.Module):
    """Convolutions with batch norm, groups, a residual sum and GELU; pictures ``[N, 3, 16, 16]`` to ``[N, 5]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.grouped, self.head = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Linear(8, 5)
        nn.init.normal_(self.bn.bias)
        self.bn.running_mean.normal_()  # type: ignore[union-attr, operator]
        self.bn.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        x = x + nn.functional.gelu(self.grouped(x))
        return self.head(nn.functional.max_pool2d(x, 2)[:, :, 1:].mean((2, 3)))


class Attending(nn.Module):
    """A layer of a transformer; ``[N, 5, 16]`` to ``[N, 3]``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


class Recurrent(nn.Module):
    """An LSTM; ``[N, 7, 6]`` to ``[N, 3]``."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


SHAPES: dict[type[nn.Module], tuple[int, ...]] = {Convolutional: (3, 16, 16), Attending: (5, 16), Recurrent: (7, 6)}


def given(kind: type[nn.Module], samples: int = 2) -> tuple[nn.Module, Tensor]:
    return kind().eval(), torch.randn(samples, *SHAPES[kind])


def assert_explained(model: Any, x: Any, **options: Any) -> hw.Explanation:
    """Explained, with a balanced ledger."""
    e = hw.explain(model, x, ledger=True, **options)
    assert_balanced(e, BALANCED)
    return e


def assert_as(model: Any, original: nn.Module, x: Tensor, tolerance: float = 1e-4, **options: Any) -> None:
    """The same output, and the same explanation up to rounding."""
    torch.testing.assert_close(model(x), original(x), atol=1e-5, rtol=1e-4)
    found, expected = assert_explained(model, x, **options), hw.explain(original, x, **options)
    assert (found.relevance - expected.relevance).abs().max() <= tolerance * expected.relevance.abs().max()
