"""What an explanation costs: time in explanations per second and in forward passes, and memory."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headwater.arguments import Inputs
from headwater.errors import InvalidInput
from headwater.evaluate.asking import settled_target
from headwater.evaluate.explainer import Explainer, Method
from headwater.explanation import leaves
from headwater.target import select


@dataclass(frozen=True)
class Cost:
    """What explaining one batch cost.

    Attributes:
        per_second: explanations per second, from the median over repetitions.
        seconds: of each repetition; ``forward_seconds``: of a bare forward pass of the same batch right beside it.
        batch_size: samples a batch.
        memory: the most bytes held at once during one explanation, beside model and input; ``forward_memory``: during
            a bare forward pass; both None where they were not measured.
    """

    per_second: float
    seconds: tuple[float, ...]
    forward_seconds: tuple[float, ...]
    batch_size: int
    memory: int | None
    forward_memory: int | None

    @property
    def forwards(self) -> float:
        """The cost in units of one forward pass without gradients: the median over repetitions."""
        return statistics.median(a / b for a, b in zip(self.seconds, self.forward_seconds, strict=True))


def cost(
    model: Callable[..., Any], x: Any, method: Method = "lrp", target: Any = None, *, batch_size: int = 16,
    repetitions: int = 10, memory: bool = False,
) -> Cost:  # fmt: skip
    """Time a method on the first batch of ``x``, each repetition beside a forward pass, after one that does not count.

    Args:
        model, x, target: as for ``hw.explain``; the target is chosen before the clock starts.
        method: a name, a dict of options of ``hw.explain``, or a function ``(model, x, target) -> relevance``.
        batch_size: samples at a time, at most those of ``x``; the review's 16.
        repetitions: the review's 10.
        memory: measure the peak too, by one more call of each.

    Raises:
        InvalidInput: a batch size or repetitions below 1.

    Source: Samek et al. 2021 (review), Section IV-C and its footnote 2.
    """
    if batch_size < 1 or repetitions < 1:
        raise InvalidInput(f"batch_size and repetitions must be at least 1, not {batch_size} and {repetitions}")
    inputs = Inputs.of(x)
    first = torch.arange(min(batch_size, inputs.samples))
    batch = inputs.select(first)
    given = batch.pack(batch.values)
    explainer = Explainer.of(method)
    chosen = settled_target(model, given, select(target, first, inputs.samples))
    tensors = [v for v in batch.values if isinstance(v, Tensor)]

    def forward() -> None:
        with torch.no_grad():
            batch.call(model, batch.copies())

    def work() -> None:
        explainer.run(model, given, chosen)

    calls: tuple[Callable[[], None], ...] = (forward, work)
    for call in calls:
        call()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repetitions):
        for call, seconds in zip(calls, times, strict=True):
            seconds.append(_timed(call, tensors))
    peaks = [peak_memory(call, tensors) for call in calls] if memory else [None, None]
    per_second = batch.samples / statistics.median(times[1])
    return Cost(per_second, tuple(times[1]), tuple(times[0]), batch.samples, peaks[1], peaks[0])


def _timed(work: Callable[[], None], tensors: list[Tensor]) -> float:
    _wait(tensors)
    start = time.perf_counter()
    work()
    _wait(tensors)
    return time.perf_counter() - start


def _wait(tensors: list[Tensor]) -> None:
    for device in {t.device for t in tensors if t.is_cuda}:
        torch.cuda.synchronize(device)


def peak_memory(work: Callable[[], Any], tensors: list[Tensor]) -> int:
    """The most bytes that torch held at once during ``work`` beyond what it held before, on the tensors' device."""
    devices = {t.device for t in leaves(tensors) if t.is_cuda}
    if devices:
        device = devices.pop()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device) - before)
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with _silent():
        profiler.__enter__()
    try:
        work()
    finally:
        with _silent():
            profiler.__exit__(None, None, None)
    results: Any = profiler.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@contextmanager
def _silent() -> Iterator[None]:
    """Some builds of torch announce the profiler on the standard error stream, below Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
