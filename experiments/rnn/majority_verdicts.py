"""What experiments 2 and 3 claim, beside what was found."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from experiments.reproduction import Reproduction
from experiments.rnn import paper
from experiments.rnn.cells import CELLS
from experiments.rnn.data import TITLES
from experiments.rnn.explaining import METHODS, MODERN_METHODS
from experiments.rnn.majority import DEPTH
from experiments.rnn.majority_tables import STRONGEST, All, below, cosine, pooled, sets_with, tukey, variance, widths
from experiments.rnn.modern import MODERN
from experiments.rnn.training import MINIMUM
from experiments.rnn.verdicts import judged
from headwater.evaluate import block_cosine, block_percentage, tukey_hsd

PROPAGATED, GRADIENTS = ("DTD", STRONGEST), ("SA", "GB")


def judge(run: Reproduction, found: All) -> None:
    """All claims of Sections 4.3 and 4.4."""
    _networks(run, found)
    _measure(run)
    _depth(run, found)
    _statistics(run, found)
    _gates(run, found)
    _literal(run, found)
    _modern(run, found)


def mean(found: All, name: str, cell: str, method: str) -> float:
    """Mean cosine over folds."""
    return float(cosine(found[name][cell], method).mean())


def _why(found: All, names: Sequence[str], text: str = "") -> str:
    missing = [TITLES[name] for name in found if name not in names]
    left = f"on {' and '.join(missing)} a cell has no network that is accurate enough" if missing else ""
    return "; ".join(part for part in (text, left) if part)


def _numbers(found: All, names: Sequence[str], cells: Sequence[str], methods: Sequence[str]) -> str:
    parts = [
        f"{TITLES[name]} {m} " + " / ".join(f"{mean(found, name, cell, m):.3f}" for cell in cells)
        for name in names
        for m in methods
    ]
    return f"{' / '.join(cells)}: " + "; ".join(parts) if parts else "-"


def _networks(run: Reproduction, found: All) -> None:
    counted = widths()
    exact = all(counted[name] == cell.variables for name, cell in CELLS.items())
    run.claim(
        "variables-4.5",
        source="Tables 4.5, 4.6",
        text="Trainable variables of the ten cells for strips of seven columns.",
        paper="; ".join(f"{cell.variables:,}" for cell in CELLS.values()),
        ours="; ".join(f"{count:,}" for count in counted.values()),
        verdict="reproduced" if exact else "not reproduced",
        why="the R-LSTMs' counts need 72 cells (96 behind convolutions) and one bias a gate; the text says 75 cells",
    )
    reached = {
        name: [cell for cell in CELLS if bool((found[name][cell].accuracy >= MINIMUM[name]).all())] for name in found
    }
    run.claim(
        "accuracy-4.5",
        source="Tables 4.2, 4.5, 4.6",
        text="Every cell but Conv+Deep reaches Table 4.2's accuracy.",
        paper="MNIST-MAJ 97.92 to 99.35 %; Fashion-MNIST-MAJ 88.10 to 93.60 %",
        ours="; ".join(
            f"{TITLES[name]}: {len(each)} of 10 cells reach {MINIMUM[name]:.0%} in all folds"
            for name, each in reached.items()
        ),
        **judged(
            run,
            all(set(CELLS) - set(each) <= {"Conv+Deep"} for each in reached.values()),
            "training stops where it is reached: the tables' higher figures are not sought",
        ),
    )
    worst = max(one.error["DTD"] for cells in found.values() for cell, one in cells.items() if cell in CELLS)
    run.claim(
        "conservation",
        source="Section 5.1, Eq. 3.47",
        text="Relevance under deep Taylor decomposition sums to the score.",
        paper="tested by the thesis's unit tests",
        ours=f"largest part of a score that is missed: {worst:.1e}",
        verdict="reproduced" if worst < 1e-3 else "not reproduced",
        why="all ten cells, float32",
    )
    positive = min(float(found[name][cell].positive.min()) for name in found for cell in CELLS)
    run.claim(
        "positive-score",
        source="Section 4.1",
        text="A constant logit of zero makes the true class's score positive.",
        paper="-",
        ours=f"at least {positive:.1%} of the samples of a fold",
        **judged(run, positive > 0.9, "read as more than 90 % in every fold; the other samples are left out"),
    )


def _measure(run: Reproduction) -> None:
    one_block = torch.zeros(1, 28, 84)
    one_block[..., 28:56] = 1
    marks = torch.tensor([[True, True, False]])
    share, angle = float(block_percentage(one_block, marks)), float(block_cosine(one_block, marks))
    run.claim(
        "percentage",
        source="Fig. 4.10",
        text="The share on the majority's blocks can be high where one of them is missed; the cosine tells.",
        paper="an example",
        ours=f"all relevance on one of two blocks: share {share:.2f}, cosine {angle:.2f}",
        verdict="reproduced" if share == 1 and angle < 0.75 else "not reproduced",
        why="uniform relevance has a share of 0.67 and a cosine of 0.82",
    )


def _depth(run: Reproduction, found: All) -> None:
    names = sets_with(found, DEPTH)
    weak = below(found, names, DEPTH)
    gains = {
        (name, cell, m): mean(found, name, cell, m) - mean(found, name, "Shallow", m)
        for name in names
        for cell in DEPTH[1:]
        for m in METHODS
    }
    run.claim(
        "depth",
        source="Fig. 4.12",
        text="Every deeper cell lays relevance better than Shallow, under every method.",
        paper="seen",
        ours=_numbers(found, names, DEPTH, tuple(METHODS)),
        **judged(run, all(gain > 0 for gain in gains.values()), _why(found, names), testable=bool(names), below=weak),
    )
    more = all(
        min(gains[name, "ConvDeep", m] for m in PROPAGATED) > max(gains[name, "ConvDeep", m] for m in GRADIENTS)
        for name in names
    )
    run.claim(
        "depth-sensitive",
        source="Fig. 4.12",
        text="The gain is much larger for DTD and LRP than for SA and GB.",
        paper="ConvDeep - Shallow: SA 0.047, GB 0.048, DTD 0.231, LRP 0.227",
        ours="; ".join(
            f"{TITLES[name]}: " + ", ".join(f"{m} {gains[name, 'ConvDeep', m]:+.3f}" for m in METHODS) for name in names
        )
        or "-",
        **judged(run, more, _why(found, names), testable=bool(names), below=weak),
    )


def _statistics(run: Reproduction, found: All) -> None:
    few = "fewer than two networks of a cell are accurate enough"
    weak = below(found, sets_with(found, DEPTH), DEPTH)
    for method in METHODS:
        f, p, eta = paper.ANOVA[method]
        told, rows = variance(found, method), tukey(found, method)
        run.claim(
            f"anova-{method}",
            source="Appendix 2",
            text=f"The cell matters for the cosine of {method} (one-way ANOVA over all sets).",
            paper=f"F {f:.1f}, p {p:.1e}, η² {eta:.2f}",
            ours=f"F {told.f:.1f}, p {told.p:.1e}, η² {told.eta_squared:.2f}" if told else "-",
            **judged(
                run, told is not None and told.p < 0.05, "" if told else few, testable=told is not None, below=weak
            ),
        )
        same = sum(row["differ"] == row["thesis: differ"] for row in rows)
        signs = sum(float(str(row["difference"])) * float(str(row["thesis's difference"])) > 0 for row in rows)
        run.claim(
            f"tukey-{method}",
            source="Appendix 2",
            text=f"Which pairs of cells differ under {method} (Tukey's test).",
            paper=f"{sum(paper.REJECTED[method])} of 6 pairs differ",
            ours=f"same decision for {same} of 6, same sign for {signs} of 6" if rows else "-",
            **judged(run, same == 6, "" if rows else few, testable=bool(rows), below=weak),
        )


def _gates(run: Reproduction, found: All) -> None:
    for key, better, worse, methods, text in (
        ("r-lstm", "R-LSTM", "Deep", tuple(METHODS), "R-LSTM lays relevance better than Deep under every method."),
        ("stationary-deep", "Deep", "Deep-SD", tuple(METHODS), "Deep-SD's cosine is below Deep's in every case."),
        (
            "stationary-r-lstm",
            "R-LSTM-SD",
            "R-LSTM",
            PROPAGATED,
            "Stationary dropout helps R-LSTM on Fashion-MNIST-MAJ; on MNIST-MAJ it is not obvious.",
        ),
    ):
        names = sets_with(found, (better, worse))
        asked = [name for name in names if name == "fashion_mnist" or key != "stationary-r-lstm"]
        held = all(mean(found, n, better, m) > mean(found, n, worse, m) for n in asked for m in methods)
        run.claim(
            key,
            source="Fig. 4.17",
            text=text,
            paper="seen",
            ours=_numbers(found, names, (worse, better), methods),
            **judged(run, held, _why(found, names), testable=bool(asked), below=below(found, asked, (better, worse))),
        )


def _literal(run: Reproduction, found: All) -> None:
    names = sets_with(found, ("ConvR-LSTM-SD", "Conv+R-LSTM-SD"))
    losses = [
        mean(found, n, "ConvR-LSTM-SD", m) - mean(found, n, "Conv+R-LSTM-SD", m) for n in names for m in PROPAGATED
    ]
    run.claim(
        "literal-r-lstm",
        source="Fig. 4.20",
        text="Literal connections considerably lower the cosine of ConvR-LSTM-SD.",
        paper="seen",
        ours=_numbers(found, names, ("ConvR-LSTM-SD", "Conv+R-LSTM-SD"), PROPAGATED),
        **judged(
            run,
            all(loss > 0.02 for loss in losses),
            _why(found, names, "considerably is read as more than 0.02"),
            testable=bool(names),
            below=below(found, names, ("ConvR-LSTM-SD", "Conv+R-LSTM-SD")),
        ),
    )
    names = sets_with(found, ("ConvDeep", "Conv+Deep"))
    signs = {mean(found, n, "Conv+Deep", m) > mean(found, n, "ConvDeep", m) for n in names for m in METHODS}
    run.claim(
        "literal-deep",
        source="Fig. 4.20",
        text="Literal connections have no consistent influence on ConvDeep.",
        paper="seen",
        ours=_numbers(found, names, ("ConvDeep", "Conv+Deep"), tuple(METHODS)),
        **judged(
            run,
            len(signs) == 2,
            _why(found, names, "consistent: one sign for all methods and sets"),
            testable=bool(names),
            below=below(found, names, ("ConvDeep", "Conv+Deep")),
        ),
    )
    _convolutions(run, found)


def _convolutions(run: Reproduction, found: All) -> None:
    cells = ("R-LSTM-SD", "ConvR-LSTM-SD")
    names = sets_with(found, cells)
    scores = {cell: pooled(found, names, cell, STRONGEST) for cell in cells}
    pair = tukey_hsd(scores)[0] if all(len(each) > 1 for each in scores.values()) else None
    run.claim(
        "same-cosine",
        source="Section 4.4.4",
        text="R-LSTM-SD and ConvR-LSTM-SD have almost the same cosine: the difference is not significant.",
        paper="not significant",
        ours=f"{STRONGEST}: difference {pair.difference:+.3f}, p {pair.p:.2g}" if pair else "-",
        **judged(
            run,
            pair is not None and not pair.rejected,
            _why(found, names),
            testable=pair is not None,
            below=below(found, names, cells),
        ),
    )
    names = sets_with(found, tuple(CELLS))
    best = {n: max((mean(found, n, c, STRONGEST), c) for c in CELLS if bool(found[n][c].kept.any()))[1] for n in names}
    run.claim(
        "best-cell",
        source="Chapter 5",
        text=f"ConvR-LSTM-SD is the most explainable cell, under {STRONGEST}.",
        paper="chosen by eye",
        ours="; ".join(f"{TITLES[n]}: {best[n]} has the largest cosine" for n in names) or "-",
        **judged(
            run,
            set(best.values()) == {"ConvR-LSTM-SD"},
            _why(found, names),
            testable=bool(names),
            below=below(found, names, tuple(CELLS)),
        ),
    )


def _modern(run: Reproduction, found: All) -> None:
    for cell in MODERN:
        names = sets_with(found, (cell,))
        means = {n: {m: mean(found, n, cell, m) for m in MODERN_METHODS} for n in names}
        better = all(
            max(each["LRP-ε"], each["LRP-γ"]) > max(each["SA"], each["Gradient × input"]) for each in means.values()
        )
        run.claim(
            f"modern-{cell.replace(' ', '-').lower()}",
            source="beyond the thesis",
            text=f"{cell}: propagation finds the majority better than gradients do.",
            paper="not tried",
            ours="; ".join(
                f"{TITLES[n]} " + ", ".join(f"{m} {value:.3f}" for m, value in each.items())
                for n, each in means.items()
            )
            or "-",
            **judged(
                run,
                better,
                _why(found, names, "gates by signal-takes-all, attention by AttnLRP"),
                testable=bool(names),
                below=below(found, names, (cell,)),
            ),
        )
