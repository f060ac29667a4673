"""Where samples come from: arrays in memory, a folder of files, or anything with a length and an index."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater.dataset.fingerprint import describe, of_bytes
from headwater.errors import InvalidInput
from headwater.inputs import Preparation, read

Label = int | float | str | None
_LABELS = ("label", "labels", "y")
_FILES = (".png", ".jpg", ".jpeg", ".wav", ".flac", ".npy")
_PROBES = 64  # samples of a data set that stand for it in its fingerprint


@dataclass(frozen=True)
class Source:
    """Samples by index, always the same for the same seed.

    Attributes:
        items: with ``len()`` and an index, each item ``x`` or ``(x, y)`` or a dict.
        kind: "arrays", "folder" or "dataset"; ``name``: what the user would recognize.
        identity: a text that changes when the samples do, or "" to judge by a few of them.
        ids: one a sample, or None for their numbers.
        prepare: what becomes of an item before it is taken apart.
        classes: names of the labels, where the folder gave them.
    """

    items: Any
    kind: str
    name: str
    identity: str
    ids: Sequence[str] | None = None
    prepare: Callable[[Any], Any] | None = None
    classes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int, seed: int) -> tuple[Any, Label]:
        """One sample: ``x`` as tensors, without the axis of samples, and its label."""
        with _seeded(seed, index) if self.kind == "dataset" else _nothing():
            item = self.items[index]
            return split(item if self.prepare is None else self.prepare(item))

    def load_all(self, indices: Sequence[int], seed: int) -> list[tuple[Any, Label]]:
        """Several samples, in one call where the data set has ``__getitems__``."""
        if self.kind != "dataset" or not hasattr(self.items, "__getitems__"):
            return [self.load(i, seed) for i in indices]
        with _seeded(seed, indices[0]):
            items = self.items.__getitems__(list(indices))
            return [split(item if self.prepare is None else self.prepare(item)) for item in items]

    def id(self, index: int) -> str:
        """The name of a sample."""
        return str(index) if self.ids is None else str(self.ids[index])

    def fingerprint(self, seed: int) -> str:
        """Of all of an array, of names and sizes of files, and of a few samples of a data set."""
        n = len(self)
        parts = [self.kind, str(n), self.identity, describe(self.prepare)]
        if not self.identity or self.prepare is not None:
            parts += [_probe(self, i, seed) for i in sorted({round(k) for k in np.linspace(0, n - 1, _PROBES)})]
        if self.ids is not None:
            parts.append(of_bytes("\0".join(self.ids).encode()))
        return of_bytes("\n".join(parts).encode())


def _probe(source: Source, index: int, seed: int) -> str:
    try:
        return describe(source.load(index, seed))
    except Exception as error:  # a bad sample is met, and told of, when its turn comes
        return f"{type(error).__name__}: {error}"


def source_of(
    dataset: Any, ids: Sequence[str] | None = None, prepare: Callable[[Any], Any] | None = None
) -> Source:  # fmt: skip
    """The samples in what the user passed.

    Args:
        dataset: a tensor or array ``[N, ...]``, a pair ``(x, y)`` of them, a dict of them, a folder, or any object with
            ``len()`` and an index (a torch or Hugging Face data set, a list).
        ids: a name for each sample; by default its number, or the file's path within the folder.
        prepare: called on each item; returns ``x`` or ``(x, y)``.

    Raises:
        InvalidInput: nothing of this, an empty one, or lengths that differ.
    """
    if isinstance(dataset, Source):
        source = dataset
    elif isinstance(dataset, (str, os.PathLike)):
        source = folder(Path(dataset))
    elif isinstance(dataset, (Tensor, np.ndarray)) or _is_arrays(dataset):
        source = _arrays(dataset)
    elif hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not isinstance(dataset, Mapping):
        identity = str(getattr(dataset, "_fingerprint", ""))  # Hugging Face's own
        source = Source(dataset, "dataset", type(dataset).__name__, identity)
    else:
        raise InvalidInput(
            f"dataset must be arrays, a folder or an object with len() and an index, not {type(dataset).__name__}: a "
            "stream has no order to resume in; write it to files or a list first"
        )
    if not len(source):
        raise InvalidInput("the data set is empty: there is nothing to explain")
    if ids is not None and len(ids) != len(source):
        raise InvalidInput(f"{len(ids)} ids for {len(source)} samples: pass one for each")
    if prepare is not None:
        source = replace(source, prepare=prepare)
    return source if ids is None else replace(source, ids=[str(i) for i in ids])


def folder(root: Path, preparation: Preparation | None = None) -> Source:
    """Pictures, recordings or arrays (one sample a file); the folders directly within name the classes.

    Raises:
        InvalidInput: no such folder, or no file of a known kind in it.
    """
    if not root.is_dir():
        raise InvalidInput(f"there is no folder {root}")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in _FILES and not p.name.startswith("."))
    if not paths:
        raise InvalidInput(f"the folder {root} holds no file of a known kind ({', '.join(s[1:] for s in _FILES)})")
    names = [p.relative_to(root).as_posix() for p in paths]
    inner = {name.partition("/")[0] for name in names}
    classes = tuple(sorted(inner)) if all("/" in name for name in names) else ()
    identity = "\n".join(
        [describe(preparation), *(f"{n} {p.stat().st_size}" for n, p in zip(names, paths, strict=True))]
    )
    items = _FolderItems(root, names, classes, preparation)
    return Source(items, "folder", root.name, of_bytes(identity.encode()), names, classes=classes)


@dataclass(frozen=True)
class _FolderItems:
    root: Path
    names: list[str]
    classes: tuple[str, ...]
    preparation: Preparation | None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Label]:
        name = self.names[index]
        path = self.root / name
        label = self.classes.index(name.partition("/")[0]) if self.classes else None
        if path.suffix.lower() == ".npy":
            return _tensor(np.load(path, allow_pickle=False)), label
        x = read([str(path)], self.preparation).x
        assert isinstance(x, Tensor), "pictures and recordings are one tensor"
        return x[0], label


def _is_arrays(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(part, (Tensor, np.ndarray)) for part in value.values())
    pair = isinstance(value, tuple) and len(value) == 2
    return (
        pair and (isinstance(value[0], (Tensor, np.ndarray)) or _is_arrays(value[0])) and hasattr(value[1], "__len__")
    )


@dataclass(frozen=True)
class _ArrayItems:
    x: Any
    y: Any

    def __len__(self) -> int:
        return len(next(iter(self.x.values()))) if isinstance(self.x, Mapping) else len(self.x)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        x = {key: part[index] for key, part in self.x.items()} if isinstance(self.x, Mapping) else self.x[index]
        return x, None if self.y is None else self.y[index]


def _arrays(value: Any) -> Source:
    x, y = value if isinstance(value, tuple) else (value, None)
    if isinstance(x, Mapping) and y is None:
        y = next((x[key] for key in _LABELS if key in x), None)
        x = {key: part for key, part in x.items() if key not in _LABELS}
    x = {key: _tensor(part) for key, part in x.items()} if isinstance(x, Mapping) else _tensor(x)
    parts = list(x.values()) if isinstance(x, dict) else [x]
    if any(not part.dim() for part in parts):
        raise InvalidInput("an array of the data set is a scalar: its first axis must hold the samples")
    lengths = [len(part) for part in parts] + ([] if y is None else [len(y)])
    if len(set(lengths)) > 1:
        raise InvalidInput(f"the arrays of the data set have different lengths: {', '.join(map(str, lengths))}")
    shapes = ", ".join(str(list(part.shape)) for part in parts)
    return Source(_ArrayItems(x, y), "arrays", shapes, describe((x, y)))


def split(item: Any) -> tuple[Any, Label]:
    """``x`` as a tensor or a dict or tuple of tensors, and the label; of ``x``, ``(x, y)`` or a dict with a label.

    Raises:
        InvalidInput: an item that holds anything else.
    """
    label: Any = None
    if isinstance(item, Mapping):
        label = next((item[key] for key in _LABELS if key in item), None)
        rest = {key: _tensor(value) for key, value in item.items() if key not in _LABELS}
        return (next(iter(rest.values())) if len(rest) == 1 else rest), _label(label)
    if isinstance(item, (tuple, list)):
        if len(item) != 2:
            raise InvalidInput(
                f"a sample of {len(item)} parts: a sample is x or (x, y), where x may itself be a tuple or a dict"
            )
        item, label = item
    if isinstance(item, Mapping):
        return {key: _tensor(value) for key, value in item.items()}, _label(label)
    if isinstance(item, (tuple, list)):
        return tuple(_tensor(value) for value in item), _label(label)
    return _tensor(item), _label(label)


def _tensor(value: Any) -> Tensor:
    """A tensor; of a picture of Pillow's, ``[C, H, W]`` in 0 to 1."""
    if isinstance(value, Tensor):
        return value
    if hasattr(value, "getbands"):
        pixels = torch.from_numpy(np.array(value)).float() / 255
        return pixels.movedim(-1, 0) if pixels.dim() == 3 else pixels[None]
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidInput(
            f"a sample holds a {type(value).__name__}, which is no array: pass prepare= to turn an item into (x, y)"
        ) from None


