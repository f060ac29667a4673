"""``hw.run``: explain a whole data set into a store, in chunks that survive whatever happens to the process."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headwater.dataset import engines
from headwater.dataset.arrays import group_metadata
from headwater.dataset.files import Files, open_files
from headwater.dataset.fingerprint import describe, of_bytes, of_model
from headwater.dataset.job import Columns, Job, Pool, Question, describe_arrays, facts_of
from headwater.dataset.manifest import COMPLETE, NAME, Manifest
from headwater.dataset.progress import tracked
from headwater.dataset.sources import Label, Source, source_of
from headwater.dataset.store import Store, commit_key, committed, damage, read_manifest
from headwater.errors import HeadwaterError, HeadwaterWarning, InvalidInput
from headwater.methods import find as find_method

_CHUNK_BYTES = 32 << 20  # of a file, before compression: large enough to stream, small enough to hold in memory
_TRIES = 100  # samples that may fail before it is the model or the data set that is to blame
_CHUNK_BATCHES = 64  # so that a slow method loses no hour of work


def run(
    model: Callable[..., Any],
    dataset: Any,
    store: str | os.PathLike[str],
    method: str | Sequence[str] = "lrp",
    target: Any = None,
    batch_size: int = 32,
    *,
    chunk: int | None = None,
    dtype: str = "float32",
    keep_relevance: bool = True,
    keep_inputs: bool = False,
    pooled: Mapping[str, Pool] | None = None,
    ids: Sequence[str] | None = None,
    prepare: Callable[[Any], Any] | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    workers: int = 1,
    threads: int | None = None,
    engine: str = "local",
    progress: bool | None = None,
    **options: Any,
) -> Store:
    """Explain every sample of a data set into a store; called again, go on where the last call ended.

    However often the job is interrupted, and whoever computes its chunks, the store is the same bit for bit: batches
    lie at fixed places, what is random follows from ``seed`` and the sample's place, and the number of threads is that
    of the first call. A chunk is written to temporary names, synced, renamed and committed with its checksums.

    Args:
        model: as for :func:`headwater.explain`, in evaluation mode; samples are moved to its device and precision.
        dataset: a tensor or array ``[N, ...]``, a pair ``(x, y)`` or a dict of them, a folder, or any object with
            ``len()`` and an index whose items are ``x``, ``(x, y)`` or a dict with a label.
        store: a folder, or a URL that fsspec knows (``s3://bucket/name``).
        method: a name, or several.
        target: as for :func:`headwater.explain`, one entry a sample where it is a list or tensor; ``"label"`` is each
            sample's own label; a dict of names and targets explains each.
        batch_size: samples that go through the model at once.
        chunk: samples a file, a multiple of ``batch_size``; by default about 32 MiB, at most 64 batches.
        dtype: of the stored relevance, "float32" or "float16".
        keep_relevance: store it whole; else what ``pooled`` makes of it alone.
        keep_inputs: store the samples too.
        pooled: names and functions of a batch's relevance ``[n, ...]`` that return ``[n, ...]``: stored beside it.
        ids: a name for each sample. prepare: called on each item of the data set; returns ``x`` or ``(x, y)``.
        skip_bad: pass over samples that cannot be loaded or explained, and record why; else the first one is an error.
        seed: for all that is random, in the model and in loading.
        workers: processes that share the cores. threads: of torch in each; by default the cores over ``workers``.
        engine: "local", or "ray" for a Ray cluster (``workers`` actors; needs the extra ray).
        progress: show a bar with rate and time left; None shows one on a terminal.
        **options: passed on to :func:`headwater.explain` (``composite``, ``bounds``, ``layers`` ...).

    Returns:
        The complete store; see :func:`open_store`.

    Raises:
        InvalidInput: arguments that do not fit, or a store that another model, data set or setting began.
        HeadwaterError: a bad sample without ``skip_bad``, a full disk, workers that keep dying.
        MissingExtra: without the extra ``dataset``, or ``ray``.
    """
    _check_arguments(batch_size, chunk, dtype, workers, engine)
    if not keep_relevance and not pooled:
        raise InvalidInput("keep_relevance=False without pooled= stores nothing of the relevance: name what to pool")
    source = source_of(dataset, ids, prepare)
    files = open_files(store)
    questions = _questions(method, target, len(source), options, dtype, keep_relevance, pooled or {})
    job = _plan(model, source, questions, files, batch_size, chunk, keep_inputs, skip_bad, seed, workers, threads)
    return carry_out(job, files, engine, workers, progress)


def carry_out(job: Job, files: Files, engine: str = "local", workers: int = 1, progress: bool | None = None) -> Store:
    """Compute what a store lacks of a job; arguments, returns and raises as :func:`run` has them."""
    _begin(job, files)
    pending = _pending(job.manifest, files)
    found: Iterator[int] = engines.start(engine, job, pending, workers)
    for _ in tracked(found, job.manifest, len(pending), progress):
        pass
    return _end(job.manifest, files)


def _check_arguments(batch_size: int, chunk: int | None, dtype: str, workers: int, engine: str) -> None:
    if batch_size < 1 or workers < 1:
        raise InvalidInput(f"batch_size and workers must be at least 1, not {batch_size} and {workers}")
    if chunk is not None and (chunk < 1 or chunk % batch_size):
        raise InvalidInput(f"chunk must be a multiple of batch_size={batch_size}, not {chunk}")
    if dtype not in ("float16", "float32", "float64"):
        raise InvalidInput(f"dtype must be 'float16', 'float32' or 'float64', not {dtype!r}")
    if engine not in engines.ENGINES:
        raise InvalidInput(f"engine must be one of {', '.join(engines.ENGINES)}, not {engine!r}")


def _questions(
    method: str | Sequence[str], target: Any, n: int, options: dict[str, Any], dtype: str, keep: bool,
    pooled: Mapping[str, Pool],
) -> tuple[Question, ...]:  # fmt: skip
    names = [find_method(name).name for name in ([method] if isinstance(method, str) else method)]
    if not names or len(set(names)) < len(names):
        raise InvalidInput(f"method must name one method, or several once each, not {method!r}")
    targets = dict(target) if isinstance(target, Mapping) else {"": target}
    if not targets:
        raise InvalidInput("target is an empty dict: name a target, or leave it out")
    for name, one in targets.items():
        if "/" in str(name):
            raise InvalidInput(f"the target's name {name!r} holds a slash: it becomes a folder's name")
        if isinstance(one, str) and one != "label":
            raise InvalidInput(f"a target {one!r} is not known: the one that is a text is 'label'")
        if isinstance(one, (Tensor, list)) and len(one) not in (1, n):
            raise InvalidInput(f"{len(one)} targets for {n} samples: pass one, or one for each")
    return tuple(
        Question(f"{name}-{key}" if key else name, name, one, options, dtype, keep, pooled)
        for name in names
        for key, one in targets.items()
    )


def _plan(
    model: Callable[..., Any], source: Source, questions: tuple[Question, ...], files: Files, batch: int,
    chunk: int | None, inputs: bool, skip_bad: bool, seed: int, workers: int, threads: int | None,
) -> Job:  # fmt: skip
    """The job with its manifest."""
    if threads is None:
        began = NAME in files.names("")
        threads = read_manifest(files).threads if began else max(1, torch.get_num_threads() // workers)
    name = getattr(model, "__name__", type(model).__name__)
    draft = Manifest(
        len(source), chunk or batch, batch, seed, threads, (name, of_model(model)),
        (source.name, source.fingerprint(seed)), source.classes, "", (), (), skip_bad,
    )  # fmt: skip
    return settle(Job(model, source, questions, draft, files.url, inputs), _composites(questions), chunk)


def settle(job: Job, composites: Sequence[str], chunk: int | None = None) -> Job:
    """A job that knows what its store holds: shapes and types are found by explaining one sample.

    Args:
        job: with a draft of its manifest.
        composites: one for each question.
        chunk: samples a file; by default about 32 MiB, at most 64 batches.
    """
    job, found = _first_good(job)
    arrays, asked = describe_arrays(job, found)
    facts = tuple(
        facts_of(question, own, composite, describe(question.target), _told(question))
        for question, own, composite in zip(job.questions, asked, composites, strict=True)
    )
    widest = max(values.nbytes for values in found.values())
    chunk = chunk or _chunk(len(job.source), job.manifest.batch, widest)
    return replace(job, manifest=replace(job.manifest, chunk=chunk, arrays=arrays, explanations=facts))


def _told(question: Question) -> str:
    """The options of a question, and what it pools: functions of other code are another job."""
    return describe(question.options | ({"pooled": question.pooled} if question.pooled else {}))


def _first_good(job: Job) -> tuple[Job, Columns]:
    """The job with the kind of its labels, and what the first sample that can be explained brings.

    Raises:
        HeadwaterError: the first sample is bad, or with ``skip_bad`` all of the first hundred.
    """
    first: Exception | None = None
    for row in range(min(_TRIES, len(job.source))):
        try:
            sample = job.source.load(row, job.manifest.seed)
            ready = replace(job, manifest=replace(job.manifest, label=_kind(sample[1])))
            return ready, ready.explain_rows({row: sample})
        except Exception as error:  # the data set and the model are the user's
            first = first or job.blame(error, [row])
            if not job.manifest.skip_bad or isinstance(error, torch.OutOfMemoryError):
                raise first from error
    raise HeadwaterError(f"None of the first {min(_TRIES, len(job.source))} samples can be explained: {first}")


def _composites(questions: Sequence[Question]) -> list[str]:
    found = []
    for question in questions:
        given = question.options.get("composite")
        default = getattr(find_method(question.method), "composite", "")
        found.append(str(default if given is None else given))
    return found


def _kind(label: Label) -> str:
    return {int: "int64", float: "float64", str: "string"}.get(type(label), "")


def _chunk(samples: int, batch: int, row_bytes: int) -> int:
    batches = min(_CHUNK_BATCHES, max(1, _CHUNK_BYTES // max(1, row_bytes * batch)), -(-samples // batch))
    return batches * batch


def _begin(job: Job, files: Files) -> None:
    """Write the manifest and the arrays' metadata, or check that they are those of this job."""
    manifest = job.manifest
    if NAME not in files.names(""):
        if files.names(""):
            unknown = [name for name in files.names("") if not name.startswith(".")]
            if unknown and unknown != ["zarr.json"]:
                raise InvalidInput(f"{files.url} holds other files ({unknown[0]}): name a new folder for the store")
        files.write(NAME, manifest.to_json())
    earlier = read_manifest(files)
    differences = manifest.differences(earlier)
    if differences:
        raise InvalidInput(f"{files.url} was begun by another job: {'; '.join(differences)}. Name another store")
    changed = [name for name, found in manifest.versions.items() if earlier.versions.get(name) != found]
    if changed:
        warnings.warn(
            f"{files.url} was begun with another version of {', '.join(changed)}: the last bits may differ.",
            HeadwaterWarning,
            stacklevel=3,
        )
    files.sweep()
    metadata = {"zarr.json": group_metadata({"headwater": {"format": earlier.format, "manifest": NAME}})}
    for facts in manifest.explanations:
        metadata[f"{facts.name}/zarr.json"] = group_metadata({"method": facts.method, "composite": facts.composite})
    for array in manifest.all_arrays:
        metadata[f"{array.name}/zarr.json"] = array.metadata(manifest.samples, manifest.chunk)
    for key, data in metadata.items():
        try:
            whole = files.read(key) == data
        except FileNotFoundError:
            whole = False
        if not whole:
            files.write(key, data)


def _pending(manifest: Manifest, files: Files) -> list[int]:
    """The chunks that are absent, or damaged and so no longer committed."""
    done = set(committed(files))
    bad = {chunk for chunk in done if damage(files, chunk) is not None}
    if bad:
        warnings.warn(
            f"{len(bad)} damaged chunks of {files.url} are computed again ({', '.join(map(str, sorted(bad)[:5]))}).",
            HeadwaterWarning,
            stacklevel=3,
        )
        for key in [COMPLETE, *map(commit_key, sorted(bad))]:
            files.remove(key)  # what is committed is whole
    return [chunk for chunk in range(manifest.chunks) if chunk not in done or chunk in bad]


def _end(manifest: Manifest, files: Files) -> Store:
    """Write down that the job is complete, with a checksum of all commits."""
    commits = [files.read(commit_key(chunk)) for chunk in range(manifest.chunks)]
    bad = sum(int(json.loads(commit)["bad"]) for commit in commits)
    digest = of_bytes(b"".join(commits))
    content = json.dumps({"chunks": manifest.chunks, "bad": bad, "digest": digest}, indent=1, sort_keys=True)
    files.sweep()
    try:
        written = files.read(COMPLETE) == content.encode()
    except FileNotFoundError:
        written = False
    if not written:
        files.write(COMPLETE, content.encode())
    files.sweep()
    if bad:
        warnings.warn(
            f"{bad} of {manifest.samples} samples could not be explained; the column 'error' of the store's table "
            "says why.",
            HeadwaterWarning,
            stacklevel=3,
        )
    return Store(files, manifest)
