"""The model frozen, the input (or a mask over it, or a root point) optimized."""

from __future__ import annotations

from headwater.method import REVIEW, THESIS, Method
from headwater.optimize.maximize import Optimum, maximize
from headwater.optimize.perturbation import extremal_perturbation, meaningful_perturbation, rate_distortion
from headwater.optimize.taylor import taylor

__all__ = ["ROWS", "Optimum", "maximize"]

_GRADIENT = "a differentiable model"

ROWS = (
    Method(
        "activation_maximization", "AM", "optimize",
        "Erhan et al.: Visualizing Higher-Layer Features, 2009; Simonyan et al. 2014; Majstorović et al.: Interpreting "
        f"CNN Decision for Earthquake Detection, GJI 232(2), 2023; {THESIS}", _GRADIENT,
        "ascent on the input", None, call="hw.optimize.maximize",
    ),
    Method(
        "meaningful_perturbation", "MP", "optimize", f"Fong, Vedaldi: Meaningful Perturbation, ICCV 2017; {REVIEW}",
        _GRADIENT, "descent on a mask, smooth and sparse", meaningful_perturbation,
    ),
    Method(
        "extremal_perturbation", "EP", "optimize",
        f"Fong, Patrick, Vedaldi: Extremal Perturbations and Smooth Masks, ICCV 2019; {REVIEW}", _GRADIENT,
        "ascent on smooth masks of given areas", extremal_perturbation,
    ),
    Method(
        "rate_distortion", "RDE", "optimize", f"MacDonald et al.: A Rate-Distortion Framework, 2019; {REVIEW}",
        _GRADIENT, "descent on a sparse mask before random values", rate_distortion,
    ),
    Method(
        "taylor", "TD", "optimize", f"{THESIS}; {REVIEW}", _GRADIENT,
        "first-order terms at a root: the origin's limit, or the nearest one, searched", taylor, complete=True,
    ),
)  # fmt: skip
