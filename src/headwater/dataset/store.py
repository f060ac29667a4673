"""``hw.open_store``: a data set's explanations, read without loading them all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.dataset.arrays import Array, open_array
from headwater.dataset.files import Files, open_files
from headwater.dataset.fingerprint import of_bytes
from headwater.dataset.manifest import COMMITS, COMPLETE, NAME, TABLE, Facts, Manifest
from headwater.errors import HeadwaterError, InvalidInput, MissingExtra


def open_store(path: str | os.PathLike[str], partial: bool = False) -> Store:
    """Open what :func:`headwater.run` wrote.

    Args:
        path: a folder, or a URL that fsspec knows.
        partial: open a store whose job has not ended; samples that are missing read as NaN.

    Raises:
        InvalidInput: no store there, one of a newer format, or one that is not complete.
    """
    files = open_files(path)
    store = Store(files, read_manifest(files))
    if not store.complete and not partial:
        done, total = len(committed(files)), store.manifest.chunks
        raise InvalidInput(
            f"{files.url} is not complete ({done} of {total} chunks): run the same job again to finish it, or pass "
            "partial=True to read what there is"
        )
    return store


def read_manifest(files: Files) -> Manifest:
    """The manifest of a store.

    Raises:
        InvalidInput: there is none, or it is of a newer format.
    """
    try:
        return Manifest.from_json(files.read(NAME), files.url)
    except FileNotFoundError:
        raise InvalidInput(f"there is no store at {files.url}") from None


def committed(files: Files) -> list[int]:
    """The chunks that were finished, sorted."""
    return [int(name.removesuffix(".json")) for name in files.names(COMMITS)]


def commit_key(chunk: int) -> str:
    """The file that says that a chunk is whole, with the checksums of its files."""
    return f"{COMMITS}/{chunk:09d}.json"


def table_key(chunk: int) -> str:
    """The part of the table of samples that a chunk brings."""
    return f"{TABLE}/{chunk:09d}.parquet"


def damage(files: Files, chunk: int) -> str | None:
    """What is wrong with a chunk's files, or None where they are what its commit says."""
    try:
        commit = json.loads(files.read(commit_key(chunk)))
        checksums = commit["files"].items()
    except (ValueError, KeyError, FileNotFoundError):
        return commit_key(chunk)
    for key, checksum in checksums:
        try:
            if of_bytes(files.read(key)) != checksum:
                return str(key)
        except FileNotFoundError:
            return str(key)
    return None


