"""A job: everything that a worker needs to compute any chunk of a store, and the chunk's computation."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headwater.dataset.arrays import Array
from headwater.dataset.files import open_files
from headwater.dataset.fingerprint import of_bytes
from headwater.dataset.manifest import Facts, Manifest
from headwater.dataset.sources import Label, Source, place, stack
from headwater.dataset.store import commit_key, committed, table_key
from headwater.errors import HeadwaterError, HeadwaterWarning, InvalidInput
from headwater.explain import explain
from headwater.explanation import Explanation
from headwater.propagate.prepared import keeping

Pool = Callable[[Tensor], Tensor]
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Question:
    """One explanation to make of every sample.

    Attributes:
        name: its folder in the store; ``method``, ``target``, ``options``: for :func:`headwater.explain`. A target of
            one entry a sample is cut with them; ``"label"`` is each sample's own.
        dtype: of the relevance that is kept; ``keep``: whether any is; ``pooled``: what else is made of it.
    """

    name: str
    method: str
    target: Any
    options: dict[str, Any]
    dtype: str
    keep: bool
    pooled: Mapping[str, Pool]

    def ask(
        self, model: Callable[..., Any], x: Any, rows: Sequence[int], labels: Sequence[Label], n: int, seed: int
    ) -> Explanation:
        """Explain one batch."""
        target = self.target
        if isinstance(target, str) and target == "label":
            classes = [label for label in labels if isinstance(label, int)]
            if len(classes) < len(labels):
                raise InvalidInput("target='label' needs a data set whose labels are classes: whole numbers")
            if min(classes) < 0:  # a negative target would count from the last class
                raise InvalidInput(f"its label is {min(classes)}, which is no class")
            target = classes
        return explain(
            model, x, target=_of_rows(target, rows, n), method=self.method, seed=seed, progress=False, **self.options
        )

    def columns(self, e: Explanation) -> Columns:
        """What is stored of an explanation, by the names of the arrays."""
        found = {"outputs": e.output.detach().double(), "targets": _classes(e.target), "delta": e.delta}
        maps = {f"relevance/{k}" if k else "relevance": v for k, v in _named(e.relevance).items()}
        if self.keep:
            found |= maps
        layers = {k: v for k, v in e.layers.items() if isinstance(v, Tensor)}
        found |= {f"layers/{name}": r for name, r in layers.items()}
        if self.pooled:
            only = next(iter(maps.values())) if len(maps) == 1 else e.relevance
            found |= {f"pooled/{name}": pool(only) for name, pool in self.pooled.items()}
        return {f"{self.name}/{key}": self._numbers(key, t) for key, t in found.items() if t is not None}

    def _numbers(self, key: str, tensor: Tensor) -> NDArray[Any]:
        tensor = tensor.detach().cpu()
        if key in ("outputs", "delta"):
            return tensor.double().numpy()
        if not tensor.is_floating_point():
            return tensor.numpy()
        if key.startswith("pooled/"):
            return tensor.numpy() if tensor.dtype == torch.float64 else tensor.float().numpy()
        values = tensor.to(getattr(torch, self.dtype))
        if self.dtype == "float16":
            _check_half(tensor, values)
        return values.numpy()


@dataclass(frozen=True)
class Job:
    """What a worker is given; it holds no open file and travels to other processes.

    Attributes:
        model, source, questions: what to explain; ``manifest``: how; ``url``: where to.
        inputs: whether the samples themselves are stored.
    """

    model: Callable[..., Any]
    source: Source
    questions: tuple[Question, ...]
    manifest: Manifest
    url: str
    inputs: bool

    def work(self, chunk: int) -> int:
        """Compute a chunk and write it, its commit last, unless another writer has done so; returns its number."""
        files = open_files(self.url)
        if chunk not in committed(files):
            for key, data in self.compute(chunk).items():
                files.write(key, data)
        return chunk

    def compute(self, chunk: int) -> dict[str, bytes]:
        """The files of a chunk by name, the commit last: the same bytes whoever computes them."""
        span = self.manifest.span(chunk)
        columns = {array.name: array.empty(len(span)) for array in self.manifest.all_arrays}
        errors: list[str | None] = [None] * len(span)
        with _steady(self.manifest.threads), keeping(self.model):
            for start in range(span.start, span.stop, self.manifest.batch):
                self._fill(range(start, min(start + self.manifest.batch, span.stop)), span.start, columns, errors)
        content = {
            array.key(chunk): array.encode(columns[array.name], self.manifest.chunk)
            for array in self.manifest.all_arrays
        }
        content[table_key(chunk)] = self._table(columns, errors)
        checksums = {key: of_bytes(data) for key, data in content.items()}
        bad = sum(error is not None for error in errors)
        commit = {"chunk": chunk, "bad": bad, "files": checksums}
        content[commit_key(chunk)] = json.dumps(commit, indent=1, sort_keys=True).encode()
        return content

    def _fill(self, rows: range, first: int, columns: Columns, errors: list[str | None]) -> None:
        for row in rows:
            columns["ids"][row - first] = self.source.id(row)
        loaded = self._load(rows, errors, first)
        groups = [loaded] if loaded else []
        while groups:
            group = groups.pop()
            places = [row - first for row in group]
            try:
                found = self.explain_rows(group)
                self._check(found, len(group))
            except (HeadwaterError, RuntimeError, ValueError, TypeError, IndexError) as error:
                if isinstance(error, torch.OutOfMemoryError) or not self.manifest.skip_bad:
                    raise self.blame(error, group) from error
                if len(group) > 1:  # find the one that is to blame
                    groups += [{row: loaded[row]} for row in group]
                else:
                    errors[places[0]] = f"{type(error).__name__}: {error}"
                continue
            for name, values in found.items():
                columns[name][places] = values
            columns["valid"][places] = True

    def _load(self, rows: range, errors: list[str | None], first: int) -> dict[int, tuple[Any, Label]]:
        seed = self.manifest.seed
        try:
            return dict(zip(rows, self.source.load_all(rows, seed), strict=True))
        except Exception:  # the data set is the user's: anything may be raised; find out by which sample
            loaded = {}
        for row in rows:
            try:
                loaded[row] = self.source.load(row, seed)
            except Exception as error:
                if not self.manifest.skip_bad:
                    raise self.blame(error, [row]) from error
                errors[row - first] = f"{type(error).__name__}: {error}"
        return loaded

    def blame(self, error: Exception, rows: Any) -> Exception:
        """An error of these samples, told with their names."""
        names = [self.source.id(row) for row in rows]
        who = f"sample {names[0]}" if len(names) == 1 else f"one of the samples {names[0]} to {names[-1]}"
        if isinstance(error, torch.OutOfMemoryError):
            return HeadwaterError(f"The device has no memory for {who}: choose a smaller batch_size")
        reason = f"{error}" if isinstance(error, HeadwaterError) else f"{type(error).__name__}: {error}"
        return HeadwaterError(
            f"{who} cannot be explained: {reason.rstrip('.')}. skip_bad=True passes over such samples and records why"
        )

    def explain_rows(self, loaded: Mapping[int, tuple[Any, Label]]) -> Columns:
        """What the arrays of the store hold for these samples, explained in one batch."""
        rows, n, seed = list(loaded), len(self.source), self.manifest.seed
        x = place(stack([loaded[row][0] for row in rows]), self.model)
        labels = [loaded[row][1] for row in rows]
        found: Columns = {}
        if self.manifest.label:
            found["labels"] = np.array([_labelled(label, self.manifest.label) for label in labels])
        if self.inputs:
            named = _named(x)
            found |= {f"inputs/{k}" if k else "inputs": v.detach().cpu().numpy() for k, v in named.items()}
        for question in self.questions:
            answer = question.ask(self.model, x, rows, labels, n, seed + rows[0])
            found |= question.columns(answer)
        return found

    def _check(self, found: Columns, n: int) -> None:
        for array in self.manifest.all_arrays:
            if array.name not in found:
                if array.name in ("ids", "valid"):
                    continue
                raise InvalidInput(f"it has no {array.name}, which other samples have")
            shape = found[array.name].shape
            if shape != (n, *array.shape):
                raise InvalidInput(
                    f"its {array.name} has shape {list(shape[1:])}, that of other samples is {list(array.shape)}: "
                    "pad or resize the samples to one shape with prepare="
                )

    def _table(self, columns: Columns, errors: list[str | None]) -> bytes:
        import polars

        table = polars.DataFrame({"id": columns["ids"].tolist(), "valid": columns["valid"]})
        table = table.with_columns(polars.Series("error", errors, dtype=polars.String))
        if "labels" in columns:
            table = table.with_columns(
                polars.Series("label", columns["labels"].tolist(), dtype=_POLARS[self.manifest.label]())
            )
        for question in self.questions:
            for kind in ("outputs", "targets", "delta"):
                values = columns.get(f"{question.name}/{kind}")
                if values is not None:
                    table = table.with_columns(polars.Series(f"{question.name}.{kind.rstrip('s')}", values))
        buffer = io.BytesIO()
        table.write_parquet(buffer, compression="zstd")
        return buffer.getvalue()


def _polars_type(name: str) -> Callable[[], Any]:
    def found() -> Any:
        import polars

        return getattr(polars, name)

    return found


_POLARS = {"int64": _polars_type("Int64"), "float64": _polars_type("Float64"), "string": _polars_type("String")}


def describe_arrays(job: Job, found: Columns) -> tuple[tuple[Array, ...], tuple[tuple[Array, ...], ...]]:
    """The arrays that a store needs, by the first sample's: those of the samples, and those of each question."""
    arrays = [Array("ids", (), "string"), Array("valid", (), "bool")]
    if job.manifest.label:
        arrays.append(Array("labels", (), job.manifest.label))
    own = [Array(k, v.shape[1:], str(v.dtype)) for k, v in found.items() if k.partition("/")[0] == "inputs"]
    asked = tuple(
        tuple(Array(k, v.shape[1:], str(v.dtype)) for k, v in found.items() if k.startswith(f"{question.name}/"))
        for question in job.questions
    )
    return (*arrays, *own), asked


