"""What takes the place of what is removed.

An imputer is prepared once for all inputs; what comes of it fills the holes of any batch of their copies. Some draw:
they fill a hole in ``draws`` ways, the same for all samples and holes, over which the model's answers are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra


class Fill(Protocol):
    """Fills the holes of copies of the inputs that an imputer was prepared for."""

    def __call__(self, x: Tensor, hole: Tensor, rows: Tensor, draw: Tensor | None = None) -> Tensor:
        """The copies with their holes filled.

        Args:
            x: the copies, ``[R, ...]``, or one row for all where they are x of one sample.
            hole: broadcastable to ``[R, ...]``: bool, or how much of each entry is removed, 0 to 1.
            rows: which of the N inputs each is a copy of, ``[R]``.
            draw: which of the imputer's draws each takes, ``[R]``; None takes the first.
        """
        ...


class Imputer(Protocol):
    """Fills holes; ``repr`` says how."""

    @property
    def draws(self) -> int:
        """In how many ways a hole is filled."""
        ...

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        """Make ready for copies of ``x``, ``[N, ...]``, drawing what is random.

        Raises:
            InvalidInput: inputs that this imputer cannot fill.
        """
        ...


def mixed(x: Tensor, own: Tensor, hole: Tensor) -> Tensor:
    """``own`` in the hole and ``x`` elsewhere; in between where a hole is partial."""
    if hole.dtype == torch.bool:
        return torch.where(hole, own, x)
    if not x.is_floating_point():
        raise InvalidInput("token ids cannot be removed in part: choose a method whose holes are whole")
    return torch.lerp(x, own, hole.to(x.dtype))


def filling(reference: Tensor) -> Fill:
    """Take what was removed from a reference ``[N or 1, ...]``."""

    def fill(x: Tensor, hole: Tensor, rows: Tensor, draw: Tensor | None = None) -> Tensor:
        own = reference if len(reference) == 1 else reference[rows.to(reference.device)]
        return mixed(x, own, hole)

    return fill


def drawing(drawn: Tensor, low: Tensor | float = 0.0, span: Tensor | float = 1.0) -> Fill:
    """Take it from draws ``[D, ...]`` that all samples share, times ``span`` plus ``low``: numbers, or ``[N, ...]``."""

    def at(value: Tensor | float, rows: Tensor) -> Tensor | float:
        return value[rows.to(value.device)] if isinstance(value, Tensor) else value

    def fill(x: Tensor, hole: Tensor, rows: Tensor, draw: Tensor | None = None) -> Tensor:
        own = drawn[:1] if draw is None or len(drawn) == 1 else drawn[draw.to(drawn.device)]
        if isinstance(low, Tensor) or low != 0.0 or span != 1.0:
            own = at(low, rows) + at(span, rows) * own
        return mixed(x, own, hole)

    return fill


@dataclass(frozen=True)
class Constant:
    """A fixed value: a number, a token id, or a tensor that broadcasts to one input."""

    value: Any = 0.0
    draws = 1

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        try:
            value = torch.as_tensor(self.value, dtype=x.dtype, device=x.device)
            reference = value.expand(1, *x.shape[1:])
        except (RuntimeError, TypeError, ValueError):
            raise InvalidInput(f"a constant {self.value!r} does not fit x {list(x.shape)}") from None
        return filling(reference)


@dataclass(frozen=True)
class Mean:
    """Each sample's own mean, per channel where there are channels."""

    draws = 1

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        want_floats(self, x)
        return filling(x.mean(_own_axes(x), keepdim=True).expand_as(x))


