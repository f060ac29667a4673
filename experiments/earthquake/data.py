"""Three-component windows with and without an earthquake, cut from real records; or the paper's own, where present."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor

from experiments.earthquake.records import FINE, Records, far_records, near_records
from experiments.reproduction import Reproduction
from tests.models.waves import phasenet

RATE, SECONDS = 20, 25  # of a window, as in the paper
LENGTH = RATE * SECONDS
ONSET = 5.0  # seconds from a window's start to P where it is fixed, as in the paper
FAR = 50.0  # kilometres, from which on the paper sees another pattern
Split = Literal["train", "validation", "evaluation"]


@dataclass(frozen=True)
class Windows:
    """Windows of 25 s at 20 Hz, each centred and divided by its largest magnitude.

    Attributes:
        x: east, north, vertical, ``[N, 3, 500]``.
        y: 1 for an earthquake, 0 for noise, ``[N]``.
        p, s: arrivals in seconds from the window's start; NaN where there is none or it is not known, ``[N]``.
        event: number of the record, ``[N]``; no event is in two parts of the split.
        start: of the window in its record, seconds, ``[N]``.
        distance: epicentral, in km; NaN where it is not known, ``[N]``.
    """

    x: Tensor
    y: Tensor
    p: Tensor
    s: Tensor
    event: Tensor
    start: Tensor
    distance: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Tensor | slice) -> Windows:
        return Windows(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def positive(self) -> Windows:
        """Those with an earthquake."""
        return self[self.y == 1]

    @property
    def negative(self) -> Windows:
        """Those of noise."""
        return self[self.y == 0]


def joined(*parts: Windows) -> Windows:
    """All windows of several sets, one after the other."""
    return Windows(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Windows)))


class Source(Protocol):
    """Where windows come from."""

    about: str

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Windows:
        """Windows for training, as many of noise as of earthquakes, new ones at every call."""
        ...

    def fixed(self, split: Split, per_event: int = 1) -> Windows:
        """The same windows at every call, without augmentation; with one an event, P is at 5 s."""
        ...

    def far(self) -> Windows:
        """Earthquakes whose distance is known, which no training saw, with P at 5 s."""
        ...

    def fine(self, windows: Windows) -> Tensor:
        """The same seconds at 100 samples a second, ``[N, 3, 2500]``, each component centred."""
        ...


def source(run: Reproduction) -> Source:
    """The paper's own windows where they are present, else windows cut from the records at hand."""
    own = run.data / "aqulo" / "aqulo.npz"
    if own.exists():
        return Archive(own, run.seed)
    near = near_records(run.path("seismic_phasenet", "phasenet_train_154.npz"))
    folder, picker = run.path("seismic_seisbench"), phasenet(run.path())
    return Cuts(near, Records(**run.step("far", lambda: vars(far_records(folder, picker)))), run.seed)


def normalized(x: Tensor) -> Tensor:
    """Each component less its mean, then the window over its largest magnitude."""
    x = x - x.mean(-1, keepdim=True)
    return x / x.abs().amax((-2, -1), keepdim=True).clamp(min=1e-12)


def split_of(events: int, seed: int) -> dict[Split, Tensor]:
    """Numbers of events: 80 % to train on, 10 % to stop by, 10 % to judge by."""
    order = torch.randperm(events, generator=torch.Generator().manual_seed(seed))
    tenth = events // 10
    return {"evaluation": order[:tenth], "validation": order[tenth : 2 * tenth], "train": order[2 * tenth :]}


