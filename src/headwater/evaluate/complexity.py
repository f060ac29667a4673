"""How much there is to take in: the size of a heatmap as a file, and how many features share the relevance."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Literal

import torch
from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra
from headwater.evaluate.maps import Part, picture, rows_of, shares


def file_size(
    relevance: Any, *, quality: int = 75, colour: Literal["grey", "map"] = "grey", size: tuple[int, int] | None = None
) -> Tensor:
    """Bytes of each heatmap as a JPEG: small files are easy on the reader.

    The review saves with Pillow at its standard quality, 75 of 100, and does not say how it coloured and scaled the
    heatmaps. Its smallest average, 698 bytes, is less than a blank 224x224 picture in colour takes (about 1500) or in
    grey (about 920), so its pictures were grey or smaller: compare sizes of one setting only.

    Args:
        relevance: an explanation or ``[N, C, H, W]``, ``[N, H, W]``, ``[N, C, T]``, ``[N, F]``; channels are summed.
        quality: of the compression, 1 to 95.
        colour: ``"grey"``: one channel, zero in the middle, each map scaled by its largest magnitude; ``"map"``: the
            colours of :mod:`headwater.show` on the same scale.
        size: ``(height, width)`` to which the maps are averaged first; None keeps theirs.

    Returns:
        ``[N]``, int64.

    Raises:
        InvalidInput: a quality, colour or size that does not exist.
        MissingExtra: Pillow is not installed.

    Source: Samek et al. 2021 (review), Section IV-B and its footnote 1.
    """
    if not 1 <= quality <= 95 or colour not in ("grey", "map"):
        raise InvalidInput(f"quality must lie in 1 to 95 and colour be 'grey' or 'map', not {quality} and {colour!r}")
    maps = picture(relevance)
    if size is not None:
        if len(size) != 2 or min(size) < 1:
            raise InvalidInput(f"size must be (height, width), at least 1, not {size!r}")
        maps = torch.nn.functional.adaptive_avg_pool2d(maps, size)
    return torch.tensor([_jpeg_bytes(one, quality, colour) for one in maps.cpu()])


def _jpeg_bytes(heatmap: Tensor, quality: int, colour: str) -> int:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtra("evaluate", "pillow") from error
    limit = float(heatmap.abs().max()) or 1.0
    if colour == "map":
        from headwater.show.colour import rgb

        pixels = rgb(heatmap.numpy(), limit)
    else:
        pixels = ((heatmap / limit + 1) * 127.5).round().to(torch.uint8).numpy()
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return buffer.tell()


def entropy(relevance: Any, *, part: Part = "absolute") -> Tensor:
    """Shannon entropy ``-Σ p_i ln p_i`` of the features' shares, in nats, ``[N]``; 0 for one feature, ln F for all.

    Args:
        relevance: an explanation or ``[N, ...]``; every entry is a feature.
        part: which relevance the shares are of: ``"absolute"``, ``"positive"`` or ``"negative"``.

    Returns:
        ``[N]`` in float64; NaN where a map has no such relevance.

    Source: Bhatt, Weller, Moura: Evaluating and Aggregating Feature-based Model Explanations, IJCAI 2020.
    """
    p = shares(relevance, part)
    return -torch.special.xlogy(p, p).sum(1)


def gini(relevance: Any, *, part: Part = "absolute") -> Tensor:
    """Gini index of the features, ``[N]``: 0 where all are equal, near 1 where one holds everything.

    ``1 - 2 Σ_k (v_(k) / Σv) (F - k + 1/2) / F`` with ``v_(1) <= ... <= v_(F)``.

    Args:
        relevance, part: as for :func:`entropy`.

    Source: Chalasani et al.: Concise Explanations of Neural Networks Using Adversarial Training, ICML 2020.
    """
    ordered = shares(relevance, part).sort(1).values
    features = ordered.shape[1]
    weights = (features - torch.arange(1, features + 1, device=ordered.device) + 0.5) / features
    return 1 - 2 * (ordered * weights).sum(1)


def effective_features(relevance: Any, *, part: Part = "absolute", order: Literal[1, 2] = 1) -> Tensor:
    """How many equally relevant features would be as diverse, ``[N]``, 1 to F (the Hill numbers).

    Args:
        relevance, part: as for :func:`entropy`.
        order: 1 is ``exp(entropy)``; 2 is ``(Σv)² / Σv²``, which minds the largest more (the participation ratio).

    Raises:
        InvalidInput: another order.

    Source: Hill: Diversity and Evenness, Ecology 54(2), 1973.
    """
    if order == 1:
        return entropy(relevance, part=part).exp()
    if order == 2:
        return 1 / shares(relevance, part).square().sum(1)
    raise InvalidInput(f"order must be 1 or 2, not {order!r}")


def cancellation(relevance: Any) -> Tensor:
    """``Σ|R| / |ΣR|``, ``[N]``: 1 where all relevance has one sign, large where the sum is a small difference.

    Returns:
        ``[N]`` in float64; infinity where the sum is zero, NaN where the whole map is.
    """
    rows = rows_of(relevance, "signed")
    return rows.abs().sum(1) / rows.sum(1).abs()
