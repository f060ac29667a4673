"""Trees and their ensembles: exact Shapley values by the ``shap`` library, behind the same call as everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput, MissingExtra, UnsupportedModel
from headwater.neuralize.operators import give, operator
from headwater.neuralize.request import Lambda, Request, builds
from headwater.target import Contrast, Margin, score

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


class Trees(nn.Module):
    """An ensemble of trees, ``[N, D]`` to ``[N]`` or ``[N, K]``, whose relevance are exact Shapley values.

    They are path-dependent (the ``shap`` library's TreeExplainer, Lundberg et al. 2020), and sum to the output less its
    expected value over the training data, which is absorbed as "expected value".

    Args:
        estimator: fitted.

    Raises:
        MissingExtra: without ``shap``.
        UnsupportedModel: an ensemble that ``shap`` cannot explain.
    """

    relevance_without_factor = True

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        try:
            import shap
        except ImportError:
            raise MissingExtra("trees", "shap") from None
        try:
            self.explainer = shap.TreeExplainer(estimator)
        except Exception as error:  # shap raises whatever comes
            raise UnsupportedModel(f"shap cannot explain this {type(estimator).__name__}: {error}") from None
        self.expected = np.atleast_1d(np.asarray(self.explainer.expected_value, dtype=np.float64))

    def forward(self, x: Tensor) -> Tensor:
        return tree_ensemble(x, self)

    def values(self, x: Tensor) -> Tensor:
        """The output, as ``shap`` computes it from the trees."""
        return torch.as_tensor(np.asarray(self.explainer.model.predict(_array(x))), dtype=x.dtype, device=x.device)

    def shapley(self, x: Tensor) -> Tensor:
        """Shapley values ``[N, D, K]``."""
        found = np.asarray(self.explainer.shap_values(_array(x), check_additivity=False))
        return torch.as_tensor(found, dtype=x.dtype, device=x.device).reshape(*x.shape, -1)


def expected_score(model: Any, target: Any, output: Tensor) -> Tensor:
    """What the Shapley values of an ensemble are counted from: its expected score, ``[N]``; 0 for all other models.

    Args:
        model: an ensemble, or any other model.
        target: resolved; one that is not linear in the output has no such number, and 0 stands for it.
        output: the explained scores, ``[N]``.
    """
    if not isinstance(model, Trees) or not isinstance(target, Tensor | Margin | Contrast | None):
        return torch.zeros_like(output)
    expected = torch.as_tensor(model.expected, dtype=output.dtype, device=output.device)
    rows = expected.expand(len(output), -1)
    return score(rows if target is not None else rows[:, 0], target)[0]


def _array(x: Tensor) -> Any:
    return x.detach().cpu().numpy()


def _treat(engine: Propagation, call: Call) -> Tensor:
    trees = call.args[1]
    call.rule_name = "exact Shapley values"

    def relevance(x: Tensor, c: Tensor) -> Tensor:
        c = c.reshape(len(c), -1)
        if engine.ledger:
            call.book("expected value", torch.as_tensor(trees.expected, dtype=c.dtype, device=c.device) * c)
        return (trees.shapley(x) * c[:, None, :]).sum(2)

    return give(engine, call, relevance)


@operator(_treat)
def tree_ensemble(x: Tensor, trees: Trees) -> Tensor:
    """See :class:`Trees`; there is no gradient."""
    return trees.values(x)


@builds(
    "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
    "RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor",
    "GradientBoostingClassifier", "GradientBoostingRegressor", "HistGradientBoostingClassifier",
    "HistGradientBoostingRegressor", "XGBModel", "LGBMModel", "CatBoost",
)  # fmt: skip
def ensemble(estimator: Any, request: Request) -> nn.Module:
    """Probabilities ``[N, K]`` of forests, the raw score of boosted classifiers, predictions of regressions."""
    boosted = any(word in type(estimator).__name__ for word in ("Boost", "XGB", "LGBM", "Cat"))
    classifies = hasattr(estimator, "classes_")
    request.choose(estimator, "predict" if not classifies else "decision_function" if boosted else "predict_proba")
    return Trees(estimator)


@builds("IsolationForest")
def isolation_forest(estimator: Any, request: Request) -> nn.Module:
    """Decision function ``[N]`` of an isolation forest, or the mean path length that it is a function of."""
    output = request.choose(estimator, "decision_function", "path_length")
    trees = Trees(estimator)
    if output == "path_length":
        return trees
    unit = _average_path(int(estimator.max_samples_))
    offset = float(estimator.offset_)
    return nn.Sequential(trees, Lambda("-2^(-length / unit) - offset", lambda d: -torch.exp2(d * (-1 / unit)) - offset))


def _average_path(n: int) -> float:
    """Mean length of an unsuccessful search in a binary tree of ``n`` samples (Liu et al. 2008, Eq. 1)."""
    if n < 2:
        raise InvalidInput("An isolation forest of single samples has no path lengths")
    return 1.0 if n == 2 else 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
