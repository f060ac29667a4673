"""Tables 4.5 and 4.6 and both appendices, and the figures of experiments 2 and 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from experiments.reproduction import Reproduction
from experiments.rnn import figures, paper
from experiments.rnn.cells import CELLS
from experiments.rnn.data import CLASSES, TITLES
from experiments.rnn.explaining import METHODS, MODERN_METHODS
from experiments.rnn.majority import DEPTH, LABELS, Found, shown, subjects
from experiments.rnn.modern import MODERN, STEPS, WIDTH
from experiments.rnn.training import MINIMUM
from headwater.evaluate import anova, tukey_hsd
from headwater.evaluate.statistics import Anova
from headwater.show.image import to_rgb

All = dict[str, dict[str, Found]]
GATES = ("Deep", "Deep-SD", "R-LSTM", "R-LSTM-SD")  # figure 4.17
LITERAL = ("ConvDeep", "Conv+Deep", "R-LSTM-SD", "ConvR-LSTM-SD", "Conv+R-LSTM-SD")  # figure 4.20
STRONGEST = "LRP-α1.5β0.5"


def cosine(found: Found, method: str) -> Tensor:
    """Mean cosine of each fold that is kept, ``[F]``."""
    return found.cosine[method][found.kept]


def sets_with(found: All, cells: Sequence[str]) -> list[str]:
    """The sets where every one of some cells has networks that reach Table 4.2; where there is none, any networks."""
    kept = [name for name in found if all(bool(found[name][cell].kept.any()) for cell in cells)]
    return [name for name in kept if not below(found, [name], cells)] or kept


def below(found: All, names: Sequence[str], cells: Sequence[str]) -> bool:
    """Whether networks of some cell miss Table 4.2 on some set."""
    return not all(found[name][cell].enough for name in names for cell in cells)


def pooled(found: All, names: Sequence[str], cell: str, method: str) -> Tensor:
    """Cosines of a cell on several sets, one after the other."""
    return torch.cat([torch.empty(0), *(cosine(found[name][cell], method) for name in names)])


def tables(run: Reproduction, found: All) -> None:
    """Accuracy and variables, cosines, percentages, and both tests."""
    run.table("appendix_1", [_accuracy(name, each.name, found) for name in found for each in subjects()], _ACCURACY)
    run.table(
        "cosine",
        [_cosines(name, cell, found[name][cell], METHODS) for name in found for cell in CELLS],
        "Figures 4.12, 4.17 and 4.20 in numbers: cosine between the marks of the majority's blocks and the blocks' "
        "shares of relevance, mean over the folds that reach Table 4.2, in brackets over those that beat chance where "
        "none reaches it. Uniform relevance has 0.816.",
    )
    run.table(
        "modern",
        [_cosines(name, cell, found[name][cell], MODERN_METHODS) for name in found for cell in MODERN],
        "The same ground truth for cells that the thesis could not explain.",
    )
    rows = [row for method in METHODS for row in tukey(found, method)]
    if rows:
        run.table("appendix_2", rows, "Appendix 2: Tukey's test between the cells of figure 4.12, all sets together.")


def _accuracy(name: str, cell: str, found: All) -> dict[str, object]:
    one = found[name][cell]
    variables = sum(p.numel() for p in next(s for s in subjects() if s.name == cell).build().parameters())
    printed = paper.MAJORITY_ACCURACY[name].get(cell)
    return {
        "set": f"{TITLES[name]}-MAJ",
        "cell": cell,
        "variables": variables,
        "thesis's variables": f"{CELLS[cell].variables:,}" if cell in CELLS else "-",
        "accuracy": f"{float(one.accuracy.mean()):.2%} ± {float(one.accuracy.std()):.2%}",
        "thesis's accuracy": f"{printed[0]:.2%} ± {printed[1]:.2%}" if printed else "-",
        "folds": f"{int((one.accuracy >= MINIMUM[name]).sum())} of {len(one.kept)}",
        "examples": one.seen,
        "true class positive": f"{float(one.positive.mean()):.1%}",
    }


_ACCURACY = (
    "Tables 4.5 and 4.6 and Appendix 1: variables; accuracy, mean and deviation over folds; how many folds are "
    "accurate enough for a verdict; examples each was trained on at most; how often the true class has a positive "
    "score, which is what is explained."
)


def _cosines(name: str, cell: str, one: Found, methods: Mapping[str, object]) -> dict[str, object]:
    row: dict[str, object] = {"set": TITLES[name], "cell": cell}
    for method in methods:
        scores = cosine(one, method)
        if len(scores) < 2:
            row[method] = "-"
            continue
        text = f"{float(scores.mean()):.3f} ± {float(scores.std()):.3f}"
        row[method] = text if one.enough else f"({text})"
    return row


def tukey(found: All, method: str) -> list[dict[str, object]]:
    """A row a pair of figure 4.12's cells, beside the thesis's; none where a cell has too few folds."""
    scores = {cell: pooled(found, sets_with(found, DEPTH), cell, method) for cell in DEPTH}
    if any(len(each) < 2 for each in scores.values()):
        return []
    pairs = {frozenset((pair.a, pair.b)): pair for pair in tukey_hsd(scores)}
    rows = []
    for (a, b), difference, rejected in zip(paper.PAIRS, paper.TUKEY[method], paper.REJECTED[method], strict=True):
        ours = pairs[frozenset((a, b))]
        sign = 1 if ours.a == a else -1
        rows.append(
            {
                "method": method,
                "pair": f"{b} - {a}",
                "difference": sign * ours.difference,
                "p": ours.p,
                "differ": "yes" if ours.rejected else "no",
                "thesis's difference": difference,
                "thesis: differ": "yes" if rejected else "no",
            }
        )
    return rows


def variance(found: All, method: str) -> Anova | None:
    """Analysis of variance of figure 4.12's cells, as the thesis does it; ``None`` where a cell has too few folds."""
    scores = {cell: pooled(found, sets_with(found, DEPTH), cell, method) for cell in DEPTH}
    return None if any(len(each) < 2 for each in scores.values()) else anova(scores)


