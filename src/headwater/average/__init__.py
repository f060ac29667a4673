"""Explanations averaged over paths, noise, dropout and models: one averager, any explainer.

Every method here is a table of points and multipliers (:class:`headwater.walk.Walk`, ``move``) and a mean over them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from headwater.answer import Answer
from headwater.average.hidden import (
    layer_along_path,
    neuron_conductance,
    neuron_guided_backprop,
    neuron_integrated_gradients,
)
from headwater.average.noise import smoothed
from headwater.average.paths import expected_gradients, gradient_shap, integrated_gradients, smooth_ig
from headwater.average.uncertainty import ensemble, monte_carlo_dropout
from headwater.method import REVIEW, THESIS, Method

_GRADIENT = "a differentiable model"
_HIDDEN = "a named layer of a module"
_DHAMDHERE = "Dhamdhere, Sundararajan, Yan: How Important Is a Neuron?, ICLR 2019"
_SHRIKUMAR = "Shrikumar, Su, Kundaje: Computationally Efficient Measures of Internal Neuron Importance, 2018"


def _row(
    name: str, abbreviation: str, source: str, made_of: str, run: Callable[..., Answer], needs: str = _GRADIENT,
    complete: bool = True,
) -> Method:  # fmt: skip
    return Method(name, abbreviation, "average", source, needs, made_of, run, complete, rules=True)


def _noisy(name: str, abbreviation: str, source: str, made_of: str, what: str) -> Method:
    return _row(name, abbreviation, source, made_of, partial(smoothed, what=what), complete=False)


ROWS = (
    _row(
        "integrated_gradients", "IG", f"Sundararajan, Taly, Yan: Axiomatic Attribution, ICML 2017; {REVIEW}",
        "factors on a path from a baseline, times the stretches of the path", integrated_gradients,
    ),
    _row(
        "smooth_ig", "SIG", REVIEW, "integrated gradients from random starting points near the origin", smooth_ig
    ),
    _noisy("smoothgrad", "SG", f"Smilkov et al.: SmoothGrad, 2017; {REVIEW}", "mean over noise", "result"),
    _noisy(
        "smoothgrad_squared", "SG-SQ", f"Hooker et al.: A Benchmark for Interpretability, NeurIPS 2019; {REVIEW}",
        "mean square over noise", "second_moment",
    ),
    _noisy(
        "vargrad", "VG", f"Adebayo et al.: Local Explanation Methods for DNNs, 2018; {REVIEW}", "variance over noise",
        "variance",
    ),
    _row(
        "expected_gradients", "EG", "Erion et al.: Expected Gradients, Nature Machine Intelligence 3, 2021",
        "integrated gradients from samples of a reference set", expected_gradients, "gradients and reference samples",
    ),
    _row(
        "gradient_shap", "GSHAP", f"Lundberg, Lee: SHAP, NeurIPS 2017; {REVIEW}",
        "expected gradients to noisy copies of the input", gradient_shap, "gradients and reference samples",
    ),
    _row(
        "internal_influence", "II", f"Leino et al.: Influence-Directed Explanations, ITC 2018; {REVIEW}",
        "mean factor at a layer on a path from a baseline", partial(layer_along_path, conductance=False), _HIDDEN,
    ),
    _row(
        "layer_conductance", "LC", f"{_SHRIKUMAR}; {REVIEW}", "the path integral in the space of a layer",
        partial(layer_along_path, conductance=True), _HIDDEN,
    ),
    _row(
        "total_conductance", "TC", f"{_DHAMDHERE}; {_SHRIKUMAR}; {REVIEW}",
        "neuron conductances summed over inputs, which is the path integral in the space of a layer",
        partial(layer_along_path, conductance=True), _HIDDEN,
    ),
    _row(
        "neuron_conductance", "NC", f"{_DHAMDHERE}; {REVIEW}", "integrated gradients through one neuron",
        neuron_conductance, _HIDDEN, complete=False,
    ),
    _row(
        "neuron_integrated_gradients", "NIG", f"{_SHRIKUMAR}; {REVIEW}",
        "integrated gradients of a neuron's activation",
        neuron_integrated_gradients, _HIDDEN,
    ),
    Method(
        "neuron_guided_backprop", "NGB", "propagate", f"Springenberg et al. 2015; {REVIEW}; {THESIS}", _HIDDEN,
        "guided backprop from a neuron", neuron_guided_backprop, composite="guided_backprop",
    ),
    _row(
        "monte_carlo_dropout", "MCD", "Gal, Ghahramani: Dropout as a Bayesian Approximation, ICML 2016; "
        "Bykov et al.: How Much Can I Trust You?, 2020", "mean and spread over dropout masks", monte_carlo_dropout,
        "dropout", complete=False,
    ),
    _row("ensemble", "ENS", "Lakshminarayanan et al.: Deep Ensembles, NeurIPS 2017", "mean and spread over models",
         ensemble, "several models of one task", complete=False),
)  # fmt: skip
