"""Explanations by masks that are fitted: meaningful and extremal perturbation, rate-distortion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headwater.answer import Answer
from headwater.errors import InvalidInput
from headwater.optimize.climb import variation
from headwater.optimize.masks import Masking, Masks, gap, mean_of, neighbours, softly_widened
from headwater.points import Noise, Place, Rows, references
from headwater.question import Question


def meaningful_perturbation(
    question: Question,
    *,
    game: str = "deletion",
    steps: int = 300,
    rate: float = 0.1,
    sparsity: float = 0.08,
    smoothness: float = 15.0,
    resolution: int = 28,
    baselines: Any = None,
) -> Answer:
    """The smallest smooth region whose blurring destroys the score (Fong and Vedaldi 2017, Eq. 4).

    Minimizes ``f(m x + (1 - m) b) / g + sparsity · mean(1 - m) + smoothness · mean |∇m|³`` over masks ``m`` in 0 to 1,
    where ``g = |f(x) - f(b)|`` makes weights independent of the score's scale. The paper's weights, 10⁻⁴ and 10⁻² for
    sums over 28 x 28 cells, are these for means.

    Args:
        question: about N samples.
        game: "deletion", or "preservation": the smallest region that keeps the score.
        steps, rate: of Adam.
        sparsity, smoothness: weights of the two penalties.
        resolution: cells of the mask along each axis at most, interpolated; tables and tokens have one for each.
        baselines: what is behind the mask, as for integrated gradients; by default a blur of x, or zeros for tables and
            tokens.

    Returns:
        an answer whose relevance is ``1 - m`` (preservation: ``m``), spread evenly over channels; details hold "mask"
        in 0 to 1 and "curve", the scores of each step ``[N, steps]``.
    """
    _check(steps=steps)
    if game not in ("deletion", "preservation"):
        raise InvalidInput(f"game={game!r} is not known: pass 'deletion' or 'preservation'")
    fixed, output = question.scored()
    masking = Masking(fixed, resolution)
    behind = masking.behind(baselines)
    sign = 1.0 if game == "deletion" else -1.0
    unit = sign / gap(output, masking.look(masking.shut(), behind)[0])

    def penalty(step: int, masks: Masks) -> Tensor:
        hidden = mean_of(masks, (lambda m: 1 - m) if game == "deletion" else (lambda m: m))
        rough = sum(variation(m, neighbours(masking.grids[i]), 3.0) for i, m in masks.items())
        return sparsity * hidden + smoothness * rough

    masks, curve = masking.fit(steps, rate, lambda step: behind, lambda scores: unit.to(scores), penalty)
    shown = {i: 1 - m for i, m in masks.items()} if game == "deletion" else masks
    return _answer(masking, output, shown, {"mask": masking.packed(masks), "curve": curve})


def extremal_perturbation(
    question: Question,
    *,
    areas: Sequence[float] = (0.05, 0.1, 0.2, 0.4),
    steps: int = 300,
    rate: float = 0.05,
    strictness: float = 300.0,
    resolution: int = 28,
    baselines: Any = None,
) -> Answer:
    """The smooth regions of given areas that keep most of the score (Fong, Patrick and Vedaldi 2019, Eq. 3 and 5).

    For each area ``a`` maximizes ``f(m x + (1 - m) b) / g - λ · mean (sort(m) - r_a)²``, where ``r_a`` has ones in a
    share ``a`` of its places, and ``λ`` grows a thousandfold up to ``strictness``: first the score alone chooses the
    place. All areas are fitted in one batch.

    Args:
        question: about N samples.
        areas: shares of the input, between 0 and 1.
        steps, rate: of Adam.
        strictness: how strictly the area is kept at the end, in units of the score's fall.
        resolution, baselines: as for meaningful perturbation.

    Returns:
        an answer whose relevance is the mean mask over areas, spread evenly over channels; details hold "masks"
        ``[N, A, ...]``, and "kept" ``[N, A]``, the share of the score's fall that each of them saves.
    """
    _check(steps=steps)
    if not isinstance(areas, Sequence) or not areas or not all(0 < a < 1 for a in areas):
        raise InvalidInput(f"areas must be shares between 0 and 1, such as (0.1, 0.2), not {areas!r}")
    fixed, output = question.scored()
    n, count = fixed.inputs.samples, len(areas)
    masking = Masking(fixed.select(torch.arange(n).repeat_interleave(count)), resolution)
    behind = masking.behind(baselines)
    bottom = masking.look(masking.shut(), behind)[0]
    top = output.repeat_interleave(count)
    unit = gap(top, bottom)
    share = torch.tensor(list(areas), device=output.device).repeat(n)

    def penalty(step: int, masks: Masks) -> Tensor:
        flat = torch.cat([m.flatten(1) for m in masks.values()], 1).sort(1, descending=True).values
        place = (torch.arange(flat.shape[1], device=flat.device) + 0.5) / flat.shape[1]
        wanted = (place < share.to(flat)[:, None]).to(flat.dtype)
        return strictness * 1000 ** (step / steps - 1) * (flat - wanted).square().mean(1)

    masks, _ = masking.fit(
        steps, rate, lambda step: behind, lambda scores: -1 / unit.to(scores), penalty, softly_widened
    )
    kept = (masking.look(masks, behind)[0] - bottom) / torch.where(top >= bottom, unit, -unit)
    apart = {i: m.view(n, count, *m.shape[1:]) for i, m in masks.items()}
    mean = {i: m.mean(1) for i, m in apart.items()}
    details = {"masks": masking.packed(apart), "kept": kept.view(n, count)}
    return _answer(masking, output, mean, details, fixed)


def rate_distortion(
    question: Question,
    *,
    draws: int = 8,
    steps: int = 200,
    rate: float = 0.05,
    sparsity: float = 0.4,
    resolution: int = 28,
    references: Any = None,
) -> Answer:
    """The fewest features that fix the score when all others are random (MacDonald et al. 2019, Eq. 2 to 4).

    Minimizes ``E[(f(s x + (1 - s) n) - f(x))²] / 2g² + sparsity · mean(s)`` over ``s`` in 0 to 1, the expectation over
    random ``n`` by fresh draws at each step, where ``g²`` is its value for ``s = 0``.

    Args:
        question: about N samples.
        draws: of ``n`` at each step; every sample sees the same.
        steps, rate: of Adam.
        sparsity: how much a feature must help to be kept; the paper's λ.
        resolution: as for meaningful perturbation.
        references: samples ``[B, *x.shape[1:]]`` that ``n`` is drawn from; by default it is Gaussian with each
            sample's own mean and standard deviation, channel by channel.

    Returns:
        an answer whose relevance is ``s``, spread evenly over channels; details hold "mask" and "distortion" ``[N]``,
        the first term at the end.
    """
    _check(steps=steps, draws=draws)
    fixed, output = question.scored()
    n = fixed.inputs.samples
    masking = Masking(fixed.select(torch.arange(n).repeat_interleave(draws)), resolution, copies=draws)
    behind = _randomness(masking, references, draws, steps)
    top = output.repeat_interleave(draws)
    full = masking.look(masking.shut(), behind(steps))[0] - top
    unit = full.square().view(n, draws).mean(1).clamp(min=1e-12 * float(output.abs().max()) ** 2 + 1e-30)
    wide = unit.repeat_interleave(draws)
    masks, _ = masking.fit(
        steps,
        rate,
        behind,
        lambda scores: (scores - top) / wide,
        lambda step, masks: sparsity * mean_of(masks, torch.abs),
    )
    distortion = (masking.look(masks, behind(steps))[0] - top).square().view(n, draws).mean(1) / (2 * unit)
    return _answer(masking, output, masks, {"mask": masking.packed(masks), "distortion": distortion}, fixed)


def _randomness(masking: Masking, given: Any, draws: int, steps: int) -> Any:
    """What fills the place of hidden values at each step."""
    question = masking.question
    place = torch.arange(question.inputs.samples)
    start = None if given is None else references(question, given, draws * (steps + 1))
    noise = Noise(question.seed, 0.0, 1.0)

    def behind(step: int) -> Mapping[Place, Tensor]:
        rows = Rows(0, place // draws, step * draws + place % draws, torch.zeros_like(place), 1)
        if start is not None:
            return {at: start(rows, at, v).expand_as(v) for at, v in masking.values.items()}
        found = {}
        for at, v in masking.values.items():
            axes = tuple(range(2 if masking.grids[at[0]].near else 1, v.dim())) or (0,)
            mean, spread = v.mean(axes, keepdim=True), v.std(axes, correction=0, keepdim=True)
            found[at] = mean + spread * noise(rows, at, v)
        return found

    return behind


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidInput(f"{name} must be a whole number of at least 1, not {count!r}")


def _answer(
    masking: Masking, output: Tensor, masks: Masks, details: dict[str, Any], question: Question | None = None
) -> Answer:
    asked = masking.question if question is None else question
    return Answer(masking.relevance(masks), output, asked.target, details=details)
