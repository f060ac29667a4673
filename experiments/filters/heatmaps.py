"""The filtered heatmaps of Figure 3, and how unlike the heatmaps of one digit are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from experiments.filters.data import Digits, prepare
from experiments.filters.networks import everywhere, lrp
from experiments.filters.training import History, kept
from experiments.reproduction import Reproduction
from headwater.propagate.filters import Filter, FractionAmplify
from headwater.show import to_rgb
from headwater.show.figure import new_figure

FACTOR = 2.0  # the paper's A
SHOWN = {2: 4, 5: 3}  # rows of Figure 3: digits and how many of each


def amplify(alpha: float) -> dict[str, Filter]:
    """The paper's fractional amplifier at each of the first four convolutions."""
    return everywhere(FractionAmplify(alpha, FACTOR))


def normalized(relevance: Tensor) -> Tensor:
    """Each map over its largest magnitude, -1 to 1; maps ``[N, 1, H, W]``."""
    return relevance / relevance.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(relevance.dtype).tiny)


def report(run: Reproduction, data: Digits, histories: Mapping[str, History]) -> None:
    """Figure 3 A (S1 at the end) and B (S2 before the end), and the claim on uniformity."""
    for panel, name, iteration in (
        ("A", "S1", None),
        ("B", "S2", kept(run, histories["S2"].subject)),
    ):
        history = histories[name]
        _figure(run, data, panel, history, iteration)
    _uniformity(run, data, histories["S1"])
    run.claim(
        "figure-3-predictions",
        source="4.2",
        text="which of the seven rows of Figure 3 are classified rightly",
        paper="1101101 (A), 1100000 (B)",
        ours="-",
        verdict="not testable here",
        why="the digits drawn there are not named",
    )


def examples(data: Digits, side: int) -> Tensor:
    """Twos and fives, the first of the test set."""
    rows = [int(row) for digit, count in SHOWN.items() for row in (data.test_labels == digit).nonzero()[:count]]
    return prepare(data.test[rows], side)


def _figure(run: Reproduction, data: Digits, panel: str, history: History, iteration: int | None) -> None:
    model, x = history.model(iteration), examples(data, history.subject.side)
    plain = normalized(lrp(model, x).relevance)
    raised = {alpha: normalized(lrp(model, x, amplify(alpha)).relevance) for alpha in (0.7, 0.5)}
    maps = {
        "digit": x, "R0": plain, "R1/10": (10 * plain).clamp(-1, 1),
        **{f"p{alpha:g}": (10 * values).clamp(-1, 1) for alpha, values in raised.items()},
    }  # fmt: skip
    titles = ["digit", "$R_0$", "$R_{1/10}$", "$p_{0.7}$", "$p_{0.5}$"]
    figure = new_figure(5.2, 7.4)
    axes = figure.subplots(len(x), len(maps))
    said = model(x).argmax(1).tolist()
    for column, (values, title) in enumerate(zip(maps.values(), titles, strict=True)):
        for row in range(len(x)):
            ax = axes[row, column]
            picture = values[row, 0].detach()
            ax.imshow(1 - picture, cmap="gray", vmin=0, vmax=1) if column == 0 else ax.imshow(to_rgb(picture, 1.0))
            ax.set(xticks=[], yticks=[])
            if row == 0:
                ax.set_title(title, fontsize=10)
            if column == 0:
                ax.set_ylabel(f"says {said[row]}", fontsize=8)
    name = history.subject.name
    at = "at the end of its training" if iteration is None else f"after {iteration:,} iterations"
    run.figure(
        f"heatmaps_{name}", figure, {key: value.detach().numpy() for key, value in maps.items()},
        f"The paper's Figure 3 {panel}: {name} {at}. $R_0$ is scaled to -1 to 1, the others show it up to a tenth; "
        "$p_α$ are amplified at the first four convolutions where a signal reaches α of its maximum. Red speaks for "
        "the "
        "predicted class, blue against it.".replace("$", ""),
    )  # fmt: skip


def _uniformity(run: Reproduction, data: Digits, history: History) -> None:
    count = run.pick(quick=20, full=100)
    rows = (data.test_labels == 2).nonzero().flatten()[:count]
    x = prepare(data.test[rows], history.subject.side)
    maps = lrp(history.model(), x).relevance
    alike, digits = (_mean_cosine(values.flatten(1)) for values in (maps, x))
    run.claim(
        "uniformity",
        source="4.2, Fig. 3",
        text="heatmaps for the digit 2 are not of one shape",
        paper="seen",
        ours=f"mean cosine of two heatmaps {alike:.2f}, of two twos {digits:.2f}",
        verdict="reproduced" if alike < min(digits, 0.5) else "not reproduced",
    )


def _mean_cosine(rows: Tensor) -> float:
    unit = nn.functional.normalize(rows, dim=1)
    alike = (unit @ unit.T).numpy()
    return float(alike[~np.eye(len(alike), dtype=bool)].mean())
