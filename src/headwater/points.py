"""Where paths begin and what noise is added: points beside the explained ones, for floats and for embeddings alike."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput, NonFinite
from headwater.question import Question


@dataclass(frozen=True)
class Rows:
    """Which sample, draw and point of a draw each row of a batch is.

    Attributes:
        start: place of the first row among all; rows follow each other, points first, then draws, then samples.
        sample, draw, point: ``[M]``, indices.
        points: how many points a draw has.
    """

    start: int
    sample: Tensor
    draw: Tensor
    point: Tensor
    points: int

    @staticmethod
    def of(rows: slice, draws: int, points: int) -> Rows:
        """The rows of a slice of ``range(samples * draws * points)``."""
        place = torch.arange(rows.start, rows.stop)
        return Rows(rows.start, place // (draws * points), place // points % draws, place % points, points)

    @property
    def group_sizes(self) -> list[int]:
        """How many rows each draw has in this batch; the first and the last may have more outside."""
        return torch.unique_consecutive(self.sample * (int(self.draw.max()) + 1) + self.draw, return_counts=True)[
            1
        ].tolist()


Place = tuple[int, int]  # an argument of the model, and which of its embeddings (0 for floats)
Starts = Callable[[Rows, Place, Tensor], Tensor]  # where the paths of some rows begin, given the explained values


@dataclass(frozen=True)
class Noise:
    """Gaussian noise that depends on seed, place and draw alone: a sample gets the same in any batch.

    Attributes:
        level: standard deviation as a share of each sample's own range of values (of embeddings: of theirs).
        sigma: the standard deviation itself, in place of ``level``.
    """

    seed: int
    level: float
    sigma: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("noise_level", self.level), ("sigma", self.sigma)):
            if value is not None and not (isinstance(value, (int, float)) and 0 <= value < float("inf")):
                raise InvalidInput(f"{name} must be a number of at least 0, not {value!r}")

    def __call__(self, rows: Rows, place: Place, value: Tensor) -> Tensor:
        """Noise for the rows of ``value``, ``[M, ...]``."""
        draws, which = rows.draw.unique(return_inverse=True)
        shape = value.shape[1:]
        drawn = [torch.randn(shape, generator=g, device=value.device) for g in self._generators(draws, place, value)]
        noise = torch.stack(drawn).to(value.dtype)
        if not torch.equal(which, torch.arange(len(noise))):  # draws that begin again with another sample
            noise = noise[which.to(value.device)]
        return noise.mul_(self._scale(value))

    def _generators(self, draws: Tensor, place: Place, value: Tensor) -> list[torch.Generator]:
        return [generator(value.device, self.seed, *place, draw) for draw in draws.tolist()]

    def _scale(self, value: Tensor) -> float | Tensor:
        if self.sigma is not None:
            return self.sigma
        flat = value.flatten(1)
        low, high = flat.aminmax(dim=1) if flat.shape[1] else (flat.new_zeros(len(flat)),) * 2
        return (self.level * (high - low)).view(-1, *[1] * (value.dim() - 1))


def generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator of random numbers for this key alone."""
    return torch.Generator(device).manual_seed(zlib.crc32(",".join(map(str, key)).encode()))


# ---------------------------------------------------------------------- baselines and references


@dataclass(frozen=True)
class Points:
    """A point for each of some rows, argument by argument: a baseline for each sample, or a set of references.

    Attributes:
        given: for each argument a number, a function of the explained values, or a tensor that broadcasts to them;
            None stands for zeros.
        embedded: of token ids: the embeddings of the ids given in their place.
        count: how many rows a tensor has that does not hold for all.
    """

    given: Sequence[Any]
    count: int
    embedded: Mapping[Place, Tensor] = field(default_factory=dict)

    def at(self, index: Tensor, place: Place, value: Tensor) -> Tensor:
        """The points at these indices ``[M]``, broadcastable to the explained values ``[M, ...]``."""
        point = self.embedded.get(place, self.given[place[0]])
        if point is None:
            return value.new_zeros(())
        if not isinstance(point, Tensor):
            found = point(value) if callable(point) else value.new_full((), point)
            return _checked(found, value, "what the function for baselines= returned")
        point = point.to(value.device, value.dtype)
        if point.dim() == value.dim() and len(point) == self.count:
            return point[index.to(point.device)]
        return point


def baselines(question: Question, given: Any) -> Starts:
    """Where each draw's paths begin: one baseline, or several in a list, one a draw.

    Args:
        question: about N samples.
        given: None (zeros), a number, a function of the values, a tensor that broadcasts to x (token ids: in the place
            of ids, or floats in that of their embedding), a tuple or dict of these where x is one; or a list of them.
    """
    points = [_of_samples(question, one) for one in (given if isinstance(given, list) else [given])]

    def start(rows: Rows, place: Place, value: Tensor) -> Tensor:
        if len(points) == 1:
            return points[0].at(rows.sample, place, value)
        found = torch.empty_like(value)
        for draw in rows.draw.unique().tolist():
            chosen = rows.draw == draw
            here = chosen.to(value.device)
            found[here] = points[draw].at(rows.sample[chosen], place, value[here])
        return found

    if not points:
        raise InvalidInput("baselines= is an empty list: pass at least one baseline")
    return start


