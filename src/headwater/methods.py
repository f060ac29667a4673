"""The register of methods: every method of the papers, by name."""

from __future__ import annotations

from typing import Any

from headwater import propagated
from headwater.answer import Answer
from headwater.errors import InvalidInput
from headwater.method import Method
from headwater.question import Question, resolve


class Register(tuple[Method, ...]):
    """The rows of the register; prints as a table."""

    def __str__(self) -> str:
        lines = [f"{'name':32} {'abbr.':10} {'family':10} {'needs':34} source"]
        lines += [f"{m.name:32} {m.abbreviation:10} {m.family:10} {m.needs:34} {m.source}" for m in self]
        return "\n".join(lines)

    __repr__ = __str__


_METHODS = Register((*propagated.ROWS,))


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
    raise InvalidInput(f"Unknown method {name!r}: choose from {', '.join(m.name for m in _METHODS)}")


def answer(method: Method, question: Question, options: dict[str, Any]) -> Answer:
    """Run a method on a question.

    Raises:
        InvalidInput: for options that the method does not have, and for what it cannot give (a ledger, say); the text
            says which it has.
    """
    if method.run is None:
        raise InvalidInput(f"{method.name!r} is no single explanation: it is run by {method.call}")
    unknown = [name for name in options if name not in method.options]
    if unknown:
        own = ", ".join(f"{k}={v!r}" for k, v in method.options.items()) or "none"
        raise InvalidInput(f"Method {method.name!r} has no option {unknown[0]!r}; its options: {own}")
    if question.composite is not None:
        if not method.rules:
            raise InvalidInput(f"Method {method.name!r} takes no composite; it is defined by its own")
        resolve(question.composite)
    if method.family != "propagate":
        for name in ("ledger", "layers", "differentiable"):
            if getattr(question, name):
                able = "methods of the family propagate, such as 'lrp'"
                raise InvalidInput(f"Method {method.name!r} has no {name}=: only {able} have")
    return method.run(question, **options)
