"""``hw.view``: a store in the browser: the map of all explanations, clusters, samples, selections, the model live."""

from __future__ import annotations

from headwater.viewer.view import Viewing, view

__all__ = ["Viewing", "view"]
