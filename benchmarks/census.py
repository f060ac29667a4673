"""``python -m benchmarks.census``: explain every architecture at hand, unedited, and count what does not balance.

Each one runs in a forked process with a limit of time and memory. Rows are appended to a file of JSON lines, so a
census that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import fnmatch
import importlib
import json
import multiprocessing
import os
import random
import resource
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from benchmarks import census_oracle, census_trial
from benchmarks.census_subjects import Subject
from benchmarks.census_trial import STATUSES, Row, as_dict
from benchmarks.mend import mend_torchvision

SOURCES = {
    "transformers": "benchmarks.census_transformers:subjects",
    "timm": "benchmarks.census_vision:timm",
    "torchvision": "benchmarks.census_vision:torchvision",
    "torch_geometric": "benchmarks.census_graphs:subjects",
    "torch.nn": "benchmarks.census_operators:subjects",
}
COLUMNS = [f.name for f in fields(Row) if f.name not in ("trace", "seconds")]


OUT_OF_TIME = "took longer than allowed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the census as the command line says; 1 where an explanation is wrong or fails other than by the clock."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    mend_torchvision()
    known = {} if options.fresh else read(options.rows)
    chosen = choose(subjects(options.source), options.sample, options.only)
    todo = [s for s in chosen if s.key not in known]
    todo += [s for s in chosen if s.key in known and known[s.key].status in options.again]
    with options.rows.open("w" if options.fresh else "a") as file:
        for done, row in enumerate(run(todo, options.jobs, options.seconds, options.gigabytes, options.oracle), 1):
            known[row.key] = row
            file.write(json.dumps(as_dict(row)) + "\n")
            file.flush()
            print(f"{done}/{len(todo)} {row.key}: {row.status} {row.reason[:150]}", flush=True)
    rows = [known[s.key] for s in chosen if s.key in known]
    print(f"\n{report(rows)}")
    if options.table:
        write_table(rows, options.table)
    return int(any(wrong(row) for row in rows))


def wrong(row: Row) -> bool:
    """Whether a row is what must not be: out of balance, against the oracle, or an error that is no refusal."""
    crashed = row.status == "crashed" and row.reason != OUT_OF_TIME
    return crashed or row.status == "unbalanced" or bool(row.oracle and not row.oracle.startswith("agrees"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.census", description=__doc__)
    parser.add_argument("--sample", type=int, help="only so many, always the same, of every source in proportion")
    parser.add_argument("--source", nargs="+", default=list(SOURCES), choices=SOURCES, help="libraries to go through")
    parser.add_argument("--only", nargs="+", default=[], metavar="GLOB", help="only these, as in 'timm:res*'")
    parser.add_argument("--rows", type=Path, default=Path("census.jsonl"), help="where rows are kept: %(default)s")
    parser.add_argument("--fresh", action="store_true", help="forget the rows that are there")
    parser.add_argument("--again", nargs="+", default=[], metavar="STATUS", help="repeat rows of these statuses")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write all rows as csv")
    parser.add_argument("--oracle", type=int, default=20, help="check one in so many with an oracle: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time: %(default)s")
    parser.add_argument("--seconds", type=float, default=150, help="limit for each: %(default)s")
    parser.add_argument("--gigabytes", type=float, default=4, help="limit for each: %(default)s")
    return parser


# ---------------------------------------------------------------------- which


def subjects(sources: Iterable[str]) -> list[Subject]:
    """All architectures of some sources; one whose library is not installed has none."""
    found: list[Subject] = []
    for source in sources:
        module, function = SOURCES[source].split(":")
        try:
            found += getattr(importlib.import_module(module), function)()
        except ImportError as error:
            print(f"{source} is left out: {error}")
    return found


def choose(found: Sequence[Subject], sample: int | None, only: Sequence[str]) -> list[Subject]:
    """Those that match, or a sample of every source in proportion; the same at every call."""
    if only:
        found = [s for s in found if any(fnmatch.fnmatch(s.key, pattern) for pattern in only)]
    if sample is None or sample >= len(found):
        return list(found)
    draw = random.Random(0)
    order = sorted(found, key=lambda s: s.key)
    by_source: dict[str, list[Subject]] = {}
    for s in order:
        by_source.setdefault(s.source, []).append(s)
    picked = []
    for group in by_source.values():
        picked += draw.sample(group, max(1, round(sample * len(group) / len(found))))
    return picked[:sample]


# ---------------------------------------------------------------------- each in a process of its own


def run(todo: Sequence[Subject], jobs: int, seconds: float, gigabytes: float, oracle: int) -> Iterator[Row]:
    """Rows of some architectures, in the order in which they are done."""
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(todo)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            trial = Trial(context, waiting.pop(), gigabytes, oracle)
            running[trial.receiver] = trial
        wait(list(running), timeout=0.5)
        for trial in list(running.values()):
            row = trial.row(seconds)
            if row is not None:
                del running[trial.receiver]
                yield row


class Trial:
    """One architecture in a process of its own."""

    def __init__(self, context: Any, subject: Subject, gigabytes: float, oracle: int) -> None:
        self.subject, self.start, self.built = subject, time.monotonic(), False
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_child, args=(subject, sender, gigabytes, oracle))
        self.process.start()
        sender.close()

    def row(self, seconds: float) -> Row | None:
        """What came of it, None while it goes on; a process that dies, or is late, has failed where it was."""
        found, taken = self._received(), time.monotonic() - self.start
        died = not self.process.is_alive()
        if found is None and not died and taken < seconds:
            return None
        if found is None:
            if not died:
                self.process.kill()
            self.process.join()
            reason = f"the process ended with status {self.process.exitcode}" if died else OUT_OF_TIME
            status = "crashed" if self.built else "not built"
            found = self._received() or Row(self.subject.source, self.subject.name, status, reason)
        self.process.join()
        self.receiver.close()
        found.seconds = round(taken, 1)
        return found

    def _received(self) -> Row | None:
        with contextlib.suppress(EOFError):
            while self.receiver.poll():
                message = self.receiver.recv()
                if isinstance(message, Row):
                    return message
                self.built = True
        return None


def _child(subject: Subject, sender: Connection, gigabytes: float, oracle: int) -> None:
    """Try one architecture under a limit of memory, silently; says when it is built, then what came of it."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    checked = zlib.crc32(subject.key.encode()) % oracle == 0
    row = census_trial.trial(subject, census_oracle.check if checked else None, lambda: sender.send("built"))
    sender.send(row)


