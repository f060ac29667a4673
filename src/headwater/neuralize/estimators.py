"""``hw.neuralize``: a fitted scikit-learn estimator as a torch module with the same output."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput, UnsupportedModel
from headwater.neuralize import clusters, kernels, linear, neighbours, processes, trees  # noqa: F401 (builders)
from headwater.neuralize.preprocess import Codes, categories, fold, steps_of
from headwater.neuralize.request import DTYPE, Request, builder_of, tensor
from headwater.neuralize.stages import Branches, Impute, Project, Select


class Neuralized(nn.Module):
    """A fitted estimator, its preprocessing included, as a torch module with the same output.

    It takes a float tensor of the estimator's own columns ``[N, D]`` (for texts: counts of words, for categories: their
    indices; :meth:`encode` makes both) and computes in double precision.

    Attributes:
        stages: the preprocessing; ``core``: the model behind it.
        estimator: name of the estimator's class; ``output``: which function of it this module is, None for its first.
        features: names of the columns or words, ``[D]``.
        classes: labels of the outputs, or None.
    """

    def __init__(self, stages: nn.Sequential, core: nn.Module, estimator: Any, output: str | None) -> None:
        super().__init__()
        self.stages, self.core = stages, core
        self.output = output
        steps = steps_in(estimator)
        self.estimator = type(steps[-1]).__name__
        self.vectorizer = steps[0] if hasattr(steps[0], "build_analyzer") else None
        self.columns = columns_of(steps)
        self.features = feature_names(steps[0], self.columns)
        self.named = hasattr(steps[0], "feature_names_in_")
        classes = getattr(steps[-1], "classes_", None)
        self.classes = None if classes is None else np.asarray(classes).tolist()
        self.codes: Codes = {} if self.vectorizer is not None else _categories(steps, self.columns)

    def forward(self, x: Tensor) -> Tensor:
        if self.columns and (x.dim() != 2 or x.shape[1] != self.columns):
            raise InvalidInput(
                f"A neuralized {self.estimator} takes [N, {self.columns}], one column a feature, not {list(x.shape)}"
            )
        return self.core(self.stages(x.to(self.dtype)))

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes: double precision, unless it was converted."""
        held = (t.dtype for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())
        return next(held, DTYPE)

    def encode(self, x: Any) -> Tensor:
        """What the estimator takes (an array, a table, texts, a sparse matrix) as the tensor that this module takes.

        Texts become counts of words, categories their indices; missing values that an imputer fills are filled.

        Args:
            x: ``N`` samples.

        Raises:
            InvalidInput: one sample without the axis of samples, or columns that are no numbers.
        """
        if isinstance(x, Tensor):
            return x if x.is_floating_point() else x.to(DTYPE)
        self._check_names(x)
        if self.vectorizer is not None:
            return self._counts(x)
        if not self.columns:  # images, or the motion of clips
            return torch.as_tensor(np.asarray(x)).to(DTYPE)
        table = _table(x)
        if table.ndim != 2:
            raise InvalidInput(f"x has shape {table.shape}: pass samples by columns, [N, {self.columns}]")
        if self.codes:
            table = self._coded(table)
        try:
            values = torch.as_tensor(table.astype(np.float64))
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"x holds values that are no numbers: {error}") from None
        return repaired(self.stages, values)

    def told(self, x: Any) -> dict[str, list[Any]]:
        """What figures name: the columns (``names``) and, of tables with categories, the values as they were."""
        found: dict[str, list[Any]] = {"names": self.features} if self.named or self.vectorizer is not None else {}
        if self.codes and not isinstance(x, Tensor):
            found["values"] = [[v if isinstance(v, float) else str(v) for v in row] for row in _table(x).tolist()]
        return found

    def _check_names(self, x: Any) -> None:
        names = [str(name) for name in getattr(x, "columns", self.features)]
        if self.named and names != self.features:
            raise InvalidInput(
                f"x has the columns {names}, but the estimator was fitted on {self.features}, in this order"
            )

    def _counts(self, texts: Any) -> Tensor:
        if isinstance(texts, str):
            raise InvalidInput("x is one text: pass a list of texts")
        if not isinstance(texts, (list, tuple)) and hasattr(texts, "shape") and len(texts.shape) == 2:
            return tensor(texts)
        plain = next(c for c in type(self.vectorizer).__mro__ if c.__name__ in ("CountVectorizer", "HashingVectorizer"))
        return tensor(plain.transform(self.vectorizer, texts))  # type: ignore[attr-defined]

    def _coded(self, table: Any) -> Any:
        table = table.astype(object)
        for column, values in self.codes.items():
            index = {v: i for i, v in enumerate(values[:-1])}
            gone = len(values) - 1
            table[:, column] = [gone if v is None or v != v else index.get(v, -1) for v in table[:, column]]
        return table

    def words(self, text: str, relevance: Tensor) -> list[tuple[str, float]]:
        """The words of a text in order, each with its part of the relevance of its word.

        Args:
            text: as it was explained; ``relevance``: ``[V]``, that text's row.

        Raises:
            InvalidInput: where the model does not begin with texts.
        """
        if self.vectorizer is None or not hasattr(self.vectorizer, "vocabulary_"):
            raise InvalidInput(f"This {self.estimator} takes no texts, so that there are no words")
        terms = self.vectorizer.build_analyzer()(text)
        index = [self.vectorizer.vocabulary_.get(term) for term in terms]
        often = {i: index.count(i) for i in set(index)}
        return [
            (term, 0.0 if i is None else float(relevance[i]) / often[i]) for term, i in zip(terms, index, strict=True)
        ]

    def extra_repr(self) -> str:
        return f"{self.estimator}, columns={self.columns}, output={self.output or 'default'}"


