"""Do two explanations say the same? Between methods, between trained runs, before and after a change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra
from headwater.evaluate.maps import Part, pair, part_of, picture

Measure = Callable[[Any, Any], Tensor]


def rank_correlation(a: Any, b: Any, *, part: Part = "signed") -> Tensor:
    """Spearman's correlation of the features' ranks, ``[N]``, -1 to 1; equals share their mean rank.

    Args:
        a, b: explanations or ``[N, ...]`` of one shape; every entry is a feature.
        part: of the relevance that is ranked; Adebayo et al. give both ``"signed"`` and ``"absolute"``.

    Returns:
        ``[N]``; NaN where a map is constant.

    Raises:
        InvalidInput: other shapes.
        MissingExtra: SciPy is not installed.
    """
    first, second = pair(a, b)
    return _correlation(_ranks(part_of(first, part)), _ranks(part_of(second, part)))


def correlation(a: Any, b: Any, *, part: Part = "signed") -> Tensor:
    """Pearson's correlation of the features, ``[N]``; arguments as for :func:`rank_correlation`."""
    first, second = pair(a, b)
    return _correlation(part_of(first, part).flatten(1), part_of(second, part).flatten(1))


def cosine(a: Any, b: Any, *, part: Part = "signed") -> Tensor:
    """Cosine similarity of the maps as vectors, ``[N]``; arguments as for :func:`rank_correlation`."""
    first, second = pair(a, b)
    first, second = part_of(first, part).flatten(1), part_of(second, part).flatten(1)
    return (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))


def top_overlap(a: Any, b: Any, *, k: int | float = 0.1, part: Part = "signed") -> Tensor:
    """Share of the ``k`` most relevant features that both maps have among theirs, ``[N]``, 0 to 1.

    Args:
        a, b: explanations or ``[N, ...]`` of one shape.
        k: how many features, or a fraction of all between 0 and 1 (rounded, at least one).
        part: of the relevance by which features are ranked; of equals the first comes first.

    Raises:
        InvalidInput: a ``k`` outside 1 to F.
    """
    first, second = (part_of(maps, part).flatten(1) for maps in pair(a, b))
    features = first.shape[1]
    count = max(1, round(k * features)) if isinstance(k, float) and 0 < k < 1 else int(k)
    if not 1 <= count <= features:
        raise InvalidInput(f"k must be 1 to {features} features or a fraction between 0 and 1, not {k}")
    members = []
    for rows in (first, second):
        top = rows.argsort(dim=1, descending=True, stable=True)[:, :count]
        members.append(torch.zeros_like(rows, dtype=torch.bool).scatter_(1, top, True))
    return (members[0] & members[1]).sum(1).double() / count


def structural_similarity(
    a: Any, b: Any, *, part: Part = "signed", scale: Literal["maximum", "none"] = "maximum"
) -> Tensor:
    """Mean structural similarity (SSIM) of the maps as pictures, ``[N]``, with the Gaussian window of its paper.

    Args:
        a, b: explanations or maps as :func:`~headwater.evaluate.file_size` takes them, at least 11 pixels a side.
        part: of the relevance, after channels are summed.
        scale: ``"maximum"`` divides each map by its largest magnitude first; ``"none"`` compares them as they are. The
            range of values is the one that the two maps span together.

    Raises:
        InvalidInput: other shapes, or pictures smaller than the window.
        MissingExtra: scikit-image is not installed.

    Source: Wang et al.: Image Quality Assessment, IEEE Trans. Image Processing 13(4), 2004; computed by scikit-image.
    """
    pair(a, b)
    first, second = (part_of(picture(maps), part) for maps in (a, b))
    if min(first.shape[1:]) < 11:
        raise InvalidInput(f"structural similarity needs 11 pixels a side, not {list(first.shape[1:])}")
    try:
        from skimage.metrics import structural_similarity as ssim
    except ModuleNotFoundError as error:
        raise MissingExtra("evaluate", "scikit-image") from error
    found = []
    for x, y in zip(first.cpu(), second.cpu(), strict=True):
        if scale == "maximum":
            x, y = (m / limit if (limit := float(m.abs().max())) else m for m in (x, y))
        span = float(torch.maximum(x.max(), y.max()) - torch.minimum(x.min(), y.min())) or 1.0
        found.append(
            ssim(x.numpy(), y.numpy(), data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        )
    return torch.tensor(found, dtype=torch.float64)


MEASURES: dict[str, Measure] = {
    "rank_correlation": rank_correlation,
    "correlation": correlation,
    "cosine": cosine,
    "top_overlap": top_overlap,
    "structural_similarity": structural_similarity,
}


def measure_of(measure: str | Measure) -> Measure:
    """A measure of similarity by name, or the user's own function of two relevances that returns ``[N]``.

    Raises:
        InvalidInput: an unknown name.
    """
    if callable(measure):
        return measure
    if measure not in MEASURES:
        raise InvalidInput(f"Unknown similarity {measure!r}: choose from {', '.join(MEASURES)}, or pass a function")
    return MEASURES[measure]


def agreement(relevances: Mapping[str, Any], measure: str | Measure = "rank_correlation") -> Tensor:
    """Mean similarity of each pair of explanations of the same samples: of methods, or of trained runs.

    Args:
        relevances: M explanations or ``[N, ...]`` of one shape, by name.
        measure: one of ``rank_correlation``, ``correlation``, ``cosine``, ``top_overlap``, ``structural_similarity``,
            or a function of two relevances that returns ``[N]``.

    Returns:
        ``[M, M]``, symmetric, in the mapping's order; NaN where a pair cannot be compared.
    """
    of = measure_of(measure)
    names = list(relevances)
    matrix = torch.ones(len(names), len(names), dtype=torch.float64)
    for i, j in itertools.combinations(range(len(names)), 2):
        matrix[i, j] = matrix[j, i] = of(relevances[names[i]], relevances[names[j]]).double().nanmean()
    return matrix


def _ranks(values: Tensor) -> Tensor:
    try:
        from scipy.stats import rankdata
    except ModuleNotFoundError as error:
        raise MissingExtra("evaluate", "scipy") from error
    return torch.from_numpy(rankdata(values.flatten(1).cpu().numpy(), axis=1))


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).cpu()
