"""The ways to repair a model: other data, a direction projected out of a layer, a penalty on relevance."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater.analyze.repair.artefact import Artefact
from headwater.analyze.repair.figures import on_artefact
from headwater.analyze.repair.labelled import Labelled
from headwater.analyze.repair.projection import (
    Direction,
    candidates,
    direction_of,
    project,
    projected,
    swapped,
)
from headwater.batches import in_batches
from headwater.dataset.sources import place
from headwater.errors import InvalidInput, NonFinite

_TRIED, _EXPLAINED = 1_000, 128  # samples that a layer is chosen by, and of these the ones that are explained


@dataclass
class Job:
    """A repair in progress.

    Attributes:
        model: the copy that is changed; ``data``: what it may learn from.
        explaining: how relevance is computed (``method``, ``composite``, ``bounds``...).
        facts: what the method found out, for the report.
    """

    model: nn.Module
    data: Labelled
    artefact: Artefact
    batch_size: int
    seed: int
    progress: bool | None
    explaining: Mapping[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def coins(self, n: int, share: float) -> Tensor:
        """``[n]`` booleans of which about this share is true."""
        return torch.rand(n, generator=self.generator) < share


def augment(job: Job, *, share: float = 0.5, epochs: int = 2, rate: float = 1e-3, train: str = "*") -> None:
    """Fine-tune on data in which the artefact is pasted on a share of all samples, whatever their class.

    It then tells nothing about the class. (Pasted on the other classes alone it would tell that the class is another.)
    """
    _check_share(share)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        chosen = job.coins(len(x), share).to(x.device)
        pasted = job.artefact.paste(x, job.generator)
        return _cross_entropy(job.model(torch.where(_columns(chosen, x), pasted, x)), y)

    fine_tune(job, loss, epochs, rate, train)


def relabel(
    job: Job, *, labels: int | Sequence[int] | None = None, epochs: int = 2, rate: float = 1e-3, train: str = "*"
) -> None:
    """Fine-tune on data in which the selected samples have other labels: one for all, or one for each."""
    job.data = replace(job.data, corrected=corrections(job.artefact, labels))
    fine_tune(job, lambda x, y: _cross_entropy(job.model(x), y), epochs, rate, train)


def corrections(artefact: Artefact, labels: int | Sequence[int] | None) -> dict[int, int]:
    """The right class of each selected sample, by its row.

    Raises:
        InvalidInput: no labels, or of another number.
    """
    rows = artefact.rows.tolist()
    if labels is None:
        raise InvalidInput("relabel needs labels=: the right class of the selected samples, or one for each of them")
    given = [labels] * len(rows) if isinstance(labels, int) else [int(label) for label in labels]
    if len(given) != len(rows):
        raise InvalidInput(f"labels= holds {len(given)} classes for {len(rows)} selected samples")
    return dict(zip(rows, given, strict=True))


def p_clarc(job: Job, *, layer: str | None = None, direction: Direction = "paste") -> None:
    """Project the artefact's direction out of a layer; nothing is trained.

    Without ``layer``, up to twelve are tried on some of the data.
    """
    if layer is None:
        layer = _best_layer(job, direction)
    vector, _, without = _direction(job, layer, direction)
    project(job.model, layer, vector, without)
    job.facts["layer"] = layer


def a_clarc(
    job: Job,
    *,
    layer: str | None = None,
    direction: Direction = "paste",
    share: float = 0.5,
    epochs: int = 2,
    rate: float = 1e-3,
    train: str = "*",
) -> None:
    """Fine-tune while a share of the samples has the artefact put into a layer's activations, along its direction.

    What comes out is a model without any projection, whose later layers have learned not to heed that direction.
    """
    _check_share(share)
    if layer is None:
        layer = _best_layer(job, direction)
    vector, bearing, _ = _direction(job, layer, direction)
    vector = vector / vector.norm()
    point = (vector * bearing).sum()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        chosen = job.coins(len(x), share).to(x.device)

        def put(a: Tensor) -> Tensor:
            along = (a.flatten(1) @ vector.flatten()) - point
            return a - _columns(along * chosen, a) * vector

        with swapped(job.model, str(layer), put):
            return _cross_entropy(job.model(x), y)

    fine_tune(job, loss, epochs, rate, train)
    job.facts["layer"] = layer


def rrr(
    job: Job,
    *,
    strength: float = 1.0,
    members: int = 32,
    epochs: int = 2,
    rate: float = 1e-3,
    train: str = "*",
) -> None:
    """Fine-tune with a penalty on the share of relevance within the region, on samples that bear the artefact.

    What is explained is the log-odds of the artefact's class.
    """
    if not strength > 0 or members < 1:
        raise InvalidInput(f"strength must be above 0 and members at least 1, not {strength} and {members}")

    def loss(x: Tensor, y: Tensor) -> Tensor:
        bearing = job.artefact.paste(x[:members], job.generator)
        penalty = on_artefact(job.model, bearing, job.artefact, job.explaining, differentiable=True)
        return _cross_entropy(job.model(x), y) + strength * penalty.mean()

    fine_tune(job, loss, epochs, rate, train)


METHODS: dict[str, Callable[..., None]] = {
    "augment": augment,
    "relabel": relabel,
    "p_clarc": p_clarc,
    "a_clarc": a_clarc,
    "rrr": rrr,
}


def options_of(name: str) -> dict[str, Any]:
    """A method's own options and their defaults."""
    return {p.name: p.default for p in list(inspect.signature(METHODS[name]).parameters.values())[1:]}


