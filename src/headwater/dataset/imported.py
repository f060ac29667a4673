"""``hw.import_attributions``: a store of relevance that another program computed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.dataset.elsewhere import Picked, Rows, arrays_in
from headwater.dataset.files import open_files
from headwater.dataset.fingerprint import describe, of_bytes
from headwater.dataset.job import Columns, Job, Pool, Question
from headwater.dataset.manifest import Manifest
from headwater.dataset.run import carry_out, settle
from headwater.dataset.sources import Label, Source, stack
from headwater.dataset.store import Store
from headwater.errors import InvalidInput, NonFinite
from headwater.explanation import Explanation

_BATCH = 256  # samples that are read at once
_PROBES = 64  # samples that stand for all of them in the fingerprint


def import_attributions(
    relevance: Any,
    store: str | os.PathLike[str],
    inputs: Any = None,
    labels: Any = None,
    targets: Any = None,
    outputs: Any = None,
    *,
    ids: Sequence[str] | None = None,
    name: str = "imported",
    dtype: str = "float32",
    pooled: Mapping[str, Pool] | None = None,
    skip_bad: bool = False,
    progress: bool | None = None,
) -> Store:
    """Bring relevance that was computed elsewhere into a store, for everything that takes one (SpRAy, pooling ...).

    As with :func:`headwater.run`, the same call goes on where it was interrupted. Files are read a part at a time.

    Args:
        relevance: an array or tensor ``[N, ...]``, a dict of arrays, or a path: ``.npy``, ``.npz``, a Zarr array or
            group, or HDF5. Of a file with several arrays those are taken whose names tell what they are (``relevance``
            or ``attribution``, ``inputs`` or ``data``, ``labels``, ``targets``, ``outputs`` or ``prediction``, ids).
            HDF5 files of CoRelAy's and ViRelAy's layout are read as theirs: ``label`` beside ``attribution`` is the
            class that was explained, and ``index`` names the samples of the file of inputs.
        store: a folder, or a URL that fsspec knows.
        inputs: what was explained, ``[N, ...]``, in any of these forms; a file of inputs may bring the labels.
        labels: the samples' own classes, numbers or texts ``[N]``; of several classes at once, ``[N, C]`` of truth
            values, the text ``"2,5"``.
        targets: the classes that were explained, ``[N]``.
        outputs: the scores that were explained, ``[N]``; of ``[N, C]`` those of ``targets``, or without targets the
            highest of each sample, whose class is then the target.
        ids: a name for each sample; by default its number.
        name: of the explanation within the store, by its method say.
        dtype: of the stored relevance: "float16", "float32" or "float64".
        pooled: names and functions of relevance ``[n, ...]`` whose results are stored beside it.
        skip_bad: pass over samples whose relevance holds NaN or infinity; else the first one is an error.
        progress: show a bar; None shows one on a terminal.

    Returns:
        The complete store; see :func:`headwater.open_store`.

    Raises:
        InvalidInput: arrays that cannot be read or do not fit each other; a store that another call began.
        NonFinite: relevance that holds NaN or infinity, without ``skip_bad``.
        MissingExtra: without the extra ``dataset``; for HDF5 without ``hdf5``.
    """
    if dtype not in ("float16", "float32", "float64"):
        raise InvalidInput(f"dtype must be 'float16', 'float32' or 'float64', not {dtype!r}")
    if not name or "/" in name:
        raise InvalidInput(f"name becomes a folder of the store and holds no slash: not {name!r}")
    arrays = _gathered(relevance, inputs, {"labels": labels, "targets": targets, "outputs": outputs, "ids": ids})
    samples = _Samples(arrays)
    named = [str(i) for i in _labels(arrays["ids"][:])] if "ids" in arrays else None
    source = Source(samples, "dataset", _title(relevance), samples.fingerprint(), named)
    files = open_files(store)
    question = Question(name, name, None, {}, dtype, True, pooled or {})
    draft = Manifest(
        len(samples), _BATCH, _BATCH, 0, 1, ("imported", ""), (source.name, source.fingerprint(0)), (), "", (), (),
        skip_bad,
    )  # fmt: skip
    job = settle(Importing(_no_model, source, (question,), draft, files.url, "inputs" in arrays), [""])
    return carry_out(job, files, progress=progress)


@dataclass(frozen=True)
class Importing(Job):
    """A job whose explanations are read, not made."""

    def explain_rows(self, loaded: Mapping[int, tuple[Any, Label]]) -> Columns:
        """What the arrays of the store hold for these samples."""
        parts = stack([sample for sample, _ in loaded.values()])
        relevance = parts["relevance"] if parts["relevance"].is_floating_point() else parts["relevance"].double()
        if not bool(relevance.isfinite().all()):
            raise NonFinite("its relevance holds NaN or infinity")
        found: Columns = {}
        if self.manifest.label:
            found["labels"] = np.array([label for _, label in loaded.values()])
        if self.inputs:
            found["inputs"] = parts["inputs"].numpy()
        output, target = _explained(parts.get("outputs"), parts.get("targets"), len(relevance))
        (question,) = self.questions
        zero = torch.zeros_like(output)
        # nobody knows what it should sum to
        columns = question.columns(Explanation(relevance, output, zero, target, question.method, complete=False))
        if "outputs" not in parts:
            del columns[f"{question.name}/outputs"]
        return found | columns


@dataclass(frozen=True)
class _Samples:
    """Arrays of N samples as a data set: each item a dict of its parts, and its label."""

    arrays: Mapping[str, Rows]

    def __len__(self) -> int:
        return self.arrays["relevance"].shape[0]

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Several samples, with one access to each array; indices are sorted and follow each other."""
        rows = slice(indices[0], indices[-1] + 1)
        kept = [i - indices[0] for i in indices]
        values = {key: self.arrays[key][rows] for key in self.arrays if key not in ("labels", "ids")}
        read = {key: _numbers(part, key)[kept] for key, part in values.items()}
        items: list[Any] = [{key: torch.from_numpy(part[i : i + 1])[0] for key, part in read.items()} for i in kept]
        if "labels" not in self.arrays:
            return [(item, None) for item in items]
        labels = _labels(np.asarray(self.arrays["labels"][rows])[kept])
        return list(zip(items, labels, strict=True))

    def fingerprint(self) -> str:
        """Of the arrays' shapes and of a few samples."""
        probes = sorted({round(k) for k in np.linspace(0, len(self) - 1, _PROBES)})
        shapes = {key: rows.shape for key, rows in self.arrays.items()}
        return of_bytes(describe([shapes, *(self[i] for i in probes)]).encode())


