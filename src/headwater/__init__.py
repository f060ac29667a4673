"""Headwater follows a prediction back to its source: which parts of the input carried this decision?

import headwater as hw
e = hw.explain(model, x)
"""

from headwater import target, toolbox
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
from headwater.methods import methods
from headwater.propagate import filters, rules
from headwater.propagate.composites import Composite
from headwater.propagating import propagating
from headwater.selfcheck import selfcheck

__version__ = "0.1.0"

__all__ = [
    "Composite",
    "Explanation",
    "HeadwaterError",
    "HeadwaterWarning",
    "InvalidComposite",
    "InvalidInput",
    "InvalidTarget",
    "MissingExtra",
    "NonFinite",
    "UnsupportedModel",
    "UnsupportedOperator",
    "explain",
    "filters",
    "load",
    "methods",
    "plan",
    "propagating",
    "rules",
    "selfcheck",
    "target",
    "toolbox",
]