def fine_tune(job: Job, loss: Callable[[Tensor, Tensor], Tensor], epochs: int, rate: float, train: str) -> None:
    """Adam on the parameters that ``train`` matches, the model in evaluation mode: no dropout, statistics as they are.

    Raises:
        InvalidInput: nothing matches, or no epoch. NonFinite: the loss is no number any more.
    """
    if epochs < 1 or not rate > 0:
        raise InvalidInput(f"epochs must be at least 1 and rate above 0, not {epochs} and {rate}")
    chosen = [p for name, p in job.model.named_parameters() if fnmatchcase(name, train) and p.is_floating_point()]
    if not chosen:
        raise InvalidInput(f"train={train!r} matches no parameter of the model")
    wanted = [p.requires_grad for p in job.model.parameters()]
    for parameter in job.model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_()
    order = torch.cat([torch.randperm(len(job.data), generator=job.generator) for _ in range(epochs)])
    optimizer = torch.optim.Adam(chosen, rate)

    def step(part: slice) -> float:
        optimizer.zero_grad()
        seed = job.seed + 1 + part.start // len(job.data)  # data sets that draw at random: anew in each epoch
        found = loss(*job.data.batch(job.model, order[part], seed))
        if not bool(found.isfinite()):
            raise NonFinite(f"fine-tuning diverged at sample {part.start} of {len(order)}: lower rate= ({rate})")
        found.backward()
        optimizer.step()
        return float(found.detach())

    with torch.enable_grad():
        job.facts["losses"] = in_batches(step, len(order), job.batch_size, job.progress, "repairing")
    for parameter, before in zip(job.model.parameters(), wanted, strict=True):
        parameter.requires_grad_(before)
        parameter.grad = None


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Of logits ``[N, C]`` and classes ``[N]``.

    Raises:
        InvalidInput: a class that the model does not have.
    """
    if int(y.max()) >= logits.shape[1]:
        raise InvalidInput(f"class {int(y.max())} among the labels, but the model has {logits.shape[1]} outputs")
    return F.cross_entropy(logits, y)


def _direction(job: Job, layer: str, kind: Direction) -> tuple[Tensor, Tensor, Tensor]:
    """Of the artefact in a layer: the direction, and the mean activations with and without it."""
    if kind not in ("signal", "paste", "svm"):
        raise InvalidInput(f"direction must be 'signal', 'paste' or 'svm', not {kind!r}")
    without, bearing = job.artefact.rest, job.artefact.members
    if kind == "paste":
        some = job.data.first(len(without))
        without, _ = some.batch(job.model, torch.arange(len(some)))
        bearing = job.artefact.paste(without, job.generator)
    with_it, without_it = ([place(part, job.model) for part in x.split(job.batch_size)] for x in (bearing, without))
    return direction_of(job.model, layer, with_it, without_it, svm=kind == "svm")


def _best_layer(job: Job, kind: Direction) -> str:
    """The layer where projection leaves the least cross-entropy, plus share of relevance on the artefact.

    Both on some of the data, half of it with the artefact pasted.
    """
    some = job.data.first(_TRIED)
    x, y = some.batch(job.model, torch.arange(len(some)))
    pasted = job.artefact.paste(x, job.generator)
    x = torch.where(_columns(job.coins(len(x), 0.5).to(x.device), x), pasted, x)

    def loss(layer: str) -> float:
        vector, _, without = _direction(job, layer, kind)
        vector = (vector / vector.norm())[None]
        point = (vector[0] * without).sum()[None]
        with swapped(job.model, layer, lambda a: projected(a, vector, point)):
            with torch.no_grad():
                logits = torch.cat([job.model(part) for part in x.split(job.batch_size)])
            shares = [
                on_artefact(job.model, part, job.artefact, job.explaining)
                for part in pasted[:_EXPLAINED].split(job.batch_size)
            ]
        return float(_cross_entropy(logits, y) + torch.cat(shares).mean())

    tried = {layer: loss(layer) for layer in candidates(job.model, x[:1])}
    job.facts["layers tried"] = tried
    return min(tried, key=tried.__getitem__)


def _columns(values: Tensor, like: Tensor) -> Tensor:
    """``[N]`` with as many axes as ``like``."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise InvalidInput(f"share must lie in (0, 1], not {share}")
