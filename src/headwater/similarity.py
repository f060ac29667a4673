"""Why two inputs are similar: relevance of pairs of features, one from each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater import target as targets
from headwater.answer import Answer
from headwater.arguments import Inputs
from headwater.batches import in_batches
from headwater.errors import InvalidInput
from headwater.method import Method
from headwater.question import Question, posed

_EBERLE = "Eberle et al.: Building and Interpreting Deep Similarity Models, IEEE TPAMI 44(3), 2022"


@dataclass(frozen=True)
class PairRelevance:
    """Relevance of pairs of places for the similarity of two inputs.

    Attributes:
        relevance: ``[N, *places of a, *places of b]``; places are summed over channels and pooled.
        similarity: the dot product of both embeddings, ``[N]``.
        shapes: the places of a and of b.
    """

    relevance: Tensor
    similarity: Tensor
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def delta(self) -> Tensor:
        """``(similarity - Σ relevance) / |similarity|``, ``[N]``."""
        total = self.relevance.flatten(1).sum(1)
        same = self.similarity == total
        return torch.where(same, torch.zeros_like(total), (self.similarity - total) / self.similarity.abs())

    def of_first(self) -> Tensor:
        """Relevance of each place of a, whatever it pairs with, ``[N, *places of a]``."""
        return self.relevance.flatten(1 + len(self.shapes[0])).sum(-1)

    def of_second(self) -> Tensor:
        """Relevance of each place of b, whatever it pairs with, ``[N, *places of b]``."""
        return self.relevance.flatten(1, len(self.shapes[0])).sum(1)

    def top(self, count: int = 20, sample: int = 0) -> list[tuple[tuple[int, ...], tuple[int, ...], float]]:
        """The strongest pairs of a sample: place in a, place in b, relevance."""
        flat = self.relevance[sample].flatten()
        order = flat.abs().topk(min(count, flat.numel())).indices
        places = torch.unravel_index(order, self.relevance.shape[1:])
        split = len(self.shapes[0])
        return [
            (place[:split], place[split:], value)
            for place, value in zip(zip(*(p.tolist() for p in places), strict=True), flat[order].tolist(), strict=True)
        ]


def bilrp(
    embed: Callable[..., Any],
    a: Any,
    b: Any,
    *,
    pool: int | Sequence[int] = 1,
    components: int | None = None,
    composite: Any = "default",
    bounds: Any = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> PairRelevance:
    """Explain ``⟨φ(a), φ(b)⟩`` by pairs: ``R_ij = Σ_m LRP_i(φ_m, a) LRP_j(φ_m, b)``.

    Args:
        embed: the model φ, from inputs to embeddings ``[N, M]`` (a further shape is flattened).
        a, b: two batches of as many inputs, tensors ``[N, ...]``: images, series, tables or token ids.
        pool: sums relevance over windows of so many places on each spatial axis, so that ``places x places`` fits.
        components: explain so many random projections of the embedding instead of all M; unbiased, and cheaper.
        composite, bounds, batch_size, seed, progress: as for ``hw.explain``; each component of each input is a row.

    Raises:
        InvalidInput: batches of different lengths, a pool that does not divide, or no embedding of one row a sample.
        HeadwaterError: as ``hw.explain``.

    Source: Eberle et al. 2022, Eq. 7 and Section 3.3.
    """
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or len(a) != len(b):
        raise InvalidInput("a and b must be tensors of as many samples each: pair them row by row")
    with posed(embed):
        width, similarity = _embedded(embed, a, b)
        mixing = _mixing(width, components, seed).to(similarity.device, similarity.dtype)
        settings = {"bounds": bounds, "batch_size": batch_size, "seed": seed}
        first, second = (
            _maps(Question(embed, Inputs.of(x), composite=composite, **settings), mixing, pool, progress)
            for x in (a, b)
        )
    pairs = torch.einsum("nmi,nmj->nij", first.flatten(2), second.flatten(2))
    shapes = (tuple(first.shape[2:]), tuple(second.shape[2:]))
    return PairRelevance(pairs.view(len(a), *shapes[0], *shapes[1]), similarity, shapes)


def _embedded(embed: Callable[..., Any], a: Tensor, b: Tensor) -> tuple[int, Tensor]:
    """The width of the embeddings and their dot products, ``[N]``."""
    with torch.no_grad():
        both = [targets.select_output(embed(x)) for x in (a, b)]
    if any(len(e) != len(x) for e, x in zip(both, (a, b), strict=True)) or both[0].shape != both[1].shape:
        raise InvalidInput(
            f"The model embeds {len(a)} samples as {tuple(both[0].shape)} and {tuple(both[1].shape)}: one row for each "
            "sample, of one width, is needed"
        )
    first, second = (e.reshape(len(e), -1) for e in both)
    return first.shape[1], (first * second).sum(1)


def _mixing(width: int, components: int | None, seed: int) -> Tensor:
    """What is explained of an embedding ``[M]``: all of it, or random projections ``[components, M]`` of it."""
    if components is None:
        return torch.eye(width)
    if not components >= 1:
        raise InvalidInput(f"components must be at least 1, not {components}")
    signs = torch.randint(0, 2, (components, width), generator=torch.Generator().manual_seed(seed))
    return (2.0 * signs - 1.0) / components**0.5


def _maps(question: Question, mixing: Tensor, pool: int | Sequence[int], progress: bool | None) -> Tensor:
    """Pooled relevance ``[N, components, *places]`` of each component of the embedding."""
    n, m = question.inputs.samples, len(mixing)

    def work(rows: slice) -> Tensor:
        place = torch.arange(rows.start, rows.stop)
        weights = mixing[(place % m).to(mixing.device)]

        def component(raw: Any) -> Tensor:
            return (targets.select_output(raw).reshape(len(weights), -1) * weights).sum(1)

        part = question.select(place // m)
        answer: Answer = replace(part, target=component).run(part.walker("default"))
        (relevance,) = (r for r in answer.relevance if r is not None)
        return _pooled(relevance, part.inputs.values[0], pool)

    found = torch.cat(in_batches(work, n * m, question.rows_at_a_time, progress, "explaining pairs"))
    return found.view(n, m, *found.shape[1:])


def _pooled(relevance: Tensor, x: Tensor, pool: int | Sequence[int]) -> Tensor:
    """Relevance of places, summed over channels (embedding dimensions) and windows."""
    channels = -1 if not x.is_floating_point() else 1 if relevance.dim() > 2 else None
    places = relevance if channels is None else relevance.sum(channels)
    axes = places.dim() - 1
    sizes = [pool] * axes if isinstance(pool, int) else list(pool)
    if len(sizes) != axes or any(s < 1 or n % s for s, n in zip(sizes, places.shape[1:], strict=False)):
        raise InvalidInput(f"pool={pool!r} must divide the {axes} axes of places {tuple(places.shape[1:])}")
    for axis, size in enumerate(sizes, 1):
        places = places.unflatten(axis, (-1, size)).sum(axis + 1)
    return places


def cosine(embed: Callable[..., Any]) -> Callable[..., Tensor]:
    """The embedding at unit length, so that :func:`bilrp` explains the cosine; the length is held constant."""

    def unit(*args: Any, **kwargs: Any) -> Tensor:
        found = targets.select_output(embed(*args, **kwargs)).flatten(1)
        return F.normalize(found, dim=1)

    return unit


ROWS = (
    Method(
        "bilrp", "BiLRP", "propagate", _EBERLE, "a model that embeds its input",
        "products of the LRP maps of each component of both embeddings", None, call="hw.similarity.bilrp",
    ),
)  # fmt: skip
