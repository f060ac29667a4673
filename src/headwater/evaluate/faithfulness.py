"""Does relevance say how the model answers when features change? Correlations, infidelity, sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.evaluate.asking import Asking, Output, asking, pooled, removal_of, settled_target
from headwater.evaluate.explainer import Explainer, Method
from headwater.evaluate.flipping import Flipping, pixel_flipping
from headwater.evaluate.maps import relevance_of
from headwater.remove.features import Pool
from headwater.remove.inpainting import NoisyLinear
from headwater.remove.removal import Removal, repeated

PER_UNIT = ("gradient", "sensitivity", "guided_backprop", "deconvnet")  # methods whose map is a factor of the input


@dataclass(frozen=True)
class SensitivityN:
    """Correlation of what was removed and what the model lost.

    Attributes:
        sizes: n, the number of features removed together, ``[S]``.
        correlations: Pearson's, ``[S, N]``; NaN where the answers or the sums do not vary.
        settings: how it was measured.
    """

    sizes: tuple[int, ...]
    correlations: Tensor
    settings: dict[str, Any]

    @property
    def mean(self) -> Tensor:
        """Mean over samples, ``[S]``."""
        return self.correlations.nanmean(1)


def sensitivity_n(
    model: Callable[..., Any], x: Any, relevance: Any, target: Any = None, *, sizes: Sequence[int] | None = None,
    subsets: int = 100, features: Any = None, imputer: Any = 0, references: Any = None, pool: Pool = "sum",
    output: Output = "score", argument: Any = None, batch_size: int | None = None, seed: int = 0,
    progress: bool | None = None,
) -> SensitivityN:  # fmt: skip
    """For random sets of n features: does the sum of their relevance tell what the model loses without them?

    ``corr_S (Σ_{i in S} R_i, f(x) - f(x without S))`` over sets S of n features.

    Args:
        model, x, relevance, target, features, imputer, references, pool, output, argument, batch_size, seed, progress:
            as for :func:`~headwater.evaluate.pixel_flipping`; the imputer is zero by default, as in the paper.
        sizes: n; by default about ten from 1 to 80 % of the features, evenly spaced in their logarithm.
        subsets: random sets of each size.

    Raises:
        InvalidInput: sizes outside 1 to F, or fewer than 2 subsets.

    Source: Ancona et al.: Towards Better Understanding of Gradient-based Attribution Methods, ICLR 2018, Section 4.
    """
    target = getattr(relevance, "target", None) if target is None else target
    question = asking(model, x, target, output, batch_size=batch_size, seed=seed, progress=progress)
    removal = removal_of(question, features, imputer, references, argument)
    relevances, fewest = pooled(removal, relevance, pool), int(removal.counts.min())
    if sizes is None:
        spaced = torch.logspace(0, torch.tensor(max(1.0, 0.8 * fewest)).log10(), 10).round().int()
        sizes = sorted(set(spaced.tolist()))
    if not sizes or min(sizes) < 1 or max(sizes) > fewest or subsets < 2:
        raise InvalidInput(
            f"sizes must lie in 1 to {fewest} and subsets be at least 2, not {list(sizes)} and {subsets}"
        )
    rows = [
        _pearson(*_random_removals(question, removal, relevances, n, subsets, seed + i)) for i, n in enumerate(sizes)
    ]
    settings = {
        "features": removal.sites[0].features.name, "imputer": repr(imputer), "pool": pool, "output": output,
        "subsets": subsets, "seed": seed,
    }  # fmt: skip
    return SensitivityN(tuple(sizes), torch.stack(rows), settings)


def faithfulness_correlation(
    model: Callable[..., Any], x: Any, relevance: Any, target: Any = None, *, size: int | None = None,
    subsets: int = 100, features: Any = None, imputer: Any = 0, references: Any = None, pool: Pool = "sum",
    output: Output = "score", argument: Any = None, batch_size: int | None = None, seed: int = 0,
    progress: bool | None = None,
) -> Tensor:  # fmt: skip
    """Correlation of the relevance of random sets of ``size`` features with what the model loses without them, ``[N]``.

    Args:
        size: features a set, a fifth of them by default; the rest as for :func:`sensitivity_n`, of which this is
            one size.

    Source: Bhatt, Weller, Moura: Evaluating and Aggregating Feature-based Model Explanations, IJCAI 2020, Eq. 3.
    """
    target = getattr(relevance, "target", None) if target is None else target
    question = asking(model, x, target, output, batch_size=batch_size, seed=seed, progress=progress)
    removal = removal_of(question, features, imputer, references, argument)
    relevances, fewest = pooled(removal, relevance, pool), int(removal.counts.min())
    size = max(1, round(0.2 * fewest)) if size is None else size
    if not 1 <= size <= fewest or subsets < 2:
        raise InvalidInput(f"size must lie in 1 to {fewest} and subsets be at least 2, not {size} and {subsets}")
    return _pearson(*_random_removals(question, removal, relevances, size, subsets, seed))


def infidelity(
    model: Callable[..., Any], x: Any, relevance: Any, target: Any = None, *, perturbation: str = "removal",
    deviation: float = 0.1, draws: int = 100, normalize: bool = False,
    per_unit: bool | None = None, batch_size: int | None = None,
    seed: int = 0, progress: bool | None = None,
) -> Tensor:  # fmt: skip
    """Expected squared error of the map as a linear model of the answer, ``[N]``: 0 is perfect.

    ``E_I [ (I · a - (f(x) - f(x - I)))² ]``, where a is the attribution per unit of change.

    Args:
        model, x, target, batch_size, seed, progress: as for :func:`~headwater.evaluate.pixel_flipping`.
        relevance: a map shaped like ``x``. Relevance in units of the output is divided by the input: ``a = R / x``, so
            that ``I · a = Σ_i R_i I_i / x_i`` (0 where x is 0).
        per_unit: the map is a already, as a gradient is. None: what the explanation's method gives: True for gradient,
            sensitivity, guided backprop and deconvnet, else False (say True for SmoothGrad of gradients).
        perturbation: ``"removal"``: each value is set to zero with probability a half (``I = x ⊙ z``, so that
            ``I · a = Σ_i R_i z_i``); ``"noise"``: ``I`` is Gaussian of this ``deviation``.
        draws: of the perturbation, for each sample.
        normalize: scale each map by the factor that fits best, ``E[(I·a) Δf] / E[(I·a)²]``, so that only its direction
            is judged.

    Raises:
        InvalidInput: relevance of another shape, or an unknown perturbation.

    Source: Yeh et al.: On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, Definition 2.1.
    """
    if perturbation not in ("removal", "noise") or draws < 1:
        raise InvalidInput(
            f"perturbation must be 'removal' or 'noise' and draws at least 1, not {perturbation!r}, {draws}"
        )
    target = getattr(relevance, "target", None) if target is None else target
    question = asking(model, x, target, batch_size=batch_size, seed=seed, progress=progress)
    maps = relevance_of(relevance)
    if not question.inputs.single or maps.shape != x.shape or not x.is_floating_point():
        raise InvalidInput("infidelity needs one tensor of floats x, and relevance of the same shape")
    values, maps = x.detach(), maps.to(x.device)
    if per_unit if per_unit is not None else getattr(relevance, "method", "") in PER_UNIT:
        slope, maps = maps, maps * values
    else:
        slope = torch.where(values == 0, torch.zeros_like(values), maps / torch.where(values == 0, 1, values))
    rows, generator = repeated(len(x), draws), question.generator()
    told = torch.zeros(len(rows), dtype=torch.float64)

    def work(batch: slice) -> Tensor:
        own = rows[batch]
        x = values[own]
        if perturbation == "removal":
            taken = torch.rand(x.shape, generator=generator).to(x.device) < 0.5
            told[batch] = (maps[own] * taken).flatten(1).sum(1).double().cpu()
            changed = torch.where(taken, torch.zeros_like(x), x)
        else:
            noise = deviation * torch.randn(x.shape, generator=generator).to(x)
            told[batch] = (slope[own] * noise).flatten(1).sum(1).double().cpu()
            changed = x - noise
        return question.select(own).about([changed]).scores().double().cpu()

    answers = torch.cat(question.in_batches(work, len(rows), label="perturbing")).view(-1, draws)
    lost, told = question.clean.double().cpu()[:, None] - answers, told.view(-1, draws)
    if normalize:
        told = told * ((told * lost).mean(1) / told.square().mean(1)).nan_to_num()[:, None]
    return (told - lost).square().mean(1)


def max_sensitivity(
    model: Callable[..., Any], x: Tensor, method: Method = "lrp", target: Any = None, *, radius: float = 0.02,
    draws: int = 10, relative: bool = True, seed: int = 0,
) -> Tensor:  # fmt: skip
    """The largest change of the map under small changes of the input, ``[N]``: ``max_y ‖R(y) - R(x)‖ (/ ‖R(x)‖)``.

    Args:
        model: of one tensor of floats; ``x``: ``[N, ...]``.
        method: a name, a dict of options of ``hw.explain``, or a function ``(model, x, target) -> relevance``.
        target: as for ``hw.explain``; the same at x and beside it.
        radius: y is drawn uniformly from the cube of this half side around x.
        draws: how many y.
        relative: divide by the map's own norm.
        seed: of the draws.

    Raises:
        InvalidInput: no floats, or a radius or draws that are not positive.

    Source: Yeh et al.: On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, Section 3 (Monte Carlo).
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or radius <= 0 or draws < 1:
        raise InvalidInput("max_sensitivity needs a tensor of floats, and radius and draws above 0")
    explainer, chosen = Explainer.of(method), settled_target(model, x, target)
    original = explainer.maps(model, x, chosen).flatten(1).double()
    generator = torch.Generator().manual_seed(seed)
    worst = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(draws):
        moved = x + radius * (2 * torch.rand(x.shape, generator=generator) - 1).to(x)
        change = (explainer.maps(model, moved, chosen).flatten(1).double() - original).norm(dim=1).cpu()
        worst = torch.maximum(worst, change)
    return worst / original.norm(dim=1).cpu() if relative else worst


