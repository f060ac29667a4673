"""How a model fares with and without an artefact: accuracies, and the share of relevance that lies on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headwater.analyze.repair.artefact import Artefact
from headwater.analyze.repair.labelled import Labelled
from headwater.batches import in_batches
from headwater.explain import explain
from headwater.target import LogOdds


@dataclass(frozen=True)
class Figures:
    """How a model fares on held-out samples; shares from 0 to 1, NaN where there is no such sample.

    Attributes:
        accuracy: on all of them as they are.
        own, own_pasted: on those of the artefact's class as they are, and with the artefact pasted.
        others, others_pasted: on those of the other classes.
        taken: the share of the other classes' samples that are given the artefact's class once it is pasted.
        relevance: the mean share of relevance within the region, of pasted samples.
    """

    accuracy: float
    own: float
    own_pasted: float
    others: float
    others_pasted: float
    taken: float
    relevance: float


def assess(
    model: nn.Module,
    data: Any,
    artefact: Artefact,
    *,
    batch_size: int = 64,
    explained: int = 256,
    seed: int = 0,
    progress: bool | None = None,
    **explaining: Any,
) -> Figures:
    """Measure accuracy with and without an artefact, and the relevance on it.

    Args:
        model: returns logits ``[N, C]``.
        data: samples with classes, best such that the model has not seen; as for :func:`headwater.run`.
        explained: of so many samples, evenly spread, the relevance is computed.
        seed: of the members that are pasted.
        **explaining: as for :func:`headwater.explain` (``method``, ``composite``, ``bounds``).

    Raises:
        InvalidInput: samples without classes, of another shape than the artefact's, or of several inputs.
    """
    samples = data if isinstance(data, Labelled) else Labelled.of(data, seed)
    generator = torch.Generator().manual_seed(seed)
    target = -1 if artefact.target is None else artefact.target

    def judge(part: slice) -> Tensor:
        x, y = samples.batch(model, torch.arange(part.start, part.stop))
        with torch.no_grad():
            plain, pasted = model(x).argmax(1), model(artefact.paste(x, generator)).argmax(1)
        return torch.stack([plain == y, pasted == y, pasted == target, y == target]).cpu()

    def look(part: slice) -> Tensor:
        x, _ = some.batch(model, torch.arange(part.start, part.stop))
        return on_artefact(model, artefact.paste(x, generator), artefact, explaining).cpu()

    some = samples.first(explained)
    right, still, taken, own = torch.cat(in_batches(judge, len(samples), batch_size, progress, "judging"), 1)
    shares = torch.cat(in_batches(look, len(some), batch_size, progress, "explaining"))
    accuracies = [right, right[own], still[own], right[~own], still[~own], taken[~own], shares]
    return Figures(*(float(values.double().mean()) for values in accuracies))


def on_artefact(
    model: nn.Module, x: Tensor, artefact: Artefact, explaining: Mapping[str, Any], differentiable: bool = False
) -> Tensor:
    """The share of relevance that lies in the region ``[N]``, 0 to 1: of the magnitudes, summed over channels.

    What is explained is the log-odds of the artefact's class (of the predicted one, where there is none).
    """
    target = LogOdds(artefact.target)
    found = explain(model, x, target=target, differentiable=differentiable, progress=False, **explaining)
    maps = found.relevance.sum(1, keepdim=True) if x.dim() > 2 else found.relevance
    total = maps.abs().flatten(1).sum(1)
    inside = (maps.abs() * artefact.region.to(maps)).flatten(1).sum(1)
    return inside / total.clamp(min=torch.finfo(total.dtype).tiny)
