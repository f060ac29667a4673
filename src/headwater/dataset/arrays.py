"""Zarr version 3, chunk by chunk: what the file of one chunk holds, apart from where and how it is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.errors import MissingExtra

_INNER = 1 << 20  # bytes that are decoded to read a single sample, about


@dataclass(frozen=True)
class Array:
    """One array of the store, ``[N, *shape]``, whose file ``i`` holds the samples of chunk ``i``.

    Attributes:
        name: its path in the store; ``shape``: without the axis of samples; ``dtype``: numpy's name, or "string".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @staticmethod
    def from_json(facts: dict[str, Any]) -> Array:
        """The array that :meth:`to_json` wrote down."""
        return Array(facts["name"], tuple(facts["shape"]), facts["dtype"])

    def to_json(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)

    @property
    def fill(self) -> float | int | str | bool:
        """What stands for a sample that could not be explained."""
        if self.dtype == "string":
            return ""
        return {"f": float("nan"), "b": False}.get(np.dtype(self.dtype).kind, -1)

    def key(self, chunk: int) -> str:
        """The name of a chunk's file."""
        return "/".join([self.name, "c", str(chunk), *["0"] * len(self.shape)])

    def metadata(self, samples: int, chunk: int) -> bytes:
        """The array's ``zarr.json``."""
        return _bytes(self._in_memory(samples, chunk), "zarr.json")

    def encode(self, rows: NDArray[Any], chunk: int) -> bytes:
        """The content of a chunk's file; a last chunk of fewer rows is filled up."""
        memory = self._in_memory(chunk, chunk)
        _zarr().open_array(memory, mode="r+", config={"write_empty_chunks": True})[: len(rows)] = rows
        return _bytes(memory, self.key(0).removeprefix(f"{self.name}/"))

    def empty(self, rows: int) -> NDArray[Any]:
        """Rows in memory, all of them the fill value."""
        dtype = object if self.dtype == "string" else self.dtype
        return np.full((rows, *self.shape), self.fill, dtype=dtype)

    def _in_memory(self, samples: int, chunk: int) -> Any:
        from zarr.codecs import Crc32cCodec, ZstdCodec

        store = _zarr().storage.MemoryStore()
        text = self.dtype == "string"
        row = int(np.prod(self.shape)) * (8 if text else np.dtype(self.dtype).itemsize)
        inner = next(n for n in range(min(chunk, max(1, _INNER // max(row, 1))), 0, -1) if chunk % n == 0)
        _zarr().create_array(
            store, shape=(samples, *self.shape), dtype=str if text else self.dtype, fill_value=self.fill,
            shards=(chunk, *self.shape), chunks=(inner, *self.shape),
            compressors=[ZstdCodec(level=1), Crc32cCodec()], overwrite=True,
        )  # fmt: skip
        return store


def group_metadata(attributes: dict[str, Any]) -> bytes:
    """The ``zarr.json`` of a group."""
    store = _zarr().storage.MemoryStore()
    _zarr().create_group(store, attributes=attributes)
    return _bytes(store, "zarr.json")


def open_array(url: str, name: str) -> Any:
    """The array as zarr reads it; of version 3 alone, since filters of version 2 may unpickle what they read."""
    return _zarr().open_array(f"{url}/{name}", mode="r", zarr_format=3)


def _bytes(store: Any, key: str) -> bytes:
    content: bytes = store._store_dict[key].to_bytes()
    return content


def _zarr() -> Any:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise MissingExtra("dataset", "zarr") from error
    return zarr