def draw(run: Reproduction, found: All) -> None:
    """Heatmaps of all cells, and the bars of figures 4.12, 4.17 and 4.20."""
    for name in found:
        _heatmaps(run, found, name)
    _positive(run, found)
    for number, cells, baseline in (("4_12", DEPTH, "Shallow"), ("4_17", GATES, "Deep"), ("4_20", LITERAL, "ConvDeep")):
        _bars(run, found, f"figure_{number}", cells, tuple(METHODS), baseline, f"Figure {number.replace('_', '.')}")
    _bars(run, found, "modern", tuple(MODERN), tuple(MODERN_METHODS), None, "Cells that the thesis could not explain")


def _heatmaps(run: Reproduction, found: All, name: str) -> None:
    samples = shown(run, name)
    pixels, which = samples.x(), 1
    rows = [
        [pixels[which].numpy(), *(to_rgb(found[name][cell].maps[method][which]) for method in METHODS)]
        for cell in CELLS
    ]
    marked = [str(number + 1) for number, right in enumerate(samples.marks[which].tolist()) if right]
    run.figure(
        f"figures_4_11_4_16_4_18_{name}",
        figures.grid(rows, ["input", *METHODS], list(CELLS), height=0.72),
        {f"{cell}-{at}": found[name][cell].maps[method] for cell in CELLS for at, method in enumerate(METHODS)},
        f"Figures 4.11, 4.16 and 4.18: one sequence of {TITLES[name]}-MAJ through every cell, first fold; the "
        f"majority, {CLASSES[name][LABELS[which]]}, stands at places {' and '.join(marked)}. Each map has its own "
        "scale.",
    )


def _positive(run: Reproduction, found: All) -> None:
    rows, labels = [], []
    cells = ("R-LSTM-SD", "ConvR-LSTM-SD")
    for name in found:
        pixels = shown(run, name).x()
        for sample in range(len(LABELS)):
            maps = [found[name][cell].maps[STRONGEST][sample].clamp(min=0) for cell in cells]
            rows.append([pixels[sample].numpy(), *map(to_rgb, maps)])
            labels.append(TITLES[name] if not sample else "")
    run.figure(
        "figure_4_19",
        figures.grid(rows, ["input", *cells], labels, height=0.72),
        {f"{name}-{cell}": found[name][cell].maps[STRONGEST] for name in found for cell in cells},
        f"Figure 4.19: positive relevance only, {STRONGEST}. Each map has its own scale.",
    )


def _bars(
    run: Reproduction,
    found: All,
    name: str,
    cells: Sequence[str],
    methods: Sequence[str],
    baseline: str | None,
    title: str,
) -> None:
    panels = {
        f"{TITLES[each]}-MAJ": {cell: {m: cosine(found[each][cell], m) for m in methods} for cell in cells}
        for each in found
    }
    figure = figures.bars(panels, methods, "cosine similarity", baseline)
    data = {
        f"{panel}-{cell}-{at}": scores[m]
        for panel, bar in panels.items()
        for cell, scores in bar.items()
        for at, m in enumerate(methods)
    }
    run.figure(
        name,
        figure,
        data,
        f"{title}: cosine between relevance per block and the majority's marks, mean over folds with 95 % bootstrap "
        "intervals; where no network of a cell reaches Table 4.2, all that beat chance.",
    )


def widths() -> dict[str, int]:
    """Variables of each of the thesis's cells, for strips of seven columns."""
    return {name: sum(p.numel() for p in cell.build(WIDTH, STEPS).parameters()) for name, cell in CELLS.items()}