@dataclass(frozen=True)
class Uniform:
    """Numbers drawn uniformly from ``low`` to ``high``: numbers, or tensors that broadcast to one input.

    By default they reach over each sample's own range, per channel where there are channels.
    """

    low: Any = None
    high: Any = None
    draws: int = 1

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        want_floats(self, x)
        low = x.amin(_own_axes(x), keepdim=True) if self.low is None else _fitted(self.low, x)
        high = x.amax(_own_axes(x), keepdim=True) if self.high is None else _fitted(self.high, x)
        drawn = torch.rand(self.draws, *x.shape[1:], generator=generator, dtype=torch.float64).to(x.device, x.dtype)
        return drawing(drawn, low, high - low)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise with each sample's own mean and ``deviation`` times its own deviation, per channel."""

    deviation: float = 1.0
    draws: int = 1

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        want_floats(self, x)
        mean = x.mean(_own_axes(x), keepdim=True)
        spread = (x - mean).square().mean(_own_axes(x), keepdim=True).sqrt()
        drawn = torch.randn(self.draws, *x.shape[1:], generator=generator, dtype=torch.float64).to(x.device, x.dtype)
        return drawing(drawn, mean, self.deviation * spread)


@dataclass(frozen=True)
class Blur:
    """The picture or series blurred by a Gaussian of this deviation, in pixels or steps."""

    deviation: float = 5.0
    draws = 1

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        want_floats(self, x)
        if x.dim() < 3 or self.deviation <= 0:
            raise InvalidInput(f"{self} needs pictures or series and a positive deviation, not x {list(x.shape)}")
        radius = max(1, round(3 * self.deviation))
        offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
        kernel = (-0.5 * (offsets / self.deviation).square()).exp()
        blurred = x
        for axis in range(2, x.dim()):
            rows = blurred.movedim(axis, -1)
            flat = rows.reshape(-1, 1, rows.shape[-1])
            weight = F.conv1d(torch.ones_like(flat[:1]), kernel[None, None], padding=radius)
            flat = F.conv1d(flat, kernel[None, None], padding=radius) / weight  # nothing enters from beyond the edge
            blurred = flat.reshape(rows.shape).movedim(-1, axis)
        return filling(blurred)


@dataclass(frozen=True)
class Delete:
    """Words leave the text: what follows moves up, and ``padding`` fills the end.

    Args:
        padding: the id that the model takes for padding.
    """

    padding: int = 0
    draws = 1

    def prepare(self, x: Tensor, generator: torch.Generator) -> Fill:
        if x.dim() != 2 or x.is_floating_point():
            raise InvalidInput(f"{self} needs token ids [N, T], not {x.dtype} {list(x.shape)}")

        def fill(x: Tensor, hole: Tensor, rows: Tensor, draw: Tensor | None = None) -> Tensor:
            want_whole(self, hole)
            hole = hole.expand(len(rows), x.shape[1])
            x = x.expand_as(hole)
            order = hole.to(torch.uint8).argsort(dim=1, stable=True)
            kept = torch.arange(x.shape[1], device=x.device) < (~hole).sum(1, keepdim=True)
            return torch.where(kept, x.gather(1, order), torch.full_like(x, self.padding))

        return fill


def want_floats(imputer: Any, x: Tensor) -> None:
    """Refuse token ids.

    Raises:
        InvalidInput: for them.
    """
    if not x.is_floating_point():
        raise InvalidInput(
            f"{imputer} cannot fill token ids: use Constant(id), Delete(padding) or Marginal(references)"
        )


def want_whole(imputer: Any, hole: Tensor) -> None:
    """Refuse holes that remove entries in part.

    Raises:
        InvalidInput: for them.
    """
    if hole.dtype != torch.bool:
        raise InvalidInput(f"{imputer} fills whole holes only: choose Constant, Mean or Blur for masks that are soft")


def optional(module: str, package: str) -> Any:
    """A module of an optional package.

    Raises:
        MissingExtra: where it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra("remove", package) from error


def _own_axes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2 if x.dim() > 2 else 1, x.dim()))


def _fitted(value: Any, x: Tensor) -> Tensor:
    """One value for each of the samples, broadcastable to ``x``."""
    try:
        return torch.as_tensor(value, dtype=x.dtype, device=x.device).expand_as(x)
    except (RuntimeError, TypeError, ValueError):
        raise InvalidInput(f"bounds {value!r} do not fit x of shape {list(x.shape)}") from None
