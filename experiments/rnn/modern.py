"""Cells that the thesis had to leave out, as their gates and norms need rules of their own; 150,000 variables each."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.rnn.cells import strips
from experiments.rnn.data import SIDE

WIDTH, STEPS = 7, 12  # of a majority sequence
PIXELS = SIDE * WIDTH


class Recurrent(nn.Module):
    """Torch's own LSTM or GRU over the strips, and the output of its last step."""

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.layer = layer
        self.out = nn.Linear(layer.hidden_size, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(strips(x, WIDTH).flatten(2))[0][:, -1])


class Transformer(nn.Module):
    """Two layers of self-attention over the strips, which may all look at each other; the mean goes to the output."""

    def __init__(self, size: int = 88, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(PIXELS, size)
        self.place = nn.Parameter(0.02 * torch.randn(STEPS, size))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(size, heads, 2 * size, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.norm, self.out = nn.LayerNorm(size), nn.Linear(size, 10)

    def forward(self, x: Tensor) -> Tensor:
        a = self.embed(strips(x, WIDTH).flatten(2)) + self.place
        for layer in self.layers:
            a = layer(a)
        return self.out(self.norm(a).mean(1))


class StateSpace(nn.Module):
    """Two gated layers of a linear recurrence with a decay for each state, as state-space models have them."""

    def __init__(self, size: int = 144) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(PIXELS, size), nn.Linear(size, 10)
        self.layers = nn.ModuleList(StateSpaceLayer(size) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        a = self.embed(strips(x, WIDTH).flatten(2))
        for layer in self.layers:
            a = layer(a)
        return self.out(a[:, -1])


class StateSpaceLayer(nn.Module):
    """``h_t = d h_{t-1} + (1 - d) u_t``, gated by ``silu`` of another view of the input, beside a skip connection."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(size, 2 * size), nn.Linear(size, size)
        self.decay = nn.Parameter(torch.linspace(0.0, 4.0, size))  # half-lives of one step to about forty

    def forward(self, x: Tensor) -> Tensor:
        signal, gate = self.enter(x).chunk(2, -1)
        decay = torch.sigmoid(self.decay)
        state, states = torch.zeros_like(signal[:, 0]), []
        for step in signal.unbind(1):
            state = decay * state + (1 - decay) * step
            states.append(state)
        return x + self.leave(torch.stack(states, 1) * F.silu(gate))


MODERN: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: Recurrent(nn.LSTM(PIXELS, 120, batch_first=True)),
    "GRU": lambda: Recurrent(nn.GRU(PIXELS, 144, batch_first=True)),
    "Transformer": Transformer,
    "State space": StateSpace,
}
