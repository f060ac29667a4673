"""Which samples a user means: a cluster, ids, row numbers, or a selection that was saved in the viewer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.analyze.maps import array_of
from headwater.analyze.strategies import Cluster, Spray
from headwater.dataset.files import open_files
from headwater.dataset.store import Store
from headwater.errors import InvalidInput


def rows_of(selection: Any, samples: int, found: Spray | None, store: Store | None) -> NDArray[np.int64]:
    """Row numbers, ascending.

    Args:
        selection: a :class:`Cluster` or its number (with ``found``); the name of a selection in the viewer; ids (a list
            of strings); row numbers; or a mask ``[N]`` of booleans.
        samples: how many there are; ``store``: where they came from.

    Raises:
        InvalidInput: nothing of this, an unknown cluster, name or id, a row out of range, or no sample at all.
    """
    if isinstance(selection, Cluster):
        selection = selection.label
    if isinstance(selection, str):
        rows = _rows_of_ids(_saved(selection, store), store)
    elif isinstance(selection, (int, np.integer)) and not isinstance(selection, bool):
        rows = _members(int(selection), found)
    else:
        rows = _listed(selection, samples, store)
    if not len(rows):
        raise InvalidInput("the selection is empty: choose the samples that show the artefact")
    if rows[0] < 0 or rows[-1] >= samples:
        raise InvalidInput(f"the selection names row {rows[0] if rows[0] < 0 else rows[-1]} of {samples} samples")
    return rows


def _members(label: int, found: Spray | None) -> NDArray[np.int64]:
    if found is None:
        raise InvalidInput(f"{label} is no selection by itself: for a cluster pass what spray() found, or else rows")
    if not 0 <= label < len(found.clusters):
        raise InvalidInput(f"there is no cluster {label}: there are 0 to {len(found.clusters) - 1}")
    return found.members(label)


def _listed(selection: Any, samples: int, store: Store | None) -> NDArray[np.int64]:
    values = array_of(selection)
    if values.ndim != 1:
        raise InvalidInput(f"a selection lists samples on one axis; this has shape {values.shape}")
    if values.dtype == np.bool_:
        if len(values) != samples:
            raise InvalidInput(f"a mask of {len(values)} values for {samples} samples: pass one for each")
        return np.flatnonzero(values)
    if values.dtype.kind in "iu":
        return np.unique(values.astype(np.int64))
    if values.size and values.dtype.kind in "UO":
        return _rows_of_ids([str(value) for value in values], store)
    if values.size:
        raise InvalidInput(f"a selection lists rows, ids or booleans, not {values.dtype}")
    return np.zeros(0, np.int64)


def _rows_of_ids(ids: list[str], store: Store | None) -> NDArray[np.int64]:
    if store is None:
        raise InvalidInput("ids name samples of a store: pass the store, or row numbers")
    places = {str(name): row for row, name in enumerate(store.ids)}
    unknown = [name for name in ids if name not in places]
    if unknown:
        raise InvalidInput(f"{store.path} has no sample {unknown[0]!r} ({len(unknown)} of {len(ids)} ids are unknown)")
    return np.unique(np.array([places[name] for name in ids], np.int64))


def _saved(name: str, store: Store | None) -> list[str]:
    """The ids that the viewer wrote beside the store."""
    if store is None:
        raise InvalidInput(f"{name!r} names a selection of a store: pass the store that it was made in")
    where = f"{store.path}.viewer"
    try:
        saved = json.loads(open_files(where).read("selections.json"))
    except FileNotFoundError:
        saved = {}
    if name not in saved:
        known = ", ".join(map(repr, sorted(saved))) or "none was saved"
        raise InvalidInput(f"{where} holds no selection {name!r}: {known}")
    return [str(one) for one in saved[name]["ids"]]
