"""Mean Power over training (Figure 2): where it rises and where it falls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from experiments.filters.data import Digits
from experiments.filters.networks import LAYERS, lrp, parameters
from experiments.filters.training import RATE, THRESHOLDS, History, drawn, lengths
from experiments.reproduction import Reproduction
from experiments.verdicts import verdict
from headwater.analyze import mean_power
from headwater.show.figure import new_figure

CLEAR = 0.3  # the rank correlation with the iteration from which a layer's Mean Power rises, or falls
COLOURS = ("#1b5e8c", "#d1701c", "#3d8f4f", "#8c3b6e")
Histories = Mapping[str, History]


def report(run: Reproduction, data: Digits, histories: Histories, again: History) -> None:
    """Table of the networks, Figure 2, and the claims on Mean Power."""
    _networks(run, histories)
    _figure(run, histories)
    _trends(run, histories)
    _resemblance(run, histories["S1"], again)
    _definition(run, data, histories["S1"])


def correlations(history: History) -> NDArray[np.float64]:
    """Spearman's correlation of Mean Power with the iteration, ``[layers, thresholds]``."""
    power = history.power
    found = [[spearmanr(history.iterations, power[:, i, j]).statistic for j in range(power.shape[2])] for i in range(4)]
    return np.nan_to_num(np.array(found))


def net(history: History) -> float:
    """Layers and thresholds at which Mean Power rises less those at which it falls, over all: 1 to -1."""
    rho = correlations(history)
    return float(((rho > CLEAR).sum() - (rho < -CLEAR).sum()) / rho.size)


