"""Feature maps: what layers make of earthquakes and of noise, how alike channels are, within a network and across.

Figures 3 and 4 of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import headwater as hw
from experiments.earthquake.data import SECONDS, Source
from experiments.earthquake.series import auc, smoothed, summary
from experiments.earthquake.subjects import Judge, Sets, Subject
from experiments.reproduction import Reproduction
from headwater.analyze import match, redundancy
from headwater.evaluate import correlation
from headwater.show.colour import colour_map
from headwater.show.figure import new_figure

HIGH = 0.8  # the paper's threshold of a high correlation


def study(subject: Subject, others: Sequence[Subject], source: Source, sets: Sets) -> dict[str, Any]:
    """All numbers and series of this part; see `judge` for what they mean."""
    onset, layers = sets.onset, list(subject.layers.values())
    x = subject.inputs(source, onset)
    maps = dict(zip(subject.layers, hw.feature_maps(subject.model, x, layers).values(), strict=True))
    envelope = smoothed(x.abs().sum(1), subject.rate // 2)
    middle = maps[subject.middle]
    far = hw.feature_maps(subject.model, subject.inputs(source, sets.far), [subject.layers[subject.middle]])
    samples = subject.inputs(source, sets.samples)
    shown = hw.feature_maps(subject.model, samples, layers)
    found = shown[subject.layers[subject.middle]]
    again = [hw.feature_maps(o.model, samples, [o.layers[o.middle]])[o.layers[o.middle]] for o in others]
    event, noise = onset.y == 1, onset.y == 0
    return {
        "follows": torch.stack([_follows(part[event], envelope[event]) for part in maps.values()]),
        "contrast": torch.stack([_contrast(torch.cat([part[event], part[noise]])) for part in maps.values()]),
        "near": (onset.s - onset.p)[event],
        "alike": _alike(torch.cat([middle[event], far[subject.layers[subject.middle]], middle[noise]])),
        "kinds": torch.tensor([0] * int(event.sum()) + [1] * len(sets.far) + [2] * int(noise.sum())),
        "double": torch.tensor([redundancy(one, HIGH).share for one in middle[event]]),
        "double_b": redundancy(found[1], HIGH).share,
        "again": torch.tensor([[match(one, two, HIGH).share for one, two in zip(found[:10], other[:10], strict=True)]
                               for other in again]),
        "samples": samples,
        "event_maps": {label: shown[name][0] for label, name in subject.layers.items()},
        "noise_maps": {label: shown[name][10] for label, name in subject.layers.items()},
        "middle_maps": found,
    }  # fmt: skip


def _activity(maps: Tensor) -> Tensor:
    """The mean magnitude over channels, each less its median over time, ``[N, T]``."""
    return (maps - maps.median(-1, keepdim=True).values).abs().mean(1)


def _follows(maps: Tensor, envelope: Tensor) -> Tensor:
    """The correlation in time of a layer's activity with the window's amplitude, ``[N]``."""
    amplitude = F.adaptive_avg_pool1d(envelope[:, None], maps.shape[-1])[:, 0]
    return correlation(_activity(maps), amplitude)


def _contrast(maps: Tensor) -> Tensor:
    """The deviation over time of a layer's activity in units of its mean, ``[N]``."""
    activity = _activity(maps)
    return activity.std(-1) / activity.mean(-1)


def _alike(maps: Tensor) -> Tensor:
    """The mean correlation of the same channels in two windows, ``[N, N]``."""
    unit = maps - maps.mean(-1, keepdim=True)
    unit = unit / unit.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return torch.einsum("ict,jct->ij", unit, unit) / maps.shape[1]


def judge(run: Reproduction, subject: Subject, found: dict[str, Any]) -> None:
    """Verdicts on the claims of Section 3.1."""
    say, labels = Judge(run, subject), list(subject.layers)
    event, noise = found["contrast"][:, : len(found["near"])], found["contrast"][:, len(found["near"]) :]
    told = [max(a := auc(e, n), 1 - a) for e, n in zip(event, noise, strict=True)]
    say(
        "maps-differ", "Section 3.1, Fig. 3", "Feature maps of earthquakes differ from those of noise in all layers.",
        "by eye", "how well a layer's variation in time tells them apart (AUC): "
        + ", ".join(f"{label} {value:.2f}" for label, value in zip(labels, told, strict=True)), min(told) > 0.8,
        "holds where every layer tells them apart with an AUC above 0.8",
    )  # fmt: skip
    follows = found["follows"].nanmean(1)
    say(
        "phases-visible", "Section 3.1, Fig. 3", "The phases of an earthquake are seen throughout the first five "
        "layers.",
        "by eye", "correlation of a layer's activity with the amplitude: "
        + ", ".join(f"{label} {value:.2f}" for label, value in zip(labels, follows, strict=True)),
        bool((follows[:5] > 0.5).all()), "holds where it is above 0.5 in the first five layers",
    )  # fmt: skip
    groups = _groups(found["alike"], found["kinds"])
    say(
        "maps-shared", "Section 3.1, Fig. 4", f"Channels of {subject.middle} show one pattern for different near "
        "earthquakes, none for noise.",
        "by eye", f"mean r of the same channel: near events {groups['near', 'near']:.2f}, near "
        f"event and noise {groups['near', 'noise']:.2f}, noises {groups['noise', 'noise']:.2f}",
        groups["near", "near"] > 0.5 and groups["near", "near"] > 2 * groups["noise", "noise"],
        "holds where near events exceed 0.5 and twice what noises have in common",
    )  # fmt: skip
    say(
        "maps-far", "Section 3.1, Fig. 4", "Beyond 50 km the pattern is another, and consistent too.", "by eye",
        f"mean r: far events {groups['far', 'far']:.2f}, near and far {groups['near', 'far']:.2f}",
        groups["far", "far"] > groups["near", "far"] < groups["near", "near"],
        "holds where near and far events are less alike than either among themselves; the far ones are of 33 to 139 km",
    )  # fmt: skip
    say(
        "redundancy", "Section 3.1, Fig. S12", f"Many channels of {subject.middle} have a double (r > 0.8).",
        "49 % (sample B)",
        f"sample B {found['double_b']:.0%}; all events {100 * found['double'].mean():.0f} ± "
        f"{100 * found['double'].std():.0f} %",
        bool(found["double"].mean() > 0.4), "holds above 40 %, as the paper's number is that of one sample",
    )  # fmt: skip
    if len(found["again"]):
        b = found["again"][:, 1]
        say(
            "matched", "Section 3.1, Fig. S14", "Most channels of L5 are found again in other trainings (r > 0.8).",
            "> 75 % (sample B)", f"sample B {100 * b.mean():.0f} ± {100 * b.std():.0f} % over {len(b)} trainings; ten "
            f"samples {summary(100 * found['again'].mean(0), 0)} %", bool(b.mean() > 0.75),
        )  # fmt: skip