# ---------------------------------------------------------------------- what came of it


def read(path: Path) -> dict[str, Row]:
    """The rows of a census that was stopped, by key; later lines hold."""
    if not path.exists():
        return {}
    rows = [Row(**json.loads(line)) for line in path.read_text().splitlines() if line]
    return {row.key: row for row in rows}


def report(rows: Sequence[Row]) -> str:
    """Shares of every source, and the most frequent gaps."""
    heads = ["", "asked", "built", *STATUSES[:4], "balanced, of what builds"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for source in [*dict.fromkeys(row.source for row in rows), "all"]:
        own = [row for row in rows if source in (row.source, "all")]
        counts = Counter(row.status for row in own)
        built = len(own) - counts["not built"]
        share = f"{100 * counts['balanced'] / built:.1f} %" if built else ""
        lines.append([source, str(len(own)), str(built), *(str(counts[s]) for s in STATUSES[:4]), share])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    for status in STATUSES[1:4]:
        gaps = Counter(row.operator.split(" in ")[0] or row.reason[:60] for row in rows if row.status == status)
        if gaps:
            text += f"\n\n{status}: " + ", ".join(f"{name} ({n})" for name, n in gaps.most_common(15))
    checked = [row for row in rows if row.oracle]
    if checked:
        wrong = [row.key for row in checked if not row.oracle.startswith("agrees")]
        text += f"\n\n{len(checked)} checked against an independent oracle, {len(wrong)} of them disagree {wrong}"
    return text


def write_table(rows: Sequence[Row], path: Path) -> None:
    """A row a model, as csv; figures with two digits, so that repeated runs differ little."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in sorted(rows, key=lambda r: (r.source, r.name)):
            writer.writerow([_cell(getattr(row, name)) for name in COLUMNS])


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:.1e}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
