"""Texts on the colours of their relevance, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headwater.show.colour import hexadecimal, ink_on, rgb
from headwater.show.figure import new_figure

CHARACTERS = 126  # a line
LINE = 0.2  # inches


def word_maps(words: Sequence[str], relevance: Mapping[str, Any]) -> Any:
    """The same words once for each method, each on its own scale: red for, blue against."""
    places = _laid_out(words)
    lines = places[-1][1] + 1
    figure = new_figure(8.2, len(relevance) * (lines * LINE + 0.45))
    axes = np.atleast_1d(figure.subplots(len(relevance), 1))
    for ax, (title, values) in zip(axes, relevance.items(), strict=True):
        values = np.asarray(values, np.float64)
        grounds = rgb(values, float(np.abs(values).max()) or None)
        ax.set(xlim=(0, CHARACTERS), ylim=(lines, 0))
        ax.set_axis_off()
        ax.set_title(title, loc="left", fontsize=9)
        for word, (x, y), ground in zip(words, places, grounds, strict=True):
            ax.text(
                x, y + 0.5, word, family="monospace", fontsize=7.4, va="center", color=ink_on(ground),
                bbox={"facecolor": hexadecimal(ground), "edgecolor": "none", "pad": 1.2},
            )  # fmt: skip
    return figure


def _laid_out(words: Sequence[str]) -> list[tuple[int, int]]:
    """Column and line of each word."""
    places, x, y = [], 0, 0
    for word in words:
        if x and x + len(word) > CHARACTERS:
            x, y = 0, y + 1
        places.append((x, y))
        x += len(word) + 1
    return places