def _of_samples(question: Question, given: Any) -> Points:
    parts = _parts(question, given, "baselines")
    for i in question.explained:
        value, part = question.inputs.values[i], parts[i]
        if isinstance(part, Tensor) and (value.is_floating_point() or not part.is_floating_point()):
            _checked(part, value, f"baselines for argument {i}")
    count = question.inputs.samples
    ids = {i: part for i, part in enumerate(parts) if _ids(part) and not question.inputs.values[i].is_floating_point()}
    if not ids:
        return Points(parts, count)
    values = [ids[i].expand_as(v).to(v) if i in ids else v for i, v in enumerate(question.inputs.values)]
    return Points(parts, count, embeddings(question.about(values)))


def references(question: Question, given: Any, draws: int) -> Starts:
    """Where each draw's paths begin: at a sample of a reference set, drawn without repeats as long as there are some.

    Args:
        question: about N samples.
        given: reference samples ``[B, *x.shape[1:]]``, for all arguments that are explained.

    Raises:
        InvalidInput: where there are none, or they are not shaped like samples.
    """
    parts = _parts(question, given, "references")
    counts = set()
    for i in question.explained:
        part, value = parts[i], question.inputs.values[i]
        if not isinstance(part, Tensor) or part.shape[1:] != value.shape[1:] or not len(part):
            got = f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
            wanted = ", ".join(map(str, ("B", *value.shape[1:])))
            raise InvalidInput(f"references= must hold samples to compare with, [{wanted}], not {got}")
        _checked(part[0], value[0], f"references for argument {i}")
        counts.add(len(part))
    if len(counts) != 1:
        raise InvalidInput(f"references= holds different numbers of samples for different arguments: {counts}")
    (count,) = counts
    points = Points(parts, count, _embedded_references(question, parts, count))
    order = torch.cat(
        [torch.randperm(count, generator=generator("cpu", question.seed, k)) for k in range(-(-draws // count))]
    )

    def start(rows: Rows, place: Place, value: Tensor) -> Tensor:
        return points.at(order[rows.draw], place, value)

    return start


def _embedded_references(question: Question, parts: Sequence[Any], count: int) -> dict[Place, Tensor]:
    """Embeddings of reference ids; what is not explained is taken from the first sample."""
    if all(question.inputs.values[i].is_floating_point() for i in question.explained):
        return {}
    first = question.select(torch.zeros(count, dtype=torch.long))
    values = [parts[i] if i in question.explained else v for i, v in enumerate(first.inputs.values)]
    return embeddings(first.about(values))


def embeddings(question: Question) -> dict[Place, Tensor]:
    """The embeddings ``[N, *ids, D]`` of a question's token ids, as the model makes them."""
    found: list[dict[Place, Tensor]] = []

    def work(rows: slice) -> None:
        seen: dict[Place, Tensor] = {}

        def record(argument: int, occurrence: int, value: Tensor) -> tuple[Tensor, None]:
            seen[argument, occurrence] = value.clone()
            return value, None

        replace(question.select(torch.arange(rows.start, rows.stop)), move=record).scores()
        found.append(seen)

    question.in_batches(work, question.inputs.samples)
    ids = {i for i in question.explained if not question.inputs.values[i].is_floating_point()}
    return {place: torch.cat([f[place] for f in found]) for place in found[0] if place[0] in ids}


def _parts(question: Question, given: Any, name: str) -> list[Any]:
    """One entry for each argument of the model."""
    inputs = question.inputs
    if given is None and name == "references":
        raise InvalidInput("references= is missing: pass samples to compare with, such as some of the training data")
    if isinstance(given, Mapping) and inputs.names is not None:
        unknown = [k for k in given if k not in inputs.names]
        if unknown:
            raise InvalidInput(f"{name}= names {unknown[0]!r}; the inputs are {', '.join(inputs.names)}")
        parts = [given.get(k) for k in inputs.names]
    elif isinstance(given, tuple) and not inputs.single:
        if len(given) != len(inputs.values):
            raise InvalidInput(f"{name}= holds {len(given)} entries for {len(inputs.values)} inputs")
        parts = list(given)
    else:
        parts = [given if i in question.explained else None for i in range(len(inputs.values))]
    return [p if i in question.explained else None for i, p in enumerate(map(_point, parts))]


def _point(given: Any) -> Any:
    """A number, a function, a tensor or None; arrays become tensors."""
    if given is None or isinstance(given, (int, float, Tensor)) or callable(given):
        return given
    if hasattr(given, "__array__"):
        return torch.as_tensor(given)
    raise InvalidInput(
        f"A point of type {type(given).__name__} is not known: pass a number, a tensor, a function of the input, or a "
        "list of several"
    )


def _ids(part: Any) -> bool:
    return isinstance(part, Tensor) and not part.is_floating_point()


def _checked(point: Any, value: Tensor, label: str) -> Tensor:
    """A point that broadcasts to the explained values.

    Raises:
        InvalidInput: it does not; NonFinite: it holds NaN or infinity.
    """
    if not isinstance(point, Tensor):
        raise InvalidInput(f"{label} must be a tensor, not {type(point).__name__}")
    try:
        fits = torch.broadcast_shapes(point.shape, value.shape) == value.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise InvalidInput(f"{label} has shape {tuple(point.shape)}, which does not broadcast to {tuple(value.shape)}")
    if point.is_floating_point() and not bool(point.isfinite().all()):
        raise NonFinite(f"{label} holds NaN or infinity")
    return point
