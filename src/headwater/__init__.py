"""Headwater follows a prediction back to its source: which parts of the input carried this decision?

>>> import headwater as hw
>>> e = hw.explain(model, x)
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headwater.errors import (
    HeadwaterError,
    HeadwaterWarning,
    InvalidComposite,
    InvalidInput,
    InvalidTarget,
    MissingExtra,
    NonFinite,
    UnsupportedModel,
    UnsupportedOperator,
)
from headwater.loading import uncollected

if TYPE_CHECKING:
    from headwater import analyze, concepts, evaluate, optimize, similarity, target, toolbox
    from headwater.analyze.diff import diff as diff
    from headwater.compiled import Explainer as Explainer
    from headwater.counterfactual import counterfactual_tokens as counterfactual_tokens
    from headwater.dataset.imported import import_attributions as import_attributions
    from headwater.dataset.run import run as run
    from headwater.dataset.store import open_store as open_store
    from headwater.evaluate.compare import compare as compare
    from headwater.explain import explain as explain
    from headwater.explain import plan as plan
    from headwater.explanation import Explanation as Explanation
    from headwater.explanation import load as load
    from headwater.feature_maps import feature_maps as feature_maps
    from headwater.feature_maps import filter_weights as filter_weights
    from headwater.interop import as_captum as as_captum
    from headwater.interop import as_quantus as as_quantus
    from headwater.methods import methods as methods
    from headwater.neuralize import neuralize as neuralize
    from headwater.patterns import Patterns as Patterns
    from headwater.patterns import patterns as patterns
    from headwater.propagate import filters, rules
    from headwater.propagate.composites import Composite as Composite
    from headwater.propagating import propagating as propagating
    from headwater.remove import black_box as black_box
    from headwater.selfcheck import selfcheck as selfcheck
    from headwater.viewer.view import view as view

__version__ = "0.1.0"

__all__ = [
    "Composite",
    "Explainer",
    "Explanation",
    "HeadwaterError",
    "HeadwaterWarning",
    "InvalidComposite",
    "InvalidInput",
    "InvalidTarget",
    "MissingExtra",
    "NonFinite",
    "Patterns",
    "UnsupportedModel",
    "UnsupportedOperator",
    "analyze",
    "as_captum",
    "as_quantus",
    "black_box",
    "compare",
    "concepts",
    "counterfactual_tokens",
    "diff",
    "evaluate",
    "explain",
    "feature_maps",
    "filter_weights",
    "filters",
    "import_attributions",
    "load",
    "methods",
    "neuralize",
    "open_store",
    "optimize",
    "patterns",
    "plan",
    "propagating",
    "rules",
    "run",
    "selfcheck",
    "similarity",
    "target",
    "toolbox",
    "view",
]

# Nothing that imports torch is loaded before it is asked for: the command line completes and helps at once. Each
# name is a module, or a name in one.
_PLACES = {
    "Composite": "headwater.propagate.composites:Composite",
    "Explainer": "headwater.compiled:Explainer",
    "Explanation": "headwater.explanation:Explanation",
    "Patterns": "headwater.patterns:Patterns",
    "analyze": "headwater.analyze",
    "as_captum": "headwater.interop:as_captum",
    "as_quantus": "headwater.interop:as_quantus",
    "black_box": "headwater.remove:black_box",
    "compare": "headwater.evaluate:compare",
    "concepts": "headwater.concepts",
    "counterfactual_tokens": "headwater.counterfactual:counterfactual_tokens",
    "diff": "headwater.analyze:diff",
    "evaluate": "headwater.evaluate",
    "explain": "headwater.explain:explain",
    "feature_maps": "headwater.feature_maps:feature_maps",
    "filter_weights": "headwater.feature_maps:filter_weights",
    "filters": "headwater.propagate.filters",
    "import_attributions": "headwater.dataset:import_attributions",
    "load": "headwater.explanation:load",
    "methods": "headwater.methods:methods",
    "neuralize": "headwater.neuralize:neuralize",
    "open_store": "headwater.dataset:open_store",
    "optimize": "headwater.optimize",
    "patterns": "headwater.patterns:patterns",
    "plan": "headwater.explain:plan",
    "propagating": "headwater.propagating:propagating",
    "rules": "headwater.propagate.rules",
    "run": "headwater.dataset:run",
    "selfcheck": "headwater.selfcheck:selfcheck",
    "similarity": "headwater.similarity",
    "target": "headwater.target",
    "toolbox": "headwater.toolbox",
    "view": "headwater.viewer:view",
}


def __getattr__(name: str) -> Any:
    """Load a name that is asked for the first time."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    with uncollected():
        found = import_module(module)
    globals()[name] = value = getattr(found, attribute) if attribute else found
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package. Where a module has the name of its function, as ``explain``, the name is the function's."""

    def __setattr__(self, name: str, value: Any) -> None:
        # the import system sets each module here once it is loaded, whoever imported it
        if isinstance(value, ModuleType) and _PLACES.get(name) == f"{__name__}.{name}:{name}":
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
