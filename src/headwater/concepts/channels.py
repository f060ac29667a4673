"""Relevance of a hidden layer's channels: of one explanation, and over a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from headwater.arguments import Inputs
from headwater.errors import InvalidInput
from headwater.propagate.captures import Watcher
from headwater.propagate.conditions import conditions
from headwater.question import Question, posed
from headwater.samples import batches_of

Groups = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class ChannelRelevance:
    """What the channels of a layer contribute to a score.

    Attributes:
        relevance: ``[N, C]``, summed over places; of groups ``[N, G]``.
        names: of the columns: channels' numbers, or the groups' names.
        layer: the module; ``output``: the explained score ``[N]``; ``target``: as resolved.
    """

    relevance: Tensor
    names: tuple[str, ...]
    layer: str
    output: Tensor
    target: Any

    def ranking(self) -> Tensor:
        """Columns of each sample from the most to the least relevant, ``[N, C]``."""
        return self.relevance.argsort(stable=True, dim=1, descending=True)

    def top(self, count: int = 10) -> list[list[tuple[str, float]]]:
        """The most relevant columns of each sample, with their relevance."""
        order = self.ranking()[:, :count]
        values = self.relevance.gather(1, order)
        return [
            [(self.names[k], v) for k, v in zip(row, one, strict=True)]
            for row, one in zip(order.tolist(), values.tolist(), strict=True)
        ]

    def __str__(self) -> str:
        lines = [f"relevance of {self.layer!r}, the largest of {len(self.names)}"]
        for i, row in enumerate(self.top(5)):
            lines.append(f"sample {i}: " + ", ".join(f"{name} {value:.4g}" for name, value in row))
        return "\n".join(lines)


def channel_relevance(
    model: Any,
    x: Any,
    layer: str,
    *,
    target: Any = None,
    composite: Any = "default",
    groups: Groups | None = None,
    through: Any = None,
    keep: Any = None,
    bounds: Any = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> ChannelRelevance:
    """Stop the walk back at a layer, and pool: the relevance of each channel, or of groups of them.

    Args:
        model, x, target, composite, through, keep, bounds, batch_size, progress: as for ``hw.explain``; with
            ``through`` above ``layer``, relevance is that of channels for channels.
        layer: a module's name; channels lie on axis 1 of what a convolution made, on the last axis of tokens.
        groups: names of groups and their channels; None asks for each channel.

    Raises:
        InvalidInput: for a layer that is not there, does not run, or lacks a group's channels.
        HeadwaterError: as ``hw.explain``.

    Source: Achtibat et al. 2023 (concept relevance propagation), Eq. 6; Samek et al. 2021 (review), Section VI.
    """
    with posed(model):
        question = Question(
            model, Inputs.of(x), target, composite, bounds, layers=(layer,), batch_size=batch_size, progress=progress,
            through=conditions(model, through, keep),
        )  # fmt: skip
        return _pooled(question, layer, groups)


def _pooled(question: Question, layer: str, groups: Groups | None) -> ChannelRelevance:
    def one(part: Question) -> Any:
        watch = Watcher()
        answer = part.run(part.walker("default", "layers", watch=watch))
        answer.details["channels"] = _by_channel(answer.layers.pop(layer), watch, layer)
        return answer

    answer = question.each(one)
    relevance = answer.details["channels"]
    count = relevance.shape[1]
    names = tuple(map(str, range(count)))
    if groups is not None:
        wrong = [k for members in groups.values() for k in members if not -count <= k < count]
        if wrong:
            raise InvalidInput(f"Layer {layer!r} has channels 0 to {count - 1}; groups= names {wrong[0]}")
        relevance = torch.stack([relevance[:, list(members)].sum(1) for members in groups.values()], 1)
        names = tuple(groups)
    return ChannelRelevance(relevance, names, layer, answer.output, answer.target)


def _by_channel(found: Any, watch: Watcher, layer: str) -> Tensor:
    """``[N, C]`` from the relevance of a layer's output; of one that ran several times, the sum."""
    runs = found if isinstance(found, list) else [found]
    if not runs:
        raise InvalidInput(f"Layer {layer!r} did not run")
    return sum((_summed(r, watch) for r in runs[1:]), _summed(runs[0], watch))


def _summed(value: Tensor, watch: Watcher) -> Tensor:
    return _places(value, watch).sum(2)


def _places(value: Tensor, watch: Watcher) -> Tensor:
    """A layer's output as ``[N, C, P]``."""
    if value.dim() < 3:
        return value.reshape(len(value), -1, 1)
    return value.movedim(watch.axis(value), 1).flatten(2)


@dataclass(frozen=True)
class ReferenceSamples:
    """The samples of a data set that speak most for each channel.

    Attributes:
        indices: ``[C, k]``, places in the data, from the strongest on; -1 where there were fewer samples.
        scores: ``[C, k]``, what they were ranked by.
        layer: the module; ``by``: relevance or activation.
    """

    indices: Tensor
    scores: Tensor
    layer: str
    by: str


def reference_samples(
    model: Any,
    data: Any,
    layer: str,
    *,
    count: int = 8,
    by: Literal["relevance", "activation"] = "relevance",
    pool: Literal["sum", "max"] = "sum",
    target: Any = None,
    composite: Any = "default",
    batch_size: int = 64,
) -> ReferenceSamples:
    """The samples that a layer's channels are most relevant for, or most active on; one streaming pass.

    Args:
        model, layer, composite: as for :func:`channel_relevance`.
        data: inputs as ``hw.explain`` takes them, or an iterable of batches.
        count: samples kept for each channel.
        by: "relevance" for the target, or "activation" (activation maximization over data).
        pool: over places: their sum, or the largest.
        target: as for ``hw.explain``, one for all samples; by default each sample's own prediction.
        batch_size: samples in a pass, where ``data`` are tensors.

    Raises:
        InvalidInput: for an unknown ``by`` or ``pool``, a ``count`` below one, data without samples, or a layer that is
            not there.

    Source: Achtibat et al. 2023, "relevance maximization".
    """
    if by not in ("relevance", "activation") or pool not in ("sum", "max") or count < 1:
        raise InvalidInput(
            f"reference_samples takes by='relevance' or 'activation', pool='sum' or 'max' and count >= 1, not "
            f"by={by!r}, pool={pool!r}, count={count}"
        )
    best, index, seen = torch.empty(0), torch.empty(0, dtype=torch.long), 0
    with posed(model):
        for inputs in batches_of(data, batch_size):
            question = Question(model, inputs, target, composite, layers=(layer,))
            values = _strengths(question, layer, by, pool)
            places = torch.arange(seen, seen + len(values)).expand(values.shape[1], -1)
            seen += len(values)
            found, where = values.t().cpu(), places
            if best.numel():
                found, where = torch.cat([best, found], 1), torch.cat([index, where], 1)
            best, order = found.topk(min(count, found.shape[1]), 1)
            index = where.gather(1, order)
    short = count - best.shape[1]
    best = torch.nn.functional.pad(best, (0, short), value=float("-inf"))
    return ReferenceSamples(torch.nn.functional.pad(index, (0, short), value=-1), best, layer, by)


def _strengths(question: Question, layer: str, by: str, pool: str) -> Tensor:
    """``[N, C]``: relevance or activation of a layer's channels in its last run."""
    watch = Watcher()
    walk = question.walker("default", "layers", parts=by == "activation", watch=watch)
    found = question.run(walk).layers[layer]
    last = found[-1] if isinstance(found, list) else found
    value: Tensor = last[0] if by == "activation" else last
    places = _places(value, watch)
    return places.amax(2) if pool == "max" else places.sum(2)
