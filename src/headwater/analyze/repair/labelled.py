"""Samples with class labels, in batches, as fine-tuning and accuracies want them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headwater.dataset.sources import Source, place, source_of, stack
from headwater.errors import InvalidInput


@dataclass(frozen=True)
class Labelled:
    """Samples of a source with their classes.

    Attributes:
        rows: those of the source that belong to it; ``corrected``: classes that replace the source's, by row.
    """

    source: Source
    rows: NDArray[np.int64]
    seed: int
    corrected: Mapping[int, int] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(data: Any, seed: int) -> Labelled:
        """All samples of ``data``, as for :func:`headwater.run`."""
        source = source_of(data)
        return Labelled(source, np.arange(len(source)), seed)

    def __len__(self) -> int:
        return len(self.rows)

    def divided(self, share: float) -> tuple[Labelled, Labelled]:
        """Two parts without a common sample, drawn at random; the second has this share, one sample at least."""
        order = np.random.default_rng(self.seed).permutation(self.rows)
        held = max(1, round(share * len(order)))
        return replace(self, rows=np.sort(order[held:])), replace(self, rows=np.sort(order[:held]))

    def first(self, count: int) -> Labelled:
        """At most ``count`` samples, evenly spread."""
        if len(self) <= count:
            return self
        return replace(self, rows=self.rows[np.linspace(0, len(self) - 1, count).round().astype(np.int64)])

    def batch(self, model: nn.Module, places: Tensor, seed: int | None = None) -> tuple[Tensor, Tensor]:
        """The inputs ``[n, *shape]`` and classes ``[n]`` at these places of ``rows``, on the model's device.

        Raises:
            InvalidInput: several inputs a sample, or labels that are no classes.
        """
        rows = self.rows[places.numpy()].tolist()
        loaded = self.source.load_all(rows, self.seed if seed is None else seed)
        x = stack([sample for sample, _ in loaded])
        if not isinstance(x, Tensor):
            raise InvalidInput("repair works on models of one input; these samples have several")
        labels = [self._label(row, label) for row, (_, label) in zip(rows, loaded, strict=True)]
        x = place(x if x.is_floating_point() else x.float(), model)
        return x, torch.tensor(labels, device=x.device)

    def _label(self, row: int, label: Any) -> int:
        label = self.corrected.get(row, label)
        if not isinstance(label, int) or label < 0:
            raise InvalidInput(
                f"sample {self.source.id(row)!r} has the label {label!r}: repair needs samples with classes, (x, y) "
                "with y integers from 0"
            )
        return label
