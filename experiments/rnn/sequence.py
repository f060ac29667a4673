"""Experiment 1: an image read in one, four or seven strips, by Shallow and by Deep."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.reproduction import Reproduction
from experiments.rnn import data, figures, paper
from experiments.rnn.cells import CELLS
from experiments.rnn.data import CLASSES, SIDE, TITLES, Examples
from experiments.rnn.explaining import METHODS
from experiments.rnn.training import MINIMUM, Lesson, Size, network, train
from experiments.rnn.verdicts import judged
from headwater.evaluate import agreement, block_shares, effective_features
from headwater.show.figure import new_figure
from headwater.show.image import to_rgb

NAMES, LENGTHS = ("Shallow", "Deep"), (1, 4, 7)
UPRIGHT = 1  # the class of digit one and of trousers, whose content stands in the middle of the sequence
SHOWN = (1, 3, 9)
Found = dict[tuple[str, str, int], dict[str, Any]]


def reproduce(run: Reproduction) -> None:
    """Train, explain, draw and judge."""
    found: Found = {}
    for name in data.sets(run):
        for cell in NAMES:
            for steps in LENGTHS:
                found[name, cell, steps] = run.step(
                    f"sequence-{name}-{cell}-{steps}", partial(_study, run, name, cell, steps)
                )
    _tables(run, found)
    _draw(run, found)
    _judge(run, found)


def _sets(found: Found) -> list[str]:
    return list(dict.fromkeys(name for name, _, _ in found))


def _study(run: Reproduction, name: str, cell: str, steps: int) -> dict[str, Any]:
    images = data.load(run, name)
    rows, tested = data.split(images, None)
    rows = rows[torch.randperm(len(rows))]
    held = run.pick(quick=300, full=2000)
    test = Examples.single(images, tested)
    build = partial(CELLS[cell].build, SIDE // steps, steps)
    lesson = Lesson(Examples.single(images, rows[held:]), Examples.single(images, rows[:held]), test[: held * 5])
    size = Size(run.pick(quick=8_000, full=400_000), run.pick(quick=8_000, full=20_000), rate=2e-3)
    trained = train(run, f"{cell}-{steps} on {name}", build, [lesson], size, MINIMUM[name])
    model = network(build, trained["weights"], 0)
    few = test[torch.tensor([int((test.labels == label).nonzero()[0]) for label in SHOWN])]
    same = test[(test.labels == UPRIGHT).nonzero()[: run.pick(quick=50, full=500), 0]]
    some = test[: run.pick(quick=50, full=500)]
    maps = {method: explain(model, some.x(), some.labels) for method, explain in METHODS.items()}
    upright = {method: explain(model, same.x(), same.labels) for method, explain in METHODS.items()}
    shares = {method: block_shares(each, steps).nanmean(0) for method, each in upright.items()}
    return {
        "accuracy": float(trained["accuracy"]),
        "seen": trained["seen"],
        "pixels": few.x(),
        "maps": {method: explain(model, few.x(), few.labels) for method, explain in METHODS.items()},
        "some": maps,
        "shares": shares | {"pixels": block_shares(same.x() + 1, steps).mean(0)},
        "features": {method: float(effective_features(each).nanmean()) for method, each in maps.items()},
    }


def _tables(run: Reproduction, found: Found) -> None:
    rows = [
        {
            "set": TITLES[name],
            "cell": f"{cell}-{steps}",
            "variables": sum(p.numel() for p in CELLS[cell].build(SIDE // steps, steps).parameters()),
            "thesis's variables": paper.SEQUENCE_VARIABLES[cell][steps],
            "accuracy": one["accuracy"],
            "thesis's accuracy": paper.SEQUENCE_ACCURACY[name, cell][steps],
            "examples": one["seen"],
        }
        for (name, cell, steps), one in found.items()
    ]
    run.table("tables_4_3_4_4", rows, "Tables 4.3 and 4.4: variables and accuracy, here and in the thesis.")


def _draw(run: Reproduction, found: Found) -> None:
    for name, number in (("mnist", "4_4"), ("fashion_mnist", "4_5")):
        if name not in _sets(found):
            continue
        rows, labels = [], []
        for steps in LENGTHS:
            for cell in NAMES:
                one = found[name, cell, steps]
                for sample in (0, 2):
                    maps = [to_rgb(one["maps"][method][sample]) for method in METHODS]
                    rows.append([one["pixels"][sample].numpy(), *maps])
                    labels.append(f"{cell}-{steps}" if not sample else "")
        run.figure(
            f"figure_{number}",
            figures.grid(rows, ["input", *METHODS], labels),
            {
                f"{cell}-{steps}-{at}": found[name, cell, steps]["maps"][method]
                for cell in NAMES
                for steps in LENGTHS
                for at, method in enumerate(METHODS)
            },
            f"Figure {number.replace('_', '.')}: relevance of the true class under each method, {TITLES[name]}. Each "
            "map has its own scale; warm colours speak for the class, cold ones against it.",
        )
    _over_time(run, found)


def _over_time(run: Reproduction, found: Found) -> None:
    figure = new_figure(3.4 * len(_sets(found)) + 2.2, 3.2)
    axes = figure.subplots(1, len(_sets(found)), squeeze=False, sharey=True)[0]
    time, written = np.arange(1, 8), {}
    for one, name in zip(axes, _sets(found), strict=True):
        pixels = found[name, "Deep", 7]["shares"]["pixels"]
        one.bar(time, pixels, color="#dddddd", label="pixel intensity")
        for cell, colour in zip(NAMES, figures.COLOURS, strict=False):
            for method, style in (("DTD", "-"), ("LRP-α1.5β0.5", "--")):
                shares = found[name, cell, 7]["shares"][method]
                one.plot(time, shares, style, color=colour, marker="o", ms=3, label=f"{cell}-7, {method}")
                written[f"{name}-{cell}-{method}"] = shares.numpy()
        one.set(title=f"{TITLES[name]}, {CLASSES[name][UPRIGHT]}", xlabel="time step", xticks=time)
        one.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    run.figure(
        "figure_4_7",
        figure,
        written,
        "Figure 4.7: the share of pixel intensity and of positive relevance in each time step, averaged over test "
        "samples of a class whose content stands in the middle.",
    )


def _distance(one: dict[str, Any], method: str) -> float:
    """Total variation between the shares of relevance and of pixel intensity."""
    return float((one["shares"][method] - one["shares"]["pixels"]).abs().sum() / 2)


def _alike(found: Found, name: str, steps: int, method: str) -> float:
    """Mean correlation of Shallow's and Deep's heatmaps."""
    maps: dict[str, Tensor] = {cell: found[name, cell, steps]["some"][method] for cell in NAMES}
    return float(agreement(maps, "correlation")[0, 1])


def _judge(run: Reproduction, found: Found) -> None:
    counts = {
        f"{cell}-{steps}": sum(p.numel() for p in CELLS[cell].build(SIDE // steps, steps).parameters())
        for cell in NAMES
        for steps in LENGTHS
    }
    exact = all(counts[f"{c}-{t}"] == paper.SEQUENCE_VARIABLES[c][t] for c in NAMES for t in LENGTHS)
    run.claim(
        "variables-4.3",
        source="Table 4.3",
        text="Trainable variables of Shallow and Deep for T = 1, 4, 7.",
        paper="269,322; 184,330; 162,826; 271,338; 153,578; 132,074",
        ours="; ".join(f"{n:,}" for n in counts.values()),
        verdict="reproduced" if exact else "not reproduced",
    )
    enough = [one["accuracy"] >= MINIMUM[name] for (name, _, _), one in found.items()]
    run.claim(
        "accuracy-4.4",
        source="Table 4.4",
        text="Shallow and Deep reach Table 4.2's accuracies at every length, and alike.",
        paper="98.11 to 98.68 %; 87.93 to 89.43 %",
        ours="; ".join(
            f"{TITLES[name]} {min(v):.2%} to {max(v):.2%}"
            for name in _sets(found)
            for v in [[found[name, c, t]["accuracy"] for c in NAMES for t in LENGTHS]]
        ),
        **judged(run, all(enough), f"{sum(enough)} of {len(enough)} networks reach them; training here stops there"),
    )
    _judge_heatmaps(run, found)
    last = {
        (name, cell, method): float(found[name, cell, 7]["shares"][method][-3:].sum())
        for name in _sets(found)
        for cell in NAMES
        for method in ("DTD", "LRP-α1.5β0.5")
    }
    shallow = [value for (_, cell, _), value in last.items() if cell == "Shallow"]
    deep = [value for (_, cell, _), value in last.items() if cell == "Deep"]
    run.claim(
        "last-steps",
        source="Fig. 4.7",
        text="Shallow-7 lays more than 90 % of its relevance on the last three steps.",
        paper="> 90 %",
        ours=f"Shallow {min(shallow):.0%} to {max(shallow):.0%}; Deep {min(deep):.0%} to {max(deep):.0%}",
        **judged(run, min(shallow) > 0.9, f"DTD and LRP on {' and '.join(TITLES[name] for name in _sets(found))}"),
    )
    away = {
        cell: [_distance(found[name, cell, 7], m) for name in _sets(found) for m in ("DTD", "LRP-α1.5β0.5")]
        for cell in NAMES
    }
    closer = all(d < s for d, s in zip(away["Deep"], away["Shallow"], strict=True))
    run.claim(
        "aligned",
        source="Fig. 4.7",
        text="Deep-7's relevance over time follows the pixels; Shallow-7's does not.",
        paper="seen",
        ours="total variation from the pixels' shares: "
        + "; ".join(f"{cell} {', '.join(f'{v:.2f}' for v in away[cell])}" for cell in NAMES),
        **judged(run, closer, f"DTD, LRP on {', then '.join(TITLES[name] for name in _sets(found))}"),
    )


def _judge_heatmaps(run: Reproduction, found: Found) -> None:
    short = {m: np.mean([_alike(found, name, 1, m) for name in _sets(found)]) for m in METHODS}
    long = {m: np.mean([_alike(found, name, t, m) for name in _sets(found) for t in (4, 7)]) for m in METHODS}
    propagated, gradients = ("DTD", "LRP-α1.5β0.5"), ("SA", "GB")
    run.claim(
        "alike-1",
        source="Fig. 4.4",
        text="With one step Shallow's and Deep's heatmaps look alike under every method.",
        paper="seen",
        ours="correlation " + ", ".join(f"{m} {v:.2f}" for m, v in short.items()),
        **judged(run, bool(min(short.values()) > 0.5), "alike is read as above 0.5"),
    )
    falls = {m: float(short[m] - long[m]) for m in METHODS}
    run.claim(
        "apart-4-7",
        source="Fig. 4.4, 4.5",
        text="With four and seven steps SA and GB still agree between the cells, DTD and LRP no longer.",
        paper="seen",
        ours="fall of the correlation " + ", ".join(f"{m} {v:.2f}" for m, v in falls.items()),
        **judged(run, min(falls[m] for m in propagated) > max(falls[m] for m in gradients)),
    )
    features = {m: np.mean([one["features"][m] for one in found.values()]) for m in METHODS}
    sparse = max(features[m] for m in gradients) < min(features[m] for m in propagated)
    run.claim(
        "sparse",
        source="Fig. 4.4",
        text="Heatmaps of SA and GB are sparse, those of DTD and LRP diffuse.",
        paper="seen",
        ours="pixels " + ", ".join(f"{m} {v:.0f}" for m, v in features.items()),
        **judged(run, bool(sparse), "pixels: exponential of the map's entropy, of 784"),
    )
