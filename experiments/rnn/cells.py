"""The cells of the thesis: a sequence of strips of an image, features of each, a recurrence, an output.

The published counts of trainable variables settle every width (Tables 4.3, 4.5 and 4.6): the joint and the recurrent
layer of Shallow have 256 neurons; Deep reads x by 256, joins by 128, recurs by 256 and ends in 32; DeepV2 reads by 128
and 256; the convolutions have 24 maps of 5x5 and 32 of 3x3 and end in 128. The counts of the R-LSTMs leave 72 cells
and, behind convolutions, 96, with one bias a gate; the text's 75 cells fit neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from experiments.rnn.data import SIDE
from experiments.rnn.layers import Convolution, Dense, Dropout, Gates, pool

DROPOUT = 0.2  # Table 4.1
MAPS, KERNELS = (24, 32), (5, 3)  # of the two convolutions
State = tuple[Tensor, ...]


def strips(x: Tensor, width: int) -> Tensor:
    """Images ``[N, 28, W]`` as a sequence of strips ``[N, T, 28, width]``."""
    return x.unflatten(2, (-1, width)).movedim(2, 1)


class Columns(nn.Module):
    """Features of a strip: its pixels, or fully connected layers on them; ``[N, T, 28, w]`` to ``[N, T, F]``."""

    def __init__(self, width: int, layers: tuple[int, ...], dropout: Dropout) -> None:
        super().__init__()
        sizes = (SIDE * width, *layers)
        self.layers = nn.ModuleList(Dense(a, b) for a, b in pairwise(sizes))
        self.dropout, self.outputs = dropout, sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        a = x.flatten(2)
        for layer in self.layers:
            a = torch.relu(layer(a))
            a = dropped(a, self.dropout.mask(a.shape[1], a, a.shape[2]))
        return a


class Convolutions(nn.Module):
    """Features of a strip by two convolutions with pooling and one fully connected layer of 128.

    With literal connections each convolution also reads what it found in the strip before (Section 4.4.3), so that the
    strips must follow each other; without, all go at once.
    """

    def __init__(self, width: int, dropout: Dropout, literal: bool) -> None:
        super().__init__()
        first, second = MAPS
        again = MAPS if literal else (0, 0)
        self.first = Convolution(1 + again[0], first, KERNELS[0])
        self.second = Convolution(first + again[1], second, KERNELS[1])
        self.outputs = 128
        self.dense = Dense(second * -(-SIDE // 4) * -(-width // 4), self.outputs)
        self.dropout, self.literal = dropout, literal

    def forward(self, x: Tensor) -> Tensor:
        if self.literal:
            maps = self._one_by_one(x)
        else:
            below = torch.relu(self.first(x.flatten(0, 1).unsqueeze(1)))
            maps = pool(torch.relu(self.second(pool(below)))).unflatten(0, x.shape[:2])
        a = torch.relu(self.dense(maps.flatten(2)))
        return dropped(a, self.dropout.mask(a.shape[1], a, a.shape[2]))

    def _one_by_one(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        below = x.new_zeros(len(x), MAPS[0], height, width)
        above = x.new_zeros(len(x), MAPS[1], -(-height // 2), -(-width // 2))
        found = []
        for strip in x.unbind(1):
            below = torch.relu(self.first(torch.cat([strip.unsqueeze(1), below], 1)))
            above = torch.relu(self.second(torch.cat([pool(below), above], 1)))
            found.append(pool(above))
        return torch.stack(found, 1)


class Plain(nn.Module):
    """The recurrence of Shallow and Deep: features and recurrent input are joined, and the joint layer recurs.

    A sequence of one step has no recurrent input; its recurrent layer is counted by the thesis all the same.
    """

    def __init__(self, inputs: int, width: int, recurrent: int, steps: int, dropout: Dropout) -> None:
        super().__init__()
        self.join = Dense(inputs + (recurrent if steps > 1 else 0), width)
        self.recur = Dense(width, recurrent)
        self.dropout, self.outputs = dropout, width

    def forward(self, features: Tensor) -> Tensor:
        """The joint layer's activations at the last step, ``[N, width]``."""
        n, steps, _ = features.shape
        hidden = features.new_zeros(n, 0)
        recurrent = features.new_zeros(n, self.recur.weight.shape[0] if steps > 1 else 0)
        masks = [self.dropout.mask(steps, features, layer.weight.shape[0]) for layer in (self.join, self.recur)]
        for step in range(steps):
            hidden = torch.relu(self.join(torch.cat([features[:, step], recurrent], 1)))
            hidden = dropped(hidden, masks[0], step)
            if step < steps - 1:
                recurrent = dropped(torch.relu(self.recur(hidden)), masks[1], step)
        return hidden


