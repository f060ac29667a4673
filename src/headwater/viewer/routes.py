"""The endpoints: each takes what was asked, checked, and returns a plain value, bytes of a picture or a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from headwater.dataset.manifest import Facts
from headwater.errors import InvalidInput
from headwater.show.colour import ANCHORS
from headwater.viewer.analyzing import Analyzing
from headwater.viewer.export import Export, export
from headwater.viewer.live import Live, check_options
from headwater.viewer.refusals import Conflict
from headwater.viewer.request import Ask
from headwater.viewer.search import search
from headwater.viewer.shown import Shown, shared_limit
from headwater.viewer.viewed import Viewed

_LISTED, _SCALED, _FLIPPED = 500, 200, 64
_LINE = "#c4c4c4"  # a line without relevance, as headwater.show.series draws it


@dataclass(frozen=True)
class Png:
    """A picture."""

    data: bytes


@dataclass(frozen=True)
class Binary:
    """Numbers as they lie in memory, little-endian; ``headers``: more to say."""

    data: memoryview
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Accepted:
    """A job that was begun."""

    value: Any


class Endpoints:
    """What can be asked of a store that is viewed."""

    def __init__(self, viewed: Viewed) -> None:
        self.viewed, self.live, self.analyzing = viewed, Live(viewed), Analyzing(viewed)

    def health(self, ask: Ask) -> Any:
        """That the server answers."""
        return {"ok": True}

    def colours(self, ask: Ask) -> Any:
        """The scale of relevance."""
        return {"anchors": list(ANCHORS), "neutral_line": _LINE}

    def store(self, ask: Ask) -> Any:
        """What the page needs to know first."""
        viewed = self.viewed
        store, manifest, columns = viewed.store, viewed.store.manifest, viewed.columns.listed()
        looks = {name: viewed.memory.get(("look", name), partial(self._look, name)) for name in store.names}
        names = viewed.extra.names
        return {
            "title": viewed.title, "n": len(store), "complete": store.complete,
            "notices": [*viewed.notices, *viewed.columns.broken],
            "read_only": viewed.read_only, "versions": manifest.versions, "data": manifest.data[0],
            "model_name": manifest.model[0], "inputs": viewed.has_inputs, "classes": viewed.classes,
            "explanations": [self._explained(facts, looks[facts.name]) for facts in manifest.explanations],
            "kind": (looks[store.name] or {"kind": None})["kind"],
            "columns": columns,
            "maps": viewed.maps(), "model": self.live.facts(), "rate": names.rate, "names": names.axis,
            "analysis": {
                "running": self.analyzing.state()["state"] == "running",
                "can_run": not viewed.read_only and looks[store.name] is not None,
            },
            "filter_help": self._examples(),
        }  # fmt: skip

    def _explained(self, facts: Facts, look: dict[str, Any] | None) -> dict[str, Any]:
        """What the page needs to know of an explanation; ``look`` is None where its relevance was not kept."""
        return {
            "name": facts.name, "method": facts.method, "composite": facts.composite,
            "target": self.viewed.asked(facts), "analysis": facts.name in self.viewed.analyses,
            **(look or {"kind": None, "shape": [], "frames": 1, "parts": []}),
        }  # fmt: skip

    def _look(self, name: str) -> dict[str, Any] | None:
        try:
            first, *others = self.viewed.parts(name)
            look = self.viewed.look(name)
            kinds = [look["kind"], *(self.viewed.look(name, part)["kind"] for part in others)]
            return {**look, "parts": [{"name": p, "kind": k} for p, k in zip([first, *others], kinds, strict=True)]}
        except Conflict:  # its relevance was not kept
            return None

    def _examples(self) -> list[str]:
        columns, found = self.viewed.columns, []
        for name in ("label", "cluster"):
            titles = columns[name].categories if name in columns else ()
            found += [f"{name} = {title if title.isalnum() else repr(title)}" for title in titles[:1]]
        output = f"{self.viewed.store.name}.output"
        return [*found, f"{output} > 0"] if output in columns else found

    # ------------------------------------------------------------------ the map

    def map(self, ask: Ask) -> Any:
        """Places of all samples."""
        return _binary(self.viewed.map_of(ask.text("name", "principal"))[0], "<f4")

    def column(self, ask: Ask) -> Any:
        """The values of a column."""
        found = self.viewed.columns[ask.text("name")]
        if found.kind == "text":
            raise InvalidInput(f"the column {found.name!r} holds texts: search in it")
        return _binary(found.values, "<i4" if found.kind == "category" else "<f4")

    def column_facts(self, ask: Ask) -> Any:
        """The categories or the range of a column."""
        return self.viewed.columns.facts(ask.text("name"))

    def search(self, ask: Ask) -> Any:
        """The samples that an expression holds for."""
        found = search(ask.sent_text("filter", "") or "", self.viewed.columns, len(self.viewed.store))
        return Binary(np.packbits(found, bitorder="little").data, {"x-count": str(int(found.sum()))})

    # ------------------------------------------------------------------ analysis

    def clusters(self, ask: Ask) -> Any:
        """All clusters, suspects first."""
        return {"clusters": self.viewed.analysis(ask.explanation).clusters()}

    def spectrum(self, ask: Ask) -> Any:
        """The eigenvalues of each group."""
        return {"groups": self.viewed.analysis(ask.explanation).spectrum()}

    def cluster_rows(self, ask: Ask) -> Any:
        """The members of a cluster."""
        analysis = self.viewed.analysis(ask.explanation)
        return _binary(analysis.found.members(analysis.cluster(ask.path["cluster"]).label), "<i4")

    def cluster_heatmap(self, ask: Ask) -> Any:
        """The mean heatmap of a cluster."""
        return Png(self._mean(ask).heatmap(ask.limit()))

    def cluster_values(self, ask: Ask) -> Any:
        """The mean relevance of a cluster in numbers."""
        return self._mean(ask).values()

    def _mean(self, ask: Ask) -> Shown:
        analysis = self.viewed.analysis(ask.explanation)
        mean = analysis.found.means[analysis.cluster(ask.path["cluster"]).label]
        kind = self.viewed.look(ask.explanation)["kind"]
        if kind == "text":  # the words differ from sample to sample: relevance over their places
            kind, mean = "series", mean.reshape(1, len(mean), -1).sum(-1)
        return Shown(kind, mean, None, self.viewed.extra.names, ask.frame())

    def analysis(self, ask: Ask) -> Any:
        """How far the job is."""
        return self.analyzing.state()

    def analyze(self, ask: Ask) -> Any:
        """Begin the job."""
        ask.sent("explanation")
        return Accepted(self.analyzing.start(ask.explanation, ask.body))

    # ------------------------------------------------------------------ samples

    def samples(self, ask: Ask) -> Any:
        """Facts of some samples."""
        return {"samples": [self.viewed.facts(row) for row in ask.listed(_LISTED, len(self.viewed.store))]}

    def sample(self, ask: Ask) -> Any:
        """Facts of a sample, and the samples like it."""
        row = ask.path["row"]
        return {**self.viewed.facts(row), "neighbours": self.viewed.near(row, ask.explanation)}

    def scale(self, ask: Ask) -> Any:
        """The scale that some samples share."""
        rows = [row for row in ask.listed(_SCALED, len(self.viewed.store)) if self.viewed.columns.valid[row]]
        part = ask.text("part", "")
        return {"limit": shared_limit([self.viewed.shown(row, ask.explanation, part) for row in rows])}

    def input(self, ask: Ask) -> Any:
        """The picture of a sample."""
        return Png(self.viewed.pictured(ask.path["row"], ask.frame(), ask.text("part", "")).picture())

    def heatmap(self, ask: Ask) -> Any:
        """The heatmap of a sample."""
        return Png(self._shown(ask).heatmap(ask.limit()))

    def overlay(self, ask: Ask) -> Any:
        """The heatmap over the picture."""
        return Png(self._shown(ask).overlay(ask.limit()))

    def values(self, ask: Ask) -> Any:
        """A sample in numbers."""
        return self._shown(ask).values()

    def _shown(self, ask: Ask) -> Shown:
        return self.viewed.shown(ask.path["row"], ask.explanation, ask.text("part", ""), ask.frame())

    # ------------------------------------------------------------------ the model

    def explain(self, ask: Ask) -> Any:
        """Explain a sample anew."""
        row = ask.sent_whole("row")
        if row is None:
            raise InvalidInput("'row' is missing")
        return self.live.explain(
            self.viewed.row(row), ask.sent_text("method", "lrp") or "lrp", ask.sent_text("composite"),
            ask.sent("target"), check_options(ask.sent("options", {})), ask.gone,
        )  # fmt: skip

    def live_heatmap(self, ask: Ask) -> Any:
        """The heatmap of a live explanation."""
        return Png(self._live(ask).heatmap(ask.limit()))

    def live_overlay(self, ask: Ask) -> Any:
        """The same over the picture."""
        return Png(self._live(ask).overlay(ask.limit()))

    def live_values(self, ask: Ask) -> Any:
        """The same in numbers."""
        return self._live(ask).values()

    def _live(self, ask: Ask) -> Shown:
        return replace(self.live.answer(ask.path["key"]).shown, frame=ask.frame())

    def ledger(self, ask: Ask) -> Any:
        """What every operator did with the relevance of a sample."""
        return self.live.ledger(self.viewed.row(ask.path["row"]), ask.explanation, ask.gone)

    def flipping(self, ask: Ask) -> Any:
        """Curves of pixel-flipping."""
        rows, key = ask.sent_rows(len(self.viewed.store), _FLIPPED), ask.sent_text("key")
        if key is None and (rows is None or not len(rows)):
            raise InvalidInput("'rows' are missing")
        return self.live.flipping([] if rows is None else rows.tolist(), ask.explanation, key, ask.gone)

    # ------------------------------------------------------------------ selections

    def selections(self, ask: Ask) -> Any:
        """All selections."""
        return {"selections": self.viewed.selections.all()}

    def selection(self, ask: Ask) -> Any:
        """A selection with its rows."""
        return self.viewed.selections.one(ask.text("name"))

    def save_selection(self, ask: Ask) -> Any:
        """Save a selection."""
        rows = ask.sent_rows(len(self.viewed.store))
        ids = None if rows is None else [str(text) for text in self.viewed.columns["id"].values[rows]]
        return self.viewed.selections.put(
            ask.text("name"), rows, ids, ask.sent_text("note"), ask.sent_text("recipe"), ask.sent_whole("revision")
        )

    def remove_selection(self, ask: Ask) -> Any:
        """Remove a selection."""
        self.viewed.selections.remove(ask.text("name"), ask.whole("revision"))
        return {"removed": ask.text("name")}

    def export_selection(self, ask: Ask) -> Export:
        """A saved selection as a file."""
        kept = self.viewed.selections.one(ask.text("selection"))
        rows = np.array(kept["rows"], np.int64)
        return export(self.viewed, rows, ask.text("format"), kept["name"], kept["note"], ask.explanation)

    def export_rows(self, ask: Ask) -> Export:
        """Rows as a file."""
        rows = ask.sent_rows(len(self.viewed.store))
        if rows is None or not len(rows):
            raise InvalidInput("'rows' are missing")
        title = ask.sent_text("title") or "selection"
        return export(self.viewed, rows, ask.text("format"), title[:200], "", ask.explanation)

    def table(self) -> list[tuple[str, str, Callable[[Ask], Any]]]:
        """Every route: method, path, endpoint."""
        return [
            ("GET", "/health", self.health), ("GET", "/colours", self.colours), ("GET", "/store", self.store),
            ("GET", "/map", self.map), ("GET", "/column", self.column), ("GET", "/column/facts", self.column_facts),
            ("POST", "/search", self.search), ("GET", "/clusters", self.clusters), ("GET", "/spectrum", self.spectrum),
            ("GET", "/cluster/{cluster:int}/rows", self.cluster_rows),
            ("GET", "/cluster/{cluster:int}/heatmap.png", self.cluster_heatmap),
            ("GET", "/cluster/{cluster:int}/values", self.cluster_values),
            ("GET", "/analysis", self.analysis), ("POST", "/analysis", self.analyze),
            ("GET", "/samples", self.samples), ("GET", "/sample/{row:int}", self.sample), ("GET", "/scale", self.scale),
            ("GET", "/sample/{row:int}/input.png", self.input), ("GET", "/sample/{row:int}/heatmap.png", self.heatmap),
            ("GET", "/sample/{row:int}/overlay.png", self.overlay), ("GET", "/sample/{row:int}/values", self.values),
            ("GET", "/sample/{row:int}/ledger", self.ledger), ("POST", "/explain", self.explain),
            ("POST", "/flipping", self.flipping), ("GET", "/live/{key}/heatmap.png", self.live_heatmap),
            ("GET", "/live/{key}/overlay.png", self.live_overlay), ("GET", "/live/{key}/values", self.live_values),
            ("GET", "/selections", self.selections), ("GET", "/selection", self.selection),
            ("PUT", "/selection", self.save_selection), ("DELETE", "/selection", self.remove_selection),
            ("GET", "/export", self.export_selection), ("POST", "/export", self.export_rows),
        ]  # fmt: skip


def _binary(values: Any, dtype: str) -> Binary:
    return Binary(np.ascontiguousarray(values, dtype).data.cast("B"))
