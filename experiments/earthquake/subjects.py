"""The networks that are looked at, and the windows that all of them are looked at with."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.earthquake.data import LENGTH, ONSET, RATE, Source, Windows, joined, normalized
from experiments.earthquake.networks import LAYERS, Detector, PickerAsDetector
from experiments.earthquake.records import FINE
from experiments.reproduction import Reproduction, Verdict

APART = 9.0  # seconds between the P arrivals of two events in a window


@dataclass(frozen=True)
class Subject:
    """A network that says whether a window holds an earthquake.

    Attributes:
        name: of it.
        model: windows ``[N, 3, T]`` to scores ``[N]``, above 0 for an earthquake.
        layers: its convolutions in order, by the label that figures give them.
        middle: the label of the layer whose channels are compared, the paper's fifth.
        rate: samples a second.
    """

    name: str
    model: nn.Module
    layers: Mapping[str, str]
    middle: str
    rate: int

    @property
    def trained(self) -> bool:
        """Whether it was trained here, and its windows are those of the paper."""
        return self.rate == RATE

    def inputs(self, source: Source, windows: Windows) -> Tensor:
        """What it is given of windows."""
        return self.prepared(self.raw(source, windows))

    def raw(self, source: Source, windows: Windows) -> Tensor:
        """Windows at its rate, before they are scaled."""
        return windows.x if self.trained else source.fine(windows)

    def prepared(self, raw: Tensor) -> Tensor:
        """Scaled as it wants them: to a largest magnitude of 1, or each component to a deviation of 1."""
        if self.trained:
            return normalized(raw)
        deviation = raw.std(-1, keepdim=True, correction=0)
        return raw / torch.where(deviation > 0, deviation, 1.0)

    def pairs(self, source: Source, first: Windows, second: Windows) -> Tensor:
        """Two events a window, of equal peaks, the second's P later by ``APART`` seconds."""
        a, b = normalized(self.raw(source, first)), normalized(self.raw(source, second))
        late = round(APART * self.rate)
        return self.prepared(a + F.pad(b, (late, 0))[..., : a.shape[-1]])


def detector(state: Mapping[str, Tensor], name: str, channels: int = 32) -> Subject:
    """A trained detector."""
    model = Detector(channels, LENGTH)
    model.load_state_dict(dict(state))
    return Subject(name, model.eval(), {f"L{n}": layer for n, layer in enumerate(LAYERS, 1)}, "L5", RATE)


def published(picker: nn.Module) -> Subject:
    """The published picker; the paper's L5 has 16 steps, of its layers the one with 40 comes next."""
    layers = {"L1": "picker.enter.0"}
    for depth in range(5):
        layers[f"L{2 * depth + 2}"] = f"picker.wide.{depth}.0"
        if depth < 4:
            layers[f"L{2 * depth + 3}"] = f"picker.down.{depth}.0"
    return Subject("PhaseNet", PickerAsDetector(picker).eval(), layers, "L8", FINE)


@dataclass(frozen=True)
class Sets:
    """Windows that no training saw.

    Attributes:
        samples: ten earthquakes A to J, the nearest first, the last four from afar, and the noises K and L.
        evaluation: as many of noise as of earthquakes, with P at various times.
        onset: one of each kind an event, with P at 5 s.
        far: events farther away, of known distance.
        pairs: first and second event of windows that hold two.
    """

    samples: Windows
    evaluation: Windows
    onset: Windows
    far: Windows
    pairs: tuple[Windows, Windows]

    @property
    def letters(self) -> str:
        """The names of the samples."""
        return string.ascii_uppercase[: len(self.samples)]


def sets(run: Reproduction, source: Source) -> Sets:
    """The windows that networks are looked at with; of a large data set a part, evenly chosen."""
    onset, far = _part(source.fixed("evaluation"), 100), _part(source.far(), 200)
    near = onset.positive[(onset.positive.s - onset.positive.p).argsort()]
    near = near[near.p >= ONSET - 0.5]
    distant = far[far.distance.argsort()]
    chosen = (_spread(near, 6), _spread(distant, 4), onset.negative[:2])
    short = near[near.s - near.p < APART - 4.0]
    short = _spread(short, min(len(short), 15))
    places = torch.cartesian_prod(torch.arange(len(short)), torch.arange(len(short)))
    places = places[places[:, 0] != places[:, 1]][:: run.pick(quick=4, full=1)]
    evaluation = _part(source.fixed("evaluation", run.pick(quick=4, full=10)), run.pick(quick=200, full=2000))
    return Sets(
        joined(*chosen), evaluation, onset, far,
        (short[places[:, 0]], short[places[:, 1]]),
    )  # fmt: skip


def _part(windows: Windows, count: int) -> Windows:
    """At most so many windows, half of them of noise where there are both kinds."""
    half = count // 2
    return joined(*(_spread(side, half) if len(side) > half else side for side in (windows.positive, windows.negative)))


def _spread(windows: Windows, count: int) -> Windows:
    """As many windows, from the first to the last."""
    return windows[torch.linspace(0, len(windows) - 1, count).round().long()]


@dataclass(frozen=True)
class Judge:
    """Writes verdicts on a subject: under the paper's claim for the detector, as one of its own for the other."""

    run: Reproduction
    subject: Subject

    def __call__(
        self, key: str, source: str, text: str, paper: str, ours: str, holds: bool, why: str = "", picker: str = ""
    ) -> None:
        """A claim and whether it holds; ``picker`` says what is particular about the other."""
        verdict: Verdict = "reproduced" if holds else "not reproduced"
        if self.subject.trained:
            self.run.claim(key, source=source, text=text, paper=paper, ours=ours, verdict=verdict, why=why)
        else:
            self.run.claim(
                f"{key}-{self.subject.name.lower()}", source=source, text=f"Published {self.subject.name}: {text}",
                paper=f"{paper} (the paper's detector)", ours=ours, verdict=verdict,
                why="; ".join(part for part in (why, picker) if part),
            )  # fmt: skip
