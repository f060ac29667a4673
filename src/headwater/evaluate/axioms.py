"""What an explanation must not do: leave relevance over, follow a shift that the model does not see, or jump."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headwater import target as targets
from headwater.errors import InvalidInput
from headwater.evaluate.asking import asking, settled_target
from headwater.evaluate.explainer import Explainer, Method
from headwater.evaluate.maps import relevance_of
from headwater.explanation import Explanation, leaves, per_sample


def completeness_gap(explanation: Explanation, *, relative: bool = True) -> Tensor:
    """``output - reference - Σ relevance``, ``[N]``: what the relevance leaves unexplained, or invents.

    Unlike ``explanation.delta`` it is given for every method: one that does not claim completeness has a gap too.

    Args:
        explanation: of N samples.
        relative: divide by ``|output - reference|``; NaN where that is zero and the gap is not.

    Source: Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017; review, Section III-C.
    """
    wanted = (explanation.output.detach() - explanation.reference).double().cpu()
    total = sum((per_sample(r.detach().double().cpu(), len(wanted)) for r in leaves(explanation.relevance)), 0 * wanted)
    gap = wanted - total
    return torch.where(gap == 0, gap, gap / wanted.abs()) if relative else gap


class _Shifted(nn.Module):
    """A model behind another origin of its input: the same function of other numbers."""

    def __init__(self, model: Callable[..., Any], shift: Tensor) -> None:
        super().__init__()
        self.model, self.shift = model, shift

    def forward(self, x: Tensor) -> Any:
        return self.model(x - self.shift)


def input_invariance(
    model: Callable[..., Any], x: Tensor, shift: Any, method: Method = "lrp", target: Any = None
) -> Tensor:
    """How much a map changes when input and model are shifted alike, ``[N]``: 0 for an invariant method.

    The second model is ``x -> f(x - s)`` and is asked at ``x + s``, so that all its predictions and gradients are the
    first one's. The figure is ``‖R₂ - R₁‖ / ‖R₁‖`` (Euclidean; NaN where R₁ is zero).

    Args:
        model: of one tensor; ``x``: ``[N, ...]``.
        shift: a number or a tensor that broadcasts to ``x``.
        method: a name, a dict of options of ``hw.explain``, or a function ``(model, x, target) -> relevance``.
        target: as for ``hw.explain``; chosen on the first model where it is left open.

    Raises:
        InvalidInput: a shift that does not fit.

    Source: Kindermans et al.: The (Un)reliability of Saliency Methods, 2017.
    """
    explainer = Explainer.of(method)
    offset = torch.as_tensor(shift, dtype=x.dtype, device=x.device)
    try:
        moved = x + offset
    except RuntimeError:
        moved = x.new_zeros(0)
    if moved.shape != x.shape:
        raise InvalidInput(f"a shift of shape {list(offset.shape)} does not fit x of shape {list(x.shape)}")
    chosen = settled_target(model, x, target)
    return _change(explainer.maps(model, x, chosen), explainer.maps(_Shifted(model, offset), moved, chosen))


def symmetry(
    model: Callable[..., Any], x: Tensor, exchange: Callable[[Tensor], Tensor], method: Method = "lrp",
    target: Any = None, *, tolerance: float = 1e-4,
) -> Tensor:  # fmt: skip
    """Do features that the model treats alike get relevance alike? ``[N]``: 0 where they do.

    ``exchange`` swaps such features (it permutes the entries of ``x``). A symmetric method explains the exchanged input
    by the exchanged map: the figure is ``‖R(g(x)) - g(R(x))‖ / ‖R(x)‖``.

    Args:
        model, x, method, target: as for :func:`input_invariance`.
        exchange: a permutation of features, which must leave the model's score as it is.
        tolerance: by how much the scores may differ, relative to the largest.

    Raises:
        InvalidInput: where the model itself is not symmetric so.

    Source: Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017, Section 4.
    """
    explainer = Explainer.of(method)
    swapped = exchange(x)
    if swapped.shape != x.shape:
        raise InvalidInput(f"exchange must permute the features of x: it made {list(swapped.shape)} of {list(x.shape)}")
    asked = asking(model, x, target)
    before, after = asked.clean, asked.about([swapped]).scores()
    off = float((before - after).abs().max())
    if off > tolerance * float(before.abs().max()):
        raise InvalidInput(f"the model is not symmetric under this exchange: its score changes by up to {off:.3g}")
    chosen = asked.target
    return _change(exchange(explainer.maps(model, x, chosen)), explainer.maps(model, swapped, chosen))


@dataclass(frozen=True)
class Continuity:
    """An explanation along a path, beside the score it explains.

    Attributes:
        scores: the explained score at each of T points, ``[T]``.
        map_changes: ``‖R_t+1 - R_t‖ / mean ‖R‖``, ``[T - 1]``.
        score_changes: ``|f_t+1 - f_t| / mean |f|``, ``[T - 1]``.
        steepness: the largest ``‖R_t+1 - R_t‖₁ / ‖x_t+1 - x_t‖₂`` of the path.
    """

    scores: Tensor
    map_changes: Tensor
    score_changes: Tensor
    steepness: float

    @property
    def ratio(self) -> float:
        """How many times more the map changes than the score, on average over the path."""
        return float(self.map_changes.mean() / self.score_changes.mean())


def continuity(model: Callable[..., Any], path: Tensor, method: Method = "lrp", target: Any = None) -> Continuity:
    """Does the map change as little as the score along a path: the frames of a video, or a segment between two inputs?

    Args:
        model, method: as for :func:`input_invariance`.
        path: T points ``[T, ...]`` in order, at least two; :func:`segment` makes one between two inputs.
        target: one target for the whole path; by default the class predicted at its first point.

    Raises:
        InvalidInput: fewer than two points.

    Source: review, Section II-B and Fig. 3 (left); Montavon, Samek, Müller: Methods for Interpreting and Understanding
    Deep Neural Networks, Digital Signal Processing 73, 2018, Section 7.1 (``steepness``).
    """
    if len(path) < 2:
        raise InvalidInput(f"a path needs at least two points, not {len(path)}")
    chosen = settled_target(model, path[:1], target)
    every = torch.zeros(len(path), dtype=torch.long)
    chosen = targets.select(chosen, every, 1)
    scores = asking(model, path, chosen).clean.double().cpu()
    maps = Explainer.of(method).maps(model, path, chosen).double().cpu().flatten(1)
    jumps, moves = maps.diff(dim=0), path.detach().double().cpu().flatten(1).diff(dim=0).norm(dim=1)
    steepness = torch.where(moves > 0, jumps.abs().sum(1) / moves, torch.zeros_like(moves))
    return Continuity(
        scores, jumps.norm(dim=1) / maps.norm(dim=1).mean(), scores.diff().abs() / scores.abs().mean(),
        float(steepness.max()),
    )  # fmt: skip


def segment(start: Tensor, end: Tensor, points: int = 20) -> Tensor:
    """``points`` inputs from ``start`` to ``end``, each ``[1, ...]`` or ``[...]``; returns ``[points, ...]``."""
    if points < 2 or start.numel() != end.numel():
        raise InvalidInput("a segment needs two inputs of one shape and at least two points")
    a, b = (v[0] if v.dim() and len(v) == 1 else v for v in (start, end))
    steps = torch.linspace(0, 1, points, dtype=a.dtype, device=a.device)
    return torch.lerp(a[None], b[None], steps.reshape(-1, *[1] * a.dim()))


def _change(before: Tensor, after: Tensor) -> Tensor:
    first, second = (relevance_of(m).double().flatten(1) for m in (before, after))
    return ((second - first).norm(dim=1) / first.norm(dim=1)).cpu()
