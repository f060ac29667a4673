"""One row of the register of methods: a name, what it is composed of, and where it comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from headwater.answer import Answer

REVIEW = (
    "Samek, Montavon, Lapuschkin, Anders, Müller: Explaining Deep Neural Networks and Beyond, Proc. IEEE 109(3), 2021"
)
OVERVIEW = "Samek, Wiegand, Müller: Explainable Artificial Intelligence, ITU Journal 1(1), 2018"
THESIS = "Chormai: Designing Recurrent Neural Networks for Explainability, TU Berlin, 2018"
LRP = "Bach et al.: On Pixel-Wise Explanations for Non-Linear Classifier Decisions by LRP, PLoS ONE 10(7), 2015"


@dataclass(frozen=True)
class Method:
    """One method of explanation.

    Attributes:
        name, abbreviation: as the papers' glossary has them; ``family``: the engine that runs it.
        source: where it comes from; ``needs``: what it needs of a model; ``composition``: what it is made of.
        run: answers a question; its keyword arguments are the method's options.
        complete: its relevance sums to the explained score, up to what the ledger names.
        composite: the preset it walks with, where it does; ``rules``: whether the user may give another.
        call: for what is no single explanation, the call that runs it.
        takes: which of ``ledger``, ``layers``, ``differentiable`` and ``through`` it can serve; None stands for all of
            them in the family propagate, and for none in the others.
    """

    name: str
    abbreviation: str
    family: str
    source: str
    needs: str
    composition: str
    run: Callable[..., Answer] | None
    complete: bool = False
    composite: str = ""
    rules: bool = False
    call: str = ""
    takes: tuple[str, ...] | None = None

    @cached_property
    def options(self) -> dict[str, Any]:
        """The method's own options and their defaults."""
        if self.run is None:
            return {}
        taken = set(self.run.keywords) if isinstance(self.run, partial) else set()
        parameters = list(inspect.signature(self.run).parameters.values())[1:]
        return {p.name: p.default for p in parameters if p.name not in taken}
