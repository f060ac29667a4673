"""Masks over the input, their gradient, and the loop that fits them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.optimize.climb import blurred, climb, places, spatial
from headwater.points import Place, Rows, baselines
from headwater.question import Question

Masks = dict[int, Tensor]  # for each explained argument
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Grid:
    """How the cells of a mask lie over one argument: one mask for all channels, or for all of an embedding.

    Attributes:
        cells: how many along each axis; ``sides``: of the argument along these axes.
        shape: of a mask over the argument, without samples, broadcastable to its values.
        near: whether neighbouring cells belong together, as pixels do and columns of a table do not.
    """

    cells: tuple[int, ...]
    sides: tuple[int, ...]
    shape: tuple[int, ...]
    near: bool

    @property
    def widens(self) -> bool:
        """Whether cells can be widened to their neighbours."""
        return self.near and len(self.cells) in _LINEAR

    @staticmethod
    def over(value: Tensor, embedded: bool, resolution: int) -> Grid:
        """The grid over an argument's values, ``[N, C, ...]``, or over embeddings, ``[N, ..., D]``."""
        if embedded or value.dim() < 3:
            sides = tuple(value.shape[1:-1] if embedded else value.shape[1:])
            return Grid(sides or (1,), sides or (1,), (*sides, 1) if embedded else sides, near=False)
        sides = tuple(value.shape[2:])
        cells = tuple(min(s, resolution) for s in sides) if len(sides) in _LINEAR else sides
        return Grid(cells, sides, (1, *sides), near=True)

    def render(self, cells: Tensor) -> Tensor:
        """Cells ``[N, 1, *cells]`` as a mask over the argument, interpolated linearly."""
        if self.cells != self.sides:
            cells = F.interpolate(cells, self.sides, mode=_LINEAR[len(self.sides)])
        return cells.view(len(cells), *self.shape)


def softly_widened(cells: Tensor, radius: int = 2, temperature: float = 20.0) -> Tensor:
    """The smooth maximum of neighbouring cells under a Gaussian, so that none stays alone (Fong et al. 2019, Eq. 5).

    Args:
        cells: ``[N, 1, ...]`` in 0 to 1.
        radius: of the neighbourhood; the Gaussian falls to e^-2 there.
        temperature: of the smooth maximum.
    """
    sides = cells.shape[2:]
    padded = F.pad(cells, [radius] * (2 * len(sides)), mode="replicate")
    shifted = []
    for offset in itertools.product(range(2 * radius + 1), repeat=len(sides)):
        distance = sum((o - radius) ** 2 for o in offset)
        near = padded
        for axis, (o, side) in enumerate(zip(offset, sides, strict=True), start=2):
            near = near.narrow(axis, o, side)
        shifted.append(near * float(torch.exp(torch.tensor(-2.0 * distance / radius**2))))
    stack = torch.stack(shifted)
    return (stack * torch.softmax(temperature * stack, 0)).sum(0)