def facts_of(question: Question, arrays: tuple[Array, ...], composite: str, target: str, options: str) -> Facts:
    """What the manifest says of a question."""
    return Facts(question.name, question.method, composite, target, options, arrays)


@contextmanager
def _steady(threads: int) -> Iterator[None]:
    """What the last bits depend on: the number of threads, and kernels that are chosen by a race."""
    before, cudnn = torch.get_num_threads(), torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    torch.set_num_threads(threads)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(before)
        cudnn.deterministic, cudnn.benchmark = flags


def _labelled(label: Label, kind: str) -> Any:
    if kind == "string":
        return str(label)
    if not isinstance(label, (int, float)) or (kind == "int64" and not isinstance(label, int)):
        raise InvalidInput(f"its label is {label!r}, those of other samples are {kind}")
    return label


def _of_rows(target: Any, rows: Sequence[int], n: int) -> Any:
    """The part of a target that belongs to these samples, where it has an entry for each of ``n``."""
    if isinstance(target, (Tensor, np.ndarray)) and target.ndim and len(target) == n:
        return torch.as_tensor(target)[list(rows)]
    if isinstance(target, (list, tuple)) and len(target) == n and n > 1:
        return [target[row] for row in rows]
    if is_dataclass(target) and not isinstance(target, type) and hasattr(target, "c"):
        return replace(target, c=_of_rows(target.c, rows, n))
    return target


def _classes(target: Any) -> Tensor | None:
    target = getattr(target, "c", target)
    return target.long() if isinstance(target, Tensor) and target.dim() == 1 else None


def _named(value: Any) -> dict[str, Tensor]:
    if isinstance(value, Tensor):
        return {"": value}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    return {str(key): part for key, part in items if isinstance(part, Tensor)}


def _check_half(exact: Tensor, half: Tensor) -> None:
    """Refuse what float16 cannot hold: numbers beyond 65504, and maps whose sum it changes by more than a hundredth."""
    if not bool(half.isfinite().all()):
        raise InvalidInput("its relevance exceeds 65504, the largest number of float16: pass dtype='float32'")
    total, kept = exact.flatten(1).abs().sum(1).double(), half.flatten(1).double().abs().sum(1)
    if bool(((total - kept).abs() > 0.01 * total).any()):
        warnings.warn(
            "Relevance is too small for float16: more than a hundredth of a map is lost; pass dtype='float32'.",
            HeadwaterWarning,
            stacklevel=2,
        )
