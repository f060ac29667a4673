"""What a store holds and what it was made of, as JSON; equal jobs have equal manifests, whichever machine ran them."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from headwater.dataset.arrays import Array
from headwater.errors import InvalidInput, MissingExtra

FORMAT = 1
NAME = "manifest.json"
COMPLETE = "complete.json"
COMMITS = "commits"
TABLE = "samples"
_PACKAGES = ("headwater", "torch", "numpy", "zarr", "polars")


@dataclass(frozen=True)
class Facts:
    """One explanation of every sample: a method and a target.

    Attributes:
        name: its folder in the store; ``method``, ``composite``: as resolved; ``target``, ``options``: as passed.
        arrays: what is stored of it.
    """

    name: str
    method: str
    composite: str
    target: str
    options: str
    arrays: tuple[Array, ...]

    @staticmethod
    def from_json(facts: dict[str, Any]) -> Facts:
        """The facts that ``asdict`` wrote down."""
        return Facts(**{**facts, "arrays": tuple(Array.from_json(array) for array in facts["arrays"])})


@dataclass(frozen=True)
class Manifest:
    """The facts that all chunks share.

    Attributes:
        samples, chunk, batch: how many there are, how many a file and a pass through the model hold.
        seed, threads: what results depend on to the last bit.
        model, data: name and fingerprint; ``classes``: names of labels; ``label``: "int64", "float64", "string", "".
        arrays: what is stored of the samples themselves.
        explanations: what is stored of each method and target.
        skip_bad: whether samples that cannot be explained are passed over; ``versions``: of the packages.
    """

    samples: int
    chunk: int
    batch: int
    seed: int
    threads: int
    model: tuple[str, str]
    data: tuple[str, str]
    classes: tuple[str, ...]
    label: str
    arrays: tuple[Array, ...]
    explanations: tuple[Facts, ...]
    skip_bad: bool
    versions: dict[str, str] = field(default_factory=lambda: versions())
    format: int = FORMAT

    @property
    def chunks(self) -> int:
        """How many chunks the samples fill."""
        return -(-self.samples // self.chunk)

    @property
    def all_arrays(self) -> list[Array]:
        """The arrays of the samples and of every explanation."""
        return [*self.arrays, *(array for facts in self.explanations for array in facts.arrays)]

    def span(self, chunk: int) -> range:
        """The samples of a chunk."""
        return range(chunk * self.chunk, min((chunk + 1) * self.chunk, self.samples))

    def to_json(self) -> bytes:
        """The manifest as it is written."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @staticmethod
    def from_json(data: bytes, url: str) -> Manifest:
        """Read a manifest of this format or an older one.

        Raises:
            InvalidInput: no manifest, or one of a newer format.
        """
        try:
            facts = json.loads(data)
            found = facts["format"]
        except (ValueError, KeyError, TypeError):
            raise InvalidInput(f"{url} is no store of headwater: its {NAME} cannot be read") from None
        if found > FORMAT:
            raise InvalidInput(f"{url} has format {found}, this version reads up to {FORMAT}: update headwater")
        facts["arrays"] = tuple(Array.from_json(array) for array in facts["arrays"])
        facts["explanations"] = tuple(Facts.from_json(facts_) for facts_ in facts["explanations"])
        for name in ("model", "data", "classes"):
            facts[name] = tuple(facts[name])
        return Manifest(**facts)

    def differences(self, other: Manifest) -> list[str]:
        """What of a job differs from the one that began the store, each as a sentence; versions aside."""
        mine, theirs = asdict(self), asdict(other)
        sentences = []
        for name, (now, before) in {k: (mine[k], theirs[k]) for k in mine if k not in ("versions", "format")}.items():
            if now == before:
                continue
            if name in ("model", "data"):
                kind = "model" if name == "model" else "data set"
                sentences.append(f"the {kind} is another ({before[0]} {before[1][:8]} then, {now[0]} {now[1][:8]} now)")
            elif name == "explanations":
                sentences.append(_explanations_differ(self.explanations, other.explanations))
            elif name == "arrays":
                sentences.append("what is stored of the samples (inputs, labels) is another")
            else:
                sentences.append(f"{name} was {before} then, is {now} now")
        return sentences


def _explanations_differ(now: Sequence[Facts], before: Sequence[Facts]) -> str:
    names = [facts.name for facts in before], [facts.name for facts in now]
    if names[0] != names[1]:
        return f"the explanations were {', '.join(names[0])} then, are {', '.join(names[1])} now"
    pairs = [(asdict(b), asdict(n)) for b, n in zip(before, now, strict=True)]
    changed = sorted({key for b, n in pairs for key in b if b[key] != n[key]})
    return f"the explanations differ in {' and '.join(changed)}"


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError as error:
            raise MissingExtra("dataset", name) from error
    return found
