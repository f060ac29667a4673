"""Headwater follows a prediction back to its source: which parts of the input carried this decision?

import headwater as hw
e = hw.explain(model, x)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headwater.loading import uncollected

with uncollected():
    from headwater import similarity, target, toolbox
    from headwater.compiled import Explainer
    from headwater.counterfactual import counterfactual_tokens
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
    from headwater.explain import explain, plan
    from headwater.explanation import Explanation, load
    from headwater.feature_maps import feature_maps, filter_weights
    from headwater.methods import methods
    from headwater.neuralize import neuralize
    from headwater.patterns import Patterns, patterns
    from headwater.propagate import filters, rules
    from headwater.propagate.composites import Composite
    from headwater.propagating import propagating
    from headwater.remove import black_box
    from headwater.selfcheck import selfcheck

if TYPE_CHECKING:
    from headwater import analyze, concepts, evaluate, optimize
    from headwater.analyze.diff import diff as diff
    from headwater.dataset.imported import import_attributions as import_attributions
    from headwater.dataset.run import run as run
    from headwater.dataset.store import open_store as open_store
    from headwater.evaluate.compare import compare as compare
    from headwater.interop import as_captum as as_captum
    from headwater.interop import as_quantus as as_quantus
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

# What takes a while to import, or needs extras, is loaded when it is asked for: a module, or a name in one.
_LATER = {
    "analyze": "headwater.analyze",
    "as_captum": "headwater.interop:as_captum",
    "as_quantus": "headwater.interop:as_quantus",
    "compare": "headwater.evaluate:compare",
    "concepts": "headwater.concepts",
    "diff": "headwater.analyze:diff",
    "evaluate": "headwater.evaluate",
    "import_attributions": "headwater.dataset:import_attributions",
    "open_store": "headwater.dataset:open_store",
    "optimize": "headwater.optimize",
    "run": "headwater.dataset:run",
    "view": "headwater.viewer:view",
}


def __getattr__(name: str) -> Any:
    """Load one of the later names."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LATER[name].partition(":")
    found = import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