def neuralize(
    estimator: Any,
    output: str | None = None,
    *,
    pooling: str = "gradient",
    stiffness: float | None = None,
    baseline: Any = None,
) -> Neuralized:
    """A fitted scikit-learn estimator, or a pipeline of them, as a torch module with the same output.

    k-means, Gaussian mixtures and kernel machines become networks of distances, of linear units between representatives
    and of soft minima and maxima, which relevance can be propagated through; linear models and perceptrons are networks
    already. Scalers, projections, encoders, imputers, polynomial features and tf-idf become layers, so that relevance
    arrives at the original columns or words.

    Args:
        estimator: fitted.
        output: which function of it: "decision_function", "predict_proba", "log_odds", "outlierness" ...; the error for
            an unknown one lists those that the estimator has. None takes its first, the one that explains best.
        pooling: how soft minima and maxima share relevance: "gradient" (the entropy is absorbed), "proportional"
            (``R_k = p_k R``) or "winner_takes_all". A composite's row "softmax" overrules it.
        stiffness: of k-means' and nearest centroids' assignments, β; None is hard.
        baseline: ``[D]``, for linear models: relevance is ``w (x - baseline)``, in the original columns.

    Returns:
        A :class:`Neuralized` module from ``[N, D]`` to the estimator's output, in double precision.

    Raises:
        InvalidInput: an estimator that is not fitted, or an unknown output.
        UnsupportedModel: an estimator or a step without a network; the text lists those that have one.

    Source: Samek et al. 2021 (review), Section VI-A and Eq. 5.
    """
    check_fitted(estimator)
    steps = steps_in(estimator)
    entry, columns = builder_of(steps[-1]), columns_of(steps)
    codes: Codes = {} if hasattr(steps[0], "build_analyzer") else _categories(steps, columns)
    layers = steps_of(steps[:-1], columns, codes)
    layers, front = fold(layers)
    if front is not None and baseline is None and not entry.folds(steps[-1]):
        layers, front = [*layers, Project(front)], None
    reference = None
    if baseline is not None:
        with torch.no_grad():
            reference = nn.Sequential(*layers)(tensor(baseline).reshape(1, -1))[0]
    core = entry.build(steps[-1], Request(output, front, pooling, stiffness, reference))
    if baseline is not None and not any(getattr(m, "baseline", None) is not None for m in core.modules()):
        raise InvalidInput(f"A baseline is for linear models; a {type(steps[-1]).__name__} is explained about zero")
    return Neuralized(nn.Sequential(*layers), core, estimator, output).eval()


