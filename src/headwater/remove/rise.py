"""RISE: where random masks leave the score high."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.answer import Answer
from headwater.errors import InvalidInput
from headwater.question import Question
from headwater.remove.features import Features, in_columns
from headwater.remove.removal import Removal, repeated
from headwater.remove.sampling import check_count, subsets


def rise(
    question: Question, *, samples: int = 4000, cells: int | Sequence[int] = 7, kept: float = 0.5,
    features: Any = None, probability: bool = False, imputer: Any = None, references: Any = None, argument: Any = None,
    layer: str | None = None,
) -> Answer:  # fmt: skip
    """The mean of random masks, weighted by the score that each leaves: ``R_i = Σ_m f(x_m) m_i / (kept M)``.

    For pictures, volumes and series, a coarse grid of zeros and ones is enlarged smoothly and shifted at random;
    columns, words and given features are kept or removed whole.

    Args:
        samples: masks, the same for all samples of the batch; the paper has 4000 for VGG-16, 8000 for ResNet-50.
        cells: of the coarse grid along each axis.
        kept: the probability with which a cell is kept.
        features: keep or remove these instead; see ``feature_ablation``.
        probability: weigh by the probability of the target's class, as the paper does, instead of its score.
        imputer, references, argument, layer: as for ``occlusion``.

    Returns:
        ``details``: the ``standard_error`` of each entry, shaped like ``relevance``.

    Raises:
        InvalidInput: settings out of range.

    Source: Petsiuk, Das, Saenko: RISE, BMVC 2018, Eq. 6 and Section 3.2.
    """
    check_count("samples", samples, 2)
    if not 0 < kept < 1:
        raise InvalidInput(f"kept must be a probability between 0 and 1, not {kept}")
    removal = Removal.of(question, features, imputer, references, argument, layer)
    removal = removal.asking_probability() if probability else removal
    own = [site for site in removal.sites if not site.follows]
    values = removal.question.inputs.values
    masks: list[Soft | Whole] = []
    for site in own:
        x = in_columns(values[site.place])
        soft = features is None and x.is_floating_point() and x.dim() > 2
        kind = Soft.of if soft else Whole.of
        masks.append(kind(site.features, x, samples, cells, kept, removal.generator))

    def holes(at: Tensor) -> list[Tensor]:
        found = [mask.holes(at % samples, rows[at], removal.device) for mask in masks]
        return [found[removal.leader(i)] for i in range(len(removal.sites))]

    rows = repeated(removal.samples, samples)
    scores = removal.answers(holes, rows).mean(1).view(removal.samples, samples)
    maps, errors = {}, {}
    for site, mask in zip(own, masks, strict=True):
        maps[site.place], errors[site.place] = mask.averaged(scores, kept, removal.rows_at_a_time)
    return removal.answer_with(maps, removal.output(), standard_error=removal.packed(errors))


@dataclass(frozen=True)
class Soft:
    """Coarse grids, enlarged by linear interpolation and shifted by less than a cell.

    Attributes:
        grids: 0 or 1, ``[M, *cells + 1]``; ``shifts``: in entries, ``[M, axes]``; ``shape``: of one input.
        dtype: of masks.
    """

    grids: Tensor
    shifts: Tensor
    shape: tuple[int, ...]
    dtype: torch.dtype

    @staticmethod
    def of(features: Features, x: Tensor, samples: int, cells: Any, keep: float, generator: torch.Generator) -> Soft:
        """Draw them for inputs ``[N, C, ...]``."""
        sides = tuple(x.shape[2:])
        count = (cells,) * len(sides) if isinstance(cells, int) else tuple(cells)
        if len(count) != len(sides) or not all(isinstance(c, int) and c >= 1 for c in count):
            raise InvalidInput(f"cells={cells!r} do not fit the axes {list(sides)} of x: give {len(sides)} numbers")
        count = tuple(min(c, side) for c, side in zip(count, sides, strict=True))
        grids = torch.rand(samples, *[c + 1 for c in count], generator=generator, dtype=torch.float64) < keep
        size = torch.tensor([math.ceil(side / c) for c, side in zip(count, sides, strict=True)])
        shifts = (torch.rand(samples, len(sides), generator=generator, dtype=torch.float64) * size).floor()
        return Soft(grids, shifts, tuple(x.shape[1:]), torch.promote_types(x.dtype, torch.float32))

    def kept(self, index: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """How much of each place the masks ``[B]`` leave, ``[B, *sides]``, 0 to 1."""
        found = self.grids[index].to(device, dtype)
        sides = self.shape[1:]
        for axis, side in enumerate(sides):
            cells = self.grids.shape[axis + 1] - 1
            size = math.ceil(side / cells)
            at = (torch.arange(side) + self.shifts[index, axis : axis + 1]) / size - 0.5 + 0.5 / size
            nodes = torch.arange(cells + 1)
            weight = (1 - (at.clamp(0, cells)[:, :, None] - nodes).abs()).clamp(min=0).to(device, dtype)
            moved = found.movedim(axis + 1, 1)
            found = torch.bmm(weight, moved.flatten(2) if moved.dim() > 2 else moved[:, :, None])
            found = found.view(len(index), side, *moved.shape[2:]).movedim(1, axis + 1)
        return found

    def holes(self, index: Tensor, rows: Tensor, device: torch.device) -> Tensor:
        return 1 - self.kept(index, device, self.dtype)[:, None]

    def averaged(self, scores: Tensor, keep: float, size: int) -> tuple[Tensor, Tensor]:
        """The weighted mean of the masks by scores ``[N, M]``, and its standard error, both ``[N, ...]``."""
        total = torch.zeros(len(scores), math.prod(self.shape[1:]), dtype=torch.float64)
        squares = torch.zeros_like(total)
        for index in torch.arange(len(self.grids)).split(size):
            kept = self.kept(index, "cpu", torch.float64).flatten(1)
            total += scores[:, index] @ kept
            squares += scores[:, index].square() @ kept.square()
        return _moments(total, squares, len(self.grids), keep, self._shown)

    def _shown(self, flat: Tensor) -> Tensor:
        found = flat.view(len(flat), 1, *self.shape[1:]) / self.shape[0]  # channels share what their pixel has
        return found.expand(len(flat), *self.shape).contiguous()


@dataclass(frozen=True)
class Whole:
    """Features that are kept or removed whole.

    Attributes:
        features: of one argument; ``sets``: which are kept, bool ``[M, F]``.
    """

    features: Features
    sets: Tensor

    @staticmethod
    def of(features: Features, x: Tensor, samples: int, cells: Any, keep: float, generator: torch.Generator) -> Whole:
        """Draw the sets."""
        return Whole(features, subsets(features.most, samples, generator, keep))

    def holes(self, index: Tensor, rows: Tensor, device: torch.device) -> Tensor:
        return self.features.placed(~self.sets[index].to(device), rows, outside=False)

    def averaged(self, scores: Tensor, keep: float, size: int) -> tuple[Tensor, Tensor]:
        """The weighted mean of the masks by scores ``[N, M]``, and its standard error, both ``[N, ...]``."""
        kept = self.sets.double()
        return _moments(scores @ kept, scores.square() @ kept, len(kept), keep, self.features.spread)


def _moments(total: Tensor, squares: Tensor, count: int, keep: float, show: Any) -> tuple[Tensor, Tensor]:
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0) / (count - 1)
    return show(mean / keep), show(variance.sqrt() / keep)