class Rows:
    """An array ``[N, ...]`` that lies in the store; indexing reads what is asked for.

    Attributes:
        shape, dtype: as numpy has them.
    """

    def __init__(self, files: Files, array: Array) -> None:
        self._files, self._own, self._url = files, array, f"{files.url}/{array.name}"
        try:
            self._array = open_array(files.url, array.name)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:  # its zarr.json is gone or damaged
            raise HeadwaterError(f"{self._url} is damaged ({error}): run the same job again to mend it") from error
        self.shape: tuple[int, ...] = self._array.shape
        self.dtype: np.dtype[Any] = self._array.dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        listed = isinstance(index, (list, np.ndarray))
        try:
            found = self._array.oindex[np.asarray(index)] if listed else self._array[index]
        except (ValueError, RuntimeError) as error:  # zarr's, of a checksum that does not fit
            raise HeadwaterError(f"{self._url} is damaged ({error}): run the same job again to mend it") from error
        except IndexError as error:
            raise InvalidInput(f"{self._url} of shape {self.shape} has no [{index}]: {error}") from error
        self._check_there(index)
        return np.asarray(found)

    def _check_there(self, index: Any) -> None:
        """Refuse what zarr takes for missing values: the file of a chunk that was finished is gone or empty."""
        first, size = index[0] if isinstance(index, tuple) and index else index, self._rows_a_file
        if isinstance(first, slice):
            rows = range(len(self))[first]
            chunks = range(min(rows) // size, max(rows) // size + 1) if rows else range(0)
        elif isinstance(first, (int, np.integer)):
            chunks = range(int(first) % len(self) // size, int(first) % len(self) // size + 1)
        else:
            chunks = np.unique(np.arange(len(self))[first] // size).tolist()
        for chunk in chunks:
            key = self._own.key(chunk)
            if not self._files.holds(key) and self._files.holds(commit_key(chunk)):
                raise HeadwaterError(
                    f"{self._files.url} is damaged: {key} is missing: run the same job again to mend it"
                )

    @property
    def _rows_a_file(self) -> int:
        return int((self._array.shards or self._array.chunks)[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (row for _, rows in self.batches() for row in rows)

    def batches(self, size: int | None = None) -> Iterator[tuple[slice, NDArray[Any]]]:
        """All rows in order, ``size`` at a time (by default what one file holds), each with its place."""
        step = self._rows_a_file if size is None else size
        for start in range(0, len(self), step):
            place = slice(start, min(start + step, len(self)))
            yield place, self[place]

    def __repr__(self) -> str:
        return f"Rows({self._url}, shape={self.shape}, dtype={self.dtype})"


class Store:
    """The explanations of a data set; ``store["name"]`` is the same with another explanation in front.

    Attributes:
        manifest: what it was made of.
        name: of the explanation that ``relevance``, ``outputs``, ``targets`` and ``delta`` belong to.
    """

    def __init__(self, files: Files, manifest: Manifest, name: str | None = None) -> None:
        self.files, self.manifest = files, manifest
        self.name = manifest.explanations[0].name if name is None else name

    def __getitem__(self, name: str) -> Store:
        if name not in self.names:
            raise InvalidInput(f"{self.path} holds no explanation {name!r}: it has {', '.join(self.names)}")
        return Store(self.files, self.manifest, name)

    def __len__(self) -> int:
        return self.manifest.samples

    @property
    def path(self) -> str:
        """Where it lies."""
        return self.files.url

    @property
    def names(self) -> list[str]:
        """The explanations that it holds."""
        return [facts.name for facts in self.manifest.explanations]

    @property
    def complete(self) -> bool:
        """Whether the job has ended."""
        return COMPLETE in self.files.names("")

    @property
    def facts(self) -> Facts:
        """The method, composite and target in front."""
        return next(facts for facts in self.manifest.explanations if facts.name == self.name)

    @property
    def relevance(self) -> Any:
        """``[N, *shape of x]``: rows, or a dict of them where the model takes several inputs.

        Raises:
            InvalidInput: the job was told not to keep it.
        """
        found = self._found("relevance")
        if not found:
            raise InvalidInput(f"{self.path} was written with keep_relevance=False: it holds {', '.join(self.pooled)}")
        return found.get("", found)

    @property
    def layers(self) -> dict[str, Rows]:
        """Relevance of the layers that were asked for."""
        return self._found("layers")

    @property
    def pooled(self) -> dict[str, Rows]:
        """Pooled relevance, by the names that the job gave."""
        return self._found("pooled")

    @property
    def inputs(self) -> Any:
        """What was explained, where the job stored it; rows, or a dict of them; else None."""
        found = {a.name.partition("/")[2]: Rows(self.files, a) for a in self.manifest.arrays if _stem(a) == "inputs"}
        return found.get("", found) or None

    @cached_property
    def outputs(self) -> NDArray[np.float64]:
        """The explained scalars, ``[N]``."""
        return self._vector(f"{self.name}/outputs")

    @cached_property
    def targets(self) -> NDArray[np.int64] | None:
        """The explained classes ``[N]``, where classes were explained; -1 for a sample without."""
        return self._vector(f"{self.name}/targets")

    @cached_property
    def delta(self) -> NDArray[np.float64] | None:
        """The part of each output that its relevance does not add up to, ``[N]``; None for a method that never does."""
        return self._vector(f"{self.name}/delta")

    @cached_property
    def labels(self) -> NDArray[Any] | None:
        """``[N]``, where the data set has labels."""
        return self._vector("labels")

    @cached_property
    def ids(self) -> NDArray[Any]:
        """The samples' names, ``[N]``."""
        return self._vector("ids")

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """``[N]``: False for samples that could not be explained and were passed over."""
        return self._vector("valid")

    @property
    def table(self) -> Any:
        """The table of samples, a ``polars.LazyFrame``: id, label, valid, error, and each explanation's scalars."""
        return _polars().scan_parquet(f"{self.path}/{TABLE}/*.parquet")

    def damaged(self) -> list[str]:
        """Read everything against its checksums; the files that are damaged or missing."""
        found = (damage(self.files, chunk) for chunk in range(self.manifest.chunks))
        return [key for key in found if key is not None]

    def _found(self, kind: str) -> dict[str, Rows]:
        start = f"{self.name}/{kind}"
        return {
            a.name[len(start) + 1 :]: Rows(self.files, a)
            for a in self.facts.arrays
            if f"{a.name}/".startswith(f"{start}/")
        }

    def _vector(self, name: str) -> Any:
        array = next((array for array in self.manifest.all_arrays if array.name == name), None)
        return None if array is None else Rows(self.files, array)[:]

    def __repr__(self) -> str:
        state = "" if self.complete else ", not complete"
        return f"Store({self.path}, {len(self)} samples, explanations {', '.join(self.names)}{state})"


def _stem(array: Array) -> str:
    return array.name.partition("/")[0]


def _polars() -> Any:
    try:
        import polars
    except ModuleNotFoundError as error:
        raise MissingExtra("dataset", "polars") from error
    return polars