class Masking:
    """Values behind masks: ``mask * x + (1 - mask) * behind``, and the model's answer to them.

    Args:
        question: its target fixed.
        resolution: cells of a mask along each axis, at most.
        copies: how many rows of the question each mask serves: its rows are copies of ``len(cells)`` samples.
    """

    def __init__(self, question: Question, resolution: int, copies: int = 1) -> None:
        if isinstance(resolution, bool) or not isinstance(resolution, int) or resolution < 1:
            raise InvalidInput(f"resolution must be a whole number of at least 1, not {resolution!r}")
        self.question, self.copies = question, copies
        self.values = places(question)
        self.embedded = {i for i in question.explained if not question.inputs.values[i].is_floating_point()}
        first = {i: next(v for (argument, _), v in self.values.items() if argument == i) for i in question.explained}
        self.grids = {i: Grid.over(v, i in self.embedded, resolution) for i, v in first.items()}
        n = question.inputs.samples // copies
        self.cells = {
            i: torch.full(
                (n, 1, *g.cells), 0.5, device=first[i].device, dtype=torch.promote_types(first[i].dtype, torch.float32)
            ).requires_grad_()
            for i, g in self.grids.items()
        }

    def shut(self) -> Masks:
        """Masks that hide everything."""
        return {i: c.new_zeros(len(c), *self.grids[i].shape) for i, c in self.cells.items()}

    def behind(self, given: Any) -> dict[Place, Tensor]:
        """What the masks uncover: baselines as given, by default a blur, or zeros where nothing lies beside another."""
        found = {}
        start = baselines(self.question, given)
        place = torch.arange(self.question.inputs.samples)
        rows = Rows(0, place, torch.zeros_like(place), torch.zeros_like(place), 1)
        for at, value in self.values.items():
            if given is None and self.grids[at[0]].near:
                found[at] = blurred(value, max(value.shape[2:]) / 20, spatial(value))
            else:
                found[at] = start(rows, at, value).expand_as(value)
        return found

    def look(self, masks: Mapping[int, Tensor], behind: Mapping[Place, Tensor]) -> tuple[Tensor, Masks]:
        """Scores behind masks, ``[copies * N]``, and their gradients by the masks, each copy's its own."""
        difference = {p: v - behind[p] for p, v in self.values.items()}
        wide = {i: m.detach().repeat_interleave(self.copies, 0) for i, m in masks.items()}
        points = {p: torch.lerp(behind[p], v, wide[p[0]].to(v.dtype)) for p, v in self.values.items()}
        scores, found = climb(self.question, points, difference)
        pulls = {}
        for i, mask in wide.items():
            gradient = found[i]
            assert gradient is not None
            pulls[i] = gradient.to(mask.dtype).sum_to_size(mask.shape)
        return scores, pulls

    def fit(
        self,
        steps: int,
        rate: float,
        behind: Callable[[int], Mapping[Place, Tensor]],
        slope: Callable[[Tensor], Tensor],
        penalty: Callable[[int, Masks], Tensor],
        shown: Callable[[Tensor], Tensor] = lambda cells: cells,
    ) -> tuple[Masks, Tensor]:
        """Adam on the cells, each step clamped to 0 to 1.

        Args:
            steps, rate: of Adam.
            behind: what the masks uncover at each step.
            slope: the loss's derivative by the scores, ``[copies * N]`` to the same.
            penalty: further terms ``[N]``, by the step and the masks in cells.
            shown: makes of cells what is interpolated to a mask.

        Returns:
            the masks, and the scores of every step, ``[N, steps]``, means over copies.
        """
        optimizer = torch.optim.Adam(list(self.cells.values()), rate)
        curve = []

        def step(rows: slice) -> None:
            low = {i: shown(c) if self.grids[i].widens else c for i, c in self.cells.items()}
            masks = {i: self.grids[i].render(c) for i, c in low.items()}
            scores, pulls = self.look(masks, behind(rows.start))
            curve.append(scores.detach().view(-1, self.copies).mean(1))
            loss = penalty(rows.start, low).sum()
            slopes = slope(scores)
            for i, mask in masks.items():
                pull = pulls[i] * slopes.to(mask).view(-1, *[1] * (mask.dim() - 1))
                loss = loss + (mask * pull.view(len(mask), self.copies, *mask.shape[1:]).mean(1)).sum()
            found = torch.autograd.grad(loss, list(self.cells.values()))
            for cells, gradient in zip(self.cells.values(), found, strict=True):
                cells.grad = gradient
            optimizer.step()
            with torch.no_grad():
                for cells in self.cells.values():
                    cells.clamp_(0, 1)

        replace(self.question, batch_size=None).in_batches(step, steps, 1, "fitting masks")
        with torch.no_grad():
            low = {i: shown(c) if self.grids[i].widens else c for i, c in self.cells.items()}
            return {i: self.grids[i].render(c).detach() for i, c in low.items()}, torch.stack(curve, 1)

    def relevance(self, masks: Mapping[int, Tensor]) -> list[Tensor | None]:
        """Masks as relevance: each value is spread evenly over what it hides, so that sums over channels give it."""
        found: list[Tensor | None] = [None] * len(self.question.inputs.values)
        for (i, _), value in self.values.items():
            shared = value[0].numel() // max(1, masks[i][0].numel())
            found[i] = (masks[i] / shared).to(value.dtype).expand(len(masks[i]), *value.shape[1:]).contiguous()
        return found

    def packed(self, masks: Mapping[int, Tensor]) -> Any:
        """The masks themselves, shaped like the user's input."""
        inputs = self.question.inputs
        return inputs.pack([masks.get(i) for i in range(len(inputs.values))])


def mean_of(masks: Mapping[int, Tensor], what: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean over the cells of all masks of each sample, ``[N]``."""
    return torch.cat([what(m).flatten(1) for m in masks.values()], 1).mean(1)


def neighbours(grid: Grid) -> Sequence[int]:
    """The axes of cells ``[N, 1, ...]`` along which neighbours belong together."""
    return tuple(range(2, 2 + len(grid.cells))) if grid.near else ()


def gap(output: Tensor, behind: Tensor) -> Tensor:
    """How far the score falls behind a full mask, ``[N]``, the unit of losses; at least a hundredth of the score."""
    return torch.maximum((output - behind).abs(), output.abs() / 100).clamp(min=1e-12)