def growth(history: History) -> float:
    """Mean Power at the end over that of the beginning: means of a sixth of the evaluations, over layers and t."""
    width = max(1, len(history.iterations) // 6)
    power = np.log(history.power)
    return float(np.exp((power[-width:].mean(0) - power[:width].mean(0)).mean()))


def _networks(run: Reproduction, histories: Histories) -> None:
    rows: list[dict[str, Any]] = []
    off = []
    for name, history in histories.items():
        subject = history.subject
        count = parameters(subject.network())
        off.append(abs(count / subject.parameters - 1))
        above = np.flatnonzero(history.accuracy > 0.9)
        rows.append({
            "network": name, "input": f"{subject.side}x{subject.side}", "parameters": count,
            "the paper's": subject.parameters, "iterations": lengths(run, subject)[0],
            "accuracy at the end": float(history.accuracy[-1]),
            "first above 0.9 at": int(history.iterations[above[0]]) if len(above) else "never",
        })  # fmt: skip
    caption = f"The networks, and how they learned: Adam at {RATE:g}, four digits a step, no dropout."
    run.table("networks", rows, caption)
    run.claim(
        "parameters",
        source="4.1",
        text="S1, S2, AL1 and AL2 have 270,578, 273,381, 2,664,138 and 2,874,810 parameters",
        paper="as said",
        ours=f"within {max(off):.2%}",
        verdict="reproduced" if max(off) < 0.01 else "not reproduced",
        why="the layers are not printed: these are our own, sized alike",
    )
    first = {row["network"]: row["first above 0.9 at"] for row in rows}
    reached = {name: at if isinstance(at, int) else np.inf for name, at in first.items()}
    slowest = max(reached["AL1"], reached["AL2"])
    right = slowest <= 2000 and slowest < min(reached["S1"], reached["S2"]) < np.inf
    run.claim(
        "accuracy",
        source="4.2",
        text="AlexNets exceed an accuracy of 0.9 within some 1,000 iterations, small networks by the end of epoch 2",
        paper="1,000; 30,000",
        ours=", ".join(f"{n} {i}" for n, i in first.items()),
        verdict=verdict(right),
        why="" if right else "the rate is not printed; at ours the small networks are no slower",
    )


def _figure(run: Reproduction, histories: Histories) -> None:
    figure = new_figure(11, 6.6)
    axes = figure.subplots(len(THRESHOLDS), len(histories), sharex="col")
    for column, (name, history) in enumerate(histories.items()):
        for row, t in enumerate(THRESHOLDS):
            ax = axes[row, column]
            for i, layer in enumerate(LAYERS):
                ax.plot(history.iterations / 1000, history.power[:, i, row], color=COLOURS[i], lw=1.3, label=layer)
            _logarithmic(ax)
            ax.grid(alpha=0.25, lw=0.5)
            if row == 0:
                ax.set_title(name)
            if column == 0:
                ax.set_ylabel(f"Mean Power, t = {t:g}")
        axes[-1, column].set_xlabel("iterations, thousands")
    axes[0, 0].legend(fontsize=8, frameon=False)
    data = {
        f"{name}_{key}": getattr(h, key) for name, h in histories.items() for key in ("iterations", "power", "accuracy")
    }
    run.figure(
        "mean_power", figure, data,
        "Mean Power of the first four convolutions over training (the paper's Figure 2), for three thresholds t in "
        "units of a digit's largest magnitude: the paper does not say which it took.",
    )  # fmt: skip


def _logarithmic(ax: Any) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _trends(run: Reproduction, histories: Histories) -> None:
    rows = []
    for name, history in histories.items():
        rho = correlations(history)
        rows += [
            {"network": name, "layer": layer, **{f"t = {t:g}": float(rho[i, j]) for j, t in enumerate(THRESHOLDS)}}
            for i, layer in enumerate(LAYERS)
        ]
    run.table("trends", rows, "Rank correlation of Mean Power with the iteration: positive where it rises in training.")
    nets = {name: net(h) for name, h in histories.items()}
    grown = {name: growth(h) for name, h in histories.items()}
    for name, text, right in (
        ("S1", "Mean Power of S1 rises in training", nets["S1"] >= 1 / 3),
        ("S2", "Mean Power of S2 rises in training", nets["S2"] >= 1 / 3),
        ("AL1", "Mean Power of AL1 rises, but less than the small networks'",
         1 < grown["AL1"] < min(grown["S1"], grown["S2"])),
        ("AL2", "Mean Power of AL2 falls in training", nets["AL2"] <= -1 / 3),
    ):  # fmt: skip
        rho = correlations(histories[name])
        ups, downs = (rho > CLEAR).sum(0), (rho < -CLEAR).sum(0)
        seen = "; ".join(f"t = {t:g}: {u} up, {d} down" for t, u, d in zip(THRESHOLDS, ups, downs, strict=True))
        run.claim(
            f"trend-{name}",
            source="4.2, Fig. 2",
            text=text,
            paper=histories[name].subject.trend,
            ours=f"of 4 layers {seen}; times {grown[name]:.2f}",
            verdict=verdict(right),
        )
    rising = [name for name, value in nets.items() if value >= 1 / 3]
    run.claim(
        "not-general",
        source="4.2",
        text="that errors are spikes which training removes, so that Mean Power falls, does not hold for all networks",
        paper="rises in S1, S2",
        ours=f"rises in {', '.join(rising) or 'none'}",
        verdict=verdict(bool(rising)),
    )
    run.claim(
        "u-net",
        source="4.2",
        text="errors as spikes may be particular to the 3D U-Net of reference [12]",
        paper="suggested",
        ours="-",
        verdict="not testable here",
        why="neither that network nor its stroke images are to be had",
    )


def _resemblance(run: Reproduction, first: History, second: History) -> None:
    first = replace(
        first, iterations=first.iterations[: len(second.iterations)], power=first.power[: len(second.power)]
    )
    a, b = correlations(first), correlations(second)
    same = float((np.sign(a) == np.sign(b)).mean())
    curves = [np.corrcoef(np.log(x), np.log(y))[0, 1] for x, y in zip(_flat(first), _flat(second), strict=True)]
    run.claim(
        "initialization",
        source="4.2",
        text="another initialization of the same network shows some resemblance in its trends",
        paper="not shown",
        ours=f"S1 twice: {same:.0%} of layers and thresholds go the same way; r = {np.mean(curves):.2f}",
        verdict=verdict(same > 0.75 and float(np.mean(curves)) > 0.3),
    )


def _flat(history: History) -> NDArray[np.float64]:
    return history.power.reshape(len(history.power), -1).T


def _definition(run: Reproduction, data: Digits, history: History) -> None:
    x, _ = drawn(data, history.subject, 40)
    relevance = lrp(history.model(), x, layers=("conv2",)).layers["conv2"].double()
    base, scaled = (np.nanmean(mean_power(r, THRESHOLDS), 0) for r in (relevance, 1000 * relevance))
    spiky = np.nanmean(mean_power(relevance.sign() * relevance.abs() ** 2, THRESHOLDS), 0)
    run.claim(
        "amplitude",
        source="4.1",
        text="Mean Power does not depend on the amplitude of the signal",
        paper="by definition",
        ours=f"1000 R: changed by {np.abs(scaled / base - 1).max():.1e}",
        verdict=verdict(bool(np.allclose(scaled, base))),
    )
    told = "; ".join(f"t = {t:g}: {a:.0f} to {b:.0f}" for t, a, b in zip(THRESHOLDS, base, spiky, strict=True))
    run.claim(
        "spikier",
        source="4.1",
        text="spikier signals have a larger Mean Power",
        paper="by definition",
        ours=f"R to R², signs kept: {told}",
        verdict=verdict(bool((spiky > base).all())),
    )
