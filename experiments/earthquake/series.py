"""Sums and shares along time that several parts need."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def smoothed(x: Tensor, steps: int) -> Tensor:
    """The moving average over an odd number of about ``steps`` along the last axis."""
    width = 2 * (max(steps, 1) // 2) + 1
    flat = x.reshape(-1, 1, x.shape[-1])
    kernel = torch.full((1, 1, width), 1 / width, dtype=x.dtype)
    return F.conv1d(flat, kernel, padding=width // 2).view(x.shape)


def between(low: Tensor, high: Tensor, length: int, rate: int) -> Tensor:
    """Which steps lie from ``low`` to ``high`` seconds, ``[N, length]``."""
    steps = torch.arange(length) / rate
    return (steps >= low[:, None]) & (steps < high[:, None])


def spectrum(x: Tensor) -> Tensor:
    """Magnitudes of the frequencies from 0 to half the rate, of the last axis."""
    return torch.fft.rfft(x).abs()


def above(x: Tensor, rate: int, hertz: float) -> Tensor:
    """The share of the power at frequencies above ``hertz``, ``[N]``; zero frequency aside."""
    power = spectrum(x.double())[..., 1:].square().flatten(1, -2).sum(1)
    frequencies = torch.fft.rfftfreq(x.shape[-1], 1 / rate)[1:]
    return power[:, frequencies > hertz].sum(1) / power.sum(1)


def summary(values: Tensor, digits: int = 2) -> str:
    """Mean and standard deviation in words; the value itself where there is one."""
    values = values.double()
    values = values[values.isfinite()]
    return f"{values.mean():.{digits}f}" + (f" ± {values.std():.{digits}f}" if len(values) > 1 else "")


def auc(high: Tensor, low: Tensor) -> float:
    """The probability that a value of the first set exceeds one of the second; 0.5 is chance."""
    wins = (high[:, None] > low).double() + 0.5 * (high[:, None] == low).double()
    return float(wins.mean())
