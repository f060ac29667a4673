"""What ``hw.explain`` does with an estimator: neuralize it where that is possible, else explain it by removal."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headwater.errors import HeadwaterWarning, InvalidInput, UnsupportedModel
from headwater.explanation import Explanation
from headwater.neuralize.estimators import Neuralized, check_fitted, neuralize, steps_in
from headwater.neuralize.request import DTYPE, tensor

Explain = Callable[..., Explanation]
REMOVAL = "shapley_sampling"


def explain_estimator(
    explain: Explain, estimator: Any, x: Any, target: Any = None, method: str = "lrp", **options: Any
) -> Explanation:
    """Explain a fitted scikit-learn estimator on what it takes itself: arrays, tables, texts.

    It is neuralized where it has a network; what has none is explained by Shapley values of removed columns, and a
    warning says so.

    Args:
        explain: ``headwater.explain``, for modules and functions.
        estimator: fitted; ``x``: ``N`` samples.
        target: as for ``explain``, or a label among ``estimator.classes_``.
        method, options: as for ``explain``.

    Returns:
        An :class:`Explanation` whose relevance is ``[N, D]`` in the estimator's own columns (of texts: words) and whose
        ``composite`` says how the estimator was treated; ``details`` names columns and categories.

    Raises:
        HeadwaterError: as ``explain``.
    """
    check_fitted(estimator)
    try:
        module = neuralize(estimator)
    except UnsupportedModel as error:
        reason, name = str(error).split(".")[0], type(steps_in(estimator)[-1]).__name__
        if method != "lrp":
            return explain(predictor(estimator), _numbers(x), _class_of(estimator, target), method, **options)
        warnings.warn(f"{reason}: explained by removal ({REMOVAL}) instead.", HeadwaterWarning, stacklevel=3)
        found = explain(predictor(estimator), _numbers(x), _class_of(estimator, target), REMOVAL, **options)
        return replace(found, composite=f"by removal: {name} has no network")
    values = module.encode(x)
    target = _one_score(module, values, _class_of(estimator, target))
    found = explain(module, values, target, method, **options)
    found.details.update(module.told(x))
    how = found.composite + "; " if found.composite else ""
    return replace(found, composite=f"{how}neuralized {module.estimator}")


def predictor(estimator: Any) -> Callable[[Tensor], Tensor]:
    """An estimator of numbers as a function of tensors: its probabilities, decision function or prediction."""
    for name in ("predict_proba", "decision_function", "score_samples", "predict"):
        function = getattr(estimator, name, None)
        if function is not None:
            break
    else:
        raise UnsupportedModel(f"A {type(estimator).__name__} predicts nothing: there is no output to explain")

    def predict(x: Tensor) -> Tensor:
        return torch.as_tensor(np.asarray(function(x.detach().cpu().numpy())), dtype=DTYPE)

    return predict


def _numbers(x: Any) -> Tensor:
    try:
        return tensor(x.to_numpy() if hasattr(x, "to_numpy") else x)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"By removal an estimator is explained on arrays of numbers, which x is not: {error}"
        ) from None


def _class_of(estimator: Any, target: Any) -> Any:
    """The index of a label among an estimator's classes; other targets as they are."""
    labels = getattr(estimator, "classes_", None)
    if isinstance(target, str) and labels is not None:
        names = [str(label) for label in labels]
        if target not in names:
            raise InvalidInput(f"Class {target!r} is none of {', '.join(names)}")
        return names.index(target)
    return target


def _one_score(module: Neuralized, x: Tensor, target: Any) -> Any:
    """Of two classes there is one score, the second's: the first's is its negative."""
    if not isinstance(target, (int, np.integer)) or module.classes is None or len(module.classes) != 2:
        return target
    with torch.no_grad():
        single = module(x[:1]).dim() == 1
    if not single or target not in (0, 1):
        return target
    return None if target == 1 else _negative


def _negative(score: Tensor) -> Tensor:
    return -score
