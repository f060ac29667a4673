"""The engine: inputs with holes, filled and put to the model in full batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headwater import target as targets
from headwater.answer import Answer
from headwater.errors import InvalidInput
from headwater.question import Question
from headwater.remove.choices import by_argument, chosen_features, imputer_of, places_of
from headwater.remove.features import Features, in_columns, jointly
from headwater.remove.hidden import grafted
from headwater.remove.imputers import Delete, Fill
from headwater.remove.text import Reader

SMALL = 1 << 16  # values that a batch of small inputs may hold
ON_PROCESSOR = 32  # rows whose activations its cache still serves: 256 take up to twice as long, row by row

Holes = Callable[[Tensor], Sequence[Tensor]]
"""``holes(at)``: for the masks ``at`` ``[B]`` a hole of each site, broadcastable to ``[B, ...]``."""


@dataclass(frozen=True)
class Site:
    """An argument that loses features: its place, its features (numbered jointly over all sites), what fills holes.

    A site that ``follows`` is the attention mask of the words before it, whose holes it shares.
    """

    place: int
    features: Features
    fill: Fill
    follows: bool = False


@dataclass(frozen=True)
class Removal:
    """A question that can be put to copies of its inputs from which features were removed.

    Attributes:
        question: with its target written down.
        sites: the arguments that have holes.
        draws: in how many ways each hole is filled.
        generator: of all that is drawn, the same for every sample.
        scored: the scores of the inputs as they are, ``[N]``.
        layer: whose output the features belong to; "" for the input.
        probability: ask for the probability of the target's class instead of its score.
    """

    question: Question
    sites: tuple[Site, ...]
    draws: int
    generator: torch.Generator
    scored: Tensor
    layer: str = ""
    probability: bool = False

    @staticmethod
    def of(
        question: Question, features: Any = None, imputer: Any = None, references: Any = None, argument: Any = None,
        layer: str | None = None, *, cells: str = "grid", default: Any = 0,
    ) -> Removal:  # fmt: skip
        """Settle the target, and which features of which arguments are removed and how.

        Args:
            features: see :func:`~headwater.remove.features.features_of`; ``imputer``, ``references``: see
                :func:`~headwater.remove.choices.imputer_of`; each may be a dict by argument.
            argument: the name or position of the one that is changed (or several); None: all that are explained.
            layer: remove from this module's output instead of the input.
            cells, default: the features and the imputer where none are given.

        Raises:
            InvalidInput: for what does not fit the inputs.
        """
        question, output = question.scored()
        if layer is not None:
            question = grafted(question, layer)
            cells = "channel" if question.inputs.values[0].dim() > 2 else "value"
        places = (0,) if layer is not None else places_of(question, argument)
        found = [chosen_features(question, p, by_argument(features, question, p), cells) for p in places]
        parts = jointly(found) if len(found) > 1 else tuple(found)
        imputers = [imputer_of(by_argument(imputer, question, p), question, p, references, default) for p in places]
        several = {own.draws for own in imputers} - {1}
        if len(several) > 1:
            raise InvalidInput(f"imputers with {sorted(several)} draws cannot fill together: give them as many")
        sites, generator = [], question.generator()
        for place, part, own in zip(places, parts, imputers, strict=True):
            x = in_columns(question.inputs.values[place].detach())
            sites.append(Site(place, part, own.prepare(x, generator)))
            mask = question.inputs.mask
            if isinstance(own, Delete) and mask is not None and mask.shape == x.shape:  # moves with its words
                at = next(i for i, value in enumerate(question.inputs.values) if value is mask)
                sites.append(Site(at, part, Delete(0).prepare(mask.long(), generator), follows=True))
        return Removal(question, tuple(sites), max(own.draws for own in imputers), generator, output, layer or "")

    # ------------------------------------------------------------------ what there is to remove

    @property
    def samples(self) -> int:
        """N."""
        return self.question.inputs.samples

    @property
    def counts(self) -> Tensor:
        """How many features each sample has, ``[N]``."""
        return self.sites[0].features.counts

    @property
    def most(self) -> int:
        """F, the number of features of the sample that has most."""
        return self.sites[0].features.most

    @property
    def present(self) -> Tensor:
        """Which of F features each sample has, bool ``[N, F]``."""
        return self.sites[0].features.present

    def leader(self, index: int) -> int:
        """How many sites of their own stand before this one, or before the one that it follows."""
        return sum(not site.follows for site in self.sites[: index + 1]) - 1

    @property
    def device(self) -> torch.device:
        """Where the inputs are."""
        return self.question.inputs.values[self.sites[0].place].device

    # ------------------------------------------------------------------ asking

    def answers(self, holes: Holes, rows: Tensor, label: str = "removing") -> Tensor:
        """The model's answers to inputs with holes, each filled in D ways; float64 ``[R, D]`` on the CPU.

        Args:
            holes: called with places in ``rows``, ``[B]``.
            rows: which sample each is made of, ``[R]``.
        """
        if not len(rows):
            return torch.zeros(0, self.draws, dtype=torch.float64)

        rest = self._without_sites()

        def work(batch: slice) -> Tensor:
            at = torch.arange(batch.start, batch.stop)
            draw = None if self.draws == 1 else at % self.draws
            at = at // self.draws
            own = rows[at]
            copies = rest.select(own)
            values = [v.clone() if isinstance(v, Tensor) else v for v in copies.inputs.values]
            first = own[:1] if bool((own == own[0]).all()) else own  # of copies of one sample one suffices
            for site, hole in zip(self.sites, holes(at), strict=True):
                given = self.question.inputs.values[site.place].detach()
                x = in_columns(given)
                filled = site.fill(x[first.to(x.device)], hole.to(x.device), own, draw)
                filled = filled.expand(len(own), *x.shape[1:]).to(x.dtype)
                values[site.place] = filled.reshape(len(own), *given.shape[1:]).contiguous()
            return self._asked(copies.about(values), spent=True).double().cpu()

        found = self.question.in_batches(work, len(rows) * self.draws, self.rows_at_a_time, label)
        return torch.cat(found).view(-1, self.draws)

    def without(self, removed: Callable[[Tensor], Tensor], rows: Tensor, label: str = "removing") -> Tensor:
        """The answers ``[R, D]`` where features were removed: ``removed(at)`` says which, bool ``[B, F]``."""

        def holes(at: Tensor) -> list[Tensor]:
            missing = removed(at).to(self.device)
            return [site.features.placed(missing, rows[at], outside=False) for site in self.sites]

        return self.answers(holes, rows, label)

    def with_only(self, kept: Tensor, samples: Tensor, label: str = "removing") -> Tensor:
        """The answers ``[n, M]`` of samples ``[n]`` of which only the features ``kept``, bool ``[M, c]``, are left."""
        count = len(kept)
        removed = torch.ones(count, self.most, dtype=torch.bool)
        removed[:, : kept.shape[1]] = ~kept
        rows = samples.repeat_interleave(count)
        return self.without(lambda at: removed[at % count], rows, label).mean(1).view(len(samples), count)

    def alike(self) -> list[tuple[int, Tensor]]:
        """The samples that have as many features: how many, and which samples."""
        return [(int(c), (self.counts == c).nonzero().flatten()) for c in self.counts.unique()]

    def output(self) -> Tensor:
        """What the model says of the inputs as they are, ``[N]``."""
        if not self.probability:
            return self.scored

        def work(rows: slice) -> Tensor:
            return self._asked(self.question.select(torch.arange(rows.start, rows.stop)))

        return torch.cat(self.question.in_batches(work, self.samples, self.rows_at_a_time))

    def asking_probability(self) -> Removal:
        """The same, for the probability of the target's class in the place of its score."""
        return replace(self, probability=True)

    def _without_sites(self) -> Question:
        """The question without what will be filled in, so that selecting rows copies nothing for nothing."""
        values = list(self.question.inputs.values)
        for site in self.sites:
            values[site.place] = values[site.place].new_empty(self.samples, 0)
        return self.question.about(values)

    def _asked(self, question: Question, spent: bool = False) -> Tensor:
        if self.probability:
            question = replace(question, target=_probability_of(question.target))
        return question.scores(spent=spent)

    def nothing(self) -> Tensor:
        """The scores of the inputs without any of their features, float64 ``[N]``."""
        every = torch.arange(self.samples)
        return self.without(lambda at: torch.ones(len(at), self.most, dtype=torch.bool), every).mean(1)

    @property
    def rows_at_a_time(self) -> int:
        """Rows of one forward: many of tables, else few on a processor and as many as the question has elsewhere."""
        question = self.question
        if question.batch_size is not None:
            return question.batch_size
        values = [v for v in question.inputs.values if isinstance(v, Tensor) and v.dim()]
        floats = all(v.is_floating_point() for v in values)
        small = SMALL // max(1, sum(v[0].numel() for v in values)) if floats else 0
        if floats and all(v.dim() == 2 for v in values):
            return max(question.rows_at_a_time, small)
        few = max(ON_PROCESSOR, small) if self.device.type == "cpu" else question.rows_at_a_time
        return min(question.rows_at_a_time, few)

    # ------------------------------------------------------------------ answering

    def answer(self, scores: Tensor, output: Tensor, reference: Tensor | None = None, **details: Any) -> Answer:
        """The answer of a method that gives each feature a score: shared evenly among its entries.

        Args:
            scores: of the features, ``[N, F]``.
            output: the scores of the inputs, ``[N]``; ``reference``: those with nothing left.
            details: what else the method found; tensors ``[N, F]`` of the features among it.
        """
        own = [site for site in self.sites if not site.follows]
        maps = {site.place: site.features.spread(scores) for site in own}
        masks = {s.place: s.features.labels.expand(self.samples, *s.features.labels.shape[1:]) for s in own}
        return self.answer_with(maps, output, reference, features=scores, masks=self.packed(masks), **details)

    def answer_with(
        self, maps: dict[int, Tensor], output: Tensor, reference: Tensor | None = None, **details: Any
    ) -> Answer:
        """The answer of a method that has made its maps itself, one for each site, by place."""
        inputs = self.question.inputs
        relevance: list[Tensor | None] = [None] * len(inputs.values)
        for place, found in maps.items():
            x = inputs.values[place]
            relevance[place] = found.view(x.shape).to(x.device, x.dtype if x.is_floating_point() else self.scored.dtype)
        layers = {self.layer: relevance.pop(0)} if self.layer else {}
        if isinstance(self.question.model, Reader):
            details["words"] = self.question.model.words
        return Answer(
            relevance, output.to(self.scored), resolved(self.question.target),
            None if reference is None else reference.to(self.scored), layers=layers, details=details,
        )  # fmt: skip

    def packed(self, found: dict[int, Tensor]) -> Any:
        """One tensor where there is one site, else one for each place."""
        return next(iter(found.values())) if len(found) == 1 else {str(k): v for k, v in found.items()}


def resolved(target: Any) -> Any:
    """A fixed target as an explanation gives it: classes where classes were chosen."""
    if isinstance(target, targets.Pixels):
        return target.c
    return target.id if isinstance(target, targets.Token) else target


def _probability_of(classes: Any) -> Callable[[Any], Tensor]:
    """Reads the probability of each sample's class, ``[N]`` in float64, from logits or probabilities ``[N, C]``."""

    def read(raw: Any) -> Tensor:
        return targets.probability(targets.select_output(raw).double(), classes)

    return read


def repeated(samples: int, each: int) -> Tensor:
    """Which sample each row is made of where every sample has as many rows, one sample after the other."""
    return torch.arange(samples).repeat_interleave(each)


def standard_error(values: Tensor, dim: int) -> Tensor:
    """Of the mean of independent draws along an axis; NaN for a single one."""
    return values.std(dim) / math.sqrt(values.shape[dim])