def _label(value: Any) -> Label:
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        value = value.reshape(-1)[0].item() if np.prod(value.shape) == 1 else None
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, (int, float, str)) else None  # a map or a vector is no label to group by


def stack(samples: list[Any]) -> Any:
    """Samples as one batch.

    Raises:
        InvalidInput: their shapes differ.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: stack([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple):
        return tuple(stack(list(parts)) for parts in zip(*samples, strict=True))
    shapes = {tuple(sample.shape) for sample in samples}
    if len(shapes) > 1:
        raise InvalidInput(
            f"shapes differ ({', '.join(str(list(s)) for s in sorted(shapes))}): make them one with prepare=, in the "
            "shell with --size"
        )
    return torch.stack(samples)


def place(x: Any, model: Callable[..., Any]) -> Any:
    """The samples on the model's device, floats in its precision."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    weight = next((p for p in parameters if p.is_floating_point()), None)
    if weight is None:
        return x
    if isinstance(x, Mapping):
        return {key: place(part, model) for key, part in x.items()}
    if isinstance(x, tuple):
        return tuple(place(part, model) for part in x)
    return x.to(weight.device, weight.dtype if x.is_floating_point() else x.dtype)


@contextmanager
def _seeded(seed: int, index: int) -> Iterator[None]:
    """The same random numbers for a sample whenever it is loaded; the caller's generators are left as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        number = int.from_bytes(of_bytes(f"{seed} {index}".encode()).encode()[:7])
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def _nothing() -> Iterator[None]:
    yield
