"""``python -m benchmarks.gpu``: explanations per second on a GPU, and how near they come to what the arithmetic allows.

VGG-16 and ResNet-50, batches of 1 to 128, float32, TF32 and bfloat16, every contestant in turn within each round. Two
yardsticks are measured in the same run: the rate that the forward pass and forward + backward imply for the arithmetic
that a recipe needs at least (F + B for LRP-0 and epsilon, one F more for z+ and gamma), and the rate of a large
matrix product in the same precision. Without a GPU it says what it would run; ``--device cpu`` runs it all the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import networks
from benchmarks.contestants import BOTH, FORWARD, Contestant, contestants

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
# The arithmetic that a contestant needs at least, in forward passes; a backward pass to the input counts as one.
PASSES = {FORWARD: 1, BOTH: 2, "gradient": 2, "lrp_0": 2, "epsilon": 2, "epsilon_plus": 3, "epsilon_gamma_box": 3}
PASSES["default"] = 3
SIDE = 8192  # of the matrices whose product gives the matrix rate


@dataclass(frozen=True)
class Rate:
    """One contestant on one network, precision and batch.

    Attributes:
        per_second: explanations (or passes) a second, from the median over rounds.
        implied: the share of the rate that F and F + B imply; None where no floor is known.
        matrix: the share of the matrix rate, by counted operations; None for other libraries, which do more.
        memory: MiB held at most, on a GPU.
    """

    network: str
    precision: str
    batch: int
    name: str
    per_second: float
    implied: float | None
    matrix: float | None
    memory: float


@contextmanager
def in_precision(name: str) -> Iterator[None]:
    """Matrix products and convolutions in full float32, or rounded to TF32, while the context lasts."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Of one call, the device's queue empty before and after."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def matrix_rate(dtype: torch.dtype, device: torch.device, rounds: int, side: int = SIDE) -> float:
    """Floating-point operations a second of a square matrix product."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    a @ b
    return 2 * side**3 / statistics.median(seconds(lambda: a @ b, device) for _ in range(rounds))


def operations(work: Callable[[], Any]) -> int:
    """Floating-point operations of convolutions and matrix products in one call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def measured(name: str, precision: str, batch: int, device: torch.device, rounds: int, peak: float) -> list[Rate]:
    """All contestants that serve one network, in one interleaved run.

    Args:
        name: the network's; ``precision``: a key of ``PRECISIONS``; ``batch``: samples at a time.
        device: where to run; ``rounds``: how often each contestant is timed.
        peak: the matrix rate in this precision, operations a second.
    """
    dtype = PRECISIONS[precision]
    model = networks.build(name).to(device, dtype)
    x = networks.find(name).inputs(batch).to(device, dtype)
    with ExitStack() as stack:
        calls = {c.name: stack.enter_context(c.open(model)) for c in contestants().values() if _serves(c, model, x)}
        times: dict[str, list[float]] = {key: [] for key in calls}
        memory = {key: _warm(call, x, device) for key, call in calls.items()}
        for _ in range(rounds):
            for key, call in calls.items():
                times[key].append(seconds(lambda call=call: call(x), device))  # type: ignore[misc]
        forward = operations(lambda: calls[FORWARD](x))
    spent = {key: statistics.median(found) for key, found in times.items()}
    rates = []
    for key, taken in spent.items():
        passes = PASSES.get(key)
        floor = spent[BOTH] + (passes - 2) * spent[FORWARD] if passes and key not in (FORWARD, BOTH) else None
        share = passes * forward / taken / peak if passes else None
        implied = floor / taken if floor else None
        rates.append(Rate(name, precision, batch, key, batch / taken, implied, share, memory[key]))
    return rates


def _serves(contestant: Contestant, model: nn.Module, x: Tensor) -> bool:
    """Whether a contestant explains this network in this precision; other libraries are asked by one small batch."""
    if not contestant.serves(model):
        return False
    try:
        with contestant.open(model) as call:
            call(x[:1])
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        print(f"{contestant.name} does not serve {x.dtype}: {str(error).splitlines()[0]}")
        return False
    return True


def _warm(call: Callable[[Tensor], Any], x: Tensor, device: torch.device) -> float:
    """One call that is not counted; MiB that it held at most beside what was there before."""
    if device.type != "cuda":
        call(x)
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call(x)
    wait(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def table(rates: Sequence[Rate]) -> str:
    """A Markdown table."""
    lines = [
        "| | per second | of what F and F+B imply | of the matrix rate | peak MiB |",
        "| --- " + "| ---: " * 4 + "|",
    ]
    for rate in rates:
        implied = f"{rate.implied:.0%}" if rate.implied else ""
        matrix = f"{rate.matrix:.0%}" if rate.matrix else ""
        lines.append(f"| {rate.name} | {rate.per_second:.4g} | {implied} | {matrix} | {rate.memory:.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="default: %(default)s")
    parser.add_argument("--models", default="vgg16,resnet50", help="comma-separated (default: %(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 128], help="default: 1 8 32 128")
    parser.add_argument("--precision", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=9, help="how often each contestant is timed (default: 9)")
    parser.add_argument("--side", type=int, default=SIDE, help="of the matrices of the matrix rate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args(arguments)
    runs = [(m, p, b) for p in options.precision for m in options.models.split(",") for b in options.batch]
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        named = ", ".join(f"{m} {p} x{b}" for m, p, b in runs)
        print(f"There is no GPU here. With one, {len(contestants())} contestants would be timed on: {named}.")
        return
    device, found = torch.device(options.device), list[Rate]()
    for precision in options.precision:
        with in_precision(precision):
            peak = matrix_rate(PRECISIONS[precision], device, options.rounds, options.side)
            print(f"# {precision}: a matrix product runs at {peak / 1e12:.3g} TFLOP/s", flush=True)
            for name, _, batch in (run for run in runs if run[1] == precision):
                rates = measured(name, precision, batch, device, options.rounds, peak)
                print(f"\n## {name}, {precision}, batch of {batch}\n\n{table(rates)}", flush=True)
                found += rates
    if options.json:
        options.json.write_text(json.dumps([asdict(rate) for rate in found], indent=1))


if __name__ == "__main__":
    main()
