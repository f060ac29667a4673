"""A repaired model with what was changed: its table and its picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from headwater.analyze.repair.artefact import Artefact
from headwater.analyze.repair.figures import Figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Repair:
    """A repaired copy of a model, with what changed; prints as a table.

    Attributes:
        model: the copy; the user's own model is as it was.
        method: how it was repaired. before, after: the figures of both on the same samples.
        facts: what the method found out: ``layer`` and ``layers tried`` (loss of each), ``losses`` of the steps.
        example: a held-out sample of another class with the artefact pasted, ``[1, *shape]``, and its relevance for
            the artefact's class before and after, each ``[1, *shape]``.
    """

    model: nn.Module
    method: str
    artefact: Artefact
    before: Figures
    after: Figures
    facts: dict[str, Any]
    example: tuple[Tensor, Tensor, Tensor]

    @property
    def drop(self) -> float:
        """How much accuracy the pasted artefact cost on the other classes before, 0 to 1."""
        return self.before.others - self.before.others_pasted

    @property
    def recovered(self) -> float:
        """The part of that drop that was won back; NaN where there was none."""
        return (self.after.others_pasted - self.before.others_pasted) / self.drop if self.drop > 0 else float("nan")

    @property
    def relevance_removed(self) -> float:
        """The part by which the share of relevance on the artefact fell; NaN where there was none."""
        return 1 - self.after.relevance / self.before.relevance if self.before.relevance > 0 else float("nan")

    def __str__(self) -> str:
        what = {
            "accuracy": "accuracy", "own": "on the artefact's class", "own_pasted": "  with the artefact pasted",
            "others": "on other classes", "others_pasted": "  with the artefact pasted",
            "taken": "  taken for its class then", "relevance": "relevance on the artefact",
        }  # fmt: skip
        rows = [(text, getattr(self.before, name), getattr(self.after, name)) for name, text in what.items()]
        where = f" at {self.facts['layer']}" if "layer" in self.facts else ""
        head = f"{self.method}{where}"
        wide = max(28, len(head))
        lines = [f"{head:<{wide}} {'before':>8} {'after':>8}"]
        lines += [f"{text:<{wide}} {before:>8.1%} {after:>8.1%}" for text, before, after in rows if before == before]
        gained = self.after.accuracy - self.before.accuracy
        lines.append(
            f"{self.recovered:.0%} of the drop of {self.drop:.1%} recovered; accuracy {gained:+.1%}; "
            f"relevance on the artefact {-self.relevance_removed:+.0%}"
        )
        return "\n".join(lines)

    def save(self, path: str | Path) -> Path:
        """Write the weights; :func:`load_repaired` puts them into a model of the original architecture."""
        torch.save(self.model.state_dict(), path)
        return Path(path)

    def plot(self) -> Figure:
        """Accuracies, the example and its relevance, before and after; needs the extra ``plot``."""
        from headwater.analyze.repair.picture import repair_picture

        return repair_picture(self)
