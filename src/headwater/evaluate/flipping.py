"""Pixel-flipping: remove features in the order of their relevance and watch the model's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.evaluate.asking import Asking, Output, asking, pooled, removal_of
from headwater.evaluate.statistics import bootstrap_interval
from headwater.remove.features import Pool
from headwater.remove.imputers import Blur, Constant
from headwater.remove.removal import Removal, repeated

Order = Literal["most", "least", "random"]
ORDERS = ("most", "least", "random")
STEPS = 50  # by default, where there are more features


@dataclass(frozen=True)
class Flipping:
    """What the model answered as more and more features were removed; unpacks into ``curve, area``.

    Attributes:
        curves: ``[N, steps + 1]`` in float64; the first is the answer to the input itself.
        fractions: of the features that were removed at each step (of those kept, for insertion), ``[steps + 1]``.
        settings: how it was done: every choice by name.
    """

    curves: Tensor
    fractions: Tensor
    settings: dict[str, Any]

    def __iter__(self) -> Iterator[Any]:
        return iter((self.curve, self.area))

    @cached_property
    def curve(self) -> Tensor:
        """The mean over samples, ``[steps + 1]``."""
        return self.curves.mean(0)

    @property
    def area(self) -> float:
        """Area under the mean curve over the range of fractions, by the trapezoidal rule, divided by that range."""
        return float(self.areas.mean())

    @cached_property
    def areas(self) -> Tensor:
        """The area under each sample's curve, ``[N]``; a sample's mean height."""
        return torch.trapezoid(self.curves, self.fractions, dim=1) / (self.fractions[-1] - self.fractions[0])

    @cached_property
    def over(self) -> Tensor:
        """The area over each sample's curve, up to its first value, ``[N]``."""
        return self.curves[:, 0] - self.areas

    @cached_property
    def aopc(self) -> Tensor:
        """Area over the perturbation curve, ``1 / (L + 1) Σ_k (f(x_0) - f(x_k))``, ``[N]`` (Samek et al. 2017)."""
        return (self.curves[:, :1] - self.curves).mean(1)

    @property
    def relative(self) -> Flipping:
        """The same in units of each sample's first value, as the overview draws it (0.8: a fifth is lost).

        Raises:
            InvalidInput: a first value that is not positive.
        """
        if not bool((self.curves[:, 0] > 0).all()):
            raise InvalidInput(
                "a curve that does not start above zero has no relative height: choose output='probability'"
            )
        return Flipping(self.curves / self.curves[:, :1], self.fractions, {**self.settings, "relative": True})

    def interval(self, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Bootstrap interval of the curve over samples: low and high, ``[steps + 1]`` each."""
        return bootstrap_interval(self.curves, confidence=confidence, resamples=resamples, seed=seed)

    def area_interval(self, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Bootstrap interval of the area over samples: low and high."""
        low, high = bootstrap_interval(self.areas, confidence=confidence, resamples=resamples, seed=seed)
        return float(low), float(high)

    def plot(self, title: str = "", ax: Any = None) -> Any:
        """A figure of the mean curve with its band; see :func:`plot_curves`."""
        from headwater.evaluate.drawing import plot_curves

        return plot_curves({self.settings["order"]: self}, title=title, ax=ax)

    def __repr__(self) -> str:
        low, high = self.area_interval()
        return (
            f"Flipping({len(self.curves)} samples, {len(self.fractions) - 1} steps, "
            f"area {self.area:.4g} [{low:.4g}, {high:.4g}], {self.settings})"
        )


def pixel_flipping(
    model: Callable[..., Any], x: Any, relevance: Any, target: Any = None, *, features: Any = None, imputer: Any = None,
    references: Any = None, order: Order = "most", pool: Pool = "sum", output: Output = "score",
    steps: int | None = None, step_size: int | None = None, until: float = 1.0, insert: bool = False,
    argument: Any = None, batch_size: int | None = None, seed: int = 0, progress: bool | None = None,
) -> Flipping:  # fmt: skip
    """Remove features from the most relevant to the least and record what the model answers.

    All steps of all samples go through the model in full batches; nothing else costs more than they do.

    Args:
        model: a module or any function of tensors.
        x: as for ``hw.explain``: a tensor, or a tuple or dict of what the model takes.
        relevance: an explanation of ``x``, or relevance ``[N, ...]`` shaped like it (channels may be summed), or of
            the features themselves, ``[N, F]``.
        target: what the model is asked; left open, the explanation's own, else what it predicts at ``x``.
        features: what is removed at once; see :func:`headwater.remove.features.features_of`. By default single pixels,
            time steps, words or columns.
        imputer: what takes its place: an imputer, a value, or a name; see
            :func:`headwater.remove.choices.imputer_of`. By default inpainting for pictures and series, zero for tables,
            and for words the id that the model pads with.
        references: examples for the imputers that take from some, ``[M, ...]``.
        order: ``"most"`` relevant first, ``"least"`` first, or ``"random"``; of equals the first comes first.
        pool: of the relevance within a feature: ``"sum"``, ``"mean"`` (fair to superpixels of any size), ``"maximum"``.
        output: what is recorded: the target's ``"score"``, its ``"probability"``, or the ``"accuracy"``.
        steps: how many; by default each feature is one, but at most 50. They need not divide the number of features.
        step_size: features a step, instead of ``steps``; the last step may be smaller.
        until: the fraction of the features at which to end.
        insert: go the other way: begin with nothing but the imputer's values and insert features in this order.
        argument: which one is changed, or several, where the model takes several; by default all that are explained.
        batch_size: rows a forward pass; by default as many as 8 million values hold, 256 at most.
        seed: of the random order and of imputers that draw.
        progress: as for ``hw.explain``.

    Returns:
        A :class:`Flipping`: ``curve, area = pixel_flipping(...)``; also ``.curves`` ``[N, steps + 1]``, ``.aopc``,
        ``.interval()``.

    Raises:
        InvalidInput, InvalidTarget: arguments that do not fit; NonFinite: of the model's answers.

    Source: Samek et al. 2021 (review), Algorithm 3; Samek et al. 2018 (overview), Section 4; Samek et al.: Evaluating
    the Visualization of What a Deep Neural Network Has Learned, IEEE TNNLS 28(11), 2017.
    """
    if target is None:
        target = getattr(relevance, "target", None)
    question = asking(model, x, target, output, batch_size=batch_size, seed=seed, progress=progress)
    removal = removal_of(question, features, imputer, references, argument)
    return flip(question, removal, relevance, order, pool, steps, step_size, until, insert, imputer)


def flip(
    question: Asking, removal: Removal, relevance: Any, order: Order = "most", pool: Pool = "sum",
    steps: int | None = None, step_size: int | None = None, until: float = 1.0, insert: bool = False,
    imputer: Any = None,
) -> Flipping:  # fmt: skip
    """:func:`pixel_flipping` on a question that was put already; ``imputer`` is what the settings tell of it."""
    ranks = ranking(pooled(removal, relevance, pool), order, question.seed)
    counts, fractions = schedule(removal.counts, steps, step_size, until)
    settings = flip_settings(question, removal, order, pool, insert, imputer)
    return Flipping(_flip(question, removal, ranks, counts, insert), fractions, settings)


def flip_settings(
    question: Asking, removal: Removal, order: Order, pool: Pool, insert: bool, imputer: Any
) -> dict[str, Any]:
    """Every choice of a flipping by name."""
    return {
        "order": order, "features": removal.sites[0].features.name, "imputer": _told(imputer, removal), "pool": pool,
        "output": question.output, "insert": insert, "seed": question.seed,
    }  # fmt: skip


def deletion(model: Callable[..., Any], x: Any, relevance: Any, target: Any = None, **options: Any) -> Flipping:
    """The deletion game: the class's probability as its most relevant features are set to zero; small areas are good.

    Args:
        model, x, relevance, target, options: as for :func:`pixel_flipping`.

    Source: Petsiuk, Das, Saenko: RISE, BMVC 2018, Section 4.2.
    """
    return pixel_flipping(model, x, relevance, target, **{"imputer": Constant(), "output": "probability", **options})


def insertion(model: Callable[..., Any], x: Any, relevance: Any, target: Any = None, **options: Any) -> Flipping:
    """The insertion game: the class's probability as its most relevant features enter a blurred picture; large is good.

    Args:
        model, x, relevance, target, options: as for :func:`pixel_flipping`. What is no picture or series starts from
            zero instead of a blur.

    Source: Petsiuk, Das, Saenko: RISE, BMVC 2018, Section 4.2.
    """
    blurred = isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 2
    chosen = {"imputer": Blur(10.0) if blurred else Constant(), "output": "probability", "insert": True, **options}
    return pixel_flipping(model, x, relevance, target, **chosen)


def ranking(pooled: Tensor, order: Order, seed: int = 0) -> Tensor:
    """At which place each feature is removed, int32 ``[N, F]``: 0 first.

    Args:
        pooled: relevance of the features, ``[N, F]``; minus infinity where a sample has no such feature.
        order, seed: as for :func:`pixel_flipping`.

    Raises:
        InvalidInput: another order.
    """
    if order not in ORDERS:
        raise InvalidInput(f"order must be one of {', '.join(ORDERS)}, not {order!r}")
    if order == "random":
        draw = torch.rand(pooled.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        pooled = torch.where(pooled.isfinite(), draw, pooled)
    elif order == "least":
        pooled = torch.where(pooled.isfinite(), -pooled, pooled)
    first = pooled.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(pooled.shape[1], dtype=torch.int32).expand_as(first)
    return torch.empty_like(places, memory_format=torch.contiguous_format).scatter_(1, first, places)


def schedule(counts: Tensor, steps: int | None, step_size: int | None, until: float) -> tuple[Tensor, Tensor]:
    """How many features of each sample are removed at each step, ``[N, steps + 1]``, and the fractions ``[steps + 1]``.

    Args:
        counts: how many features each sample has, ``[N]``; the others: as for :func:`pixel_flipping`.

    Raises:
        InvalidInput: no steps, both ways to give them, or a fraction outside 0 to 1.
    """
    if (steps is not None and step_size is not None) or not 0 < until <= 1:
        raise InvalidInput(f"give steps or step_size, and until above 0 up to 1, not {steps}, {step_size}, {until}")
    most = int(counts.max())
    last = max(1, round(until * most))
    if step_size is not None:
        if not 1 <= step_size <= most:
            raise InvalidInput(f"step_size must be 1 to {most} features, not {step_size}")
        removed = torch.tensor([*range(0, last, step_size), last])
    else:
        number = min(last, STEPS) if steps is None else steps
        if not 1 <= number <= last:
            raise InvalidInput(f"steps must be 1 to {last}, the number of features to remove, not {number}")
        removed = torch.linspace(0, last, number + 1, dtype=torch.float64).round().long()
    fractions = removed.double() / most
    return (fractions * counts[:, None]).round().int(), fractions


def _flip(question: Asking, removal: Removal, ranks: Tensor, counts: Tensor, insert: bool) -> Tensor:
    """The answers, ``[N, steps + 1]``."""
    device = removal.device
    # What belongs to no feature stays: it is never removed, or there from the start.
    outside = -1 if insert else removal.most
    places = [site.features.placed(ranks, outside=outside).to(device) for site in removal.sites]
    if not insert:
        counts = counts[:, 1:]  # the answer to the input itself is known
    counts = counts.to(device)
    samples, steps = counts.shape
    rows = repeated(samples, steps)

    def holes(at: Tensor) -> list[Tensor]:
        own = rows[at].to(device)
        reached = counts[own, at.to(device) % steps]
        removed = (place[own] < reached.view(-1, *[1] * (place.dim() - 1)) for place in places)
        return [~hole if insert else hole for hole in removed]

    answers = removal.answers(holes, rows, "flipping").mean(1).view(samples, steps)
    return answers if insert else torch.cat([question.clean[:, None].double().cpu(), answers], 1)


def _told(imputer: Any, removal: Removal) -> str:
    """The imputer in words."""
    if imputer is not None:
        return imputer if isinstance(imputer, str) else repr(imputer)
    x = removal.question.inputs.values[removal.sites[0].place]
    return (
        "inpaint" if x.is_floating_point() and x.dim() in (3, 4, 5) else "zero" if x.is_floating_point() else "padding"
    )
