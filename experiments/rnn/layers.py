"""What the thesis's cells consist of: layers whose bias only ever inhibits, and dropout that may stand still."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BIAS = math.log(math.exp(0.01) - 1)  # softplus of it is 0.01


def draw(*shape: int) -> nn.Parameter:
    """Weights from a normal distribution cut at two deviations, the deviation one over the root of the inputs."""
    deviation = 1 / math.sqrt(math.prod(shape[1:]))
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), 0.0, deviation, -2 * deviation, 2 * deviation))


class Dense(nn.Module):
    """``W a - softplus(b)``: a bias that is never positive, as deep Taylor decomposition presumes (Section 4.1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = draw(outputs, inputs)
        self.bias = nn.Parameter(torch.full((outputs,), BIAS))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, -F.softplus(self.bias))


class Convolution(nn.Module):
    """The same as a convolution, by default one that keeps the picture's size."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: str = "same") -> None:
        super().__init__()
        self.padding = padding
        self.weight = draw(outputs, inputs, kernel, kernel)
        self.bias = nn.Parameter(torch.full((outputs,), BIAS))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, -F.softplus(self.bias), padding=self.padding)


class Gates(nn.Module):
    """Sigmoid gates of a cell, each with weights of its own and one bias."""

    def __init__(self, inputs: int, width: int, count: int) -> None:
        super().__init__()
        self.weight = draw(count * width, inputs)
        self.bias = nn.Parameter(torch.zeros(count))
        self.width = width
        self.constant = False  # guided backprop holds them so (Section 4.4.2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        bias = self.bias.repeat_interleave(self.width)
        gates = torch.sigmoid(F.linear(x, self.weight, bias))
        return (gates.detach() if self.constant else gates).split(self.width, -1)


class Dropout(nn.Module):
    """Dropout whose mask is drawn anew for every time step, or once for all of them (Section 4.4.1)."""

    def __init__(self, probability: float, stationary: bool) -> None:
        super().__init__()
        self.probability, self.stationary = probability, stationary

    def mask(self, steps: int, like: Tensor, width: int) -> Tensor | None:
        """Multipliers ``[N, steps, width]`` for a whole sequence, or ``None`` where nothing is dropped."""
        if not self.training or not self.probability:
            return None
        drawn = torch.rand(len(like), 1 if self.stationary else steps, width, device=like.device)
        kept = (drawn >= self.probability).to(like.dtype) / (1 - self.probability)
        return kept.expand(-1, steps, -1)


def pool(x: Tensor) -> Tensor:
    """The sum over windows of 2x2, cut at the border where a side is odd."""
    return 4 * F.avg_pool2d(x, 2, ceil_mode=True)
