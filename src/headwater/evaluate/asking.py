"""What is asked of the model at every changed input: the same as at the input itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from headwater import target as targets
from headwater.arguments import Inputs
from headwater.errors import InvalidInput, NonFinite
from headwater.evaluate.maps import relevance_of
from headwater.explanation import Explanation
from headwater.propagate import soundness
from headwater.question import Question
from headwater.remove.features import Pool, in_columns
from headwater.remove.removal import Removal

Output = Literal["score", "probability", "accuracy"]
OUTPUTS = ("score", "probability", "accuracy")


@dataclass(frozen=True)
class Asking(Question):
    """A question that remembers what the model answered about the inputs as they are.

    Attributes:
        output: ``"score"`` the target's own scalar; ``"probability"`` that of its class; ``"accuracy"`` 1 where
            that class is the predicted one.
        clean: the answers, ``[N]``, once the target is :meth:`fixed`.
    """

    output: Output = "score"
    clean: Tensor = field(default_factory=lambda: torch.zeros(0), compare=False)

    def fixed(self) -> Asking:
        """The same question with its target written down and its answers at hand, from one forward.

        Raises:
            InvalidTarget: a target that is no class, for the outputs that need one.
            NonFinite: of the model's answers.
        """
        if len(self.clean):
            return self

        def settle(rows: slice) -> tuple[Any, Tensor]:
            return _settled(self.select(torch.arange(rows.start, rows.stop)))  # type: ignore[arg-type]

        chosen, clean = zip(*self.in_batches(settle, self.inputs.samples), strict=True)
        return replace(self, target=targets.join(chosen), clean=torch.cat(clean))

    def scores(self, *, spent: bool = False) -> Tensor:
        """The model's answers, ``[N]``; see :meth:`Question.scores`."""
        if self.output == "score":
            return super().scores(spent=spent)
        output, classes = self.output, self.target
        return replace(self, output="score", target=lambda raw: _read(raw, output, classes)).scores(spent=spent)


def asking(
    model: Callable[..., Any], x: Any, target: Any = None, output: Output = "score", *, batch_size: int | None = None,
    seed: int = 0, progress: bool | None = None,
) -> Asking:  # fmt: skip
    """Check the arguments and settle the target; its errors are those of :meth:`Asking.fixed`.

    Raises:
        InvalidInput: another output; UnsupportedModel: a model in training mode, whose answers differ each time.
    """
    soundness.check_mode(model)
    if output not in OUTPUTS:
        raise InvalidInput(f"output must be one of {', '.join(OUTPUTS)}, not {output!r}")
    question = Asking(
        model, Inputs.of(x), target, batch_size=batch_size, seed=seed, progress=progress, output=output
    )  # fmt: skip
    with question.inputs.taken_by(model):
        return question.fixed()


def settled_target(model: Callable[..., Any], x: Any, target: Any) -> Any:
    """What a target asks for at ``x``, so that another input, another model or another method is asked the same."""
    soundness.check_mode(model)
    inputs = Inputs.of(x)
    with inputs.taken_by(model):
        return Question(model, inputs, target).fixed().target


def removal_of(
    question: Asking, features: Any, imputer: Any, references: Any = None, argument: Any = None, default: Any = None
) -> Removal:
    """The removal engine on a settled question.

    Args:
        features, imputer, references, argument: as for :func:`~headwater.evaluate.pixel_flipping`.
        default: the imputer where none is given; None: inpainting for pictures and series, zero for all else.
    """
    if default is None:
        values = [question.inputs.values[i] for i in question.explained]
        spatial = bool(values) and all(v.is_floating_point() and v.dim() in (3, 4, 5) for v in values)
        default = "inpaint" if spatial else 0
    return Removal.of(question, features, imputer, references, argument, cells=None, default=default)  # type: ignore[arg-type]


def pooled(removal: Removal, relevance: Any, pool: Pool) -> Tensor:
    """Relevance of the features, ``[N, F]``; minus infinity where a sample has fewer than F.

    Args:
        relevance: an explanation; or relevance of the input, a tuple or dict of that of each argument, or ``[N, F]``.

    Raises:
        InvalidInput: relevance of other samples, arguments or shapes.
    """
    inputs = removal.question.inputs
    found = []
    for site in removal.sites:
        if not inputs.explained(site.place):
            continue
        found.append(site.features.pooled(in_columns(relevance_at(relevance, inputs, site.place)), pool))
    return torch.stack(found).sum(0)


def relevance_at(relevance: Any, inputs: Inputs, place: int) -> Tensor:
    """The relevance of one argument, ``[N, ...]``, checked; one value a token.

    Args:
        relevance: as for :func:`pooled`; ``inputs``: what was explained; ``place``: of the argument.

    Raises:
        InvalidInput: relevance of other samples or arguments.
    """
    parts = relevance.relevance if isinstance(relevance, Explanation) else relevance
    if isinstance(parts, dict):
        key: Any = inputs.names[place] if inputs.names else place
        if key not in parts:
            raise InvalidInput(f"there is no relevance of {key!r}: there is of {', '.join(map(repr, parts))}")
        parts = parts[key]
    elif isinstance(parts, (tuple, list)) and not inputs.single and len(parts) == len(inputs.values):
        parts = parts[place]
    if parts is None:
        raise InvalidInput(f"argument {place} has no relevance: choose one that has with argument=")
    if isinstance(parts, Tensor) and parts.dim() == inputs.values[place].dim() + 1:
        parts = parts.sum(-1)  # over the embedding
    maps = relevance_of(parts)
    if len(maps) != inputs.samples:
        raise InvalidInput(f"relevance of {len(maps)} samples for {inputs.samples} inputs")
    return maps


def _settled(question: Asking) -> tuple[Any, Tensor]:
    """The target, written down, and the answers ``[N]``, from one forward."""
    if targets.is_function(question.target) or isinstance(question.target, targets.Neuron):
        return question.target, question.scores()
    with torch.no_grad():
        raw = question.inputs.call(question.model, question.inputs.copies())
    output = targets.select_output(raw)
    question.inputs.warn_of_series(output, question.target)
    scores, resolved = targets.score(output, question.target, question.inputs.mask)
    if not bool(scores.isfinite().all()):
        raise NonFinite("The model's score at x is NaN or infinite: nothing can be measured on it")
    fixed = targets.fixed(output, question.target, resolved)
    return fixed, scores if question.output == "score" else _read(raw, question.output, fixed)


def _read(raw: Any, output: Output, classes: Any) -> Tensor:
    scores = targets.select_output(raw)
    own = targets.probability(scores, classes)  # also of an accuracy: it refuses what is no class
    if output == "accuracy":
        return (scores.argmax(1) == classes.to(scores.device)).to(scores.dtype)
    return own
