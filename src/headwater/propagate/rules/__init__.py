"""The rules of LRP for affine operators, and those for attention and activations.

A rule turns the factor ``c`` of an affine call's output into the factor of its input. It sees the call as an
:class:`~headwater.propagate.affine.Affine`: input ``op.x``, output ``op.z``, bias ``op.bias``, ``op.forward(x, w)``,
``op.transpose(s, w)``, ``op.sums()`` and ``op.back(p, q)``. Relevance of the output is ``op.z * c``.
"""

from headwater.propagate.rules.affine import AlphaBeta, Epsilon, Gamma, Hold, WinnerContrast, Zero, ZPlus
from headwater.propagate.rules.base import Rule, divide, share, solid
from headwater.propagate.rules.elsewhere import CPLRP, AttnLRP, Deconv, Gradient, Guided, Proportional, WinnerTakesAll
from headwater.propagate.rules.inputs import Box, ByDomain, Flat, Pass, WSquare, own_range

__all__ = [
    "CPLRP",
    "AlphaBeta",
    "AttnLRP",
    "Box",
    "ByDomain",
    "Deconv",
    "Epsilon",
    "Flat",
    "Gamma",
    "Gradient",
    "Guided",
    "Hold",
    "Pass",
    "Proportional",
    "Rule",
    "WSquare",
    "WinnerContrast",
    "WinnerTakesAll",
    "ZPlus",
    "Zero",
    "divide",
    "own_range",
    "share",
    "solid",
]
