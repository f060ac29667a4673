"""Figures 5 and 6: optimal inputs, their spectra, and what would make real earthquakes more so."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.earthquake.data import ONSET
from experiments.earthquake.series import spectrum
from experiments.earthquake.subjects import Subject
from experiments.reproduction import Reproduction
from headwater.show.figure import new_figure

BLUE, ORANGE, GREY = "#2c5aa0", "#d9822b", "#8a8a8a"


def draw(run: Reproduction, subject: Subject, found: dict[str, Any]) -> None:
    """All figures of backward optimization."""
    _optima(run, subject, found)
    _mended(run, subject, found)


def _suffix(subject: Subject) -> str:
    return "" if subject.trained else f"_{subject.name.lower()}"


def _optima(run: Reproduction, subject: Subject, found: dict[str, Any]) -> None:
    """Figure 5: rows are trainings, columns components and their spectra; below, the mean spectra."""
    quake, noise = found["quake"], found["noise"]
    waves = torch.cat([quake, noise[:1], found["random"][:1]])
    names = [f"{'ABCDEFGHIJ'[n]}" for n in range(len(quake))] if subject.trained else ["zero"]
    names += ["noise", "random"]
    figure = new_figure(11, 0.62 * len(waves) + 2.6)
    upper, lower = figure.subfigures(2, 1, height_ratios=[len(waves), 4], squeeze=False)[:, 0]
    axes = upper.subplots(len(waves), 4, width_ratios=[2, 2, 2, 1.3], sharex="col")
    time = np.arange(waves.shape[-1]) / subject.rate
    hertz = torch.fft.rfftfreq(waves.shape[-1], 1 / subject.rate)
    for row, (wave, name) in enumerate(zip(waves, names, strict=True)):
        limit = float(wave.abs().max())
        for column, component in enumerate(wave):
            axes[row, column].plot(time, component, lw=0.5, color=GREY if name == "noise" else BLUE)
            axes[row, column].set(ylim=(-1.05 * limit, 1.05 * limit), xlim=(0, time[-1]), yticks=[])
            if row == 0:
                axes[row, column].set_title("ENZ"[column], fontsize=9)
        axes[row, 0].set_ylabel(f"{name}\n±{limit:.2g}", rotation=0, ha="right", va="center", fontsize=8)
        axes[row, 3].plot(hertz, spectrum(wave).T, lw=0.5)
        axes[row, 3].set(yticks=[], xlim=(0, 10 if subject.trained else 30))
    axes[0, 3].set_title("spectra", fontsize=9)
    axes[-1, 0].set_xlabel("s")
    axes[-1, 3].set_xlabel("Hz")
    left, right = lower.subplots(1, 2)
    for values, colour, label in (
        (found["train_spectrum"], ORANGE, "training earthquakes"),
        (found["spectrum"], BLUE, "optimal inputs"),
    ):
        left.plot(hertz, values / values[1:].mean(), color=colour, lw=1, label=label)
    left.set(xlabel="Hz", ylabel="amplitude / mean", xlim=(0, 10 if subject.trained else 30))
    left.legend(frameon=False, fontsize=8)
    right.plot(found["loss"].T.clamp(min=1e-9), lw=0.7, color=BLUE)
    right.set(xlabel="iteration", ylabel="loss (from zeros)", xscale="symlog", yscale="log")
    run.figure(
        f"figure_5{_suffix(subject)}", figure,
        {"waves": waves, "names": np.array(names), "spectrum": found["spectrum"],
        "train_spectrum": found["train_spectrum"],
         "loss": found["loss"]},
        f"Figure 5, {subject.name}: optimal earthquakes from zeros{' for each training' if subject.trained else ''}, "
        "the optimal noise, and one optimum from a random start, each row to its own scale; mean spectra; losses.",
    )  # fmt: skip


def _mended(run: Reproduction, subject: Subject, found: dict[str, Any]) -> None:
    """Figure 6: rows are samples; the vertical component before and after, a part of it, log-ratios."""
    start, real = found["start"][:, 2], found["real"][:, 2]
    rows = min(len(start), 10)
    figure = new_figure(11, 0.85 * rows + 0.8)
    axes = figure.subplots(rows, 4, sharex="col", width_ratios=[1.6, 1, 1, 1])
    time, hertz = np.arange(start.shape[-1]) / subject.rate, torch.fft.rfftfreq(start.shape[-1], 1 / subject.rate)
    part = (time >= ONSET / 2) & (time <= 1.5 * ONSET)
    for row in range(rows):
        for ax, where in ((axes[row, 0], slice(None)), (axes[row, 1], part)):
            ax.plot(time[where], start[row][where], color=BLUE, lw=0.7)
            ax.plot(time[where], real[row][where], color=ORANGE, lw=0.5)
        axes[row, 2].plot(time, _ratio(start[row], real[row]), color=GREY, lw=0.4)
        axes[row, 3].plot(hertz, _ratio(spectrum(start[row]), spectrum(real[row])), color=GREY, lw=0.5)
        axes[row, 0].set_ylabel("ABCDEFGHIJ"[row], rotation=0, ha="right", va="center")
        for ax in axes[row, :2]:
            ax.set_yticks([])
        axes[row, 2].set_ylim(1, 3)
        axes[row, 3].set_ylim(1, 3)
    for ax, title in zip(
        axes[0],
        ("vertical: real (blue), mended (orange)", "2.5 to 7.5 s", "log-ratio over time", "log-ratio over frequency"),
        strict=True,
    ):
        ax.set_title(title, fontsize=9)
    for ax, label in zip(axes[-1], ("s", "s", "s", "Hz"), strict=True):
        ax.set_xlabel(label)
    run.figure(
        f"figure_6{_suffix(subject)}", figure, {"start": found["start"], "mended": found["real"]},
        f"Figure 6, {subject.name}: the vertical component of the samples, what backward optimization makes of it, "
        "and log₁₀(100 |before| / |after|), which is 2 where nothing changes.",
    )  # fmt: skip


def _ratio(before: Tensor, after: Tensor) -> Tensor:
    return torch.log10(100 * before.abs().clamp(min=1e-9) / after.abs().clamp(min=1e-9))
