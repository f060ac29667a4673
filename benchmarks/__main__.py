"""``python -m benchmarks``: measure, print a table for each network and batch size, and write the figures as JSON."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import measure, networks
from benchmarks.contestants import contestants
from benchmarks.measure import ALLOCATORS, PEAK_LIMIT, Result, Setting


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks as the command line says."""
    options = _parser().parse_args(arguments)
    allocators = ["default"] if options.quick else list(ALLOCATORS)
    rounds = options.rounds or (3 if options.quick else 9)
    batches = options.batch or ([1] if options.quick else [1, 4])
    threads = options.threads or torch.get_num_threads()
    print(f"torch {torch.__version__}, {platform.machine()}, {threads} threads, median of {rounds} rounds")
    chosen = options.contestants.split(",") if options.contestants else []
    if unknown := [name for name in chosen if name not in contestants()]:
        _parser().error(f"no contestant is called {unknown[0]!r}; there are {', '.join(contestants())}")
    figures = []
    for name in options.models.split(","):
        for batch in batches:
            results = measure.run(Setting(name, batch, threads), rounds, allocators, chosen)
            print(f"\n## {name}, batch of {batch}\n\n{table(results)}", flush=True)
            figures.append({"network": name, "batch": batch, "results": [asdict(r) for r in results]})
    if options.json:
        about = {"torch": torch.__version__, "machine": platform.machine(), "threads": threads, "rounds": rounds}
        options.json.write_text(json.dumps({**about, "figures": figures}, indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="batch 1, three rounds, the default allocator alone")
    parser.add_argument("--models", default=",".join(networks.NETWORKS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--contestants", help="comma-separated, beside the bare model: epsilon,default (default: all)")
    parser.add_argument("--batch", type=int, nargs="+", help="samples at a time (default: 1 4)")
    parser.add_argument("--rounds", type=int, help="how often each contestant is timed (default: 9)")
    parser.add_argument("--threads", type=int, help="of torch (default: its own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    return parser


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table; times and peaks in units of forward + backward (F+B)."""
    allocators = list(results[0].ratios)
    times = [f"time, {allocator} malloc" for allocator in allocators]
    heads = ["", *times, "at most", "met", "peak memory", "at most", "met", "held, MiB"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    lines += [_row(result) for result in results]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(result: Result) -> list[str]:
    times = [f"{ratio:.2f}" for ratio in result.ratios.values()]
    peak, held = f"{result.peak_ratio:.2f}", f"{result.memory.held / 2**20:.1f}"
    if result.limits is None:
        return [result.name, *times, "", "", peak, "", "", held]
    limits = " / ".join(dict.fromkeys(f"{limit:.2f}" for limit in result.limits.values()))
    met = " / ".join(dict.fromkeys(_verdict(result.ratios[a] <= result.limits[a]) for a in result.ratios))
    memory = [peak, f"{PEAK_LIMIT:.2f}", _verdict(result.peak_ratio <= PEAK_LIMIT), held]
    return [result.name, *times, limits, met, *memory]


def _verdict(met: bool) -> str:
    return "yes" if met else "no"


if __name__ == "__main__":
    main()