def is_estimator(model: Any) -> bool:
    """Whether a model is an estimator in scikit-learn's manner, and no torch module or plain function."""
    return not isinstance(model, (nn.Module, type)) and hasattr(model, "fit") and hasattr(model, "get_params")


def check_fitted(estimator: Any) -> None:
    """Refuse what is no fitted estimator.

    Raises:
        InvalidInput: where it is a class, not an estimator, or not fitted.
    """
    if not is_estimator(estimator):
        kind = estimator.__name__ + ", a class" if isinstance(estimator, type) else type(estimator).__name__
        raise InvalidInput(f"neuralize takes a fitted scikit-learn estimator, not {kind}")
    last = steps_in(estimator)[-1]
    if not any(name.endswith("_") and not name.startswith("__") for name in vars(last)):
        raise InvalidInput(f"This {type(last).__name__} is not fitted: call its fit first")


def repaired(stages: nn.Module, x: Tensor) -> Tensor:
    """``x`` with the missing values filled that its imputers would fill, where no feature tells that they were."""
    first = next(iter(stages.children()), None)
    if isinstance(first, Impute):
        return x if len(first.indicated) else first.repaired(x)
    if isinstance(first, Branches):
        for branch in first.branches:
            chosen, *rest = branch.children()
            if isinstance(chosen, Select):
                x = x.clone()
                x[:, chosen.columns] = repaired(nn.Sequential(*rest), x[:, chosen.columns])
    return x


def steps_in(estimator: Any) -> list[Any]:
    """The steps of a pipeline, nested ones and searches opened, those that pass through left out."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not hasattr(estimator, "steps"):
        return [estimator]
    steps = [step for _, step in estimator.steps if step is not None and not isinstance(step, str)]
    return [inner for step in steps for inner in steps_in(step)]


def columns_of(steps: list[Any]) -> int:
    """How many columns the first step takes; for texts, how many words it counts; 0 for images and clips.

    Raises:
        UnsupportedModel: where no step says so.
    """
    first = steps[0]
    if hasattr(first, "local_"):
        return 0
    if hasattr(first, "vocabulary_"):
        return len(first.vocabulary_)
    if hasattr(first, "build_analyzer"):
        return int(first.n_features)
    for name in ("n_features_in_", "n_features_"):
        if hasattr(first, name):
            return int(getattr(first, name))
    if hasattr(first, "shape_fit_"):  # a support vector machine whose kernel is a function
        return int(first.shape_fit_[1])
    parts = [part for _, part in getattr(first, "transformer_list", [])]
    if parts:
        return columns_of(steps_in(parts[0]))
    raise UnsupportedModel(f"{type(first).__name__} does not say how many columns it takes")


def _categories(steps: list[Any], columns: int) -> Codes:
    for step in steps[:-1]:
        found = categories(step, columns)
        if found:
            return found
    return {}


def feature_names(first: Any, columns: int) -> list[str]:
    """Names of the columns or words that an estimator's first step takes."""
    if hasattr(first, "vocabulary_"):
        return [str(word) for word in first.get_feature_names_out()]
    names = getattr(first, "feature_names_in_", None)
    return [str(n) for n in names] if names is not None else [f"x{i}" for i in range(columns)]


def _table(x: Any) -> Any:
    x = x.toarray() if hasattr(x, "toarray") else x
    if hasattr(x, "to_numpy"):
        return x.to_numpy()
    table = np.asarray(x)  # which makes texts of numbers that stand beside texts
    return np.asarray(x, dtype=object) if table.dtype.kind in "US" else table
