"""What a finding is worth: only networks of Table 4.2's accuracies can speak for or against the thesis."""

from __future__ import annotations

from typing import TypedDict

from experiments.reproduction import Reproduction, Verdict


class Judged(TypedDict):
    """A verdict and what it rests on, as claims take them."""

    verdict: Verdict
    why: str


def judged(run: Reproduction, held: bool, why: str = "", *, testable: bool = True, below: bool = False) -> Judged:
    """The verdict on a claim about trained networks.

    Args:
        run: a quick one trains for seconds, so that its networks only hint.
        held: whether the claim does.
        why: what the verdict rests on.
        testable: whether there are networks to ask.
        below: whether they miss Table 4.2, so that they only hint too.
    """
    if not testable:
        return {"verdict": "not testable here", "why": why}
    if below or run.scale == "quick":
        asked = "networks of a quick run are" if run.scale == "quick" else "these networks are"
        hint = f"{asked} below Table 4.2; they {'agree' if held else 'do not agree'}"
        return {"verdict": "not testable here", "why": "; ".join(part for part in (hint, why) if part)}
    return {"verdict": "reproduced" if held else "not reproduced", "why": why}
