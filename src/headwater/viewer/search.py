"""Filter expressions: ``label = Shirt and lrp.delta > 0.1``, read by a grammar of their own, never evaluated as code.

    expression  = all { "or" all }
    all         = one { "and" one }
    one         = "not" one | "(" expression ")" | comparison | word
    comparison  = column ( "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" ) value
                | column "in" "(" value { "," value } ")"
                | column "is" [ "not" ] "missing"

A word by itself, or a quoted text, is looked for in the ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.errors import InvalidInput
from headwater.viewer.columns import Column, Columns

Mask = NDArray[np.bool_]
LONGEST = 2000  # characters of an expression
_DEEPEST = 50
_TOKEN = re.compile(
    r"\s*(?:(?P<sign>!=|<=|>=|[=<>~(),])|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|`(?P<name>[^`]*)`"
    r"|(?P<word>[^\s=<>~!(),'\"`]+))"
)
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class WrongExpression(InvalidInput):
    """An expression that cannot be read.

    Attributes:
        at: the character where reading ended.
    """

    def __init__(self, message: str, at: int) -> None:
        super().__init__(f"{message} (at character {at + 1})")
        self.at = at


@dataclass(frozen=True)
class Token:
    """A piece of an expression: ``kind`` is "sign", "text" (quoted), "name" (in backticks), "word" or "end"."""

    kind: str
    text: str
    at: int

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these words, in whatever case."""
        return self.kind == "word" and self.text.lower() in words


def search(expression: str, columns: Columns, samples: int) -> Mask:
    """The samples that an expression holds for, ``[N]``; all for an empty one.

    A comparison never holds where the value is missing; ``not`` of it does.

    Raises:
        WrongExpression: it cannot be read, or compares what cannot be compared; ``at`` says where.
    """
    if len(expression) > LONGEST:
        raise WrongExpression(f"an expression has at most {LONGEST} characters", LONGEST)
    if not expression.strip():
        return np.ones(samples, bool)
    reading = _Reading(_tokens(expression), columns)
    found = reading.any(0)
    if reading.here.kind != "end":
        raise WrongExpression(f"'and' or 'or' is missing before {reading.here.text!r}", reading.here.at)
    return found


def _tokens(expression: str) -> list[Token]:
    found, at = [], 0
    while at < len(expression.rstrip()):
        match = _TOKEN.match(expression, at)
        if match is None:
            start = at + len(expression[at:]) - len(expression[at:].lstrip())
            raise WrongExpression(f"{expression[start]!r} cannot be read here: a quote may be open", start)
        kind = str(match.lastgroup)
        named = {"single": "text", "double": "text"}.get(kind, kind)
        found.append(Token(named, match[kind], match.start(kind)))
        at = match.end()
    return [*found, Token("end", "the end", len(expression))]


