"""The register's rows of the methods that remove."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headwater.answer import Answer
from headwater.method import REVIEW, Method
from headwater.remove.lime import lime
from headwater.remove.occlusion import feature_ablation, feature_permutation, occlusion
from headwater.remove.prediction_difference import (
    conditional_prediction_difference,
    contextual_prediction_difference,
    prediction_difference,
)
from headwater.remove.rise import rise
from headwater.remove.shapley import kernel_shap, shapley_exact, shapley_sampling

_ANYTHING = "answers alone"
_EXAMPLES = "answers alone; references="
_CLASSES = "answers alone, of classes"


def _row(
    run: Callable[..., Answer], abbreviation: str, source: str, made_of: str, needs: str = _ANYTHING,
    complete: bool = False,
) -> Method:  # fmt: skip
    options: Any = run
    return Method(options.__name__, abbreviation, "remove", source, needs, made_of, run, complete)


ROWS = (
    _row(occlusion, "OCC", f"Zeiler and Fergus 2014; {REVIEW}", "sliding window x constant x difference"),
    _row(
        prediction_difference, "PDA", f"Zintgraf et al. 2017; Robnik-Šikonja and Kononenko 2008; {REVIEW}",
        "sliding window x marginal draws x log-odds", _CLASSES,
    ),
    _row(
        conditional_prediction_difference, "cond. PDA", f"Zintgraf et al. 2017; {REVIEW}",
        "sliding window x nearest examples x log-odds", _EXAMPLES,
    ),
    _row(
        contextual_prediction_difference, "CPDA", f"Gu and Tresp 2019; {REVIEW}",
        "random halves x marginal draws x difference of mean log-odds", _CLASSES,
    ),
    _row(rise, "RISE", f"Petsiuk et al. 2018; {REVIEW}", "random masks x constant x weighted mean"),
    _row(lime, "LIME", f"Ribeiro et al. 2016; {REVIEW}", "random subsets x mean x local ridge regression or tree"),
    _row(
        kernel_shap, "SHAP", f"Lundberg and Lee 2017; {REVIEW}",
        "Shapley kernel's coalitions x constant or examples x constrained regression", complete=True,
    ),
    _row(
        shapley_sampling, "AS", f"Castro et al. 2009; {REVIEW}",
        "random orders x constant or examples x mean contribution", complete=True,
    ),
    _row(
        shapley_exact, "SV", f"Shapley 1953; {REVIEW}", "all coalitions x constant or examples x mean contribution",
        "answers alone; at most 16 features", complete=True,
    ),
    _row(feature_ablation, "FA", REVIEW, "one feature x constant x difference"),
    _row(feature_permutation, "FP", "Breiman 2001", "one feature x other samples x mean difference", "several samples"),
)  # fmt: skip
