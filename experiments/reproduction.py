"""One run of one paper: where its data are, how large it is, and what it leaves behind."""

from __future__ import annotations

import random
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike

from experiments import steps
from headwater.errors import InvalidInput
from headwater.show.figure import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
Scale = Literal["quick", "full"]
Verdict = Literal["reproduced", "not reproduced", "not testable here"]
SILENCE = 60.0  # seconds between two lines of progress where there is no terminal


@dataclass(frozen=True)
class Claim:
    """One claim of a paper beside what was found.

    Attributes:
        key: names it, once a paper.
        source: where in the paper it stands.
        text: what is claimed.
        paper: the paper's number or finding.
        ours: the number or finding of this run.
        verdict: whether they agree, or cannot be compared with what is at hand.
        why: what the verdict rests on, where the numbers do not say it.
    """

    key: str
    source: str
    text: str
    paper: str
    ours: str
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure that was written to ``figures/NAME.png``, with its data in ``figures/NAME.npz``."""

    name: str
    caption: str


@dataclass(frozen=True)
class Listing:
    """A table that was written to ``tables/NAME.csv`` and ``tables/NAME.md``."""

    name: str
    caption: str
    rows: tuple[Mapping[str, object], ...]


@dataclass
class Reproduction:
    """What one run of one paper knows and writes.

    Attributes:
        name: of the paper.
        scale: ``quick`` for minutes, ``full`` for about an hour.
        out: the folder that all goes to.
        data: the folder of real data.
        seed: for all that is random.
    """

    name: str
    scale: Scale
    out: Path
    data: Path
    seed: int = 0
    claims: list[Claim] = field(default_factory=list, init=False)
    pictures: list[Picture] = field(default_factory=list, init=False)
    listings: list[Listing] = field(default_factory=list, init=False)
    earlier: float = field(default=0.0, init=False)  # seconds that steps took which were read back
    _begun: float = field(default_factory=time.monotonic, init=False)

    @property
    def seconds(self) -> float:
        """What the results took to compute, whether in this run or in an interrupted one before it."""
        return self.earlier + time.monotonic() - self._begun

    def pick(self, *, quick: T, full: T) -> T:
        """The size that belongs to the scale."""
        return quick if self.scale == "quick" else full

    def path(self, *parts: str) -> Path:
        """A file or folder under the data folder.

        Raises:
            InvalidInput: it is not there; the text names it and says where to get it.
        """
        found = self.data.joinpath(*parts)
        if not found.exists():
            raise InvalidInput(
                f"{found} is missing: --data or HEADWATER_DATA names the folder of real data, and docs/papers/index.md "
                f"says where {parts[0] if parts else 'it'} comes from"
            )
        return found

    def step(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The result of ``compute``, read back from ``out/steps`` where a run of this scale and seed left it.

        Every step draws its own random numbers, so that it does not matter which steps were read back before it.

        Args:
            name: of the step, and of its files.
            compute: returns tensors, arrays, numbers, strings, and lists and dicts of those.
        """
        folder, belongs = self.out / "steps", {"scale": self.scale, "seed": self.seed}
        found = steps.read(folder, name)
        if found is not None and {key: found[1].get(key) for key in belongs} == belongs:
            self.earlier += found[1]["seconds"]
            return found[0]
        self._draw_anew(name)
        begun = time.monotonic()
        values = compute()
        seconds = time.monotonic() - begun
        steps.write(folder, name, values, {**belongs, "seconds": seconds})
        self._say(f"{name}: {seconds:.1f} s")
        again = steps.read(folder, name)
        assert again is not None  # it was written just now; read so that both ways give the same
        return again[0]

    def _draw_anew(self, name: str) -> None:
        seed = zlib.crc32(f"{self.seed} {name}".encode())
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def progress(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """The items as they come, with a bar in a terminal and a line a minute elsewhere, on standard error."""
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import track

            yield from track(items, f"{self.name}: {what}", total=total, console=Console(stderr=True), transient=True)
            return
        length = total if total is not None else len(items) if isinstance(items, Sequence) else None
        said = time.monotonic()
        for number, item in enumerate(items):
            yield item
            if time.monotonic() - said > SILENCE:
                said = time.monotonic()
                self._say(f"{what} {number + 1}{f' of {length}' if length is not None else ''}")

    def _say(self, text: str) -> None:
        print(f"{self.name} {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def figure(self, name: str, figure: Figure, data: Mapping[str, ArrayLike], caption: str) -> None:
        """Write a figure as ``figures/NAME.png`` and what it shows as ``figures/NAME.npz``."""
        self._unused(name, self.pictures)
        folder = self.out / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(png(figure, dpi=110))
        arrays = {key: np.asarray(value) for key, value in data.items()}
        if any(array.dtype == object for array in arrays.values()):
            raise InvalidInput(f"figure {name}: its data must be arrays of numbers or strings, none of them ragged")
        np.savez_compressed(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]
        self.pictures.append(Picture(name, caption))

    def table(self, name: str, rows: Sequence[Mapping[str, object]], caption: str) -> None:
        """Write a table as ``tables/NAME.csv`` and ``tables/NAME.md``; the columns are the first row's keys."""
        from experiments.report import csv_of, markdown_of

        self._unused(name, self.listings)
        if not rows or any(row.keys() != rows[0].keys() for row in rows):
            raise InvalidInput(f"table {name}: every row needs the columns of the first, and there must be one")
        folder = self.out / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.csv").write_text(csv_of(rows))
        (folder / f"{name}.md").write_text(markdown_of(rows) + "\n")
        self.listings.append(Listing(name, caption, tuple(dict(row) for row in rows)))

    def claim(
        self, key: str, *, source: str, text: str, paper: str, ours: str, verdict: Verdict, why: str = ""
    ) -> None:
        """Put a claim of the paper beside what was found (see `Claim`).

        Raises:
            InvalidInput: a verdict that is none of the three, a key used before, or no why where it is untestable.
        """
        if verdict not in get_args(Verdict):
            raise InvalidInput(f"claim {key}: the verdict is one of {', '.join(get_args(Verdict))}, not {verdict!r}")
        if verdict == "not testable here" and not why:
            raise InvalidInput(f"claim {key}: say why it cannot be tested here")
        if any(claim.key == key for claim in self.claims):
            raise InvalidInput(f"claim {key} was made before")
        self.claims.append(Claim(key, source, text, paper, ours, verdict, why))

    @staticmethod
    def _unused(name: str, before: Sequence[Picture] | Sequence[Listing]) -> None:
        if any(earlier.name == name for earlier in before):
            raise InvalidInput(f"{name} was written before in this run")