class _Reading:
    """Recursive descent over the tokens; what is read is computed at once, column by column."""

    def __init__(self, tokens: list[Token], columns: Columns) -> None:
        self._tokens, self._columns, self._next = tokens, columns, 0

    @property
    def here(self) -> Token:
        return self._tokens[self._next]

    def take(self) -> Token:
        token = self.here
        self._next += token.kind != "end"
        return token

    def any(self, depth: int) -> Mask:
        if depth > _DEEPEST:
            raise WrongExpression("the parentheses are nested too deeply", self.here.at)
        found = self.all(depth)
        while self.here.is_word("or"):
            self.take()
            found = found | self.all(depth)
        return found

    def all(self, depth: int) -> Mask:
        found = self.one(depth)
        while self.here.is_word("and"):
            self.take()
            found = found & self.one(depth)
        return found

    def one(self, depth: int) -> Mask:
        token = self.take()
        if token.is_word("not"):
            if depth > _DEEPEST:
                raise WrongExpression("there are too many 'not' in a row", token.at)
            return ~self.one(depth + 1)
        if token.kind == "sign" and token.text == "(":
            found = self.any(depth + 1)
            self.expect(")")
            return found
        if token.kind in ("end", "sign") or token.is_word("and", "or", "in", "is"):
            raise WrongExpression(f"a column or a text is missing before {token.text!r}", token.at)
        following = self.here
        compares = (following.kind == "sign" and following.text not in "(),") or following.is_word("in", "is")
        if token.kind == "text" or (token.kind == "word" and not compares):
            return _contains(self._columns["id"], token.text)
        return self.comparison(self.column(token))

    def column(self, token: Token) -> Column:
        if token.text not in self._columns:
            raise WrongExpression(
                f"there is no column {token.text!r}: the store has {', '.join(self._columns.names)}", token.at
            )
        return self._columns[token.text]

    def comparison(self, column: Column) -> Mask:
        sign = self.take()
        if sign.is_word("is"):
            holds = not self.here.is_word("not")
            if not holds:
                self.take()
            if not self.take().is_word("missing"):
                raise WrongExpression("'is' is followed by 'missing' or 'not missing'", sign.at)
            return _missing(column) == holds
        if sign.is_word("in"):
            self.expect("(")
            found = _equals(column, self.value())
            while self.here.text == "," and self.here.kind == "sign":
                self.take()
                found = found | _equals(column, self.value())
            self.expect(")")
            return found
        if sign.kind != "sign" or sign.text in "(),":
            raise WrongExpression(f"a comparison such as = is missing before {sign.text!r}", sign.at)
        return _compared(column, sign, self.value())

    def value(self) -> Token:
        token = self.take()
        if token.kind in ("end", "sign"):
            raise WrongExpression(f"a value is missing before {token.text!r}", token.at)
        return token

    def expect(self, sign: str) -> None:
        token = self.take()
        if token.kind != "sign" or token.text != sign:
            raise WrongExpression(f"{sign!r} is missing before {token.text!r}", token.at)


def _compared(column: Column, sign: Token, value: Token) -> Mask:
    if sign.text == "~":
        return _contains(column, value.text)
    if sign.text == "=":
        return _equals(column, value)
    if sign.text == "!=":
        return ~_equals(column, value) & ~_missing(column)
    number = _number(value)
    if column.kind == "number" and number is not None:
        return np.asarray(_ORDER[sign.text](column.values, number))
    keys = np.array([key if isinstance(key, (int, float)) else np.nan for key in column.keys], np.float64)
    if column.kind == "category" and number is not None and np.isfinite(keys).any():
        return _where(column, np.asarray(_ORDER[sign.text](keys, number)))
    raise WrongExpression(f"{column.name!r} {sign.text} {value.text!r} compares no numbers", sign.at)


def _equals(column: Column, value: Token) -> Mask:
    number = _number(value)
    if column.kind == "number":
        if number is None:
            raise WrongExpression(f"{column.name!r} holds numbers, {value.text!r} is none", value.at)
        return np.asarray(column.values == np.float32(number))
    wanted = value.text.casefold()
    if column.kind == "text":
        return np.fromiter((str(text).casefold() == wanted for text in column.values), bool, len(column.values))
    titles = np.array([title.casefold() == wanted for title in column.categories], bool)
    if titles.any():  # a title goes before the value that it stands for
        return _where(column, titles)
    found = np.array(
        [str(k).casefold() == wanted or (number is not None and k == number and not isinstance(k, bool))
         for k in column.keys], bool,
    )  # fmt: skip
    if not found.any():
        known = ", ".join(column.categories[:12]) + (", ..." if len(column.categories) > 12 else "")
        raise WrongExpression(f"no {column.name} is {value.text!r}: there are {known}", value.at)
    return _where(column, found)


def _contains(column: Column, text: str) -> Mask:
    wanted = text.casefold()
    if column.kind == "text":
        return np.fromiter((wanted in str(value).casefold() for value in column.values), bool, len(column.values))
    if column.kind == "category":
        return _where(column, np.array([wanted in title.casefold() for title in column.categories], bool))
    raise InvalidInput(f"{column.name!r} holds numbers: ~ looks for a text in texts")


def _where(column: Column, picked: Mask) -> Mask:
    return np.append(picked, False)[column.values]  # the code -1 of a missing value takes the last


def _missing(column: Column) -> Mask:
    if column.kind == "category":
        return np.asarray(column.values < 0)
    if column.kind == "number":
        return np.asarray(~np.isfinite(column.values))
    return np.fromiter((not value for value in column.values), bool, len(column.values))


def _number(token: Token) -> float | None:
    try:
        return float(token.text) if token.kind == "word" else None
    except ValueError:
        return None
