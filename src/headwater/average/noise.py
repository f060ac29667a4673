"""Explanations averaged over noisy copies of the input: SmoothGrad and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from headwater.answer import Answer
from headwater.average.means import average, check_averaged, explained_by, results
from headwater.points import Noise, Rows
from headwater.question import Question


def smoothed(
    question: Question,
    *,
    what: str,
    draws: int = 50,
    noise_level: float = 0.15,
    sigma: float | None = None,
    of: Any = "gradient",
) -> Answer:
    """The mean, the mean square or the variance of an explanation over noisy copies (review, Section III-C).

    SmoothGrad is ``E[r(x + ε)]``, ``ε ~ N(0, σ² I)``; SmoothGrad² is ``E[r²]``, VarGrad ``E[r²] - E[r]²``. Every sample
    gets the same draws, so that it does not depend on the batch; of token ids the embeddings are moved.

    Args:
        question: about N samples.
        what: "result", "second_moment" or "variance".
        draws: noisy copies of each sample.
        noise_level: σ as a share of each sample's range of values; Smilkov et al. 2017 advise 0.1 to 0.2.
        sigma: σ itself, in place of ``noise_level``.
        of: the method that is averaged, any one of the register.

    Raises:
        InvalidInput: no draws, or a method that cannot be averaged.
    """
    check_averaged(question, of, draws=draws)
    noise = Noise(question.seed, noise_level, sigma)
    fixed, output = question.scored()

    def ask(part: Question, rows: Rows) -> Sequence[Tensor | None]:
        def move(argument: int, occurrence: int, value: Tensor) -> tuple[Tensor, None]:
            return value + noise(rows, (argument, occurrence), value), None

        return explained_by(of, part, move)

    means = average(fixed, ask, draws, label="smoothing")
    answer = Answer(results(means, what), output, fixed.target)
    if what == "result" and draws > 1:
        answer.details = {"standard_error": fixed.inputs.pack(results(means, "standard_error"))}
    return answer
