"""Arrays that other programs wrote: numpy, Zarr and HDF5 files, opened without reading them whole."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra

# How an array may be called in a file that holds several; the first names are those of this project's stores.
NAMES = {
    "relevance": ("relevance", "relevances", "attribution", "attributions"),
    "inputs": ("inputs", "input", "data", "x"),
    "labels": ("labels", "label", "y"),
    "targets": ("targets", "target"),
    "outputs": ("outputs", "output", "prediction", "predictions"),
    "ids": ("ids", "id"),
    "index": ("index",),
}
_HDF5 = (".h5", ".hdf5", ".hdf")


class Rows(Protocol):
    """What an array ``[N, ...]`` on a disk has in common with one in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """With the samples first."""
        ...

    def __getitem__(self, index: Any) -> Any:
        """The rows of a slice, or of sorted indices."""
        ...


def arrays_in(value: Any, what: str) -> dict[str, Rows]:
    """The arrays of an argument by their names here; one without a name is ``what``.

    In HDF5 of CoRelAy's and ViRelAy's layout the ``label`` beside an ``attribution`` is the class that was explained.

    Args:
        value: an array, a tensor or a list; a dict of them; or a path: ``.npy``, ``.npz``, a Zarr array or group, HDF5.
        what: a key of ``NAMES``: the one that must be there.

    Raises:
        InvalidInput: no such file, one of another kind, or one without the array that is asked for.
        MissingExtra: zarr or h5py is not installed.
    """
    where, hdf5 = what, False
    if isinstance(value, (str, os.PathLike)):
        where, hdf5, value = f"{what} {value}", Path(value).suffix in _HDF5, _opened(Path(value))
    if not isinstance(value, Mapping):
        return {what: _rows(value, where)}
    names = {key: next((name for name in known if name in value), None) for key, known in NAMES.items()}
    if names[what] is None and len(value) == 1:
        names[what] = next(iter(value))
    if names[what] is None:
        raise InvalidInput(
            f"{where} holds {', '.join(map(str, value)) or 'nothing'}: one of them must be called "
            f"{' or '.join(NAMES[what])}"
        )
    if hdf5 and names["relevance"] == "attribution" and names["targets"] is None:
        names["targets"], names["labels"] = names["labels"], None
    return {key: _rows(value[name], f"{where}, {name}") for key, name in names.items() if name is not None}


@dataclass(frozen=True)
class Picked:
    """Some rows of an array, by their places, in any order."""

    rows: Rows
    places: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """With the samples first."""
        return (len(self.places), *self.rows.shape[1:])

    def __getitem__(self, index: Any) -> NDArray[Any]:
        wanted, order = np.unique(self.places[index], return_inverse=True)  # HDF5 takes sorted indices alone
        return np.asarray(self.rows[wanted])[order]


@dataclass(frozen=True)
class Members:
    """The data sets of an HDF5 group, a sample each, in natural order of their names."""

    group: Any

    @cached_property
    def keys(self) -> list[str]:
        """The names of the samples."""
        return sorted(self.group, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)])

    @property
    def shape(self) -> tuple[int, ...]:
        """With the samples first; that of the first sample stands for all."""
        return (len(self.keys), *self.group[self.keys[0]].shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        rows = [np.asarray(self.group[name]) for name in np.asarray(self.keys)[index]]
        shapes = {row.shape for row in rows}
        if len(shapes) > 1:
            raise InvalidInput(
                f"{self.group.name} holds samples of different shapes ({', '.join(map(str, sorted(shapes)))}): "
                "a store holds those of one"
            )
        return np.stack(rows)


def _opened(path: Path) -> Any:
    """What a file holds: an array, or a mapping from names to arrays."""
    if not path.exists():
        raise InvalidInput(f"there is no file {path}")
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        if path.is_dir():
            found = _package("zarr", "dataset").open(str(path), mode="r")
            return dict(found.members()) if hasattr(found, "members") else found
        if path.suffix in _HDF5:
            return _package("h5py", "hdf5").File(path, "r")
    except (ValueError, OSError, EOFError) as error:  # numpy's, zarr's and HDF5's of a file that is something else
        raise InvalidInput(f"{path} cannot be read as what its name says: {error}") from error
    raise InvalidInput(f"{path} is of no known kind: write the arrays as .npy, .npz, Zarr or HDF5")


def _rows(value: Any, where: str) -> Rows:
    if hasattr(value, "keys"):
        if not len(value):
            raise InvalidInput(f"{where} is an empty group")
        return Members(value)
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    rows = value if hasattr(value, "shape") else np.asarray(value)
    if not rows.shape or (isinstance(rows, np.ndarray) and rows.dtype == object):
        raise InvalidInput(f"{where} is no array [N, ...] of numbers or texts")
    found: Rows = rows
    return found


def _package(name: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(extra, name) from error
