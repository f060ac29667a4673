"""What the viewer shows: a store, what was analyzed of it, its inputs, and the model that made it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.maps import Maps
from headwater.dataset.files import LocalFiles, open_files
from headwater.dataset.fingerprint import of_bytes
from headwater.dataset.manifest import Facts
from headwater.dataset.sources import Source, source_of
from headwater.dataset.store import Rows, Store, commit_key, committed, open_store
from headwater.errors import HeadwaterError, InvalidInput
from headwater.loaders import LoadedModel
from headwater.viewer import places
from headwater.viewer.analysis import Analysis
from headwater.viewer.columns import Columns, title_of
from headwater.viewer.memory import Memory
from headwater.viewer.refusals import Conflict, NotThere
from headwater.viewer.selections import Selections
from headwater.viewer.shown import KINDS, Kind, Names, Shown, kind_of

_MEMORY = 384 << 20  # bytes of columns, maps and pictures that are kept
_NEAR = 12
_LOOKED_AT = 2_000  # chunks whose files are looked for


@dataclass(frozen=True)
class Extra:
    """What the store does not know; see :func:`headwater.view`."""

    classes: Sequence[str] = ()
    names: Names = field(default_factory=Names)
    kind: Kind | None = None
    bounds: Any = None


class Viewed:
    """A store opened for viewing.

    Attributes:
        store, classes, columns, selections: what they are called; ``model``: None where none was given.
        read_only: nothing is written.
        notices: what a reader should know of the state of the store.
    """

    def __init__(self, store: Any, model: LoadedModel | None, data: Any, extra: Extra, read_only: bool) -> None:
        self.store: Store = store if isinstance(store, Store) else open_store(store, partial=True)
        _check_arrays(self.store)
        if extra.kind is not None and extra.kind not in KINDS:
            raise InvalidInput(f"kind must be one of {', '.join(KINDS)}, not {extra.kind!r}")
        self.model, self.extra, self.read_only = model, extra, read_only
        self.classes = [str(name) for name in extra.classes or self.store.manifest.classes]
        self.memory = Memory(_MEMORY)
        self.columns = Columns(self.store, self.classes, self.memory)
        self.beside = open_files(f"{self.store.path.rstrip('/')}.viewer")
        self.selections = Selections(self.beside, len(self.store), read_only)
        self.analyses: dict[str, Analysis] = {}
        self._source = None if data is None else _fitting(source_of(data), self.store)
        self.notices = self._state()

    @property
    def title(self) -> str:
        """The store's name."""
        return PurePosixPath(self.store.path).name or self.store.path

    def _state(self) -> list[str]:
        manifest, files = self.store.manifest, self.store.files
        found = []
        if not self.store.complete:
            done = len(committed(files))
            found.append(
                f"The store was not complete when it was opened: {done} of {manifest.chunks} chunks were there, and "
                "the rest is shown as not explained. Let the job end, or run it again, and open the store anew."
            )
        found += _gone(self.store)
        try:
            wrong = int((~self.columns.valid).sum())
        except HeadwaterError as error:
            return [*found, str(error)]
        if wrong and self.store.complete:
            found.append(f"{wrong} of {len(self.store)} samples could not be explained; the column 'error' says why.")
        return found

    @property
    def imported(self) -> bool:
        """Whether the relevance was computed by another program."""
        return self.store.manifest.model == ("imported", "")

    def asked(self, facts: Facts) -> str:
        """What an explanation explains, in words; empty where it was imported and nobody said."""
        known = {"None": "" if self.imported else "the predicted class", "'label'": "each sample's label"}
        return known.get(facts.target, facts.target)

    def explanation(self, name: str | None) -> Store:
        """The store with one of its explanations in front, the first by default.

        Raises:
            NotThere: it has none of this name.
        """
        if not name:
            return self.store
        if name not in self.store.names:
            raise NotThere(f"there is no explanation {name!r}: the store has {', '.join(self.store.names)}")
        return self.store[name]

    def row(self, row: int) -> int:
        """A sample's number, checked.

        Raises:
            NotThere: the store has no such sample.
        """
        if not 0 <= row < len(self.store):
            raise NotThere(f"there is no sample {row}: the store has {len(self.store)}")
        return row

    # ------------------------------------------------------------------ samples

    @property
    def has_inputs(self) -> bool:
        """Whether the samples themselves can be shown."""
        return self._source is not None or self.store.inputs is not None

    def sample(self, row: int) -> Any:
        """A sample as the model takes it, without the axis of samples: an array, or a dict of arrays.

        Raises:
            Conflict: the inputs are not there.
        """
        kept = self.store.inputs
        if kept is not None:
            return {k: part[row] for k, part in kept.items()} if isinstance(kept, dict) else kept[row]
        if self._source is None:
            raise Conflict("the inputs are not in the store: write it with keep_inputs, or name the data when viewing")
        x = self._source.load(row, self.store.manifest.seed)[0]
        if isinstance(x, tuple):
            x = {str(place): part for place, part in enumerate(x)}
        return {k: part.numpy() for k, part in x.items()} if isinstance(x, dict) else x.numpy()

    def parts(self, name: str | None) -> list[str]:
        """The inputs of the model that have relevance; ``[""]`` where it takes one."""
        relevance = self._relevance(name)
        return list(relevance) if isinstance(relevance, dict) else [""]

    def shown(self, row: int, name: str | None = None, part: str = "", frame: int | None = None) -> Shown:
        """A sample and its stored relevance.

        Raises:
            NotThere: there is no such sample or part. Conflict: the sample was not explained.
        """
        relevance = self._part(self._relevance(name), part)
        values = relevance[self.row(row)]
        if not np.isfinite(values).all():
            reason = (
                self.columns.error(row) or "it holds NaN or infinity; run the same job again to mend a damaged store"
            )
            raise Conflict(f"sample {row} has no relevance to show: {reason}")
        given = self._part(self.sample(row), part) if self.has_inputs else None
        return self.as_shown(values, given, frame, part)

    def as_shown(
        self, relevance: NDArray[Any], given: NDArray[Any] | None, frame: int | None = None, part: str = ""
    ) -> Shown:
        """Relevance of one sample in the form that its kind asks for; what the user said is of the first input."""
        kind = ("" if part else self.extra.kind) or kind_of(
            relevance.shape, None if given is None else given.shape, given is not None and given.dtype.kind in "iu"
        )
        return Shown(kind, relevance, given, self.extra.names, frame)

    def pictured(self, row: int, frame: int | None = None, part: str = "") -> Shown:
        """A sample alone, which need not have been explained."""
        given = self._part(self.sample(self.row(row)), part)
        return self.as_shown(np.zeros(given.shape), given, frame, part)

    def look(self, name: str | None, part: str = "") -> dict[str, Any]:
        """How the samples of an explanation are shown: kind, shape and number of frames."""
        shape = tuple(self._part(self._relevance(name), part).shape[1:])
        given = self._part(self.sample(0), part or self.parts(name)[0]) if self.has_inputs and len(self.store) else None
        kind = self.as_shown(np.zeros(shape), given, part=part).kind
        return {"kind": kind, "shape": shape, "frames": shape[1] if kind == "video" else 1}

    def _relevance(self, name: str | None) -> Any:
        store = self.explanation(name)
        try:
            return store.relevance
        except InvalidInput as error:  # it was not kept
            raise Conflict(str(error)) from error

    @staticmethod
    def _part(values: Any, part: str) -> Any:
        if not isinstance(values, dict):
            if part:
                raise NotThere(f"the model has no input {part!r}: it takes one, without a name")
            return values
        if not part:
            return next(iter(values.values()))
        if part not in values:
            raise NotThere(f"the model has no input {part!r}: it takes {', '.join(values)}")
        return values[part]

    # ------------------------------------------------------------------ facts

    def facts(self, row: int) -> dict[str, Any]:
        """What is known of a sample in words and numbers."""
        columns, row = self.columns, self.row(row)
        found: dict[str, Any] = {
            "row": row, "id": columns.id(row), "valid": bool(columns.valid[row]),
            "error": columns.error(row), "label": self._class("label", row),
            "explanations": {
                name: {
                    "target": self._class(f"{name}.target", row),
                    **{key: self._number(f"{name}.{key}", row) for key in ("output", "delta")},
                }
                for name in self.store.names
            },
        }  # fmt: skip
        analysis = self.analyses.get(self.store.name)
        if analysis is not None:
            group = int(analysis.members[row])
            groups = analysis.found.groups
            found |= {
                "cluster": int(analysis.found.labels[row]), "outlier": float(analysis.found.outliers[row]),
                "group": groups[group].name if group >= 0 else None,
                "group_title": analysis.group_title(groups[group].name) if group >= 0 else None,
            }  # fmt: skip
        return found

    def near(self, row: int, name: str | None) -> list[dict[str, Any]]:
        """The samples whose heatmaps are most alike; none without an analysis."""
        analysis = self.analyses.get(self.explanation(name).name)
        return [] if analysis is None else analysis.near(self.row(row), _NEAR)

    def _number(self, column: str, row: int) -> float | None:
        return self.columns[column].title_at(row) if column in self.columns else None

    def _class(self, column: str, row: int) -> dict[str, Any] | None:
        if column not in self.columns:
            return None
        found = self.columns[column]
        if found.kind != "category":
            return {"value": found.title_at(row), "title": title_of(found.title_at(row), ())}
        code = int(found.values[row])
        return None if code < 0 else {"value": found.keys[code], "title": found.categories[code]}

    # ------------------------------------------------------------------ analysis and maps

    def analysis(self, name: str | None) -> Analysis:
        """The analysis of an explanation.

        Raises:
            NotThere: there is none.
        """
        found = self.analyses.get(self.explanation(name).name)
        if found is None:
            raise NotThere("there is no analysis of this explanation yet: run it, or name its folder when viewing")
        return found

    def add_analysis(self, name: str | None, analysis: Analysis) -> None:
        """Show an analysis, in place of an earlier one of the same explanation."""
        own = self.explanation(name).name
        self.analyses[own] = analysis
        analysis.columns("" if own == self.store.name else f"{own}.", self.columns)

    def analysis_folder(self, name: str | None) -> Path | None:
        """Where the viewer keeps the analysis of an explanation; None where the store is no folder of this machine."""
        if not isinstance(self.beside, LocalFiles):
            return None
        own = self.explanation(name).name
        safe = own if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", own) else of_bytes(own.encode())
        return self.beside.root / "analysis" / safe

    def maps(self) -> list[dict[str, Any]]:
        """The planes that samples can be laid out on, the best first."""
        found = []
        for name, analysis in self.analyses.items():
            kind = "places" if analysis.found.places is not None else "spectral"
            first = name == self.store.name
            title = "neighbours" if kind == "places" else "eigenvectors"
            tiles = self.map_of(kind if first else f"{kind}:{name}")[1]
            found.append({
                "name": kind if first else f"{kind}:{name}", "title": title if first else f"{title} ({name})",
                "explanation": name, "tiles": tiles,
            })  # fmt: skip
        found.sort(key=lambda facts: facts["explanation"] != self.store.name)
        if self._is_kept():
            found.append({
                "name": "principal", "title": "principal components", "explanation": self.store.name, "tiles": [],
            })  # fmt: skip
        return found

    def map_of(self, name: str) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
        """Places ``[N, 2]`` and tiles of a plane; see :mod:`headwater.viewer.places`.

        Raises:
            NotThere: there is no plane of this name.
        """
        kind, _, own = name.partition(":")
        if name == "principal":
            return self.memory.get("principal", lambda: (places.principal(self.heatmaps(None)), []))
        analysis = self.analyses.get(own or self.store.name)
        if analysis is None or kind != ("places" if analysis.found.places is not None else "spectral"):
            raise NotThere(f"there is no map {name!r}")
        return self.memory.get(("map", analysis), lambda: places.of_analysis(analysis))

    def heatmaps(self, name: str | None) -> Maps:
        """Relevance of all samples; of the first input where the model takes several."""
        relevance = self._part(self._relevance(name), "")
        return Maps(relevance, np.flatnonzero(self.columns.valid), self.explanation(name))

    def _is_kept(self) -> bool:
        try:
            self._relevance(None)
        except HeadwaterError:  # it was not kept, or is damaged
            return False
        return True

    def warm(self) -> None:
        """Read what the page asks for first, so that it is there at once, and go on with the rest in the background."""
        self.columns.listed()
        self.maps()
        Thread(target=self.columns.read_ahead, daemon=True, name="read ahead").start()


