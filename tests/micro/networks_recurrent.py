"""Recurrent modules, their cells in loops, and cells written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.micro.construct import Case, Table, linear, net, w, x

NETWORKS = Table()
homogeneous, other = NETWORKS.homogeneous, NETWORKS.other


def last(rnn: nn.Module, width: int = 6) -> Case:
    """The last step's output of a batch-first recurrent module on ``[3, 5, 4]``, read by a linear layer."""
    return net(lambda m, v: m.b(m.rnn(v)[0][:, -1]), x(3, 5, 4), rnn=rnn, b=linear(width, 3))


def pooled(rnn: nn.Module, width: int) -> Case:
    return net(lambda m, v: m.b(m.rnn(v)[0].mean(1)), x(3, 5, 4), rnn=rnn, b=linear(width, 3))


@homogeneous
def rectified_rnn() -> Case:
    return last(nn.RNN(4, 6, nonlinearity="relu", bias=False, batch_first=True))


@homogeneous
def rectified_rnn_cell_loop() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        h = v.new_zeros(len(v), 6)
        for step in v.unbind(1):
            h = m.cell(step, h)
        return m.b(h)

    return net(body, x(3, 5, 4), cell=nn.RNNCell(4, 6, bias=False, nonlinearity="relu"), b=linear(6, 3))


@homogeneous
def rectified_rnn_written_out() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        h = torch.relu(v[:, 0] @ m.w)
        for t in range(1, 5):
            h = torch.relu(v[:, t] @ m.w + h @ m.u)
        return m.b(h)

    return net(body, x(3, 5, 4), w=w(4, 6), u=w(6, 6), b=linear(6, 3))


@homogeneous
def rectified_rnn_both_directions_two_layers() -> Case:
    return pooled(nn.RNN(4, 3, 2, nonlinearity="relu", bias=False, batch_first=True, bidirectional=True), 6)


@other
def rnn() -> Case:
    return last(nn.RNN(4, 6, batch_first=True))


@other
def lstm() -> Case:
    return last(nn.LSTM(4, 6, batch_first=True))


@other
def lstm_without_bias() -> Case:
    return last(nn.LSTM(4, 6, bias=False, batch_first=True))


@other
def lstm_both_directions_two_layers() -> Case:
    return pooled(nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True), 6)


@other
def lstm_with_projection() -> Case:
    return last(nn.LSTM(4, 6, proj_size=3, batch_first=True), 3)


@other
def lstm_steps_first() -> Case:
    return net(lambda m, v: m.b(m.rnn(v.transpose(0, 1))[0][-1]), x(3, 5, 4), rnn=nn.LSTM(4, 6), b=linear(6, 3))


@other
def lstm_last_state() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        _, (h, c) = m.rnn(v)
        return m.b(torch.cat([h[-1], c[-1]], 1))

    return net(body, x(3, 5, 4), rnn=nn.LSTM(4, 6, batch_first=True), b=linear(12, 3))


@other
def lstm_initial_state() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        start = m.h.expand(1, len(v), 6).contiguous(), m.c.expand(1, len(v), 6).contiguous()
        return m.b(m.rnn(v, start)[0][:, -1])

    return net(body, x(3, 5, 4), rnn=nn.LSTM(4, 6, batch_first=True), b=linear(6, 3), h=w(6), c=w(6))


@other
def lstm_state_from_the_input() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        start = m.s(v[:, 0]).unsqueeze(0)
        return m.b(m.rnn(v[:, 1:], (start, torch.tanh(start)))[0][:, -1])

    return net(body, x(3, 5, 4), rnn=nn.LSTM(4, 6, batch_first=True), s=linear(4, 6), b=linear(6, 3))


def packed(rnn: nn.Module) -> Case:
    """Samples of different lengths, read from the third input column's sign."""

    def body(m: Any, v: Tensor) -> Tensor:
        lengths = 2 + (v[:, :3, 0] > 0).sum(1)
        packed = pack_padded_sequence(v, lengths, batch_first=True, enforce_sorted=False)
        padded, _ = pad_packed_sequence(m.rnn(packed)[0], batch_first=True, total_length=5)
        return m.b(padded.sum(1))

    return net(body, x(3, 5, 4), rnn=rnn, b=linear(6, 3))


@homogeneous
def rectified_rnn_packed_both_directions() -> Case:
    return packed(nn.RNN(4, 3, nonlinearity="relu", bias=False, batch_first=True, bidirectional=True))


@other
def lstm_packed() -> Case:
    return packed(nn.LSTM(4, 6, batch_first=True))


@other
def gru_packed_both_directions() -> Case:
    return packed(nn.GRU(4, 3, batch_first=True, bidirectional=True))


@other
def lstm_cell_loop() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        h, c = v.new_zeros(len(v), 6), v.new_zeros(len(v), 6)
        for t in range(5):
            h, c = m.cell(v[:, t], (h, c))
        return m.b(h)

    return net(body, x(3, 5, 4), cell=nn.LSTMCell(4, 6), b=linear(6, 3))


@other
def lstm_written_out() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        h, c = v.new_zeros(len(v), 6), v.new_zeros(len(v), 6)
        for step in v.unbind(1):
            i, f, g, o = (m.x(step) + m.h(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return m.b(h)

    return net(body, x(3, 5, 4), x=linear(4, 24), h=linear(6, 24), b=linear(6, 3))


@other
def gru() -> Case:
    return last(nn.GRU(4, 6, batch_first=True))


@other
def gru_both_directions_two_layers() -> Case:
    return pooled(nn.GRU(4, 3, 2, batch_first=True, bidirectional=True), 6)


@other
def gru_initial_state() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        return m.b(m.rnn(v, m.h.expand(1, len(v), 6).contiguous())[1][0])

    return net(body, x(3, 5, 4), rnn=nn.GRU(4, 6, batch_first=True), b=linear(6, 3), h=w(6))


@other
def gru_cell_loop() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        h = None
        for step in v.unbind(1):
            h = m.cell(step, h)
        return m.b(h)

    return net(body, x(3, 5, 4), cell=nn.GRUCell(4, 6), b=linear(6, 3))


@other
def gru_written_out() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        h = v.new_zeros(len(v), 6)
        for step in v.unbind(1):
            xr, xz, xn = m.x(step).chunk(3, 1)
            hr, hz, hn = m.h(h).chunk(3, 1)
            z, n = torch.sigmoid(xz + hz), torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
            h = (1 - z) * n + z * h
        return m.b(h)

    return net(body, x(3, 5, 4), x=linear(4, 18), h=linear(6, 18), b=linear(6, 3))


@other
def thesis_cell_with_a_gate() -> Case:
    """A recurrent cell whose candidate is rectified and whose gate is a sigmoid."""

    def body(m: Any, v: Tensor) -> Tensor:
        h = v.new_zeros(len(v), 6)
        for step in v.unbind(1):
            both = torch.cat([step, h], 1)
            gate = torch.sigmoid(m.gate(both))
            h = gate * h + (1 - gate) * torch.relu(m.cell(both))
        return m.b(h)

    return net(body, x(3, 5, 4), gate=linear(10, 6), cell=linear(10, 6), b=linear(6, 3))


@other
def two_recurrent_layers_joined() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        first, _ = m.lstm(v)
        second, h = m.gru(first)
        return m.b(torch.cat([second.amax(1), h[0], v.mean(1)], 1))

    return net(
        body, x(3, 5, 4), lstm=nn.LSTM(4, 6, batch_first=True), gru=nn.GRU(6, 3, batch_first=True), b=linear(10, 3)
    )
