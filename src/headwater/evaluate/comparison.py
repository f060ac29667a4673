"""What ``hw.compare`` finds: a table, curves, maps, a page, and a recommendation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.errors import InvalidInput
from headwater.evaluate.board import Board, number
from headwater.evaluate.drawing import CHANCE, plot_curves, plot_maps
from headwater.evaluate.flipping import Flipping

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
COSTS = ("per_second", "forwards", "memory")


@dataclass(frozen=True)
class Entry:
    """One method's results on N samples.

    Attributes:
        name: the method's; ``options``: how it was run.
        relevance: ``[N, ...]``, empty where the method failed.
        curves: of pixel-flipping, ``[N, steps + 1]``.
        measures: by name, ``[N]`` each: ``file_size``, ``effective_features``, ``gap``, ``randomized``; those that do
            not apply are missing.
        per_second, forwards: explanations per second and their cost in forward passes; None where not timed.
        memory: the most bytes held at once while a timed batch was explained, beside model and input.
        error: why the method does not serve this model; empty where it does.
    """

    name: str
    options: str = ""
    relevance: Tensor = field(default_factory=lambda: torch.zeros(0))
    curves: Tensor = field(default_factory=lambda: torch.zeros(0))
    measures: Mapping[str, Tensor] = field(default_factory=dict)
    per_second: float | None = None
    forwards: float | None = None
    memory: int | None = None
    error: str = ""

    def mean(self, measure: str) -> float | None:
        """A measure's mean over samples, those without it left out; None where it does not apply."""
        values = self.measures.get(measure)
        return None if values is None or bool(values.isnan().all()) else float(values.double().nanmean())

    def save(self, path: Path, key: str) -> None:
        """Write to a safetensors file that says what it answers by ``key``; never half a file."""
        from safetensors.torch import save_file

        tensors = {"relevance": self.relevance, "curves": self.curves}
        tensors |= {f"measure.{name}": values for name, values in self.measures.items()}
        facts = {name: getattr(self, name) for name in ("name", "options", *COSTS)}
        header = {"headwater.compare": json.dumps({"format": FORMAT, "key": key, **facts})}
        part = path.with_suffix(".part")
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, part, header)
        part.replace(path)

    @staticmethod
    def load(path: Path, key: str) -> Entry | None:
        """What a former run wrote about the same question; None where it wrote none, or about another."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                facts = json.loads((file.metadata() or {}).get("headwater.compare", "{}"))
                if facts.pop("format", None) != FORMAT or facts.pop("key", None) != key:
                    return None
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
        except (SafetensorError, OSError):
            return None
        measures = {k.removeprefix("measure."): v for k, v in tensors.items() if k.startswith("measure.")}
        return Entry(relevance=tensors["relevance"], curves=tensors["curves"], measures=measures, **facts)


@dataclass(frozen=True)
class Comparison:
    """Methods side by side on the same samples.

    Attributes:
        entries: one for each method in the order given, and the baseline "random" last.
        fractions: of the features removed at each step of the curves, ``[steps + 1]``.
        settings: every choice by name.
        inputs: what was explained, ``[N, ...]``.
        clean: the model's answers to it, ``[N]``.
        names: of the samples, where they have some.
    """

    entries: tuple[Entry, ...]
    fractions: Tensor
    settings: dict[str, Any]
    inputs: Tensor
    clean: Tensor
    names: tuple[str, ...] = ()

    @property
    def curves(self) -> dict[str, Flipping]:
        """The flipping curves of the methods that served, by name."""
        return {e.name: Flipping(e.curves, self.fractions, self.settings) for e in self.entries if not e.error}

    @property
    def table(self) -> Board:
        """One row for each method; see the notes below it for the columns."""
        flippings = self.curves
        cells, records = [], []
        for entry in self.entries:
            record: dict[str, Any] = {"method": entry.name, "error": entry.error}
            if not entry.error:
                flipping = flippings[entry.name]
                low, high = flipping.area_interval()
                record |= {"area": flipping.area, "low": low, "high": high}
            record |= {name: entry.mean(name) for name in ("file_size", "effective_features", "gap", "randomized")}
            record |= {name: getattr(entry, name) for name in COSTS}
            records.append(record)
            cells.append((entry.name, *_cells(record)))
        header = (
            "method", "area", "95 %", "file size", "eff. features", "gap", "randomized", "per second", "forwards",
            "MiB",
        )  # fmt: skip
        return Board(header, tuple(cells), tuple(records), _notes(self))

    @property
    def recommendation(self) -> str:
        """Which method to use here, why, and what the answer rests on."""
        from headwater.evaluate.recommendation import recommend

        return recommend(self)

    def plot(self, kind: str = "curves", **options: Any) -> Figure:
        """A figure: the ``"curves"`` of pixel-flipping with their bands, or the ``"maps"`` side by side.

        Args:
            kind: which; ``options``: of :func:`~headwater.evaluate.drawing.plot_curves` or ``plot_maps``.

        Raises:
            InvalidInput: another kind, or no method that served.
            MissingExtra: matplotlib is not installed.
        """
        if kind == "curves":
            return plot_curves(self.curves, **options)
        if kind == "maps":
            maps = {e.name: e.relevance for e in self.entries if not e.error and e.name != CHANCE}
            if not maps:
                raise InvalidInput("no method served this model: there are no maps to draw")
            return plot_maps(maps, self.inputs, **{"titles": self.names or None, **options})
        raise InvalidInput(f"kind must be 'curves' or 'maps', not {kind!r}")

    def to_html(self, path: str | Path | None = None, title: str = "Methods compared") -> str:
        """One page that holds it all; written to ``path`` where one is given."""
        from headwater.evaluate.page import comparison_page
        from headwater.show.report import write

        text = comparison_page(self, title)
        if path is not None:
            write(Path(path), text)
        return text

    def __repr__(self) -> str:
        return f"{self.table}\n\n{self.recommendation}"

    def _repr_html_(self) -> str:
        from headwater.evaluate.page import comparison_html

        return comparison_html(self)

    def __rich__(self) -> Any:
        from headwater.evaluate.page import comparison_rich

        return comparison_rich(self)


def _cells(record: Mapping[str, Any]) -> tuple[str, ...]:
    if record["error"]:
        return ("does not serve", *[""] * 8)
    size = record["file_size"]
    gap, alike, held = record["gap"], record["randomized"], record["memory"]
    return (
        number(record["area"], 4), f"{number(record['low'])} to {number(record['high'])}",
        "-" if size is None else f"{size:.0f}", number(record["effective_features"]),
        "-" if gap is None else f"{gap:.1%}", "-" if alike is None else f"{alike:.2f}",
        number(record["per_second"]), number(record["forwards"]), "-" if held is None else number(held / 2**20),
    )  # fmt: skip


def _notes(comparison: Comparison) -> tuple[str, ...]:
    settings = comparison.settings
    notes = [
        f"area: under the flipping curve of the {settings['output']} ({settings['features']}, {settings['imputer']}), "
        f"mean over N = {len(comparison.clean)} with its bootstrap interval; lower is more faithful",
        "file size: bytes of the heatmap as a grey JPEG of quality 75; eff. features: exp of the entropy of |R|",
        "gap: mean |output - reference - ΣR| / |output - reference|, of methods that claim to sum up",
        "randomized: rank correlation with the map of the same model with random parameters; near 0 is right",
        f"per second, forwards: explanations in batches of up to {settings['timed_batch']}; a cost in forwards",
        "MiB: the most that was held at once for such a batch, beside model and input",
    ]
    if "arguments" in settings:
        first = settings["arguments"].partition(", ")[0]
        notes.append(
            f"{settings['arguments']} lose features together; maps, file size, eff. features and randomized are of "
            f"{first} alone"
        )
    notes += [f"{e.name} does not serve: {e.error}" for e in comparison.entries if e.error]
    return tuple(notes)
