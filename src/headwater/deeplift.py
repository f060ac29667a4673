"""DeepLIFT: how each input's difference from a reference makes up the difference of the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from headwater.answer import Answer
from headwater.average.means import average, results
from headwater.errors import InvalidInput
from headwater.method import REVIEW, Method
from headwater.points import Rows, Starts, baselines, references
from headwater.propagate.differences import Difference, Differences
from headwater.question import Question

RuleName = Literal["rescale", "reveal_cancel"]


def deeplift(question: Question, *, baselines: Any = None, rule: RuleName = "rescale") -> Answer:
    """Multipliers of differences times the difference from a baseline; sums to ``f(x) - f(baseline)``.

    Args:
        question: about N samples.
        baselines: None (zeros), a number, a function of the values, or a tensor that broadcasts to x (of token ids:
            ids, or floats in the place of their embedding); a tuple or dict of these where x is one; a list of them
            is averaged over.
        rule: "rescale": one multiplier for an elementwise function; "reveal_cancel": positive and negative
            contributions of an affine operator to it apart (Shrikumar et al. 2017, Sections 3.5.2 and 3.5.3).

    Raises:
        InvalidInput: for an unknown rule or a baseline that does not fit.
        UnsupportedModel: where the model takes another path on the baseline.
    """
    draws = len(baselines) if isinstance(baselines, list) else 1
    return _averaged(question, _starts(question, baselines), draws, rule)


def deeplift_shap(question: Question, *, references: Any = None, draws: int = 10, rule: RuleName = "rescale") -> Answer:
    """DeepLIFT averaged over baselines from a reference set: an approximation of SHAP values (Lundberg and Lee 2017).

    Args:
        question: about N samples.
        references: samples to compare with, ``[B, *x.shape[1:]]``, such as some of the training data.
        draws: how many of them are drawn; all where there are no more.
        rule: as for :func:`deeplift`.
    """
    return _averaged(question, _drawn(question, references, draws), draws, rule)


_starts, _drawn = baselines, references  # the names are also those of the methods' options


def _averaged(question: Question, starts: Starts, draws: int, rule: RuleName) -> Answer:
    """Differences from each of ``draws`` baselines, averaged."""
    if rule not in ("rescale", "reveal_cancel"):
        raise InvalidInput(f"rule must be 'rescale' or 'reveal_cancel', not {rule!r}")
    if not isinstance(draws, int) or draws < 1:
        raise InvalidInput(f"draws must be a whole number of at least 1, not {draws!r}")
    fixed, output = question.scored()
    n = len(fixed.inputs.values)

    def ask(part: Question, rows: Rows) -> Sequence[Tensor | None]:
        relevance, there = _differences(part, rows, starts, rule == "reveal_cancel")
        return [*relevance, there]

    if question.move is None:
        means = average(fixed, ask, draws)
    else:  # these rows have points of their own
        raise InvalidInput(
            "DeepLIFT cannot be averaged along a path or over noise: pass several baselines to it instead"
        )
    answer = Answer(results(means[:n]), output, fixed.target, results(means[n:])[0])
    if draws > 1:
        answer.details = {"standard_error": fixed.inputs.pack(results(means[:n], "standard_error"))}
    return answer


def _differences(part: Question, rows: Rows, starts: Starts, reveal: bool) -> tuple[list[Tensor | None], Tensor]:
    """Contributions to the difference of one batch from its baselines, and the scores there, ``[M]``."""
    rule = Difference(reveal)
    table = Differences(rule)

    def there(argument: int, occurrence: int, value: Tensor) -> tuple[Tensor, Tensor | None]:
        return starts(rows, (argument, occurrence), value).expand_as(value).contiguous(), None

    def here(argument: int, occurrence: int, value: Tensor) -> tuple[Tensor, Tensor | None]:
        return value, value - starts(rows, (argument, occurrence), value)

    before = part.walk(table, "scores", move=there).output
    rule.noting = False
    return part.walk(table, move=here).relevance, before


_SHRIKUMAR = (
    "Shrikumar, Greenside, Kundaje: Learning Important Features Through Propagating Activation Differences, ICML 2017"
)
_NEEDS = "operators with a treatment; a baseline"

ROWS = (
    Method(
        "deeplift", "DL", "propagate", f"{_SHRIKUMAR}; {REVIEW}", _NEEDS,
        "one walk back with multipliers of differences from a baseline", deeplift, complete=True, takes=(),
    ),
    Method(
        "deeplift_shap", "DLSHAP", "average", f"Lundberg, Lee: A Unified Approach to Interpreting Model Predictions, "
        f"NIPS 2017; {REVIEW}", "operators with a treatment; reference samples",
        "deeplift, averaged over baselines from a reference set", deeplift_shap, complete=True,
    ),
)  # fmt: skip
