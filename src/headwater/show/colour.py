"""Colours of relevance: one scale, symmetric about zero, that every picture shares.

Positive relevance is red, negative blue, zero white. The anchors are ColorBrewer's RdBu (Harrower and Brewer, 2003),
which readers with any of the common colour vision deficiencies can tell apart, with the middle made pure white so that
a map of zeros is a blank picture, and without its darkest ends, in which single pixels of either sign look black.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.errors import InvalidInput, NonFinite

if TYPE_CHECKING:
    from matplotlib.colors import LinearSegmentedColormap, Normalize

Array = Tensor | NDArray[Any]

ANCHORS = (
    *("#2166ac", "#4393c3", "#92c5de", "#d1e5f0"),
    "#ffffff",
    *("#fddbc7", "#f4a582", "#d6604d", "#b2182b"),
)
INK, PAPER = "#000000", "#ffffff"


def finite(values: Array, what: str = "relevance") -> NDArray[np.float64]:
    """``values`` as a float64 array of the same shape, after a check that it can be drawn.

    Raises:
        NonFinite: ``values`` hold NaN or infinity.
        InvalidInput: ``values`` are empty.
    """
    if isinstance(values, np.ndarray):
        values = np.ascontiguousarray(values)  # torch takes no negative strides
    array: NDArray[np.float64] = torch.as_tensor(values).detach().cpu().to(torch.float64).numpy()
    if not array.size:
        raise InvalidInput(f"the {what} of shape {array.shape} is empty: there is nothing to draw")
    broken = int(np.count_nonzero(~np.isfinite(array)))
    if broken:
        raise NonFinite(
            f"the {what} holds {broken} NaN or infinite values among {array.size}: it cannot be drawn; find where they "
            "come from with explain(..., ledger=True)"
        )
    return array


def limit_of(relevances: Iterable[Array], limit: float | None = None) -> float:
    """The end of the scale, which runs from -limit to limit: ``limit`` itself, or the largest magnitude in all maps.

    Zero means that every map is zero, and is drawn blank.

    Raises:
        InvalidInput: a ``limit`` that is not positive.
        NonFinite: a map holds NaN or infinity.
    """
    if limit is not None:
        if not 0 < limit < np.inf:
            raise InvalidInput(f"the limit of a colour scale must be a positive number, not {limit}")
        return float(limit)
    return max((float(np.abs(finite(relevance)).max()) for relevance in relevances), default=0.0)


def rgb(relevance: Array, limit: float | None = None) -> NDArray[np.uint8]:
    """Colours, shape ``[*relevance.shape, 3]``; what lies beyond the limit takes the colour of the limit.

    Raises:
        InvalidInput: a ``limit`` that is not positive.
        NonFinite: ``relevance`` holds NaN or infinity.
    """
    values = finite(relevance)
    end = limit_of([values], limit)
    position = np.clip(values / end, -1.0, 1.0) if end else np.zeros_like(values)
    anchors = np.array([_channels(anchor) for anchor in ANCHORS], dtype=np.float64)
    stops = np.linspace(-1.0, 1.0, len(ANCHORS))
    channels = [np.interp(position, stops, anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def hexadecimal(colour: NDArray[np.uint8]) -> str:
    """``#rrggbb`` of a colour of shape ``[3]``."""
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)


def ink_on(colour: NDArray[np.uint8]) -> str:
    """Black or white, whichever has the higher contrast on ``colour`` (shape ``[3]``; WCAG 2.2, contrast ratio)."""
    background = _luminance(colour)
    dark, light = _luminance(_channels(INK)), _luminance(_channels(PAPER))
    on_dark, on_light = (background + 0.05) / (dark + 0.05), (light + 0.05) / (background + 0.05)
    return INK if on_dark >= on_light else PAPER


def colour_map(neutral: str = PAPER) -> LinearSegmentedColormap:
    """The scale as a matplotlib colour map; lines, invisible in white, take another colour for zero."""
    from matplotlib.colors import LinearSegmentedColormap

    anchors = list(ANCHORS)
    anchors[len(anchors) // 2] = neutral
    # an odd number of entries, so that zero has one of its own
    return LinearSegmentedColormap.from_list("relevance", anchors, N=257)


def norm(limit: float) -> Normalize:
    """The matplotlib norm from -limit to limit; of a zero limit any scale will do."""
    from matplotlib.colors import Normalize

    return Normalize(-limit, limit) if limit else Normalize(-1.0, 1.0)


def _channels(colour: str) -> NDArray[np.uint8]:
    return np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)], dtype=np.uint8)


def _luminance(colour: NDArray[np.uint8]) -> float:
    channels = colour / 255.0
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))