@dataclass(frozen=True)
class Road:
    """Accuracy without the most and without the least relevant pixels, at each percentage.

    Attributes:
        most, least: the two curves; ``gap``: by how much the second lies above the first, on average (large is good).
    """

    most: Flipping
    least: Flipping

    @property
    def gap(self) -> float:
        """Mean over the percentages of ``accuracy without the least - accuracy without the most relevant``."""
        return float((self.least.curve[1:] - self.most.curve[1:]).mean())


def road(
    model: Callable[..., Any], x: Any, relevance: Any, target: Any = None, *, steps: int = 9, until: float = 0.9,
    deviation: float = 0.01, **options: Any,
) -> Road:  # fmt: skip
    """Remove and debias: accuracy as 10 %, 20 % ... 90 % of the pixels are replaced by noisy linear imputation.

    Args:
        model, x, relevance, target, options: as for :func:`~headwater.evaluate.pixel_flipping`. The target is the class
            that counts as right; left open, the predicted one.
        steps, until: how many percentages, and the last.
        deviation: of the imputation's noise.

    Source: Rong et al.: A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022.
    """
    chosen = {"imputer": NoisyLinear(deviation), "output": "accuracy", "steps": steps, "until": until, **options}
    most, least = (pixel_flipping(model, x, relevance, target, **{**chosen, "order": o}) for o in ("most", "least"))
    return Road(most, least)


def _random_removals(
    question: Asking, removal: Removal, relevances: Tensor, size: int, sets: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Relevance of random sets of ``size`` features, and what the answer lost without them; ``[N, sets]`` each."""
    n = removal.samples
    generator, rows = torch.Generator().manual_seed(seed), repeated(n, sets)
    sums = torch.zeros(len(rows), dtype=torch.float64)

    def removed(at: Tensor) -> Tensor:
        own = rows[at]
        draw = torch.rand(len(at), removal.most, generator=generator).masked_fill_(~removal.present[own], -1)
        taken = torch.zeros_like(draw, dtype=torch.bool).scatter_(1, draw.topk(size, 1).indices, True)
        sums[at] = relevances[own].masked_fill(~taken, 0).sum(1)
        return taken

    answers = removal.without(removed, rows).mean(1).view(n, sets)
    return sums.view(n, sets), question.clean[:, None].double().cpu() - answers


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
