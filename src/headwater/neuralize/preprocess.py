"""scikit-learn's transformers as stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater.errors import UnsupportedModel
from headwater.neuralize.geometry import AffineMap
from headwater.neuralize.request import names_of, tensor
from headwater.neuralize.stages import (
    Branches,
    ByEstimator,
    Elementwise,
    Impute,
    Polynomial,
    Project,
    Rescale,
    Select,
    TermWeights,
    normalized,
)

_PROBED = 512  # columns whose images are asked for at a time
Codes = dict[int, Sequence[Any]]  # of columns that hold categories, their values


def stages_of(transformer: Any, columns: int, codes: Codes) -> list[nn.Module]:
    """The stages of a fitted transformer (a pipeline is several) on ``columns`` columns.

    Args:
        codes: which of the columns hold categories; the tensor has their indices.

    Raises:
        UnsupportedModel: a transformer without stages; the text lists those that have some.
    """
    if transformer is None or isinstance(transformer, str):
        return []
    if hasattr(transformer, "steps"):
        steps = [step for _, step in transformer.steps if step is not None and not isinstance(step, str)]
        return steps_of(steps, columns, codes)
    for name in names_of(transformer):
        if name in _STAGES:
            stage = _STAGES[name](transformer, columns, codes)
            return [] if stage is None else [stage]
    raise UnsupportedModel(
        f"No stage for a {type(transformer).__name__}: relevance cannot be taken back through it. There are stages for "
        f"{', '.join(sorted(_STAGES))}"
    )


def steps_of(steps: Sequence[Any], columns: int, codes: Codes) -> list[nn.Module]:
    """The stages of transformers one after another; those that see categories are one stage with their encoder."""
    found: list[nn.Module] = []
    if codes and not any(hasattr(step, name) for step in steps[:1] for name in ("transformers_", "transformer_list")):
        until = 1 + next((i for i, step in enumerate(steps) if hasattr(step, "categories_")), len(steps))
        before, encoder, steps = steps[: until - 1], steps[until - 1 : until], steps[until:]
        if not encoder:
            raise UnsupportedModel("Columns of categories meet no encoder: they cannot be explained as numbers")
        owners = owners_of(encoder[0], columns)
        found.append(ByEstimator(_after_another([*before, *encoder]), owners, codes))
        columns, codes = len(owners), {}
    for step in steps:
        found += stages_of(step, columns, codes)
        columns, codes = width(step, columns), {}
    return found


def categories(transformer: Any, columns: int) -> Codes:
    """The columns that hold categories, not numbers, by what a transformer's encoders were fitted on."""
    if hasattr(transformer, "steps"):
        steps = [step for _, step in transformer.steps if not isinstance(step, str)]
        first = next((s for s in steps if hasattr(s, "categories_") or hasattr(s, "transformers_")), None)
        return categories(first, columns)
    if hasattr(transformer, "transformers_"):
        found: Codes = {}
        for name, part, _ in transformer.transformers_:
            indices = list(transformer._transformer_to_input_indices.get(name, []))
            found |= {indices[i]: values for i, values in categories(part, len(indices)).items()}
        return found
    if hasattr(transformer, "transformer_list"):
        found = {}
        for _, part in transformer.transformer_list:
            found |= categories(part, columns)
        return found
    lists = getattr(transformer, "categories_", None) or []
    return {i: [*values, np.nan] for i, values in enumerate(lists) if np.asarray(values).dtype.kind not in "biuf"}


def width(transformer: Any, columns: int) -> int:
    """How many features a transformer makes of ``columns`` columns."""
    if transformer is None or isinstance(transformer, str):
        return columns
    if hasattr(transformer, "steps"):
        for _, step in transformer.steps:
            columns = width(step, columns)
        return columns
    if type(transformer).__name__ in (
        "FunctionTransformer",
        "Normalizer",
        "Binarizer",
        "TfidfTransformer",
        "HashingVectorizer",
        "FisherVectors",
    ):
        return columns
    return len(transformer.get_feature_names_out())


def fold(stages: list[nn.Module]) -> tuple[list[nn.Module], AffineMap | None]:
    """The last stages as one affine map, where a projection is among them, and the stages before."""
    run: list[Project | Rescale] = []
    for stage in reversed(stages):
        if not isinstance(stage, (Project, Rescale)) or (isinstance(stage, Rescale) and stage.clamp is not None):
            break
        run.insert(0, stage)
    if not any(isinstance(stage, Project) for stage in run):
        return stages, None  # scaling alone hands relevance from column to column as it is
    front = run[0].affine
    for stage in run[1:]:
        front = front.then(stage.affine)
    return stages[: -len(run)], front


