"""What Section 3 says of the methods themselves, in numbers."""

from __future__ import annotations

import torch
from torch import nn

import headwater as hw
from benchmarks import evaluation
from experiments.reproduction import Reproduction
from experiments.verdicts import verdict


def report(run: Reproduction) -> None:
    """Conservation (Eq. 1), what sensitivity sums to, and the αβ rule at α = 1."""
    subject = evaluation.SUBJECTS["SqueezeNet"]
    run.path("squeezenet10_deepcomp")
    model = subject.network(run.data)
    x = subject.prepare(evaluation.photographs(run.data, run.pick(quick=2, full=4), subject.side))
    _conservation(run, model, x)
    _special_case(run, model, x)


def _conservation(run: Reproduction, model: nn.Module, x: torch.Tensor) -> None:
    bare = evaluation.SUBJECTS["SqueezeNet"].network(run.data).double()
    with torch.no_grad():
        for name, p in bare.named_parameters():
            if name.endswith("bias"):
                p.zero_()
    e = hw.explain(bare, x.double(), method="lrp", composite=hw.Composite({"affine": hw.rules.Zero()}), progress=False)
    gap = float(((e.relevance.flatten(1).sum(1) - e.output) / e.output).abs().max())
    whole = hw.explain(model, x, method="lrp", composite="epsilon", ledger=True, progress=False)
    assert whole.ledger is not None
    kept = float((whole.relevance.flatten(1).sum(1) / whole.output).mean())
    open_ = float((whole.ledger.unexplained() / whole.output).abs().max())
    run.claim(
        "conservation",
        source="3.2, Eq. 1",
        text="relevance is conserved from the score to the pixels, for ε = 0",
        paper="derived",
        ours=f"biases zeroed: off by {max(gap, 1e-16):.0e} of the score; with biases {kept:.0%} of it arrives, and "
        f"what biases took accounts for the rest to {open_:.0e}",
        verdict=verdict(gap < 1e-9 and open_ < 1e-3),
    )
    gradient = hw.explain(model, x, method="sensitivity", progress=False)
    ratio = gradient.relevance.flatten(1).sum(1) / gradient.output
    run.claim(
        "variation",
        source="3.1",
        text="sensitivity does not explain the score itself: its values do not sum to it",
        paper="derived",
        ours=f"sum of |gradient| over the score: {float(ratio.min()):.3g} to {float(ratio.max()):.3g}",
        verdict=verdict(bool((ratio - 1).abs().min() > 0.1)),
    )


def _special_case(run: Reproduction, model: nn.Module, x: torch.Tensor) -> None:
    ours, theirs = (
        hw.explain(model, x, method="lrp", composite=hw.Composite({"affine": rule}), progress=False).relevance
        for rule in (hw.rules.AlphaBeta(1.0, 0.0, bias=False), hw.rules.ZPlus())
    )
    off = float((ours - theirs).abs().max() / theirs.abs().max())
    run.claim(
        "deep-taylor",
        source="3.2, Eq. 3",
        text="the αβ rule with α = 1 is the rule that deep Taylor decomposition derives for ReLU networks (z⁺)",
        paper="derived in [26]",
        ours=f"heatmaps differ by {off:.0e} of their maximum",
        verdict=verdict(off < 1e-4),
    )