class Cuts:
    """Windows cut from records of 90 s at 100 Hz, whose P is at 30 s; what is before it is noise.

    Training windows have their P anywhere from 1 s on that leaves S and two seconds after it in the window. Their
    horizontal components are turned by a random angle, their signs are flipped together, and half of them get noise
    of another record on top: up to a fifth of the peak on an earthquake, any share on noise.
    """

    def __init__(self, near: Records, far: Records, seed: int) -> None:
        self.records = near + far
        self.coarse = torch.from_numpy(resample_poly(self.records.waves.numpy(), 1, FINE // RATE, axis=-1))
        self.quiet = self.records.begun + 0.5
        self.splits = split_of(len(near.p), seed)
        self.remote = torch.arange(len(near.p), len(self.records.p))
        self.about = f"{len(near.p)} records of 90 s, and {len(far.p)} of 60 s from farther away"

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Windows:
        members = self.splits[split]
        half = count // 2
        events = members[torch.randint(len(members), (half,), generator=generator)]
        noises = self._noisy(members)
        others = noises[torch.randint(len(noises), (count - half,), generator=generator)]
        found = joined(
            self._events(events, torch.rand(half, generator=generator, dtype=torch.float64)),
            self._noises(others, torch.rand(count - half, generator=generator, dtype=torch.float64)),
        )
        return self._varied(found, generator)

    def fixed(self, split: Split, per_event: int = 1) -> Windows:
        members = self.splits[split]
        noises = self._noisy(members)
        if per_event == 1:
            where = (ONSET - 1.0) / self._room(members)
        else:
            where = torch.linspace(0, 1, per_event, dtype=torch.float64).repeat(len(members))
        shares = torch.linspace(0, 1, per_event, dtype=torch.float64).repeat(len(noises))
        events = self._events(members.repeat_interleave(per_event), where)
        return joined(events, self._noises(noises.repeat_interleave(per_event), shares))

    def far(self) -> Windows:
        share = (ONSET - 1.0) / self._room(self.remote)
        return self._events(self.remote, share)

    def fine(self, windows: Windows) -> Tensor:
        first = (windows.start * FINE).round().long()
        places = first[:, None] + torch.arange(SECONDS * FINE)
        x = self.records.waves[windows.event[:, None, None], torch.arange(3)[:, None], places[:, None]]
        return x - x.mean(-1, keepdim=True)

    def _noisy(self, members: Tensor) -> Tensor:
        """Records with a whole window before P."""
        return members[self.quiet[members] + SECONDS + 1 <= self.records.p[members]]

    def _room(self, events: Tensor) -> Tensor:
        """Seconds over which P may shift, from 1 s after the window's start on."""
        return SECONDS - 2.0 - (self.records.s - self.records.p)[events] - 1.0

    def _events(self, events: Tensor, share: Tensor) -> Windows:
        onset = 1.0 + share * self._room(events)
        found = self._cut(events, self.records.p[events] - onset, 1)
        p, s = self.records.p[events] - found.start, self.records.s[events] - found.start
        return replace(found, p=p, s=s, distance=self.records.distance[events])

    def _noises(self, events: Tensor, share: Tensor) -> Windows:
        last = self.records.p[events] - 1.0 - SECONDS
        return self._cut(events, self.quiet[events] + share * (last - self.quiet[events]), 0)

    def _cut(self, events: Tensor, start: Tensor, label: int) -> Windows:
        first = (start * RATE).round().long()
        places = first[:, None] + torch.arange(LENGTH)
        x = self.coarse[events[:, None, None], torch.arange(3)[:, None], places[:, None]]
        unknown = torch.full((len(events),), torch.nan, dtype=torch.float64)
        y = torch.full((len(events),), label)
        return Windows(normalized(x), y, unknown, unknown, events, first.double() / RATE, unknown)

    @staticmethod
    def _varied(windows: Windows, generator: torch.Generator) -> Windows:
        """The same windows turned, flipped and mixed with noise."""
        x, n = windows.x, len(windows)

        def random() -> Tensor:
            return torch.rand(n, 1, 1, generator=generator)

        noise = windows.negative.x
        other = noise[torch.randint(len(noise), (n,), generator=generator)]
        most = torch.where(windows.y == 1, 0.2, 1.0)[:, None, None]
        x = x + other * most * random() * (random() < 0.5)
        angle = 2 * torch.pi * random()[:, 0]
        east, north = x[:, 0] * angle.cos() - x[:, 1] * angle.sin(), x[:, 0] * angle.sin() + x[:, 1] * angle.cos()
        sign = torch.where(random() < 0.5, -1.0, 1.0)
        return replace(windows, x=normalized(sign * torch.stack([east, north, x[:, 2]], 1)))


class Archive:
    """The paper's own windows: an npz of ``x [N, 3, 500]``, ``y``, ``event``, and ``p``, ``s``, ``distance``."""

    about = "AQULO"

    def __init__(self, path: Path, seed: int) -> None:
        found = np.load(path)
        _, event = np.unique(found["event"], return_inverse=True)
        x, p, s, distance = (torch.from_numpy(found[name]) for name in ("x", "p", "s", "distance"))
        self.windows = Windows(
            normalized(x.float()), torch.from_numpy(found["y"]).long(), p.double(), s.double(),
            torch.from_numpy(event), torch.zeros(len(x), dtype=torch.float64), distance.double(),
        )  # fmt: skip
        splits = split_of(int(event.max()) + 1, seed)
        self.parts = {split: self.windows[torch.isin(self.windows.event, members)] for split, members in splits.items()}

    def draw(self, split: Split, count: int, generator: torch.Generator) -> Windows:
        sides = (self.parts[split].positive, self.parts[split].negative)
        halves = (count // 2, count - count // 2)
        return joined(
            *(side[torch.randint(len(side), (n,), generator=generator)] for side, n in zip(sides, halves, strict=True))
        )

    def fixed(self, split: Split, per_event: int = 1) -> Windows:
        return self.parts[split]

    def far(self) -> Windows:
        events = self.parts["evaluation"].positive
        return events[events.distance > FAR]

    def fine(self, windows: Windows) -> Tensor:
        return torch.from_numpy(resample_poly(windows.x.numpy(), FINE // RATE, 1, axis=-1))
