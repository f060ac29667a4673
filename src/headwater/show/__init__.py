"""Pictures of explanations: images, series, text, tables, and a page that holds them.

One scale for all of them: centred on zero, red for positive relevance, blue for negative, white for none, shared by
the maps that stand in one figure. matplotlib is imported when the first figure is drawn.
"""

from __future__ import annotations

from headwater.show.image import image, images, overlay_rgb, picture_rgb, to_rgb
from headwater.show.plot import plot
from headwater.show.series import series
from headwater.show.table import table
from headwater.show.text import TextMap, merge_pieces, text_html, text_terminal

__all__ = [
    "TextMap",
    "image",
    "images",
    "merge_pieces",
    "overlay_rgb",
    "picture_rgb",
    "plot",
    "series",
    "table",
    "text_html",
    "text_terminal",
    "to_rgb",
]
