"""Networks in the plain-text format of the LRP Toolbox (Lapuschkin et al., JMLR 17, 2016) as torch modules.

A file lists layers, one header line each; ``Linear`` and ``Convolution`` are followed by their weights and then their
biases. The toolbox keeps images as (height, width, channel), torch as (channel, height, width): weights are permuted
here, and ``Flatten`` keeps the toolbox's order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater.errors import InvalidInput


class SumPool(nn.Module):
    """Sum over each window, divided by the root of its size, as the toolbox defines sum pooling.

    Args:
        kernel_size, stride: of the window, vertical and horizontal.
    """

    def __init__(self, kernel_size: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, C, H', W']``."""
        total = F.avg_pool2d(x, self.kernel_size, self.stride, divisor_override=1)
        return total / math.sqrt(math.prod(self.kernel_size))

    def extra_repr(self) -> str:
        """The window, for ``print(model)``."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class Flatten(nn.Module):
    """All axes but the first in one, channels fastest as in the toolbox."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, H * W * C]``."""
        return x.movedim(1, -1).flatten(1)


class _Reader:
    """The lines of a network file, with errors that name them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = path.read_text(encoding="ascii", errors="replace").splitlines()
        self.at = 0

    def error(self, problem: str, line: int | None = None) -> InvalidInput:
        return InvalidInput(f"{self.path}, line {self.at if line is None else line}: {problem}")

    def header(self) -> tuple[str, list[int]] | None:
        """The next layer's name and its sizes; None at the end of the file."""
        while self.at < len(self.lines):
            words = self.lines[self.at].split()
            self.at += 1
            if words:
                try:
                    return words[0], [int(word) for word in words[1:]]
                except ValueError:
                    raise self.error(f"a layer's sizes must be whole numbers, not {' '.join(words[1:])!r}") from None
        return None

    def numbers(self, *shape: int) -> Tensor:
        """As many numbers as a tensor of this shape holds, from as many lines as they fill."""
        wanted, values = math.prod(shape), list[float]()
        start = self.at
        while len(values) < wanted:
            words = self.lines[self.at].split() if self.at < len(self.lines) else []
            if not words or words[0] in _LAYERS:
                raise self.error(f"{wanted} numbers must follow, only {len(values)} do; the file is cut short", start)
            self.at += 1
            try:
                values.extend(float(word) for word in words)
            except ValueError as reason:
                raise self.error(f"not a number ({reason})") from None
        if len(values) > wanted:
            raise self.error(f"{wanted} numbers must follow, not {len(values)}", start)
        return torch.tensor(values, dtype=torch.get_default_dtype()).view(*shape)


def _filled(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weight)
        assert layer.bias is not None, "both kinds are made with a bias"
        layer.bias.copy_(bias)
    return layer


def _linear(reader: _Reader, inputs: int, outputs: int) -> nn.Module:
    weight = reader.numbers(inputs, outputs)
    return _filled(nn.Linear(inputs, outputs), weight.T, reader.numbers(outputs))


def _convolution(reader: _Reader, *sizes: int) -> nn.Module:
    height, width, channels, filters, down, right = sizes
    weight = reader.numbers(height, width, channels, filters)
    layer = nn.Conv2d(channels, filters, (height, width), (down, right))
    return _filled(layer, weight.permute(3, 2, 0, 1), reader.numbers(filters))


# Name in the file: how many sizes its header holds, and what makes the module.
_LAYERS: dict[str, tuple[int, Callable[..., nn.Module]]] = {
    "Linear": (2, _linear),
    "Convolution": (6, _convolution),
    "SumPool": (4, lambda _, h, w, down, right: SumPool((h, w), (down, right))),
    "MaxPool": (4, lambda _, h, w, down, right: nn.MaxPool2d((h, w), (down, right))),
    "Rect": (0, lambda _: nn.ReLU()),
    "Tanh": (0, lambda _: nn.Tanh()),
    "SoftMax": (0, lambda _: nn.Softmax(-1)),
    "Flatten": (0, lambda _: Flatten()),
}


def load(path: str | Path) -> nn.Sequential:
    """Load a network from the LRP Toolbox's plain-text format.

    Args:
        path: a ``.txt`` file that the toolbox wrote (weights on one line, or one line a row as older versions did).

    Returns:
        The network in eval mode, in torch's default dtype; images enter as ``[N, C, H, W]``, vectors as ``[N, F]``.

    Raises:
        InvalidInput: at an unknown layer, a malformed header or missing numbers; the text names the line.
    """
    reader = _Reader(Path(path))
    layers: list[nn.Module] = []
    while (header := reader.header()) is not None:
        name, sizes = header
        if name not in _LAYERS:
            raise reader.error(f"unknown layer {name!r}; known are {', '.join(_LAYERS)}")
        count, make = _LAYERS[name]
        if len(sizes) != count:
            raise reader.error(f"{name} has {count} sizes in its header, found {len(sizes)}")
        layers.append(make(reader, *sizes))
    if not layers:
        raise InvalidInput(f"{path} holds no layer")
    return nn.Sequential(*layers).eval()