def _standard(t: Any, columns: int, codes: Codes) -> nn.Module:
    zeros, ones = np.zeros(columns), np.ones(columns)
    shift = t.mean_ if getattr(t, "with_mean", False) and t.mean_ is not None else zeros
    return Rescale(tensor(shift), 1 / tensor(ones if t.scale_ is None else t.scale_))


def _robust(t: Any, columns: int, codes: Codes) -> nn.Module:
    shift = np.zeros(columns) if t.center_ is None else t.center_
    return Rescale(tensor(shift), 1 / tensor(np.ones(columns) if t.scale_ is None else t.scale_))


def _minmax(t: Any, columns: int, codes: Codes) -> nn.Module:
    scale = tensor(t.scale_)  # z = x * scale + min: zero at -min / scale
    clamp = (float(t.feature_range[0]), float(t.feature_range[1])) if t.clip else None
    return Rescale(-tensor(t.min_) / scale, scale, clamp)


def _maxabs(t: Any, columns: int, codes: Codes) -> nn.Module:
    scale = 1 / tensor(t.scale_)
    return Rescale(torch.zeros_like(scale), scale, (-1.0, 1.0) if getattr(t, "clip", False) else None)


def _projection(t: Any, columns: int, codes: Codes) -> nn.Module:
    """Any linear transformer: its components where they do all of it, else what it does to each column's unit."""
    shift = tensor(t.transform(np.zeros((1, columns))))[0]
    probe = np.random.default_rng(0).standard_normal((2, columns))
    matrix = tensor(getattr(t, "components_", np.zeros((len(shift), columns))))
    found = tensor(t.transform(probe)) - shift
    if matrix.shape != (len(shift), columns) or not torch.allclose(tensor(probe) @ matrix.T, found, rtol=1e-9):
        units = (np.eye(min(_PROBED, columns - i), columns, i) for i in range(0, columns, _PROBED))
        matrix = (torch.cat([tensor(t.transform(some)) for some in units]) - shift).T.contiguous()
    mean = getattr(t, "mean_", None)
    if mean is not None and not bool((matrix @ tensor(mean) + shift).abs().max() > 1e-9 * (1 + shift.abs().max())):
        return Project(AffineMap(matrix, tensor(mean), torch.zeros_like(shift)))
    return Project(AffineMap.of(matrix, shift))


def _selection(t: Any, columns: int, codes: Codes) -> nn.Module:
    return Select(np.flatnonzero(t.get_support()).tolist())


def _imputer(t: Any, columns: int, codes: Codes) -> nn.Module:
    if codes:
        return _by_estimator(t, columns, codes)
    indicated = t.indicator_.features_.tolist() if t.add_indicator else []
    missing = float("nan") if t.missing_values is None else float(t.missing_values)
    fill = tensor(t.statistics_.astype(np.float64))
    if t.keep_empty_features:
        fill = torch.nan_to_num(fill)
    return Impute(fill, missing, indicated)


def _polynomial(t: Any, columns: int, codes: Codes) -> nn.Module:
    return Polynomial(tensor(t.powers_))


def _tfidf(t: Any, columns: int, codes: Codes) -> nn.Module:
    return TermWeights(tensor(t.idf_) if t.use_idf else None, t.norm, t.sublinear_tf)


def _vectorizer(t: Any, columns: int, codes: Codes) -> nn.Module | None:
    """The counts are what is explained; what follows them is the weighting."""
    if hasattr(t, "idf_") or hasattr(t, "sublinear_tf"):
        idf = tensor(t.idf_) if t.use_idf else None
        return TermWeights(idf, t.norm, t.sublinear_tf)
    return None


def _normalizer(t: Any, columns: int, codes: Codes) -> nn.Module:
    return Elementwise(lambda x: normalized(x, t.norm))


def _binarizer(t: Any, columns: int, codes: Codes) -> nn.Module:
    return Elementwise(lambda x: (x > t.threshold).to(x.dtype))


def _fields(t: Any, columns: int, codes: Codes) -> nn.Module:
    return nn.Sequential(*t.stages())


_FUNCTIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    np.log: torch.log, np.log1p: torch.log1p, np.log2: torch.log2, np.log10: torch.log10, np.sqrt: torch.sqrt,
    np.exp: torch.exp, np.expm1: torch.expm1, np.abs: torch.abs, np.square: torch.square, np.tanh: torch.tanh,
    np.sin: torch.sin, np.cos: torch.cos, np.cbrt: lambda x: x.sign() * x.abs() ** (1 / 3),
}  # fmt: skip


