"""What a method finds for one batch; several batches join to one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from headwater import target as targets
from headwater.propagate import ledger as ledgers


@dataclass
class Answer:
    """The explanation of one batch, argument by argument.

    Attributes:
        relevance: for each argument of the model its relevance, or None where it is not explained.
        output: the explained score, ``[N]``; ``target``: as resolved.
        reference: ``[N]``, what a complete method sums down to; None stands for 0.
        rows: of the ledger, or None.
        layers: relevance of the outputs of modules, a list where a module ran several times.
        details: what else the method knows, by name: tensors ``[N, ...]``, or nested like ``relevance``.
    """

    relevance: list[Tensor | None]
    output: Tensor
    target: Any
    reference: Tensor | None = None
    rows: list[ledgers.Row] | None = None
    layers: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def join(answers: Sequence[Answer]) -> Answer:
        """One answer for several batches."""
        first = answers[0]
        if len(answers) == 1:
            return first
        rows = [a.rows for a in answers if a.rows is not None]
        return Answer(
            _cat([a.relevance for a in answers]),
            torch.cat([a.output for a in answers]),
            targets.join([a.target for a in answers]),
            _cat([a.reference for a in answers]),
            ledgers.join(rows) if rows else None,
            _cat([a.layers for a in answers]),
            _cat([a.details for a in answers]),
        )


def _cat(parts: Sequence[Any]) -> Any:
    """The same nested value for all samples: tensors joined along their first axis."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, dict):
        return {k: _cat([p[k] for p in parts]) for k in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_cat([p[i] for p in parts]) for i in range(len(first)))
    return first
