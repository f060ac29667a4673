"""Figures and their colour bars; the one place that imports matplotlib, and only when a figure is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from headwater.errors import MissingExtra
from headwater.show import colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, FigureBase


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that belongs to nobody: pyplot neither keeps it nor shows it in a window.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    return _figure_class()(figsize=(width, height), layout="constrained")


def figure_of(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """The figure of ``ax``, or a new one with one pair of axes."""
    if ax is None:
        figure = new_figure(width, height)
        return figure, figure.subplots()
    return ax.figure, ax  # type: ignore[return-value]  # a subfigure serves as well


def colour_bar(
    figure: FigureBase,
    axes: Sequence[Axes],
    limit: float,
    *,
    label: str = "relevance",
    cmap: Colormap | None = None,
    beyond: bool = False,
    shrink: float = 1.0,
) -> None:
    """Add one colour bar beside ``axes``, with pointed ends if there is relevance ``beyond`` them.

    Its height is ``shrink`` of theirs; it widens as it grows.
    """
    from matplotlib.cm import ScalarMappable

    mappable = ScalarMappable(colour.norm(limit), cmap or colour.colour_map())
    extend: Literal["both", "neither"] = "both" if beyond else "neither"
    bar = figure.colorbar(
        mappable, ax=list(axes), label=label, fraction=0.05, pad=0.02, aspect=25, shrink=shrink, extend=extend
    )
    if limit:
        bar.set_ticks([-limit, -limit / 2, 0.0, limit / 2, limit])
        bar.set_ticklabels([signed(tick) for tick in (-limit, -limit / 2, 0.0, limit / 2, limit)])
    else:
        bar.set_ticks([0.0], labels=["0"])


def signed(value: float) -> str:
    """A number with its sign and three significant digits; a true minus sign; ``0`` for zero."""
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def png(figure: Figure, dpi: float = 150) -> bytes:
    """``figure`` as a PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


@cache
def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtra("plot", "matplotlib") from error

    class NotebookFigure(Figure):
        """A figure that a notebook displays although pyplot does not know it."""

        def _repr_png_(self) -> bytes:
            return png(self)

    return NotebookFigure
