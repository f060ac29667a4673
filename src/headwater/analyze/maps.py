"""Relevance of many samples, whatever holds it: a store on the disk or an array in memory, read in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.dataset.store import Rows, Store, open_store
from headwater.errors import HeadwaterError, InvalidInput, NonFinite

BATCH = 2048


@dataclass(frozen=True)
class Maps:
    """Relevance ``[N, *shape]`` with what is known of its samples.

    Attributes:
        rows: a :class:`Rows` or an array; ``valid``: the samples that were explained, sorted.
        store: where it came from, if from a store.
    """

    rows: Rows | NDArray[Any]
    valid: NDArray[np.int64]
    store: Store | None = None

    @staticmethod
    def of(source: Any) -> Maps:
        """The maps in what the user passed.

        Args:
            source: a store or the path of one, an array or tensor ``[N, ...]``, or anything with ``relevance``.

        Raises:
            InvalidInput: nothing of this, no sample, or several inputs of which one must be chosen.
            NonFinite: NaN or infinity in an array.
        """
        if isinstance(source, Maps):
            return source
        store = open_store(source) if isinstance(source, (str, os.PathLike)) else source
        if isinstance(store, Store):
            return Maps(_single(store.relevance), np.flatnonzero(store.valid), store)
        values = _single(getattr(source, "relevance", source))
        if isinstance(values, Rows):
            return Maps(values, np.arange(len(values)))
        array = array_of(values)
        if array.ndim < 2 or not array.size:
            raise InvalidInput(f"relevance must have samples on its first axis and features after, not {array.shape}")
        if not np.isfinite(array).all():
            raise NonFinite("The relevance holds NaN or infinity: drop those samples first")
        return Maps(array, np.arange(len(array)))

    def __len__(self) -> int:
        return self.rows.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.rows.shape[1:])

    def batches(self, size: int = BATCH) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All valid samples in order: their numbers and their maps ``[n, *shape]``, float32 or float64."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            low, high = np.searchsorted(self.valid, [start, stop])
            numbers = self.valid[low:high]
            if len(numbers):
                yield numbers, _floats(self.rows[start:stop][numbers - start])

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """The maps of some samples."""
        return _floats(self.rows[np.asarray(numbers)])

    def column(self, name: str) -> NDArray[Any]:
        """A column of the store's table, or the store's labels or targets.

        Raises:
            InvalidInput: there is no store or no such column.
        """
        if self.store is None:
            raise InvalidInput(
                f"{name!r} names a column of a store; for arrays pass the values themselves, one a sample"
            )
        known: dict[str, Any] = {"label": self.store.labels, "target": self.store.targets}
        if known.get(name) is not None:
            return np.asarray(known[name])
        from polars.exceptions import PolarsError

        try:
            columns = self.store.table.collect_schema().names()
            if name not in columns:
                raise InvalidInput(f"{self.store.path} has no column {name!r}: it has {', '.join(columns)}")
            return np.asarray(self.store.table.select(name).collect()[name].to_numpy())
        except (PolarsError, OSError) as error:
            raise HeadwaterError(
                f"the table of {self.store.path} is damaged ({error}): run the same job again to mend it"
            ) from error

    def groups(self, by: Any) -> NDArray[Any] | None:
        """One value a sample ``[N]``: of a column, or as passed; None for none.

        Raises:
            InvalidInput: another number of values, or none for some samples.
        """
        if by is None:
            return None
        values = self.column(by) if isinstance(by, str) else array_of(by)
        if values.shape != (len(self),):
            raise InvalidInput(f"groups of shape {values.shape} for {len(self)} samples: pass one value for each")
        own = values[self.valid]
        without = int(np.sum([value is None or value != value for value in own])) if own.dtype.kind in "fO" else 0
        if without:
            raise InvalidInput(f"{without} of {len(own)} samples have no value to group by: give them one of their own")
        return values


def array_of(value: Any) -> NDArray[Any]:
    """A numpy array of a tensor, an array or a list."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return np.asarray((value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy())
    return np.asarray(value)


def _single(value: Any) -> Any:
    if isinstance(value, Mapping):
        raise InvalidInput(f"the model takes several inputs: pass the relevance of one of them ({', '.join(value)})")
    return value


def _floats(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
