"""The records that windows are cut from: near events with picked arrivals, and farther ones of known distance."""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import resample_poly
from torch import Tensor, nn

FINE = 100  # samples a second
LATEST, CERTAIN = 17.0, 0.5  # S - P in seconds that fits a window; the picker's probability from which a pick counts


@dataclass(frozen=True)
class Records:
    """Three-component records at 100 Hz.

    Attributes:
        waves: east, north, vertical, each centred, ``[N, 3, T]``.
        p, s: arrivals in seconds, ``[N]``.
        begun: seconds from which on there is a signal, ``[N]``.
        distance: epicentral, in km; NaN where it is not known, ``[N]``.
    """

    waves: Tensor
    p: Tensor
    s: Tensor
    begun: Tensor
    distance: Tensor

    def __add__(self, other: Records) -> Records:
        """Both sets, the shorter records padded with zeros at their ends."""
        length = max(self.waves.shape[-1], other.waves.shape[-1])
        waves = [F.pad(part.waves, (0, length - part.waves.shape[-1])) for part in (self, other)]
        rest = (torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)[1:])
        return Records(torch.cat(waves), *rest)


def near_records(path: Path) -> Records:
    """Records of PhaseNet's training set, 90 s each, P at 30 s; a third has a vertical component alone."""
    archive = np.load(path)
    waves = np.asarray(archive["data"], np.float64).transpose(0, 2, 1)
    moves = (np.diff(waves) != 0).any(1)
    begun = torch.from_numpy(moves.argmax(1)).double() / FINE  # some begin with a constant
    p, s = (torch.from_numpy(archive[name]).double() / FINE for name in ("itp", "its"))
    return Records(_centred(waves), p, s, begun, torch.full_like(p, torch.nan))


def far_records(folder: Path, picker: nn.Module) -> Records:
    """Records of Chile in SeisBench's format, 60 s at 20 Hz, whose arrivals nobody picked: a published picker does.

    Kept are those with both arrivals likelier than not, P no earlier than 5 s, and S - P short enough for a window.
    """
    import h5py
    from obspy.geodetics import gps2dist_azimuth

    with h5py.File(folder / "waveforms.hdf5") as file:
        found = np.concatenate([file["data"][bucket][:] for bucket in sorted(file["data"])])
        rate = int(file["data_format/sampling_rate"][()])
    with (folder / "metadata.csv").open() as table:
        rows = list(csv.DictReader(table))
    places = [f"{end}_{axis}_deg" for end in ("source", "station") for axis in ("latitude", "longitude")]
    distance = torch.tensor([gps2dist_azimuth(*(float(row[place]) for place in places))[0] / 1000 for row in rows])
    waves = _centred(resample_poly(found[:, ::-1], FINE // rate, 1, axis=-1))  # it has the vertical first
    with torch.no_grad():
        likely = picker(waves / waves.std(-1, keepdim=True).clamp(min=1e-12)).softmax(1)[:, 1:]
    sure, place = likely.max(-1)
    p, s = (place.double() / FINE).unbind(1)
    kept = (sure > CERTAIN).all(1) & (s > p) & (s - p <= LATEST) & (p >= 5) & (p + 20 <= waves.shape[-1] / FINE)
    return Records(waves[kept], p[kept], s[kept], torch.zeros(int(kept.sum()), dtype=torch.float64), distance[kept])


def _centred(waves: np.ndarray) -> Tensor:
    return torch.from_numpy((waves - waves.mean(-1, keepdims=True)).astype(np.float32))
