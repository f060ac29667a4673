"""The store's columns: one number, class or text a sample, as the map colours by them and the search filters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headwater.dataset.manifest import COMPLETE
from headwater.dataset.store import Rows, Store, committed, table_key
from headwater.errors import HeadwaterError
from headwater.viewer.memory import Memory
from headwater.viewer.refusals import NotThere

Kind = Literal["category", "number", "text"]
_MOST = 4096  # kinds of values that are told apart; beyond, whole numbers are a scale and texts can only be searched
_NAMED = 2_000_000  # samples whose names are kept in memory
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Column:
    """One value a sample.

    Attributes:
        name, title: as the search and as the reader call it; ``kind``: "category", "number" or "text".
        values: ``[N]``: int32 codes of ``categories`` (-1 missing), float32 (NaN missing), or texts.
        categories: their titles; ``keys``: the values that they stand for.
    """

    name: str
    title: str
    kind: Kind
    values: Any
    categories: Sequence[str] = ()
    keys: Sequence[Any] = ()

    @property
    def nbytes(self) -> int:
        """The memory that it takes, about."""
        return 64 * len(self.values) if self.kind == "text" else int(self.values.nbytes)

    def title_at(self, row: int) -> Any:
        """The value of one sample for a reader; None where it is missing."""
        value = self.values[row]
        if self.kind == "category":
            return self.categories[value] if value >= 0 else None
        return float(value) if self.kind == "number" else str(value)

    def facts(self) -> dict[str, Any]:
        """See :meth:`Columns.facts`."""
        found: dict[str, Any] = {"name": self.name, "title": self.title, "type": self.kind}
        if self.kind == "category":
            there = self.values >= 0
            counts = np.bincount(self.values[there], minlength=len(self.categories))
            return {**found, "categories": list(self.categories), "counts": counts, "missing": int((~there).sum())}
        finite = self.values[np.isfinite(self.values)] if self.kind == "number" else np.zeros(0, np.float32)
        if not len(finite):
            return {**found, "low": None, "high": None, "quantiles": [], "missing": len(self.values)}
        return {
            **found, "low": finite.min(), "high": finite.max(),
            "quantiles": np.quantile(finite, _QUANTILES), "missing": len(self.values) - len(finite),
        }  # fmt: skip


Values = tuple[Kind, Any, Sequence[str], Sequence[Any]]  # of a column: kind, values, categories, keys


@dataclass(frozen=True)
class _Known:
    title: str
    kind: Kind | None
    make: Callable[[], Values]


def coded(values: NDArray[Any], classes: Sequence[str], missing: NDArray[np.bool_]) -> Values:
    """Classes, numbers or texts, whichever the values ``[N]`` are; ``missing`` ``[N]`` marks those without."""
    values = np.asarray(values)
    if values.dtype.kind == "f":
        return "number", np.where(missing, np.nan, values).astype(np.float32), (), ()
    if values.dtype.kind not in "iub":
        values = values.astype(object)
    keys, codes = np.unique(values[~missing], return_inverse=True)
    if len(keys) > _MOST:
        if values.dtype.kind == "O":
            return "text", values, (), ()
        return "number", np.where(missing, np.nan, values.astype(np.float64)).astype(np.float32), (), ()
    found = np.full(len(values), -1, np.int32)
    found[~missing] = codes
    return "category", found, [title_of(key, classes) for key in keys.tolist()], keys.tolist()


def title_of(value: Any, classes: Sequence[str]) -> str:
    """What a reader calls a label or a class."""
    if isinstance(value, int) and 0 <= value < len(classes):
        return str(classes[value])
    return f"{value:g}" if isinstance(value, float) else str(value)


class Columns:
    """All columns of a store by name, each read when it is first asked for.

    Attributes:
        broken: what is to be said of columns that cannot be read.
    """

    def __init__(self, store: Store, classes: Sequence[str], memory: Memory) -> None:
        self._store, self._classes, self._memory = store, classes, memory
        self._known: dict[str, _Known] = {}
        self.broken: list[str] = []
        arrays = {array.name for array in store.manifest.all_arrays}
        self.add("id", "id", "text", self._ids)
        if "labels" in arrays:
            self.add("label", "label", None, self._labels)
        for name in store.names:
            of = "" if len(store.names) == 1 else f" ({name})"
            if f"{name}/targets" in arrays:
                self.add(f"{name}.target", f"explained class{of}", None, partial(self._targets, name))
            if f"{name}/outputs" in arrays:
                self.add(f"{name}.output", f"output{of}", "number", partial(self._numbers, f"{name}/outputs"))
            if f"{name}/delta" in arrays:
                self.add(f"{name}.delta", f"delta{of}", "number", partial(self._numbers, f"{name}/delta"))
        if store.manifest.label == "int64" and f"{store.names[0]}/targets" in arrays:
            self.add("correct", "explained class is the label", "category", self._correct)
        if store.manifest.skip_bad or not store.complete:
            self.add("valid", "explained", "category", self._valid)
            self.add("error", "why not explained", "text", self._errors)

    def add(self, name: str, title: str, kind: Kind | None, make: Callable[[], Values]) -> None:
        """One more column, such as the clusters of an analysis; it takes the place of an earlier one of this name.

        Args:
            title: for the reader. kind: None where the values decide. make: reads them.
        """
        self._known[name] = _Known(title, kind, make)

    @property
    def names(self) -> list[str]:
        """Of all columns."""
        return list(self._known)

    def listed(self) -> list[dict[str, Any]]:
        """Name, title and type of every column; only those are read whose values decide their type.

        A column whose files are damaged is left out; ``broken`` says so from then on.
        """
        found = []
        for name, known in list(self._known.items()):
            try:
                kind = known.kind or self[name].kind
            except HeadwaterError as error:
                self.broken.append(f"The column {name} is left out: {error}")
                del self._known[name]
                continue
            found.append({"name": name, "title": known.title, "type": kind})
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> Column:
        known = self._known.get(name)
        if known is None:
            raise NotThere(f"there is no column {name!r}: the store has {', '.join(self._known)}")
        return self._memory.get(("column", name, known), lambda: Column(name, known.title, *known.make()))

    def facts(self, name: str) -> dict[str, Any]:
        """The categories of a column with their counts, or its range with quantiles."""
        column = self[name]
        return self._memory.get(("facts", name, self._known[name]), column.facts)

    def read_ahead(self) -> None:
        """Read all columns of a store that is not too large to keep them; what is damaged is told of when asked for."""
        for name in self.names if len(self._store) <= _NAMED else ():
            with suppress(HeadwaterError):
                self[name]

    def vector(self, key: str) -> NDArray[Any]:
        """An array ``[N]`` of the store as it lies there."""
        name, _, kind = key.rpartition("/")
        found = getattr(self._store[name] if name else Store(self._store.files, self._store.manifest), kind)
        return np.asarray(found)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """``[N]``: which samples were explained."""
        return self._memory.get("valid", lambda: self.vector("valid").astype(bool))

    def id(self, row: int) -> str:
        """A sample's name; of very many samples not all are kept in memory for it."""
        if len(self._store) <= _NAMED:
            return str(self["id"].values[row])
        array = next(array for array in self._store.manifest.arrays if array.name == "ids")
        return str(Rows(self._store.files, array)[row])

    def error(self, row: int) -> str | None:
        """Why a sample was not explained; None where it was."""
        if self.valid[row]:
            return None
        return str(self["error"].values[row] if "error" in self else "") or "not explained yet"

    def _ids(self) -> Values:
        return "text", self.vector("ids").astype(object), (), ()

    def _labels(self) -> Values:
        return coded(self.vector("labels"), self._classes, ~self.valid)

    def _targets(self, name: str) -> Values:
        values = self.vector(f"{name}/targets")
        return coded(values, self._classes, ~self.valid | (values < 0))

    def _numbers(self, key: str) -> Values:
        return "number", self.vector(key).astype(np.float32), (), ()

    def _correct(self) -> Values:
        labels, targets = self.vector("labels"), self.vector(f"{self._store.names[0]}/targets")
        there = self.valid & (targets >= 0)
        return "category", np.where(there, labels == targets, -1).astype(np.int32), ("no", "yes"), (False, True)

    def _valid(self) -> Values:
        return "category", self.valid.astype(np.int32), ("no", "yes"), (False, True)

    def _errors(self) -> Values:
        """Only chunks with samples that were not explained are read."""
        found = np.full(len(self._store), "", dtype=object)
        for chunk in committed(self._store.files) if self._bad() else []:
            rows = self._store.manifest.span(chunk)
            if not self.valid[rows.start : rows.stop].all():
                found[rows.start : rows.stop] = [
                    text or "" for text in read_table(self._store, chunk)["error"].to_list()
                ]
        return "text", found, (), ()

    def _bad(self) -> bool:
        try:
            return bool(json.loads(self._store.files.read(COMPLETE)).get("bad"))
        except (FileNotFoundError, ValueError):
            return True


def read_table(store: Store, chunk: int) -> Any:
    """The part of the table of samples that a chunk brought.

    Raises:
        HeadwaterError: it is missing or damaged.
    """
    import polars

    key = table_key(chunk)
    try:
        return polars.read_parquet(BytesIO(store.files.read(key)))
    except (FileNotFoundError, polars.exceptions.PolarsError) as error:
        raise HeadwaterError(f"{store.path}/{key} is damaged: run the same job again to mend it") from error
