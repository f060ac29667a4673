"""Composites: a table from selector to rule, and the presets that the papers name.

A selector is an operator class (``"conv"``, ``"linear"``, ``"affine"``, ``"attention"``, ...), an operator's name,
``"input"`` (the first affine operators reached from the explained input), ``"layer:<glob>"``, ``"depth:<from>-<to>"``
(fractions of the longest affine path from the input) or ``"default"``. The most specific row wins: layer, input, depth,
operator, class, default.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from headwater.errors import InvalidComposite
from headwater.propagate.filters import Filter, Own
from headwater.propagate.operators import names
from headwater.propagate.rules import (
    CPLRP,
    AlphaBeta,
    AttnLRP,
    Box,
    ByDomain,
    Deconv,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    Guided,
    Proportional,
    Rule,
    WinnerContrast,
    WinnerTakesAll,
    Zero,
    ZPlus,
)

if TYPE_CHECKING:
    from headwater.propagate.calls import Call

Row = tuple[Rule, Filter | None]
_NO_ROW: Row = (Zero(), None)
CLASSES = (
    "conv",
    "linear",
    "affine",
    "attention",
    "pointwise",
    "product",
    "normalizer",
    "softmax",
    "homogeneous",
    "recurrent",
)


class Composite:
    """A table from selector to rule, or to ``(rule, filter)``.

    Args:
        rows: the table; an affine operator that no row selects gets LRP-0.
        plain: start from the ordinary gradient of every operator (guided backprop and its kin) instead of from LRP.
        name: for display.

    Attributes:
        unfolds: custom Functions are treated by what their forward computes, and not by their author's gradient.

    Raises:
        InvalidComposite: for an unknown selector, a fraction outside 0 to 1, or a value that is no rule.
    """

    def __init__(self, rows: Mapping[str, Any], *, plain: bool = False, name: str = "custom") -> None:
        self.name, self.plain, self.unfolds = name, plain, not plain
        self.layers: list[tuple[str, Row]] = []
        self.depths: list[tuple[float, float, Row]] = []
        self.named: dict[str, Row] = {}
        for selector, value in rows.items():
            self._add(selector, _row(selector, value))
        everything = [*(r for _, r in self.layers), *(r for *_, r in self.depths), *self.named.values()]
        self.rules = [rule for rule, _ in everything]
        self.has_input_rules = any(rule.at_input for rule in self.rules)
        self.has_filters = any(filter_ is not None for _, filter_ in everything)
        self.per_sample = self.has_filters or any(rule.per_sample for rule in self.rules)
        self.needs_places = any(rule.needs_places for rule in self.rules)
        self.needs_layers = bool(self.layers) or self.needs_places
        self.rows = dict(rows)

    def _add(self, selector: str, row: Row) -> None:
        kind, _, rest = selector.partition(":")
        if kind == "layer" and rest:
            self.layers.append((rest, row))
        elif kind == "depth" and rest:
            try:
                low, high = (float(part) for part in rest.split("-"))
            except ValueError:
                raise InvalidComposite(f"{selector!r}: write a depth as 'depth:0-0.44', two fractions") from None
            if not 0 <= low < high <= 1:
                raise InvalidComposite(f"{selector!r}: fractions of the depth lie between 0 and 1, in order")
            self.depths.append((low, high, row))
        else:
            known = {*CLASSES, "input", "default", *names()}
            if selector not in known:
                close = difflib.get_close_matches(selector, known, 3)
                hint = f" (did you mean {', '.join(map(repr, close))}?)" if close else ""
                raise InvalidComposite(
                    f"Unknown selector {selector!r}{hint}: use an operator or one of {', '.join(CLASSES)}, 'input', "
                    "'layer:<glob>', 'depth:<from>-<to>' or 'default'"
                )
            self.named[selector] = row

    def __repr__(self) -> str:
        return f"Composite({self.rows!r})" if self.name == "custom" else f"Composite({self.name!r})"

    def early(self, call: Call) -> Rule | None:
        """The rule of a call if it does not depend on depth and has no filter, else None."""
        row = self._specific(call)
        if row is None:
            if self.depths:
                return None
            row = self._general(call)
        return row[0] if row[1] is None else None

    def resolve(self, call: Call, depth: int) -> Row:
        """The row of a call; ``depth`` is the number of affine operators on the longest path."""
        row = self._specific(call)
        if row is None and call.operator.affine and depth:
            fraction = (call.depth - 0.5) / depth
            row = next((r for low, high, r in self.depths if low <= fraction < high), None)
        return row if row is not None else self._general(call)

    def row(self, call: Call) -> Rule | None:
        """The rule of a call where most calls have none (plain composites)."""
        row = self._specific(call) or self.named.get(call.operator.name) or self.named.get(call.operator.kind)
        return row[0] if row is not None else None

    def filter_at(self, call: Call) -> Filter | None:
        """The filter of a call that is not affine: only of a row that names its layer, its operator or its class."""
        row = self._specific(call) or self.named.get(call.operator.name) or self.named.get(call.operator.kind)
        return row[1] if row is not None else None

    def attention(self, call: Call) -> Rule:
        """The rule for attention at a call."""
        row = self._specific(call) or self.named.get(call.operator.name) or self.named.get("attention")
        return row[0] if row is not None and isinstance(row[0], (AttnLRP, CPLRP)) else AttnLRP()

    def pooling(self, call: Call) -> Rule | None:
        """The rule for soft pooling at a call, where some row names one."""
        rows = (self._specific(call), *(self.named.get(k) for k in (call.operator.name, "softmax", "default")))
        return next((r[0] for r in rows if r and isinstance(r[0], (Gradient, Proportional, WinnerTakesAll))), None)

    def _specific(self, call: Call) -> Row | None:
        for pattern, row in self.layers:
            if fnmatchcase(call.layer, pattern):
                return row
        if call.at_input and call.operator.affine:
            return self.named.get("input")
        return None

    def _general(self, call: Call) -> Row:
        operator = call.operator
        for name in (operator.name, operator.kind, "affine" if operator.affine else "", "default"):
            if name in self.named:
                return self.named[name]
        return _NO_ROW


def _row(selector: str, value: Any) -> Row:
    rule, filter_ = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if isinstance(rule, type) and issubclass(rule, Rule):
        raise InvalidComposite(f"{selector!r} maps to a class, which is no rule yet: write {rule.__name__}()")
    if not isinstance(rule, Rule):
        raise InvalidComposite(f"{selector!r} maps to {rule!r}, which is no rule: use one of headwater.rules")
    if filter_ is not None and not isinstance(filter_, Filter):
        if not callable(filter_):
            raise InvalidComposite(f"{selector!r}: {filter_!r} is no filter: it needs multiplier(relevance)")
        filter_ = Own(filter_)
    return rule, filter_


def _presets() -> dict[str, Composite]:
    epsilon, attention = Epsilon(1e-6), {"attention": AttnLRP()}
    relu_like = ("relu", "pointwise", "leaky_relu", "prelu", "rrelu")
    tables: dict[str, tuple[dict[str, Any], bool]] = {
        "default": ({"conv": Gamma(10), "default": epsilon, **attention}, False),
        "lrp_0": ({"default": Zero(), **attention}, False),
        "epsilon": ({"default": epsilon, **attention}, False),
        "epsilon_plus": ({"conv": ZPlus(), "default": epsilon, **attention}, False),
        "epsilon_plus_flat": ({"input": Flat(), "conv": ZPlus(), "default": epsilon, **attention}, False),
        "epsilon_gamma_box": ({"input": Box(), "conv": Gamma(0.25), "default": epsilon, **attention}, False),
        "epsilon_alpha2_beta1": ({"conv": AlphaBeta(2, 1), "default": epsilon, **attention}, False),
        # The review's composite for VGG-16, its sixteen affine layers in three bands (its reference [98]).
        "cmp": (
            {
                "input": Box(),
                "depth:0-0.4375": Gamma(0.25),
                "depth:0.4375-0.8125": Epsilon(0.25, relative=True),
                "depth:0.8125-1": Zero(),
                **attention,
            },
            False,
        ),
        "deep_taylor": ({"input": ByDomain(), "default": ZPlus(), **attention}, False),
        "attnlrp": ({"default": epsilon, **attention}, False),
        "cplrp": ({"default": epsilon, "attention": CPLRP()}, False),
        "excitation_backprop": ({"default": ZPlus(), **attention}, False),
        "contrastive_excitation_backprop": ({"default": WinnerContrast(), **attention}, False),
        "gradient": ({}, True),
        "guided_backprop": (dict.fromkeys(relu_like, Guided()), True),
        "deconvnet": (dict.fromkeys(relu_like, Deconv()), True),
    }
    return {name: Composite(rows, plain=plain, name=name) for name, (rows, plain) in tables.items()}


_PRESETS: dict[str, Composite] = {}


def presets() -> list[str]:
    """The names of all presets."""
    if not _PRESETS:
        _PRESETS.update(_presets())
    return list(_PRESETS)


def preset(name: str) -> Composite:
    """A composite by name.

    Raises:
        InvalidComposite: for an unknown name; the text lists the known ones.
    """
    if name not in presets():
        close = difflib.get_close_matches(name, _PRESETS, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InvalidComposite(f"Unknown composite {name!r}{hint}: choose from {', '.join(_PRESETS)}")
    return _PRESETS[name]
