"""How far an explanation can be trusted: its mean and spread over dropout masks, or over an ensemble of models."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from headwater.answer import Answer
from headwater.average.means import Mean, average, check_averaged, results, rows_walked
from headwater.errors import InvalidInput, UnsupportedModel
from headwater.points import Rows
from headwater.propagate import soundness
from headwater.question import Question


def monte_carlo_dropout(question: Question, *, draws: int = 20, of: Any = "lrp") -> Answer:
    """The mean of an explanation over dropout masks, and its spread (Gal and Ghahramani 2016; Bykov et al. 2020).

    Dropout is switched on for the call alone, in the modules that torch has for it, in attention and in recurrent
    layers; the model is left as it was. Under ``allow_training=True`` the modules stay in the mode that they are in.

    Args:
        question: about N samples; the target is fixed by the model without dropout, and so is the output.
        draws: masks; every sample gets the same ones in any batch.
        of: the method that is averaged.

    Returns:
        an answer whose details hold "spread", the standard deviation over masks, and "standard_error", that of the
        mean, each shaped like the relevance.

    Raises:
        UnsupportedModel: for a model without dropout.
    """
    check_averaged(question, of, draws=draws)
    fixed, output = question.scored()
    most = rows_walked(question)
    size = max(d for d in range(1, draws + 1) if draws % d == 0 and d <= most)  # no batch holds two samples

    def ask(part: Question, rows: Rows) -> Sequence[Tensor | None]:
        seed = zlib.crc32(f"{part.seed},{int(rows.draw[0])}".encode())
        assert of.run is not None
        return of.run(replace(part, seed=seed, allow_training=True)).relevance

    with _dropping(question):
        means = average(fixed, ask, draws, size=size, label="dropping out")
    return _answer(fixed, output, means, draws)


def ensemble(question: Question, *, models: Sequence[Any] = (), of: Any = "lrp") -> Answer:
    """The mean of an explanation over several models of the same task, and its spread.

    Args:
        question: about N samples; the target that it leaves open is what the question's own model predicts.
        models: the others; each is called as the question's own model is.
        of: the method that is averaged.

    Returns:
        an answer whose output is the mean score, and whose details hold "spread" and "standard_error" over models, each
        shaped like the relevance, and "outputs", the scores ``[N, M]``.

    Raises:
        InvalidInput: where no other model is passed, or their relevance has other shapes.
    """
    check_averaged(question, of)
    if not isinstance(models, Sequence) or not models:
        raise InvalidInput("models= must list at least one further model")
    for model in models:
        soundness.check_model(model, question.allow_training)
    fixed, output = question.scored()
    total, n = 1 + len(models), question.inputs.samples
    means: list[Mean | None] = []
    outputs = [output]
    for number, model in enumerate([question.model, *models]):
        assert of.run is not None
        answer = of.run(replace(fixed, model=model))
        if number:
            outputs.append(answer.output.detach())
        if not means:
            means = [None if r is None else Mean(n, total > 1) for r in answer.relevance]
        rows = Rows.of(slice(0, n), 1, 1)
        for mean, relevance in zip(means, answer.relevance, strict=True):
            if mean is not None and relevance is not None:
                _check_shape(mean, relevance, number)
                mean.add(rows, relevance)()
    scores = torch.stack(outputs, 1)
    answer = _answer(fixed, scores.mean(1), means, total)
    answer.details["outputs"] = scores
    return answer


def _answer(fixed: Question, output: Tensor, means: Sequence[Mean | None], draws: int) -> Answer:
    answer = Answer(results(means), output, fixed.target)
    if draws > 1:
        answer.details = {name: fixed.inputs.pack(results(means, name)) for name in ("spread", "standard_error")}
    return answer


def _check_shape(mean: Mean, relevance: Tensor, number: int) -> None:
    if mean.mean.dim() and mean.mean.shape[0] and mean.mean.shape != relevance.shape:
        raise InvalidInput(
            f"models[{number - 1}] is explained by {tuple(relevance.shape)} values, the first by "
            f"{tuple(mean.mean.shape)}: an ensemble shares its input"
        )


_SILENT = ("DropPath", "StochasticDepth")  # of timm and torchvision, known by their names


def _drops(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return module.dropout > 0
    return type(module).__name__ in _SILENT


@contextlib.contextmanager
def _dropping(question: Question) -> Iterator[None]:
    """Dropout active in a model that is otherwise as it was.

    Raises:
        UnsupportedModel: where there is none to activate.
    """
    modules = list(question.model.modules()) if isinstance(question.model, nn.Module) else []
    own = any(m.training for m in modules) and question.allow_training
    sleeping = [] if own else [m for m in modules if _drops(m) and not m.training]
    if not own and not sleeping:
        raise UnsupportedModel(
            "The model has no dropout module to switch on, so that all its explanations would be equal. Where its "
            "dropout is written otherwise, put the model in training mode and pass allow_training=True."
        )
    try:
        for module in sleeping:
            module.training = True
        yield
    finally:
        for module in sleeping:
            module.training = False
