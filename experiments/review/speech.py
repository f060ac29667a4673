"""Spoken digits for figures 14 and 15: the recordings, the folds of speakers, the two networks and their training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater.errors import MissingExtra

RATE, LENGTH = 8000, 8000
SEGMENT, OVERLAP, SIDE = 455, 420, 227  # samples, samples, bins and segments (the paper's)
FOLDS, PER_FOLD = 4, 3  # speakers of either gender in each
MALE, FEMALE = 0, 1


@dataclass(frozen=True)
class Recordings:
    """Padded waveforms ``[N, 8000]``, and of each its gender, fold, digit and speaker ``[N]``."""

    waves: Tensor
    gender: Tensor
    fold: Tensor
    digit: Tensor
    speaker: Tensor

    def of(self, folds: Sequence[int]) -> Tensor:
        """The rows of some folds."""
        return torch.isin(self.fold, torch.tensor(folds)).nonzero()[:, 0]


def genders(data: Path) -> dict[str, int]:
    """Of each speaker (two digits)."""
    lines = (data / "audiomnist_az" / "metadata.txt").read_text().split()[2:]  # the head has a blank in it
    rows = [line.split(",") for line in lines if line.count(",") > 5]
    return {f"{int(row[0]):02}": FEMALE if row[-1].strip() == "F" else MALE for row in rows}


def read(data: Path, takes: int) -> Recordings:
    """Up to ``takes`` recordings of each digit by 12 men and 12 women, drawn at random, as is the padding.

    Raises:
        MissingExtra: soundfile is not installed.
    """
    try:
        import soundfile
    except ModuleNotFoundError as error:
        raise MissingExtra("experiments", "soundfile") from error
    known = genders(data)
    waves, labels = [], []
    for gender in (MALE, FEMALE):
        speakers = sorted(name for name, own in known.items() if own == gender)
        for place, pick in enumerate(torch.randperm(len(speakers))[: FOLDS * PER_FOLD].tolist()):
            folder = data / "audiomnist_az" / "data" / speakers[pick]
            for digit in range(10):
                for file in sorted(folder.glob(f"{digit}_*.flac"))[:takes]:
                    waves.append(padded(torch.from_numpy(soundfile.read(file, dtype="float32")[0])))
                    labels.append((gender, place % FOLDS, digit, int(speakers[pick])))
    return Recordings(torch.stack(waves), *torch.tensor(labels).T)


def padded(wave: Tensor) -> Tensor:
    """A recording in one second, ``[8000]``: its loudest stretch where it is longer, else at a random place."""
    wave = wave - wave.mean()  # recorders add a constant, which would tell microphones and thereby speakers apart
    wave = wave / wave.abs().max().clamp(min=1e-6)
    if len(wave) > LENGTH:
        energy = F.avg_pool1d(wave.square()[None, None], LENGTH, 50)[0, 0]
        first = 50 * int(energy.argmax())
        return wave[first : first + LENGTH].clone()
    before = int(torch.randint(LENGTH - len(wave) + 1, (1,)))
    return F.pad(wave, (before, LENGTH - len(wave) - before))


def spectrogram(waves: Tensor) -> Tensor:
    """``[N, 8000]`` to decibels over the mean, ``[N, 1, 227, 227]`` (frequency upwards from 0 to 4 kHz, time)."""
    window = torch.hann_window(SEGMENT)
    spectrum = torch.stft(F.pad(waves, (0, SEGMENT)), SEGMENT, SEGMENT - OVERLAP, window=window, center=False,
                          return_complex=True)  # fmt: skip
    level = 20 * (spectrum[:, None, :SIDE, :SIDE].abs() + 1e-3).log10()
    return (level - level.mean((1, 2, 3), keepdim=True)) / 20


def frequency_of(row: int) -> float:
    """The frequency of a bin, Hz."""
    return row * RATE / SEGMENT


def wave_network(width: int) -> nn.Module:
    """Six convolutions between max-poolings and three dense layers (the paper's reference [18], narrower)."""
    channels = (1, width, width, 2 * width, 2 * width, 2 * width, 2 * width)
    layers: list[nn.Module] = [nn.Unflatten(1, (1, LENGTH))]
    for place, (inputs, outputs) in enumerate(pairwise(channels)):
        pool = 3 if place == 0 else 2
        layers += [nn.Conv1d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool1d(pool, 2)]
    with torch.no_grad():
        size = nn.Sequential(*layers)(torch.zeros(1, LENGTH)).numel()
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(size, 8 * width), nn.ReLU(),
                         nn.Linear(8 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 2))  # fmt: skip


def picture_network(width: int) -> nn.Module:
    """AlexNet with one channel of input, ``width`` of 64 channels in the first layer, and no normalization."""
    a, b, c = width, 3 * width, 4 * width
    return nn.Sequential(
        nn.Conv2d(1, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1), nn.ReLU(),
        nn.Conv2d(c, c, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(36 * c, 8 * width), nn.ReLU(), nn.Linear(8 * width, 2),
    )  # fmt: skip


def trained(
    build: Callable[[], nn.Module], x: Tensor, y: Tensor, train: Tensor, validation: Tensor, epochs: int
) -> nn.Module:
    """The state with the best accuracy on ``validation`` of ``epochs`` of Adam in batches of 16."""
    model = build()
    for name, parameter in model.named_parameters():  # ten layers without normalization need their scale
        if name.endswith("weight"):
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        else:
            nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), 5e-4)
    best, state = -1.0, {k: v.clone() for k, v in model.state_dict().items()}
    for _ in range(epochs):
        model.train()
        for rows in train[torch.randperm(len(train))].split(16):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        now = accuracy(model.eval(), x, y, validation)
        if now > best:
            best, state = now, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def accuracy(model: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> float:
    """Of some samples."""
    with torch.inference_mode():
        right = [model(x[part]).argmax(1) == y[part] for part in rows.split(64)]
    return float(torch.cat(right).double().mean())
