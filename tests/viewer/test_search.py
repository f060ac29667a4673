"""Filter expressions against the same conditions written out sample by sample."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import HeadwaterError
from headwater.viewer.columns import Column, coded
from headwater.viewer.search import WrongExpression, search

N = 40
_random = np.random.default_rng(0)
LABELS = _random.integers(0, 4, N)
SCORES = np.where(_random.random(N) < 0.2, np.nan, _random.normal(size=N)).astype(np.float32)
IDS = np.array([f"cat{i}.png" if i % 2 else f"Dog{i}.png" for i in range(N)], object)
TITLES = ["shirt", "t-shirt", "ankle boot", "bag"]
MISSING = np.arange(N) % 7 == 0


class Table(dict[str, Column]):
    """Columns by name, as the store has them."""

    @property
    def names(self) -> list[str]:
        return list(self)


COLUMNS: Any = Table(
    label=Column("label", "label", *coded(LABELS, TITLES, MISSING)),
    score=Column("score", "score", "number", SCORES),
    id=Column("id", "id", "text", IDS),
)
COLUMNS["my column"] = Column("my column", "odd", *coded(_random.integers(5, 9, N), (), np.zeros(N, bool)))


def found(expression: str) -> list[int]:
    return np.flatnonzero(search(expression, COLUMNS, N)).tolist()


def rows(condition: Any) -> list[int]:
    return [i for i in range(N) if condition(i)]


def label(i: int) -> int | None:
    return None if MISSING[i] else int(LABELS[i])


@pytest.mark.parametrize(
    ("expression", "condition"),
    [
        ("", lambda i: True),
        ("label = shirt", lambda i: label(i) == 0),
        ("LABEL = shirt", None),
        ("label = SHIRT", lambda i: label(i) == 0),
        ("label = 'ankle boot'", lambda i: label(i) == 2),
        ("label = 3", lambda i: label(i) == 3),
        ("label != bag", lambda i: label(i) not in (3, None)),
        ("not label = bag", lambda i: label(i) != 3),
        ("label ~ shirt", lambda i: label(i) in (0, 1)),
        ("label in (shirt, 3)", lambda i: label(i) in (0, 3)),
        ("label is missing", lambda i: label(i) is None),
        ("label IS NOT Missing", lambda i: label(i) is not None),
        ("label >= 2", lambda i: label(i) in (2, 3)),
        ("score > 0", lambda i: SCORES[i] > 0),
        ("score <= -0.5", lambda i: SCORES[i] <= -0.5),
        ("score is missing", lambda i: math.isnan(SCORES[i])),
        ("not score > 0", lambda i: not SCORES[i] > 0),
        ("cat1", lambda i: "cat1" in IDS[i]),
        ("'DOG'", lambda i: "Dog" in IDS[i]),
        ("id = dog4.png", lambda i: IDS[i] == "Dog4.png"),
        ("`my column` > 6", lambda i: COLUMNS["my column"].keys[COLUMNS["my column"].values[i]] > 6),
        ("score > 0 or label = bag and score < 0", lambda i: SCORES[i] > 0 or (label(i) == 3 and SCORES[i] < 0)),
        ("(score > 0 or label = bag) and dog", lambda i: (SCORES[i] > 0 or label(i) == 3) and "Dog" in IDS[i]),
        ("not (label = bag or label = shirt)", lambda i: label(i) not in (3, 0)),
        ("not not label = bag", lambda i: label(i) == 3),
        ("score>1e-1", lambda i: SCORES[i] > 0.1),
    ],
)
def test_expressions(expression: str, condition: Any) -> None:
    if condition is None:
        with pytest.raises(WrongExpression, match="no column"):
            found(expression)
    else:
        assert found(expression) == rows(condition)


@pytest.mark.parametrize(
    ("expression", "at"),
    [
        ("label =", 7), ("= shirt", 0), ("label = shirt and", 17), ("(label = shirt", 14), ("label = shirt)", 13),
        ("label shirt", 6), ("nothing = 3", 0), ("label = nothing", 8), ("score = shirt", 8), ("score > shirt", 6),
        ("id > 3", 3), ("label in shirt", 9), ("label in (shirt", 15), ("label is shirt", 6), ("'open", 0), ("and", 0),
        ("label = shirt or or", 17), ("label ! shirt", 6), ("()", 1), ("a b", 2),
    ],
)  # fmt: skip
def test_mistakes_are_pointed_at(expression: str, at: int) -> None:
    with pytest.raises(WrongExpression) as caught:
        found(expression)
    assert caught.value.at == at
    assert f"at character {at + 1}" in str(caught.value)


atoms = st.sampled_from([
    ("label = shirt", rows(lambda i: label(i) == 0)), ("score > 0", rows(lambda i: SCORES[i] > 0)),
    ("dog", rows(lambda i: "Dog" in IDS[i])), ("label is missing", rows(lambda i: label(i) is None)),
])  # fmt: skip


def _either(pair: tuple[Any, Any]) -> tuple[str, list[int]]:
    return f"({pair[0][0]} or {pair[1][0]})", sorted({*pair[0][1], *pair[1][1]})


def _both(pair: tuple[Any, Any]) -> tuple[str, list[int]]:
    return f"({pair[0][0]} and {pair[1][0]})", sorted({*pair[0][1]} & {*pair[1][1]})


def _none(one: Any) -> tuple[str, list[int]]:
    return f"not {one[0]}", sorted(set(range(N)) - {*one[1]})


def _composed(inner: Any) -> Any:
    pairs = st.tuples(inner, inner)
    return pairs.map(_either) | pairs.map(_both) | inner.map(_none)


@given(st.recursive(atoms, _composed, max_leaves=12))
def test_composed_expressions(pair: tuple[str, list[int]]) -> None:
    assert found(pair[0]) == pair[1]


@given(st.text(alphabet="label score=<>~!()',\"`and or not in is missing 0.5\x00é\n", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(HeadwaterError):
        assert search(text, COLUMNS, N).shape == (N,)
