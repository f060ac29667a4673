"""Samples from files: what the command line accepts as ``INPUT``, as one batch that a model can take."""

from __future__ import annotations

import csv
import glob
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.errors import InvalidInput, MissingExtra


@dataclass(frozen=True)
class Preparation:
    """How files become a batch.

    Attributes:
        size: height and width that pictures are cropped (around the middle) and resized to; absent, they stay as is.
        mean: per channel, subtracted from pictures in [0, 1].
        std: per channel, divides pictures after the mean was subtracted.
        drop: columns of tables that the model does not take, such as the answer.
        tokenizer: a ``transformers`` tokenizer, which text needs.
    """

    size: tuple[int, int] | None = None
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    drop: Sequence[str] = ()
    tokenizer: Any = None


@dataclass(frozen=True)
class Samples:
    """One batch of samples and what a reader needs to recognize them.

    Attributes:
        x: the model's input: a tensor ``[N, ...]``, or a dict of tensors for ``model(**x)``.
        names: one name a sample.
        bounds: the lowest and the highest value that the input can take (broadcastable to ``x``), where that is known.
        pictures: the samples as pictures in [0, 1], ``[N, 3, H, W]``.
        tokens: the samples as words or parts of words, padding included.
        columns: the names of a table's columns.
        rate: samples a second of a recording.
    """

    x: Tensor | dict[str, Tensor]
    names: list[str]
    bounds: tuple[Tensor, Tensor] | None = None
    pictures: Tensor | None = None
    tokens: list[list[str]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    rate: int | None = None


def read(inputs: Sequence[str], preparation: Preparation | None = None) -> Samples:
    """Read files, folders and globs of one kind into one batch.

    Pictures (png, jpg) become ``[N, 3, H, W]``, recordings (wav, flac) ``[N, channels, T]``, the rows of tables (csv)
    ``[N, columns]``, arrays (npy, or npz with one array) what they hold; an npz with several arrays becomes a dict of
    them, and a text (txt, one sample a file) what the tokenizer makes of it. Floating point numbers become float32.

    Raises:
        InvalidInput: a file is missing or cannot be read, the files are of several kinds, or their shapes differ.
        MissingExtra: pictures without Pillow, recordings without soundfile.
    """
    paths = [path for pattern in inputs for path in _expand(pattern)]
    readers = {_READERS[path.suffix.lower()] for path in paths}
    if len(readers) > 1:
        suffixes = ", ".join(sorted({path.suffix.lower() for path in paths}))
        raise InvalidInput(f"the input mixes several kinds of files ({suffixes}): explain one kind at a time")
    return readers.pop()(paths, preparation or Preparation())


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in _READERS)
        if not found:
            raise InvalidInput(f"the folder {pattern} holds no file of a known kind ({_KINDS})")
        # texts beside data are notes on it
        return [entry for entry in found if entry.suffix.lower() != ".txt"] or found
    found = [path] if path.is_file() else sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    if not found:
        raise InvalidInput(f"there is no file {pattern}")
    unknown = next((entry for entry in found if entry.suffix.lower() not in _READERS), None)
    if unknown is not None:
        raise InvalidInput(f"{unknown} is of no known kind ({_KINDS})")
    return found


def _read_pictures(paths: Sequence[Path], preparation: Preparation) -> Samples:
    pictures = _stack(paths, [_picture(path, preparation.size) for path in paths], "choose one size with --size")
    if len(preparation.mean) != 3 or len(preparation.std) != 3 or 0 in preparation.std:
        raise InvalidInput("pictures have three channels: give three means and three deviations other than 0")
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (preparation.mean, preparation.std))
    ends = -mean / std, (1 - mean) / std
    bounds = torch.minimum(*ends), torch.maximum(*ends)
    return Samples((pictures - mean) / std, [path.stem for path in paths], bounds=bounds, pictures=pictures)