class RLSTM(nn.Module):
    """An LSTM whose candidates are rectified, so that its state is never negative and needs no tanh (Section 4.4.2)."""

    def __init__(self, inputs: int, width: int, dropout: Dropout) -> None:
        super().__init__()
        self.gates = Gates(inputs + width, width, 3)
        self.candidate = Dense(inputs + width, width)
        self.dropout, self.outputs = dropout, width

    def forward(self, features: Tensor) -> Tensor:
        """The cells' output at the last step, ``[N, width]``."""
        n, steps, _ = features.shape
        state = hidden = features.new_zeros(n, self.outputs)
        mask = self.dropout.mask(steps, features, self.outputs)
        for step in range(steps):
            joint = torch.cat([features[:, step], hidden], 1)
            enter, keep, leave = self.gates(joint)
            state = keep * state + enter * torch.relu(self.candidate(joint))
            hidden = dropped(leave * state, mask, step)
        return hidden


class Network(nn.Module):
    """Features, recurrence and output over a sequence of strips: images ``[N, 28, W]`` to logits ``[N, 10]``."""

    def __init__(
        self, width: int, features: Columns | Convolutions, cell: Plain | RLSTM, head: tuple[int, ...], dropout: Dropout
    ):
        super().__init__()
        self.width, self.features, self.cell, self.dropout = width, features, cell, dropout
        sizes = (cell.outputs, *head, 10)
        self.head = nn.ModuleList(Dense(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        a = self.cell(self.features(strips(x, self.width)))
        for layer in self.head[:-1]:
            a = torch.relu(layer(a))
            mask = self.dropout.mask(1, a, a.shape[1])
            a = dropped(a, mask, 0)
        return self.head[-1](a)


def dropped(a: Tensor, mask: Tensor | None, step: int | None = None) -> Tensor:
    """Activations times their multipliers, of one step where one is given."""
    if mask is None:
        return a
    return a * (mask if step is None else mask[:, step])


@dataclass(frozen=True)
class Cell:
    """One of the thesis's architectures.

    Attributes:
        name: as the thesis writes it.
        build: the network for strips of a width in sequences of a length.
        variables: of the published count, for strips of seven columns.
    """

    name: str
    build: Callable[[int, int], Network]
    variables: int


def _plain(
    layers: tuple[int, ...], joint: int, head: tuple[int, ...], stationary: bool = False
) -> Callable[..., Network]:
    def build(width: int, steps: int) -> Network:
        dropout = Dropout(DROPOUT, stationary)
        features = Columns(width, layers, dropout)
        return Network(width, features, Plain(features.outputs, joint, 256, steps, dropout), head, dropout)

    return build


def _conv(cells: int | None, literal: bool = False, stationary: bool = False) -> Callable[..., Network]:
    def build(width: int, steps: int) -> Network:
        dropout = Dropout(DROPOUT, stationary)
        features = Convolutions(width, dropout, literal)
        cell = Plain(128, 128, 256, steps, dropout) if cells is None else RLSTM(128, cells, dropout)
        return Network(width, features, cell, (32,) if cells is None else (), dropout)

    return build


def _rlstm(stationary: bool) -> Callable[..., Network]:
    def build(width: int, steps: int) -> Network:
        dropout = Dropout(DROPOUT, stationary)
        return Network(width, Columns(width, (256,), dropout), RLSTM(256, 72, dropout), (), dropout)

    return build


CELLS = {
    cell.name: cell
    for cell in (
        Cell("Shallow", _plain((), 256, ()), 184_330),
        Cell("Deep", _plain((256,), 128, (32,)), 153_578),
        Cell("DeepV2", _plain((128, 256), 128, (32,)), 161_386),
        Cell("ConvDeep", _conv(None), 151_802),
        Cell("Deep-SD", _plain((256,), 128, (32,), stationary=True), 153_578),
        Cell("R-LSTM", _rlstm(False), 145_701),
        Cell("R-LSTM-SD", _rlstm(True), 145_701),
        Cell("Conv+Deep", _conv(None, literal=True), 175_418),
        Cell("ConvR-LSTM-SD", _conv(96, stationary=True), 152_125),
        Cell("Conv+R-LSTM-SD", _conv(96, literal=True, stationary=True), 175_741),
    )
}
