"""Time in one interleaved run, and memory in a process of its own for each contestant.

Times are compared within a round, in which every contestant runs once: what else the machine does at that time, it
does to all of them. The figure is the median over rounds of the ratio to forward + backward. Memory is the resident
set, which only Linux lets a process reset and read.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks import networks
from benchmarks.contestants import BOTH, FORWARD, contestants

T = TypeVar("T")

# By default glibc returns every large block to the system, and each new one costs page faults; a process with these
# settings keeps its memory instead.
ALLOCATORS: dict[str, dict[str, str]] = {
    "default": {},
    "keeping": {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
        "MALLOC_TOP_PAD_": str(64 << 20),
    },
}
# Every large block in pages of its own, so that the resident set is what is in use. By default glibc moves this
# threshold as it goes, and the fragments it then leaves differ from run to run, even those of forward + backward.
_EXACT = {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}
PEAK_LIMIT = 1.3  # of what forward + backward need beside the model
_CALLS = 3  # before what is held is read


@dataclass(frozen=True)
class Setting:
    """What all contestants of a run have in common.

    Attributes:
        network: its name.
        batch: samples at a time.
        threads: of torch; 0 leaves its default.
    """

    network: str
    batch: int = 1
    threads: int = 0


@dataclass(frozen=True)
class Memory:
    """Resident memory of one contestant beside model and input, in bytes.

    Attributes:
        peak: the largest during a call.
        held: what is left after some calls.
    """

    peak: int
    held: int


@dataclass(frozen=True)
class Result:
    """One contestant's row.

    Attributes:
        name: the contestant's.
        seconds: median time of a call, by allocator.
        ratios: median over rounds of its time in units of forward + backward, by allocator.
        limits: its budget in the same units, by allocator; None where there is no budget.
        memory: peak and held.
        peak_ratio: the peak in units of that of forward + backward.
    """

    name: str
    seconds: dict[str, float]
    ratios: dict[str, float]
    limits: dict[str, float] | None
    memory: Memory
    peak_ratio: float


def run(
    setting: Setting, rounds: int, allocators: Sequence[str] = tuple(ALLOCATORS), names: Sequence[str] = ()
) -> list[Result]:
    """Measure contestants on one network.

    Args:
        setting: network, batch and threads.
        rounds: how often each contestant is timed.
        allocators: keys of ``ALLOCATORS``.
        names: contestants beside the bare model; all of them by default.

    Returns:
        One result for each contestant that serves the network.
    """
    kept = [name for name in contestants() if not names or name in (FORWARD, BOTH, *names)]
    times = {a: apart(timed, setting, rounds, kept, environment=ALLOCATORS[a]) for a in allocators}
    memory = {name: apart(resident, setting, name, environment=_EXACT) for name in times[allocators[0]]}
    signed = networks.find(setting.network).signed
    return [_result(name, times, memory, signed) for name in memory]


def _result(
    name: str, times: Mapping[str, dict[str, list[float]]], memory: Mapping[str, Memory], signed: bool
) -> Result:
    budget = contestants()[name].budget
    shares = {a: _ratio(t[FORWARD], t[BOTH]) for a, t in times.items()}
    return Result(
        name,
        seconds={a: statistics.median(t[name]) for a, t in times.items()},
        ratios={a: _ratio(t[name], t[BOTH]) for a, t in times.items()},
        limits={a: budget.limit(share, signed) for a, share in shares.items()} if budget else None,
        memory=memory[name],
        peak_ratio=memory[name].peak / memory[BOTH].peak,
    )


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def apart(function: Callable[..., T], *args: Any, environment: Mapping[str, str] | None = None) -> T:
    """The result of a function in a fresh process that has these environment variables from its start."""
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *args).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _prepared(setting: Setting) -> tuple[nn.Module, Tensor]:
    if setting.threads:
        torch.set_num_threads(setting.threads)
    return networks.build(setting.network), networks.find(setting.network).inputs(setting.batch)


def timed(setting: Setting, rounds: int, names: Sequence[str]) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, after one call each that is not counted; in a process of its own.

    One thread is measured by the processor's time, which other processes disturb less than the wall clock's.
    """
    model, x = _prepared(setting)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    chosen = [c for name, c in contestants().items() if name in names and c.serves(model)]
    seconds: dict[str, list[float]] = {c.name: [] for c in chosen}
    with ExitStack() as stack:
        calls = {c.name: stack.enter_context(c.open(model)) for c in chosen}
        for call in calls.values():
            call(x)
        for _ in range(rounds):
            for name, call in calls.items():
                start = clock()
                call(x)
                seconds[name].append(clock() - start)
    return seconds


def resident(setting: Setting, name: str) -> Memory:
    """Memory of one contestant, in a process of its own."""
    model, x = _prepared(setting)
    known = contestants()
    with known[name].open(model) as call, known[BOTH].open(model) as bare:
        bare(x)  # torch's own kernels for these shapes
        call(networks.find(setting.network).small())  # what the contestant loads at its first call
        _tidy()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = process_memory("VmRSS")
        call(x)
        peak = process_memory("VmHWM") - before
        for _ in range(_CALLS - 1):
            call(x)
        _tidy()
        return Memory(peak, process_memory("VmRSS") - before)


def _tidy() -> None:
    """Collect garbage, and let the allocator return what it holds itself."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def process_memory(field: str) -> int:
    """A size from the kernel's account of this process (VmRSS, VmHWM ...), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
