"""Is this relevance more than a model without knowledge would show? Null maps and p-values of many features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput
from headwater.evaluate.asking import settled_target
from headwater.evaluate.explainer import Explainer, Method
from headwater.evaluate.maps import Part, part_of, relevance_of
from headwater.evaluate.randomization import Redraw, redraw
from headwater.evaluate.statistics import Correction, adjusted

Scale = Literal["total", "maximum", "none"]


@dataclass(frozen=True)
class Significance:
    """Which features of a map stand out from a null.

    Attributes:
        p: corrected p-values, shaped like the map ``[N, ...]``.
        significant: ``p <= level``.
        level, settings: how it was tested.
        draws: null maps; the smallest p-value before correction is ``1 / (draws + 1)``.
    """

    p: Tensor
    significant: Tensor
    level: float
    draws: int
    settings: dict[str, Any]

    @property
    def share(self) -> Tensor:
        """Share of significant features, ``[N]``; about ``level`` or less for a map that is chance."""
        return self.significant.flatten(1).double().mean(1)


def significance(
    relevance: Any, null: Any, *, part: Part = "absolute", scale: Scale = "total", level: float = 0.05,
    correction: Correction | Literal["maximum"] = "maximum",
) -> Significance:  # fmt: skip
    """Compare a map with null maps, feature by feature.

    ``p = (1 + number of null maps that reach it) / (1 + number of null maps)``.

    Args:
        relevance: an explanation or ``[N, ...]``.
        null: maps under the null ``[D, N, ...]``, as of :func:`randomized_maps` or :func:`permuted_label_maps`.
        part: of the relevance that is compared; positive relevance against positive relevance, say.
        scale: models differ in the size of their output: ``"total"`` divides each map by its Σ|R|, ``"maximum"`` by its
            largest magnitude, ``"none"`` leaves them.
        level: of significance.
        correction: for the number of features, within each sample: ``"maximum"`` compares each feature with the largest
            of each null map, which bounds the chance of any false one and needs no more draws for more features;
            or one of :func:`~headwater.evaluate.adjusted`.

    Raises:
        InvalidInput: shapes that do not fit.

    Source: Nichols, Holmes: Nonparametric Permutation Tests for Functional Neuroimaging, Human Brain Mapping 15, 2002.
    """
    maps = relevance_of(relevance).double()
    nulls = relevance_of(null, "null").double().to(maps.device)
    if nulls.dim() != maps.dim() + 1 or nulls.shape[1:] != maps.shape:
        raise InvalidInput(f"null maps must have shape [D, *{list(maps.shape)}], not {list(nulls.shape)}")
    own, others = _scaled(maps, part, scale), torch.stack([_scaled(m, part, scale) for m in nulls])
    if correction == "maximum":
        p = _exceeded(own, others.amax(2, keepdim=True).expand_as(others))
    else:
        p = torch.stack([adjusted(row, correction) for row in _exceeded(own, others)])
    p = p.reshape(maps.shape)
    settings = {"part": part, "scale": scale, "correction": correction}
    return Significance(p, p <= level, level, len(nulls), settings)


def randomized_maps(
    model: nn.Module, x: Tensor, method: Method = "lrp", target: Any = None, *, draws: int = 99,
    how: Redraw = "permute", seed: int = 0,
) -> Tensor:  # fmt: skip
    """Maps of models without knowledge: the same architecture, all parameters drawn anew, ``[draws, N, ...]``.

    Args:
        model: a module; copies of it are randomized. ``x``, ``method``, ``target``: as for
            :func:`~headwater.evaluate.parameter_randomization`.
        draws: how many null maps.
        how: see :func:`~headwater.evaluate.parameter_randomization`; shuffled weights keep each layer's scale.
        seed: of the random numbers.

    Source: Adebayo et al.: Sanity Checks for Saliency Maps, NeurIPS 2018.
    """
    if draws < 1:
        raise InvalidInput(f"draws must be at least 1, not {draws}")
    chosen = settled_target(model, x, target)
    randomized = (redraw(copy.deepcopy(model), None, how, seed + i) for i in range(draws))
    return _maps_of(randomized, x, method, chosen)


def permuted_label_maps(
    train: Callable[[Tensor], Any], labels: Tensor, x: Tensor, method: Method = "lrp", target: Any = None, *,
    draws: int = 19, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Maps of models that learnt from permuted labels, and so nothing about them, ``[draws, N, ...]``.

    Args:
        train: the user's training: called with permuted labels ``[M]``, it returns a model.
        labels: of the training samples, ``[M]``.
        x, method: as for :func:`randomized_maps`.
        target: what each of the models is asked; it must be given where the models would choose differently.
        draws: how many models are trained.
        seed: of the permutations.

    Source: Adebayo et al.: Sanity Checks for Saliency Maps, NeurIPS 2018, Section 3.2 (data randomization).
    """
    if draws < 1:
        raise InvalidInput(f"draws must be at least 1, not {draws}")
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(labels), generator=generator) for _ in range(draws)]
    return _maps_of((train(labels[order.to(labels.device)]) for order in orders), x, method, target)


def _maps_of(models: Iterable[Any], x: Tensor, method: Method, target: Any) -> Tensor:
    explainer = Explainer.of(method)
    return torch.stack([explainer.maps(model, x, target) for model in models])


def _scaled(maps: Tensor, part: Part, scale: Scale) -> Tensor:
    """``[N, F]``; a map of zeros stays one."""
    rows = maps.flatten(1)
    if scale not in ("total", "maximum", "none"):
        raise InvalidInput(f"scale must be 'total', 'maximum' or 'none', not {scale!r}")
    size = {"total": rows.abs().sum(1), "maximum": rows.abs().amax(1), "none": rows.new_ones(len(rows))}[scale]
    return part_of(rows, part) / torch.where(size > 0, size, torch.ones_like(size))[:, None]


def _exceeded(own: Tensor, null: Tensor) -> Tensor:
    return (1 + (null >= own).sum(0)) / (1 + len(null))