def _function(t: Any, columns: int, codes: Codes) -> nn.Module | None:
    if t.func is None:
        return None
    if t.func not in _FUNCTIONS or t.kw_args:
        raise UnsupportedModel(
            f"FunctionTransformer({t.func!r}) may mix columns: only numpy's elementwise functions are known not to"
        )
    return Elementwise(_FUNCTIONS[t.func])


def _by_estimator(t: Any, columns: int, codes: Codes) -> nn.Module:
    """Codes, bins, splines and the like."""
    return ByEstimator(_after_another([t]), owners_of(t, columns), codes)


def owners_of(t: Any, columns: int) -> list[int]:
    """The column that each feature of an encoder was made of, read off the features' names."""
    names = [f"column{i}|" for i in range(columns)]
    stored = getattr(t, "feature_names_in_", None)
    if stored is None:
        features = list(t.get_feature_names_out(names))
        owners = [int(str(f).split("column", 1)[1].split("|", 1)[0]) for f in features]
    else:  # names must be those of the fit: longest first, since one may begin another
        by_length = sorted(range(columns), key=lambda i: -len(str(stored[i])))
        owners = [
            next(i for i in by_length if str(f) == str(stored[i]) or str(f).startswith(f"{stored[i]}_"))
            for f in t.get_feature_names_out()
        ]
    return owners


def _after_another(steps: Sequence[Any]) -> Callable[[Any], Any]:
    """The transform of several steps, of an array without names; a fit may have seen a table with names."""

    def transform(table: Any) -> Any:
        for step in steps:
            names = getattr(step, "feature_names_in_", None)
            if names is not None and not hasattr(table, "columns"):
                import pandas

                table = pandas.DataFrame(table, columns=names)
            table = step.transform(table)
        return table

    return transform


def _columns(t: Any, columns: int, codes: Codes) -> nn.Module:
    """A ColumnTransformer: a branch for each transformer, on its columns."""
    branches: list[nn.Module] = []
    if any(hasattr(step, "build_analyzer") for _, part, _ in t.transformers_ for step in _opened(part)):
        raise UnsupportedModel("Texts beside other columns have no stage: a column of texts is many columns of words")
    for name, part, _ in t.transformers_:
        indices = list(t._transformer_to_input_indices.get(name, []))
        if (isinstance(part, str) and part == "drop") or not indices:
            continue
        own = {i: codes[j] for i, j in enumerate(indices) if j in codes}
        if own and isinstance(part, str):
            raise UnsupportedModel(f"Columns {indices} hold categories and are passed through as they are")
        branches.append(nn.Sequential(Select(indices), *stages_of(part, len(indices), own)))
    return Branches(branches)


def _opened(part: Any) -> list[Any]:
    return [step for _, step in part.steps] if hasattr(part, "steps") else [part]


def _union(t: Any, columns: int, codes: Codes) -> nn.Module:
    parts = [part for _, part in t.transformer_list if part != "drop"]
    return Branches([nn.Sequential(*stages_of(part, columns, codes)) for part in parts])


_STAGES: dict[str, Callable[[Any, int, Codes], nn.Module | None]] = {
    "StandardScaler": _standard, "RobustScaler": _robust, "MinMaxScaler": _minmax, "MaxAbsScaler": _maxabs,
    "PCA": _projection, "IncrementalPCA": _projection, "TruncatedSVD": _projection, "FastICA": _projection,
    "GaussianRandomProjection": _projection, "SparseRandomProjection": _projection, "FactorAnalysis": _projection,
    "LinearDiscriminantAnalysis": _projection, "NeighborhoodComponentsAnalysis": _projection,
    "PLSRegression": _projection, "SelectorMixin": _selection, "SimpleImputer": _imputer,
    "PolynomialFeatures": _polynomial, "TfidfTransformer": _tfidf, "CountVectorizer": _vectorizer,
    "TfidfVectorizer": _vectorizer, "HashingVectorizer": _vectorizer, "Normalizer": _normalizer,
    "Binarizer": _binarizer, "FunctionTransformer": _function, "OneHotEncoder": _by_estimator,
    "OrdinalEncoder": _by_estimator, "KBinsDiscretizer": _by_estimator, "SplineTransformer": _by_estimator,
    "PowerTransformer": _by_estimator, "QuantileTransformer": _by_estimator, "TargetEncoder": _by_estimator,
    "FisherVectors": _fields, "ColumnTransformer": _columns, "FeatureUnion": _union,
}  # fmt: skip