def _groups(alike: Tensor, kinds: Tensor) -> dict[tuple[str, str], float]:
    """The mean likeness of two windows of two kinds."""
    names, others = ("near", "far", "noise"), ~torch.eye(len(kinds), dtype=torch.bool)
    return {
        (a, b): float(alike[(kinds[:, None] == i) & (kinds == j) & others].mean())
        for i, a in enumerate(names)
        for j, b in enumerate(names)
    }


def draw(run: Reproduction, subject: Subject, found: dict[str, Any], sets: Sets) -> None:
    """Figures 3 and 4."""
    labels = list(subject.layers)[:7] if subject.trained else [n for n in subject.layers if int(n[1:]) % 2 == 0]
    figure = new_figure(11, 5.2)
    axes = figure.subplots(2, len(labels) + 1, width_ratios=[1.6, *[1] * len(labels)])
    for row, (place, letter) in enumerate(((0, "A"), (10, "K"))):
        wave, kind = found["samples"][place], "earthquake" if row == 0 else "noise"
        time = np.arange(wave.shape[-1]) / subject.rate
        for number, component in enumerate(wave):
            axes[row, 0].plot(time, component / wave.abs().max() - 2 * number, lw=0.5, color="black")
        axes[row, 0].set(title=f"{letter}: {kind}", yticks=[0, -2, -4], yticklabels=["E", "N", "Z"], xlabel="s")
        for ax, label in zip(axes[row, 1:], labels, strict=True):
            part = found["event_maps" if row == 0 else "noise_maps"][label]
            part = part - part.median(-1, keepdim=True).values
            limit = float(found["event_maps"][label].std()) * 3
            ax.imshow(part, aspect="auto", cmap=colour_map(), vmin=-limit, vmax=limit, extent=(0, SECONDS, len(part),
            0),
                      interpolation="nearest")  # fmt: skip
            ax.set(title=f"{label}: {part.shape[0]} x {part.shape[1]}", yticks=[], xticks=[0, 10, 20])
            ax.title.set_fontsize(8)
    data = {f"event_{label}": found["event_maps"][label] for label in labels}
    data |= {f"noise_{label}": found["noise_maps"][label] for label in labels}
    run.figure(
        f"figure_3{_suffix(subject)}", figure, {**data, "event": found["samples"][0], "noise": found["samples"][10]},
        f"Figure 3, {subject.name}: feature maps (rows: channels, each less its median over time; red above, blue "
        "below; a layer has one scale) of an earthquake and of noise.",
    )  # fmt: skip
    _draw_middle(run, subject, found, sets)


def _draw_middle(run: Reproduction, subject: Subject, found: dict[str, Any], sets: Sets) -> None:
    maps, waves, count = found["middle_maps"][:, :10], found["samples"], len(sets.samples)
    figure = new_figure(11, 7.5)
    axes = figure.subplots(count, 11, sharex="col", width_ratios=[2.2, *[1] * 10])
    limits = maps.abs().amax((0, 2))
    for row in range(count):
        vertical = waves[row, 2]
        axes[row, 0].plot(np.arange(len(vertical)) / subject.rate, vertical, lw=0.4, color="black")
        gap, distance = float(sets.samples.s[row] - sets.samples.p[row]), float(sets.samples.distance[row])
        known = f"{distance:.0f} km" if np.isfinite(distance) else f"S-P {gap:.1f} s" if np.isfinite(gap) else "noise"
        axes[row, 0].set_ylabel(f"{sets.letters[row]}\n{known}", rotation=0, ha="right", va="center", fontsize=8)
        for channel in range(10):
            ax = axes[row, channel + 1]
            ax.plot(maps[row, channel], lw=0.9, color="#a02c2c" if sets.samples.y[row] else "#2c5aa0")
            ax.set_ylim(-limits[channel], limits[channel])
            if row == 0:
                ax.set_title(f"{channel + 1}", fontsize=8)
    for ax in axes.flat:
        ax.set(yticks=[], xticks=[])
        for side in ax.spines:
            ax.spines[side].set_visible(False)
    run.figure(
        f"figure_4{_suffix(subject)}", figure, {"maps": maps, "vertical": waves[:, 2]},
        f"Figure 4, {subject.name}: the vertical component of ten earthquakes (A to J) and two noises (K, L), and the "
        f"first ten channels of {subject.middle}; a channel has one scale.",
    )  # fmt: skip


def _suffix(subject: Subject) -> str:
    return "" if subject.trained else f"_{subject.name.lower()}"
