"""One thing removed at a time: occlusion, feature ablation, feature permutation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from headwater.answer import Answer
from headwater.question import Question
from headwater.remove.features import in_columns
from headwater.remove.references import Permutation
from headwater.remove.removal import Removal, repeated, standard_error
from headwater.remove.windows import Windows


def occlusion(
    question: Question, *, window: Any = None, stride: Any = None, imputer: Any = None, references: Any = None,
    argument: Any = None, layer: str | None = None,
) -> Answer:  # fmt: skip
    """Slide a window over the input and record how much the score falls where it hides it.

    ``R_w = f(x) - f(x without window w)``; where windows overlap, each entry gets the mean of those that cover it.

    Args:
        window, stride: in entries of each axis; see :meth:`~headwater.remove.windows.Windows.of`. By default a seventh
            of a picture's shorter side and half of that: 32 and 16 for 224 x 224, as in the review.
        imputer: what fills the window, zero by default; ``references``: the examples that some imputers take from; see
            :func:`~headwater.remove.choices.imputer_of`.
        argument: which loses features, where the model takes several. layer: slide over this module's output instead.

    Returns:
        ``details``: ``features`` the windows' scores ``[N, W]``, ``windows`` where they are, ``[N, W, axes, 2]``.

    Source: Samek et al. 2021 (review), Section III-B; Zeiler and Fergus 2014.
    """
    removal = Removal.of(question, None, imputer, references, argument, layer)
    return slide(removal, window, stride)


def slide(removal: Removal, window: Any, stride: Any, read: Callable[[Tensor], Tensor] | None = None) -> Answer:
    """The answer of what falls in each window; ``read`` says how much it is of the model's answers."""
    read = _as_it_is if read is None else read
    values = removal.question.inputs.values
    windows = [Windows.of(in_columns(values[site.place]), window, stride) for site in removal.sites if not site.follows]
    ends = list(accumulate(w.count for w in windows))
    begins = [0, *ends[:-1]]

    def holes(at: Tensor) -> list[Tensor]:
        index = (at % ends[-1]).to(removal.device)
        found = [
            w.holes(torch.where((index >= b) & (index < e), index - b, -1))
            for w, b, e in zip(windows, begins, ends, strict=True)
        ]
        return [found[removal.leader(i)] for i in range(len(removal.sites))]

    rows = repeated(removal.samples, ends[-1])
    answers = removal.answers(holes, rows).view(removal.samples, ends[-1], removal.draws)
    output = read(removal.output())
    scores = output.double().cpu()[:, None] - read(answers.mean(2))
    parts = scores.split([w.count for w in windows], 1)
    led = [site.place for site in removal.sites if not site.follows]
    maps = {place: w.averaged(part) for place, w, part in zip(led, windows, parts, strict=True)}
    corners = {p: w.corners().expand(removal.samples, -1, -1, -1) for p, w in zip(led, windows, strict=True)}
    more = spread_over_draws(answers) if read is _as_it_is else {}  # of the answers, not of what is read in them
    return removal.answer_with(maps, output, features=scores, windows=removal.packed(corners), **more)


def feature_ablation(
    question: Question, *, features: Any = None, imputer: Any = None, references: Any = None, argument: Any = None,
    layer: str | None = None,
) -> Answer:  # fmt: skip
    """Remove one feature at a time: ``R_i = f(x) - f(x without i)``, shared evenly among the feature's entries.

    Args:
        features: what is removed at once; see :func:`~headwater.remove.features.features_of`. By default a grid of
            patches or windows, single columns or words; of a layer, its channels.
        imputer, references, argument, layer: as for :func:`occlusion`.

    Returns:
        ``details``: ``features`` the scores ``[N, F]``, ``masks`` which entry belongs to which feature.

    Source: Samek et al. 2021 (review), Section III-B; Covert, Lundberg, Lee: Explaining by Removing, JMLR 22, 2021.
    """
    removal = Removal.of(question, features, imputer, references, argument, layer)
    return _ablated(removal)


def feature_permutation(
    question: Question, *, features: Any = None, references: Any = None, repeats: int = 10, argument: Any = None,
    layer: str | None = None,
) -> Answer:  # fmt: skip
    """Exchange one feature at a time with that of other samples: the mean fall of the score over the exchanges.

    Args:
        features, argument, layer: as for :func:`feature_ablation`.
        references: the other samples, ``[M, ...]``; None: those of the batch itself, each sample giving to one other.
        repeats: how many exchanges.

    Raises:
        InvalidInput: for a single sample without a reference set.

    Source: Breiman: Random Forests, Machine Learning 45, 2001, for single predictions.
    """
    removal = Removal.of(question, features, Permutation(references, repeats), None, argument, layer)
    return _ablated(removal)


def _ablated(removal: Removal) -> Answer:
    """The answer of how much the score falls without each feature."""
    at = removal.present.nonzero()

    def removed(index: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(at[index, 1], removal.most).bool()

    output = removal.output()
    answers = output.double().cpu()[:, None, None].repeat(1, removal.most, removal.draws)
    answers[removal.present] = removal.without(removed, at[:, 0])
    scores = output.double().cpu()[:, None] - answers.mean(2)
    return removal.answer(scores, output, **spread_over_draws(answers))


def _as_it_is(answers: Tensor) -> Tensor:
    return answers


def spread_over_draws(answers: Tensor) -> dict[str, Tensor]:
    """The standard error of the mean over draws, where there are several."""
    return {"standard_error": standard_error(answers, 2)} if answers.shape[2] > 1 else {}
