"""The register of methods: every method of the papers, by name."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

from headwater.answer import Answer
from headwater.average import ROWS as AVERAGE
from headwater.cam import ROWS as CAM
from headwater.concepts import ROWS as CONCEPTS
from headwater.counterfactual import ROWS as COUNTERFACTUAL
from headwater.deeplift import ROWS as DEEPLIFT
from headwater.errors import InvalidInput
from headwater.feature_maps import ROWS as FEATURE_MAPS
from headwater.method import Method
from headwater.optimize import ROWS as OPTIMIZE
from headwater.patterns import ROWS as PATTERNS
from headwater.propagated import ROWS as PROPAGATED
from headwater.question import Question, resolve
from headwater.remove import ROWS as REMOVE
from headwater.selectivity import ROWS as SELECTIVITY
from headwater.similarity import ROWS as SIMILARITY


class Register(tuple[Method, ...]):
    """The rows of the register; prints as a table."""

    def __str__(self) -> str:
        lines = [f"{'name':32} {'abbr.':10} {'family':10} {'needs':34} source"]
        lines += [f"{m.name:32} {m.abbreviation:10} {m.family:10} {m.needs:34} {m.source}" for m in self]
        return "\n".join(lines)

    __repr__ = __str__


_METHODS = Register(
    (
        *PROPAGATED, *CAM, *CONCEPTS, *SIMILARITY, *COUNTERFACTUAL, *DEEPLIFT, *FEATURE_MAPS, *PATTERNS, *SELECTIVITY,
        *AVERAGE, *REMOVE, *OPTIMIZE,
    )
)  # fmt: skip


def methods() -> Register:
    """All methods, as rows with ``name``, ``abbreviation``, ``family``, ``source`` and ``needs``; prints as a table."""
    return _METHODS


def find(name: str) -> Method:
    """A method by name or abbreviation.

    Raises:
        InvalidInput: for an unknown name; the text lists the known ones.
    """
    for method in _METHODS:
        if name in (method.name, method.abbreviation):
            return method
    close = difflib.get_close_matches(name, [m.name for m in _METHODS], 3)
    hint = f" (did you mean {', '.join(map(repr, close))}?)" if close else ""
    raise InvalidInput(f"Unknown method {name!r}{hint}: choose from {', '.join(m.name for m in _METHODS)}")


def _made_of(method: Method, options: dict[str, Any]) -> Method:
    """A method that is made of another one, given that one in place of its name; ``options`` lose the name."""
    if method.run is None or "of" not in method.options:
        return method
    inner = find(options.pop("of", method.options["of"]))
    return replace(method, run=partial(method.run, of=_made_of(inner, {})))


def check_options(method: Method, options: Collection[str]) -> None:
    """Refuse what a method cannot be asked before anything is.

    Raises:
        InvalidInput: for options that the method does not have; the text says which it has. For a method that makes no
            single explanation; the text says what runs it.
    """
    if method.run is None:
        raise InvalidInput(f"{method.name!r} is no single explanation: it is run by {method.call}")
    unknown = [name for name in options if name not in method.options]
    if unknown:
        own = ", ".join(f"{k}={v!r}" for k, v in method.options.items()) or "none"
        raise InvalidInput(f"Method {method.name!r} has no option {unknown[0]!r}; its options: {own}")


def answer(method: Method, question: Question, options: dict[str, Any]) -> Answer:
    """Run a method on a question.

    Raises:
        InvalidInput: as :func:`check_options`, and for what the method cannot give (a ledger, say).
    """
    check_options(method, options)
    if question.composite is not None:
        if not method.rules:
            raise InvalidInput(f"Method {method.name!r} takes no composite; it is defined by its own")
        resolve(question.composite)
    asked = ("ledger", "layers", "differentiable", "through")
    takes = method.takes if method.takes is not None else asked if method.family == "propagate" else ()
    for name in asked:
        if getattr(question, name) and name not in takes:
            raise InvalidInput(f"Method {method.name!r} has no {name}=: 'lrp' and most of the family propagate have")
    whole = _made_of(method, options)
    assert whole.run is not None
    return whole.run(question, **options)
