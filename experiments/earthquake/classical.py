"""The detector of old: the mean amplitude of the last moment over that of the last seconds (STA/LTA)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from experiments.earthquake.data import RATE

BAND, SHORT, LONG = (1.0, 9.0), 0.5, 5.0  # hertz; seconds


def ratios(x: Tensor) -> Tensor:
    """The recursive STA/LTA of the vertical component between 1 and 9 Hz, ``[N, T]``; 0 for the first 5 s.

    Args:
        x: windows ``[N, 3, T]`` at 20 Hz.
    """
    from obspy.signal.filter import bandpass
    from obspy.signal.trigger import recursive_sta_lta

    vertical = bandpass(x[:, 2].double().numpy(), *BAND, df=RATE, corners=4)
    return torch.from_numpy(
        np.stack([recursive_sta_lta(wave, round(SHORT * RATE), round(LONG * RATE)) for wave in vertical])
    )


def threshold(statistic: Tensor, y: Tensor) -> float:
    """The value above which calling windows earthquakes is right most often."""
    values, order = statistic.sort()
    right = (y[order] == 0).double().cumsum(0) - (y[order] == 1).double().cumsum(0)  # with the cut after each value
    best = int(right.argmax())
    return float((values[best] + values[min(best + 1, len(values) - 1)]) / 2)