def _picture(path: Path, size: tuple[int, int] | None) -> Tensor:
    image_module, operations = _package("PIL.Image", "plot"), _package("PIL.ImageOps", "plot")
    try:
        with image_module.open(path) as file:
            picture = operations.exif_transpose(file).convert("RGB")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read as a picture: {error}") from error
    if size is not None:
        picture = operations.fit(picture, (size[1], size[0]), image_module.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _read_recordings(paths: Sequence[Path], preparation: Preparation) -> Samples:
    soundfile = _package("soundfile", "audio")
    recordings, rates = [], set()
    for path in paths:
        try:
            values, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InvalidInput(f"{path} cannot be read as a recording: {error}") from error
        recordings.append(torch.from_numpy(values.T.copy()))
        rates.add(rate)
    if len(rates) > 1:
        several = ", ".join(str(rate) for rate in sorted(rates))
        raise InvalidInput(f"the recordings have several rates ({several} Hz): resample them")
    x = _stack(paths, recordings, "cut them to one length, or explain them one at a time")
    return Samples(x, [path.stem for path in paths], rate=rates.pop())


def _read_tables(paths: Sequence[Path], preparation: Preparation) -> Samples:
    tables = [_table(path, preparation.drop) for path in paths]
    columns = tables[0][0]
    for path, (others, _) in zip(paths, tables, strict=True):
        if others != columns:
            raise InvalidInput(f"the columns of {path} are not those of {paths[0]}")
    names = _rows(paths, [len(rows) for _, rows in tables])
    return Samples(torch.cat([rows for _, rows in tables]), names, columns=columns)


def _table(path: Path, drop: Sequence[str]) -> tuple[list[str], Tensor]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise InvalidInput(f"{path} holds no row")
    named = not all(_is_number(cell) for cell in rows[0])
    header = [cell.strip() for cell in rows[0]] if named else [f"column {index}" for index in range(len(rows[0]))]
    absent = [name for name in drop if name not in header]
    if absent:
        raise InvalidInput(f"{path} has no column {absent[0]!r}; its columns are {', '.join(header)}")
    kept = [index for index, name in enumerate(header) if name not in drop]
    values = [_row(path, line, row, header, kept) for line, row in enumerate(rows[named:], start=1 + named)]
    if not values:
        raise InvalidInput(f"{path} holds a header and no row")
    return [header[index] for index in kept], torch.tensor(values)


def _row(path: Path, line: int, row: list[str], header: list[str], kept: list[int]) -> list[float]:
    if len(row) != len(header):
        raise InvalidInput(f"row {line} of {path} has {len(row)} cells, the first row has {len(header)}")
    for index in kept:
        if not _is_number(row[index]):
            raise InvalidInput(
                f"row {line} of {path} has {row[index]!r} in column {header[index]!r}: write a number, or drop it"
            )
    return [float(row[index]) for index in kept]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_arrays(paths: Sequence[Path], preparation: Preparation) -> Samples:
    contents = [_array(path) for path in paths]
    keys = list(contents[0])
    for path, content in zip(paths, contents, strict=True):
        if list(content) != keys:
            raise InvalidInput(f"the arrays of {path} are not named as those of {paths[0]} are")
    try:
        x = {key: torch.cat([content[key] for content in contents]) for key in keys}
    except RuntimeError as error:
        raise InvalidInput(f"the arrays do not fit together along their first dimension: {error}") from error
    lengths = [len(content[keys[0]]) for content in contents]
    return Samples(x if len(keys) > 1 else x[keys[0]], _rows(paths, lengths))


def _array(path: Path) -> dict[str, Tensor]:
    try:
        content = np.load(path, allow_pickle=False)
        arrays = dict(content) if isinstance(content, Mapping) else {"": content}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{path} cannot be read as arrays of numbers: {error}") from error
    scalar = next((name for name, tensor in tensors.items() if tensor.dim() == 0), None)
    if not tensors or scalar is not None:
        raise InvalidInput(f"{path} holds no batch: its arrays need a first dimension, one entry a sample")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _read_texts(paths: Sequence[Path], preparation: Preparation) -> Samples:
    tokenizer = preparation.tokenizer
    if tokenizer is None:
        raise InvalidInput("text needs the tokenizer of its model: name the model as hf:PATH, a folder that holds both")
    texts = [path.read_text(encoding="utf-8") for path in paths]
    batch = dict(tokenizer(texts, padding=len(texts) > 1, truncation=True, return_tensors="pt"))
    tokens = [tokenizer.convert_ids_to_tokens(ids) for ids in batch["input_ids"].tolist()]
    return Samples(batch, [path.stem for path in paths], tokens=tokens)


def _rows(paths: Sequence[Path], lengths: Sequence[int]) -> list[str]:
    return [f"{path.stem} {row}" for path, length in zip(paths, lengths, strict=True) for row in range(length)]


def _stack(paths: Sequence[Path], tensors: list[Tensor], remedy: str) -> Tensor:
    for path, tensor in zip(paths, tensors, strict=True):
        if tensor.shape != tensors[0].shape:
            raise InvalidInput(
                f"{path} has shape {tuple(tensor.shape)}, {paths[0]} has {tuple(tensors[0].shape)}: {remedy}"
            )
    return torch.stack(tensors)


def _package(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(extra, "pillow" if name.startswith("PIL") else name) from error


_READERS: dict[str, Callable[[Sequence[Path], Preparation], Samples]] = {
    ".png": _read_pictures,
    ".jpg": _read_pictures,
    ".jpeg": _read_pictures,
    ".npy": _read_arrays,
    ".npz": _read_arrays,
    ".csv": _read_tables,
    ".txt": _read_texts,
    ".wav": _read_recordings,
    ".flac": _read_recordings,
}
_KINDS = ", ".join(suffix[1:] for suffix in _READERS)