def _gathered(relevance: Any, inputs: Any, others: Mapping[str, Any]) -> dict[str, Rows]:
    """All arrays; those that were passed by themselves go before those that came in a file with others.

    Raises:
        InvalidInput: their lengths differ, or there are no samples.
    """
    arrays = arrays_in(relevance, "relevance")
    count = arrays["relevance"].shape[0]
    if not count:
        raise InvalidInput("the relevance is empty: there is nothing to import")
    index = arrays.pop("index", None)
    if inputs is not None:
        brought = {key: rows for key, rows in arrays_in(inputs, "inputs").items() if key in ("inputs", "labels")}
        if index is not None:
            places = _places(index[:], brought["inputs"].shape[0])
            brought = {key: Picked(rows, places) for key, rows in brought.items()}
        arrays |= brought
    if index is not None:
        arrays.setdefault("ids", index)
    arrays |= {key: arrays_in(value, key)[key] for key, value in others.items() if value is not None}
    for key, rows in arrays.items():
        if rows.shape[0] != count:
            raise InvalidInput(f"{rows.shape[0]} {key} for relevance of {count} samples: pass one for each")
    return arrays


def _places(index: Any, count: int) -> NDArray[np.int64]:
    places = np.asarray(index, dtype=np.int64).reshape(-1)
    if places.min() < 0 or places.max() >= count:
        raise InvalidInput(
            f"the index of the relevance reaches from {places.min()} to {places.max()}, the inputs hold {count} "
            "samples: pass the file that the relevance was computed of"
        )
    return places


def _numbers(values: Any, what: str) -> NDArray[Any]:
    """A copy that torch takes, whatever order of bytes and precision a file has."""
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        raise InvalidInput(f"the {what} are of type {found.dtype}: they must be real numbers")
    wide = found.dtype.kind == "f" and found.dtype.itemsize > 8
    return np.array(found, dtype=np.float64 if wide else found.dtype.newbyteorder("="))


def _labels(values: Any) -> list[Label]:
    """Of each sample a number or a text; several classes of one sample, marked in ``[n, C]``, are a text."""
    found = np.asarray(values)
    if found.ndim > 1 and found.shape[1] > 1:
        return [",".join(map(str, np.flatnonzero(row))) for row in found]
    labels = found.reshape(len(found)).tolist()
    return [label.decode() if isinstance(label, bytes) else label for label in labels]


def _explained(outputs: Tensor | None, targets: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
    """The scores ``[n]`` that were explained (NaN where nobody knows), and their classes ``[n]``, where known."""
    if targets is not None and targets.dim() > 1 and targets.shape[1] > 1:
        if not bool(((targets != 0).sum(1) == 1).all()):
            raise InvalidInput("of several classes it is not known which was explained: name it with targets=")
        targets = targets.long().argmax(1)
    target = None if targets is None else targets.reshape(count).long()
    if outputs is None:
        return torch.full((count,), torch.nan, dtype=torch.float64), target
    scores = outputs.double()
    if scores.dim() == 1 or scores.shape[1] == 1:
        return scores.reshape(count), target
    target = scores.argmax(1) if target is None else target
    if int(target.max()) >= scores.shape[1] or int(target.min()) < 0:
        raise InvalidInput(f"target {int(target.max())} is out of range for outputs of {scores.shape[1]} classes")
    return scores.gather(1, target[:, None])[:, 0], target


def _title(relevance: Any) -> str:
    if isinstance(relevance, (str, os.PathLike)):
        return Path(relevance).name
    return "arrays"


def _no_model(*_: Any) -> Any:
    """What stands in the place of the model, which is not here."""
    raise NotImplementedError
