"""Counterfactual tokens: the few tokens of a text without which the model decides otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater import target as targets
from headwater.arguments import Inputs
from headwater.errors import InvalidInput, InvalidTarget
from headwater.method import Method
from headwater.question import Question, posed


@dataclass(frozen=True)
class Counterfactual:
    """What had to be removed.

    Attributes:
        removed: of each sample the positions, in the order of their removal.
        margins: of each sample the margin of its class over the best other, before and after each removal.
        flipped: whether the decision changed, ``[N]``.
        before, after: the predicted classes, ``[N]``.
        ids: what the model was left with, ``[N, T]``.
    """

    removed: list[list[int]]
    margins: list[list[float]]
    flipped: Tensor
    before: Tensor
    after: Tensor
    ids: Tensor


def counterfactual_tokens(
    model: Callable[..., Any],
    x: Any,
    replacement: int,
    *,
    target: Any = None,
    protected: Tensor | None = None,
    most: int | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Counterfactual:
    """Remove tokens, at each step the one whose absence hurts the class most, until the model decides otherwise.

    The search also ends where no removal hurts the class any more.

    Args:
        model: returns logits ``[N, C]``.
        x: token ids ``[N, T]``, or a tuple / dict with them and what else the model takes.
        replacement: the id put in the place of a removed token (mask, padding or unknown).
        target: the class, an int or one for each sample; by default the predicted one.
        protected: ``[T]`` or ``[N, T]``, true for tokens that must stay (class token, padding).
        most: tokens removed at most; by default all.
        batch_size, progress: as for ``hw.explain``; each step asks about every token that is left.

    Raises:
        InvalidInput: where x holds no token ids, or several; a mask of another shape; a replacement that is no int.
        InvalidTarget: where the model does not return logits of two classes or more.

    Source: greedy form of Martens and Provost: Explaining Data-Driven Document Classifications, MIS Quarterly 38, 2014.
    """
    with posed(model):
        question = Question(model, Inputs.of(x), target, batch_size=batch_size, progress=progress).fixed()
        place = _ids(question)
        ids = question.inputs.values[place].clone()
        stays = _protected(protected, ids)
        own = _logits(question)
        classes = question.target if isinstance(question.target, Tensor) else own.argmax(1)
        search = _Search(question, place, classes, replacement, stays)
        found = [search.sample(i, ids[i], most if most is not None else ids.shape[1]) for i in range(len(ids))]
        final = torch.stack([row for row, _, _ in found])
        after = _logits(search.about(final)).argmax(1)
    removed, margins = [r for _, r, _ in found], [m for *_, m in found]
    flipped = torch.tensor([m[-1] < 0 for m in margins])
    return Counterfactual(removed, margins, flipped, own.argmax(1), after, final)


@dataclass
class _Search:
    """The greedy search of :func:`counterfactual_tokens`; ``stays``: ``[N, T]``, tokens that are not removed."""

    question: Question
    place: int
    classes: Tensor
    replacement: int
    stays: Tensor

    def about(self, ids: Tensor) -> Question:
        """The question with other ids."""
        values = list(self.question.inputs.values)
        values[self.place] = ids
        return self.question.about(values)

    def margins(self, i: int, rows: Tensor) -> Tensor:
        """The margin of sample ``i``'s class with these ids ``[M, T]`` in place of its own, ``[M]``."""
        alone = self.question.select(torch.full((len(rows),), i))

        def work(part: slice) -> Tensor:
            some = alone.select(torch.arange(part.start, part.stop))
            values = list(some.inputs.values)
            values[self.place] = rows[part]
            logits = _logits(some.about(values))
            chosen = int(self.classes[i])
            others = logits.index_fill(1, torch.tensor([chosen], device=logits.device), float("-inf"))
            return logits[:, chosen] - others.amax(1)

        return torch.cat(self.question.in_batches(work, len(rows), label="removing tokens")).cpu()

    def sample(self, i: int, ids: Tensor, most: int) -> tuple[Tensor, list[int], list[float]]:
        """The ids left, the positions removed and the margins on the way."""
        removed: list[int] = []
        ids = ids.clone()
        margins = [float(self.margins(i, ids[None]))]
        left = (~self.stays[i]).nonzero().flatten().tolist()
        while left and margins[-1] >= 0 and len(removed) < most:
            rows = ids.expand(len(left), -1).clone()
            rows[torch.arange(len(left)), torch.tensor(left)] = self.replacement
            found = self.margins(i, rows)
            best = int(found.argmin())
            if float(found[best]) >= margins[-1]:  # nothing that is left speaks for the class
                break
            ids = rows[best]
            removed.append(left.pop(best))
            margins.append(float(found[best]))
        return ids, removed, margins


def _ids(question: Question) -> int:
    """The argument that holds token ids."""
    values = question.inputs.values
    places = [i for i in question.explained if not values[i].is_floating_point() and values[i].dim() == 2]
    if len(places) != 1:
        raise InvalidInput(f"counterfactual_tokens needs one input of token ids [N, T]; x holds {len(places)}")
    return places[0]


def _protected(protected: Tensor | None, ids: Tensor) -> Tensor:
    if protected is None:
        return torch.zeros(ids.shape, dtype=torch.bool)
    mask = torch.as_tensor(protected).bool()
    if mask.shape not in (ids.shape, ids.shape[1:]):
        raise InvalidInput(f"protected must be [T] or [N, T] like the ids {tuple(ids.shape)}, not {tuple(mask.shape)}")
    return mask.expand(ids.shape)


def _logits(question: Question) -> Tensor:
    inputs = question.inputs
    with torch.no_grad():
        logits = targets.select_output(inputs.call(question.model, inputs.values))
    if logits.dim() != 2 or logits.shape[1] < 2:
        raise InvalidTarget(f"Counterfactuals need logits [N, C] of two classes or more, not {tuple(logits.shape)}")
    return logits


ROWS = (
    Method(
        "counterfactual_tokens", "CF", "remove",
        "Martens, Provost: Explaining Data-Driven Document Classifications, MIS Quarterly 38, 2014",
        "token ids and class logits", "greedy removal of tokens until the decision changes", None,
        call="hw.counterfactual_tokens",
    ),
)  # fmt: skip
