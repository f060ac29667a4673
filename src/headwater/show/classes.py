"""Several targets in one picture: class maps merged into one colour image with a legend, and differences of maps."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headwater.errors import InvalidInput
from headwater.show.colour import Array
from headwater.show.figure import figure_of
from headwater.show.image import images, picture_rgb, scale_of, summed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Red, green and blue for up to three maps, as additive colours that mix; more take Okabe and Ito's (2008), which
# readers with any of the common colour vision deficiencies can tell apart.
_ADDITIVE = ("#ff0000", "#00ff00", "#0000ff")
_APART = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
_PREVAILS = 4  # how soon the stronger of two maps gives a pixel its colour
_GREY = np.array([0.299, 0.587, 0.114])


def class_rgb(
    maps: Sequence[Array], picture: Array | None = None, *, colours: Sequence[str] | None = None,
    limit: float | None = None,
) -> NDArray[np.uint8]:  # fmt: skip
    """Positive relevance of several targets as one colour image, ``[H, W, 3]``.

    Each map dyes the picture in its own colour, as strongly as its share of the scale; where maps overlap, the
    stronger prevails and equals mix. Without a picture they shine on black, as in the review's figure 18 (a).

    Args:
        maps: one for each target, ``[C, H, W]`` (summed over C) or ``[H, W]``, all of one size.
        picture: what was explained, as ``headwater.show.picture_rgb`` takes it.
        colours: ``#rrggbb`` for each map; by default red, green and blue, or colours for more.
        limit: the end of the scale that all maps share; by default see ``headwater.show.image``.

    Raises:
        InvalidInput: no maps, maps of different sizes, or not as many colours as maps.
        NonFinite: NaN or infinity in a map.
    """
    planes = [summed(m) for m in maps]
    if not planes or len({p.shape for p in planes}) != 1:
        raise InvalidInput(f"class maps must be at least one, all of one size, not {[p.shape for p in planes]}")
    dyes = np.stack([_channels(c) for c in _colours(len(planes), colours)])
    end = limit or scale_of(planes) or 1.0
    strengths = np.stack([np.clip(p / end, 0.0, 1.0) for p in planes], -1)
    cover = strengths.max(-1, keepdims=True)
    # Maps alike mix; else the stronger one's colour prevails, or all that overlap would look white.
    hue = np.clip((strengths / np.maximum(cover, 1e-12)) ** _PREVAILS @ dyes, 0.0, 1.0)
    if picture is None:
        return (255 * cover * hue).round().astype(np.uint8)
    grey = (picture_rgb(picture) @ _GREY / 255.0)[..., None]
    if grey.shape[:2] != planes[0].shape:
        raise InvalidInput(f"the maps are {planes[0].shape} pixels but the picture {grey.shape[:2]}: interpolate one")
    tinted = hue * (0.45 + 0.55 * grey)
    return (255 * ((1 - cover) * grey + cover * tinted)).round().astype(np.uint8)


def classes(
    maps: Mapping[str, Array], picture: Array | None = None, *, colours: Sequence[str] | None = None,
    limit: float | None = None, title: str | None = None, ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Draw maps of several targets merged into one colour image, with a legend (review, figure 18 a).

    Args:
        maps: the target's name and its relevance; ``colours``, ``limit`` and ``picture`` as for :func:`class_rgb`.
        title: a line above; ``ax``: axes of the caller's to draw on.

    Raises:
        InvalidInput: see :func:`class_rgb`.
        NonFinite: NaN or infinity in a map.
        MissingExtra: matplotlib is not installed.
    """
    names = list(maps)
    pixels = class_rgb(list(maps.values()), picture, colours=colours, limit=limit)
    figure, axes = figure_of(ax, 4.4, 4.4 + 0.22 * len(names))  # it says so where matplotlib is missing
    from matplotlib.patches import Patch

    axes.imshow(pixels, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.7", linewidth=0.6)
    axes.set_title(title or "", fontsize=9)
    dyes = _colours(len(names), colours)
    handles = [Patch(facecolor=c, edgecolor="0.4", label=name) for c, name in zip(dyes, names, strict=True)]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=min(3, len(names)), frameon=False,
        fontsize=8,
    )  # fmt: skip
    return figure


def difference(
    one: Array, other: Array, picture: Array | None = None, *, names: tuple[str, str] = ("first", "second"),
    limit: float | None = None, title: str | None = None,
) -> Figure:  # fmt: skip
    """Draw two maps and their difference, all on one scale.

    Args:
        one, other: relevance of one size, ``[C, H, W]`` or ``[H, W]``: of two targets, methods or models.
        picture: what was explained; ``names``: of the two maps; ``limit``, ``title``: as for ``headwater.show.images``.

    Raises:
        InvalidInput: maps of different sizes.
        NonFinite: NaN or infinity in a map.
        MissingExtra: matplotlib is not installed.
    """
    first, second = summed(one), summed(other)
    if first.shape != second.shape:
        raise InvalidInput(f"the maps are {first.shape} and {second.shape} pixels: interpolate one of them first")
    maps: list[Array | None] = [first, second, first - second]
    heads = [*names, f"{names[0]} − {names[1]}"]
    pictures: list[Array | None] = [picture] * 3
    return images(maps, pictures, heads, limit="shared" if limit is None else limit, columns=3, title=title)


def _colours(count: int, given: Sequence[str] | None) -> list[str]:
    if given is not None:
        if len(given) != count:
            raise InvalidInput(f"{len(given)} colours for {count} maps: give each map one")
        return list(given)
    if count <= len(_ADDITIVE):
        return list(_ADDITIVE[:count])
    more = [_wheel(i / max(1, count - len(_APART))) for i in range(max(0, count - len(_APART)))]
    return [*_APART[:count], *more]


def _wheel(share: float) -> str:
    """A colour for a share of the way round the wheel."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hsv_to_rgb(share, 0.85, 0.8))


def _channels(colour: str) -> NDArray[np.float64]:
    digits = colour.removeprefix("#")
    try:
        parts = [int(digits[i : i + 2], 16) for i in (0, 2, 4)]
    except ValueError:
        raise InvalidInput(f"a colour is written #rrggbb, not {colour!r}") from None
    return np.array(parts) / 255.0