def _fitting(source: Source, store: Store) -> Source:
    name, fingerprint = store.manifest.data
    if len(source) != len(store):
        raise InvalidInput(f"the data holds {len(source)} samples, the store explains {len(store)} of {name}")
    if source.fingerprint(store.manifest.seed) != fingerprint:
        raise InvalidInput(
            f"the data is not what the store explains ({name}): pass the same, prepared in the same way, as to run"
        )
    return source


def _gone(store: Store) -> list[str]:
    """Files that their commits name and that are not there, or empty: what zarr reads as missing values."""
    if not isinstance(store.files, LocalFiles):
        return []
    root, gone = Path(store.path), []
    for chunk in committed(store.files)[:_LOOKED_AT]:
        try:
            keys = json.loads(store.files.read(commit_key(chunk)))["files"]
        except (ValueError, KeyError, TypeError, OSError):
            gone.append(commit_key(chunk))
            continue
        gone += [key for key in keys if not (root / key).is_file() or not (root / key).stat().st_size]
    if not gone:
        return []
    return [
        f"The store is damaged: {len(gone)} files are missing or empty ({gone[0]}). Run the same job again to mend it."
    ]


def _check_arrays(store: Store) -> None:
    """Arrays lie within the store and have its length, whatever the manifest and their own metadata say."""
    if len(store.manifest.explanations) == 0 or len(store) < 1:
        raise InvalidInput(f"{store.path} holds no explanations")
    for array in store.manifest.all_arrays:
        parts = PurePosixPath(array.name).parts
        if not parts or ".." in parts or array.name.startswith("/") or "\\" in array.name or "\0" in array.name:
            raise InvalidInput(f"{store.path} is no store to be trusted: it names an array {array.name!r}")
        try:
            shape = Rows(store.files, array).shape
        except HeadwaterError:  # what is damaged is told of when it is read
            continue
        if shape != (len(store), *array.shape):
            raise InvalidInput(f"{store.path} is no store to be trusted: {array.name} has the shape {list(shape)}")
