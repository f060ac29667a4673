"""The methods that walk back once: LRP and its relatives, and the gradients."""

from __future__ import annotations

from functools import partial

from headwater.answer import Answer
from headwater.method import LRP, OVERVIEW, REVIEW, THESIS, Method
from headwater.question import Question


def relevance(question: Question, *, composite: str, complete: bool = True) -> Answer:
    """Activation times factor, after one walk back with a table of rules (review, Eq. 3)."""
    return question.walk(composite, check=complete)


def factor(question: Question, *, composite: str) -> Answer:
    """The factor itself: the gradient, or what a changed ReLU makes of it (thesis, Section 3.2)."""
    return question.walk(composite, "factor")


def sensitivity(question: Question, *, squared: bool = False) -> Answer:
    """The absolute gradient (overview, Eq. 1), or its square (thesis, Eq. 3.26)."""
    answer = question.walk("gradient", "factor")
    answer.relevance = [r if r is None else r.square() if squared else r.abs() for r in answer.relevance]
    return answer


_GRADIENT = "a differentiable model"
_OPERATORS = "operators with a treatment"
_RELU = "ReLU-like activations"


def _relevance(name: str, abbreviation: str, source: str, composite: str, complete: bool = True) -> Method:
    run = partial(relevance, composite=composite, complete=complete)
    made_of = f"one walk back, rules {composite}"
    return Method(name, abbreviation, "propagate", source, _OPERATORS, made_of, run, complete, composite, rules=True)


def _factor(name: str, abbreviation: str, source: str, composite: str, needs: str = _GRADIENT) -> Method:
    run = partial(factor, composite=composite)
    return Method(
        name, abbreviation, "propagate", source, needs, f"one walk back, rules {composite}", run, composite=composite
    )


ROWS = (
    _relevance("lrp", "LRP", f"{LRP}; {REVIEW}", "default"),
    _relevance("deep_taylor", "DTD", f"Montavon et al. 2017; {REVIEW}; {THESIS}", "deep_taylor"),
    _relevance("attnlrp", "AttnLRP", "Achtibat et al.: AttnLRP, ICML 2024", "attnlrp"),
    _relevance("cplrp", "CP-LRP", "Ali et al.: XAI for Transformers, ICML 2022", "cplrp"),
    _relevance("excitation_backprop", "EB", f"Zhang et al. 2018; {REVIEW}", "excitation_backprop"),
    _relevance(
        "contrastive_excitation_backprop", "c-EB", f"Zhang et al. 2018; {REVIEW}",
        "contrastive_excitation_backprop", complete=False,
    ),
    _factor("gradient", "Grad", f"Simonyan et al. 2014; {REVIEW}", "gradient"),
    Method(
        "sensitivity", "SA", "propagate", f"{OVERVIEW}; {THESIS}", _GRADIENT, "absolute or squared gradient",
        sensitivity, composite="gradient",
    ),
    Method(
        "gradient_x_input", "GI", "propagate", f"Shrikumar et al. 2017; {REVIEW}", _GRADIENT, "gradient times input",
        partial(relevance, composite="gradient", complete=False), composite="gradient",
    ),
    _factor("guided_backprop", "GB", f"Springenberg et al. 2015; {THESIS}", "guided_backprop", _RELU),
    _factor("deconvnet", "Deconv", f"Zeiler and Fergus 2014; {REVIEW}", "deconvnet", _RELU),
    Method(
        "spray", "SpRAy", "propagate",
        f"Lapuschkin et al.: Unmasking Clever Hans Predictors, Nature Communications 10, 2019; {REVIEW}",
        "explanations of a data set", "spectral clustering of heatmaps", None,
        call="hw.analyze.spray",
    ),
)  # fmt: skip
