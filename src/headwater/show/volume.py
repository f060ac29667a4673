"""Volumes and clips as slices: each sample a row of pictures, cut along the first of its three axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from headwater.errors import InvalidInput
from headwater.show.colour import Array, finite
from headwater.show.image import images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SLICES = 6  # in a row


def volumes(
    relevances: Sequence[Array],
    values: Sequence[Array] | None = None,
    titles: Sequence[str] | None = None,
    *,
    slices: Sequence[int] | None = None,
    limit: float | None = None,
) -> Figure:
    """Draw slices of volumes on one scale, over the volumes themselves where these can be shown as pictures.

    Args:
        relevances: of each volume, ``[C, D, H, W]``, summed over C, or ``[D, H, W]``; all of one D.
        values: the volumes, of 1, 3 or 4 channels, or without that axis; others are left out.
        titles: one for each volume.
        slices: places along D; by default six spread evenly from the first to the last.
        limit: the end of the scale; by default that of :func:`headwater.show.image.scale_of`.

    Raises:
        InvalidInput: another shape, or a slice that is not there.
        NonFinite: NaN or infinity in the relevance.
        MissingExtra: matplotlib is not installed.
    """
    maps = [finite(relevance) for relevance in relevances]
    if not maps or any(part.ndim not in (3, 4) or part.shape[-3] != maps[0].shape[-3] for part in maps):
        shapes = ", ".join(str(list(part.shape)) for part in maps)
        raise InvalidInput(f"volumes have shape [C, D, H, W] or [D, H, W], all with one D, not {shapes or 'none'}")
    depth = maps[0].shape[-3]
    spread = np.unique(np.linspace(0, depth - 1, _SLICES).round())
    chosen = list(slices) if slices is not None else [int(place) for place in spread]
    if not chosen or not all(-depth <= place < depth for place in chosen):
        raise InvalidInput(f"slices names some of the {depth} slices, not {chosen}")
    under: list[Array | None] = [_shown(value, place) for value in values or () for place in chosen]
    heads = [f"slice {place}" for place in chosen] * len(maps)
    for i, title in enumerate(titles or ()):
        heads[i * len(chosen)] = f"{title}, slice {chosen[0]}"
    return images(
        [part[..., place, :, :] for part in maps for place in chosen],
        under or None,
        heads,
        limit="shared" if limit is None else limit,
        columns=len(chosen),
    )


def _shown(value: Array, place: int) -> Array | None:
    """A slice of a volume as a picture, where its channels are those of one."""
    found = np.asarray(value, dtype=float)[..., place, :, :]
    return found if found.ndim == 2 or len(found) in (1, 3, 4) else None
