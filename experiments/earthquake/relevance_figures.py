"""Figures 7 and 8: relevance over the waveforms, how far it is spread, and windows with two events."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.earthquake.data import SECONDS
from experiments.earthquake.subjects import APART, Sets, Subject
from experiments.reproduction import Reproduction
from headwater.show.figure import new_figure

WAVE, WARM, COLD = "#4a6fa5", "#d9822b", "#5a3fa0"


def draw(run: Reproduction, subject: Subject, found: dict[str, Any], sets: Sets) -> None:
    """All figures of relevance."""
    _samples(run, subject, found, sets)
    _rules(run, subject, found, sets)
    _spread(run, subject, found)
    _two(run, subject, found, sets)


def _suffix(subject: Subject) -> str:
    return "" if subject.trained else f"_{subject.name.lower()}"


def _over(ax: Any, wave: Tensor, relevance: Tensor, rate: int, limit: float) -> None:
    """A waveform with relevance as bars around its middle, positive up, negative down."""
    time = np.arange(len(wave)) / rate
    ax.plot(time, wave / max(float(wave.abs().max()), 1e-12), lw=0.4, color=WAVE, alpha=0.8)
    scaled = relevance / max(limit, 1e-12)
    ax.fill_between(time, 0, scaled.clamp(min=0), color=WARM, lw=0.3)
    ax.fill_between(time, 0, scaled.clamp(max=0), color=COLD, lw=0.3)
    ax.set(xlim=(0, SECONDS), ylim=(-1.05, 1.05), yticks=[])


def _arrivals(ax: Any, p: float, s: float) -> None:
    for place in (p, s):
        if np.isfinite(place):
            ax.axvline(place, color="black", lw=0.6, ls=":")


def _samples(run: Reproduction, subject: Subject, found: dict[str, Any], sets: Sets) -> None:
    waves, relevance = found["waves"], found["samples"]["β 0"]
    figure = new_figure(11, 8)
    axes = figure.subplots(len(waves), 3, sharex=True)
    for row in range(len(waves)):
        limit = float(relevance[row].abs().max())
        for column in range(3):
            _over(axes[row, column], waves[row, column], relevance[row, column], subject.rate, limit)
            _arrivals(axes[row, column], float(sets.samples.p[row]), float(sets.samples.s[row]))
        axes[row, 0].set_ylabel(sets.letters[row], rotation=0, ha="right", va="center")
    for ax, name in zip(axes[0], "ENZ", strict=True):
        ax.set_title(name)
    for ax in axes[-1]:
        ax.set_xlabel("s")
    run.figure(
        f"figure_7{_suffix(subject)}", figure, {"waves": waves, "relevance": relevance},
        f"Figure 7, {subject.name}: relevance under LRP-β with β = 0 (orange: positive, violet: negative; a row has "
        "one scale) over the components of the samples (blue, each to its own scale); dotted: P and S. K and L are "
        "noise.",
    )  # fmt: skip


def _rules(run: Reproduction, subject: Subject, found: dict[str, Any], sets: Sets) -> None:
    """The four rules on sample B, and of the detector β 0 under every training."""
    rows = [(rule, relevance[1]) for rule, relevance in found["samples"].items()]
    rows += [(f"β 0, {'ABCDEFGHIJ'[n]}", relevance) for n, relevance in enumerate(found.get("trainings_b", ())) if n]
    figure = new_figure(11, 0.7 * len(rows) + 0.6)
    axes = figure.subplots(len(rows), 3, sharex=True)
    for row, (name, relevance) in enumerate(rows):
        for column in range(3):
            _over(
                axes[row, column],
                found["waves"][1, column],
                relevance[column],
                subject.rate,
                float(relevance.abs().max()),
            )
            _arrivals(axes[row, column], float(sets.samples.p[1]), float(sets.samples.s[1]))
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for ax, name in zip(axes[0], "ENZ", strict=True):
        ax.set_title(name)
    for ax in axes[-1]:
        ax.set_xlabel("s")
    run.figure(
        f"rules{_suffix(subject)}", figure, dict(rows) | {"wave": found["waves"][1]},
        f"Figures S21 to S27, {subject.name}: sample B under the four rules" + (", and under β 0 in the other "
        "trainings." if subject.trained else "."),
    )  # fmt: skip


def _spread(run: Reproduction, subject: Subject, found: dict[str, Any]) -> None:
    figure = new_figure(11, 3.4)
    left, middle, right = figure.subplots(1, 3)
    gap, sigma, distance = found["gap"], found["sigma"]["β 0"], found["distance"]
    known = distance.isfinite()
    left.scatter(gap[~known], sigma[~known], s=12, color=WAVE, label="near")
    left.scatter(gap[known], sigma[known], s=12, color=WARM, label="far")
    left.set(xlabel="S - P (s)", ylabel="σ of LRP (s)")
    left.legend(frameon=False, fontsize=8)
    middle.scatter(distance[known], sigma[known], s=12, color=WARM)
    middle.set(xlabel="epicentral distance (km)", ylabel="σ of LRP (s)")
    bins = np.linspace(0, 9, 31)
    for values, colour, label in (
        (found["event_sigma"], "#8a8a8a", "earthquakes"),
        (found["noise_sigma"], WAVE, "noise"),
    ):
        values = values[values.isfinite()]
        right.hist(values, bins, color=colour, alpha=0.6, label=label, density=True)
        right.axvline(float(values.mean()), color=colour, ls="-." if label == "earthquakes" else "-")
    right.axvline(SECONDS / 12**0.5, color="black", lw=0.6, ls=":")
    right.set(xlabel="σ of LRP (s)", yticks=[])
    right.legend(frameon=False, fontsize=8)
    run.figure(
        f"figure_8{_suffix(subject)}", figure,
        {"gap": gap, "distance": distance, "sigma": sigma, "event_sigma": found["event_sigma"],
        "noise_sigma": found["noise_sigma"]},
        f"Figure 8, {subject.name}: the spread of relevance (β 0) over time against S - P and the distance, P at 5 s; "
        "and of the evaluation windows by class, with means (dotted: evenly spread).",
    )  # fmt: skip


def _two(run: Reproduction, subject: Subject, found: dict[str, Any], sets: Sets) -> None:
    two, (first, second) = found["two"], sets.pairs
    figure = new_figure(11, 3.6)
    left, right = figure.subfigures(1, 2, width_ratios=[2, 1], squeeze=False)[0]
    axes = left.subplots(3, 1, sharex=True)
    for ax, wave, relevance, name in zip(axes, two["wave"], two["relevance"], "ENZ", strict=True):
        _over(ax, wave, relevance, subject.rate, float(two["relevance"].abs().max()))
        _arrivals(ax, float(first.p[two["shown"]]), float(first.s[two["shown"]]))
        _arrivals(ax, float(second.p[two["shown"]]) + APART, float(second.s[two["shown"]]) + APART)
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    axes[-1].set_xlabel("s")
    ax = right.subplots()
    ax.scatter(two["first"], two["second"], s=12, color=WARM)
    limit = float(torch.cat([two["first"], two["second"]]).nan_to_num().max()) * 1.05
    ax.plot([0, limit], [0, limit], color="black", lw=0.6, ls=":")
    ax.set(xlabel="density about the first", ylabel="about the second", xlim=(0, limit), ylim=(0, limit))
    run.figure(
        f"two_events{_suffix(subject)}", figure, {name: two[name] for name in ("wave", "relevance", "first", "second")},
        f"Figure S20, {subject.name}: relevance (β 0) in windows with two events; density: 1 is the window's mean.",
    )  # fmt: skip
