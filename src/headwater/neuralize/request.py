"""What is asked of a builder, and the register of builders by estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput, UnsupportedModel
from headwater.neuralize.geometry import AffineMap, Distances

DTYPE = torch.float64  # in which scikit-learn computes


@dataclass(frozen=True)
class Request:
    """What is asked of a builder.

    Attributes:
        output: which function of the estimator; None for its builder's first.
        front: affine preprocessing that distances are to be measured behind.
        pooling: rule of soft minima and maxima: "gradient", "proportional" or "winner_takes_all".
        stiffness: of soft cluster assignments; None is hard.
        baseline: ``[D]``, what linear models are explained about; None is zero.
    """

    output: str | None = None
    front: AffineMap | None = None
    pooling: str = "gradient"
    stiffness: float | None = None
    baseline: Tensor | None = None

    def choose(self, estimator: Any, *outputs: str) -> str:
        """The output asked for, by default the first.

        Raises:
            InvalidInput: where the estimator's network has no such output.
        """
        if self.output is None:
            return outputs[0]
        if self.output not in outputs:
            name = type(estimator).__name__
            raise InvalidInput(
                f"output={self.output!r} is none of a neuralized {name}: choose from {', '.join(outputs)}"
            )
        return self.output

    def distances(self, points: Any, scale: Tensor | None = None, root: Tensor | None = None) -> Distances:
        """Distances to points behind this request's preprocessing."""
        return Distances(tensor(points), self.front, scale, root)


Builder = Callable[[Any, Request], nn.Module]


@dataclass(frozen=True)
class Entry:
    """A builder, and whether it folds affine preprocessing into the distances of an estimator."""

    build: Builder
    folds: Callable[[Any], bool]


class Beside(nn.Module):
    """Networks of one input, their outputs side by side: ``[N]`` each to ``[N, K]``."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([part(x) for part in self.parts], 1)


_LIBRARIES = {"sklearn", "headwater", "xgboost", "lightgbm", "catboost"}
_BUILDERS: dict[str, Entry] = {}


def never(_: Any) -> bool:
    """Folds nothing."""
    return False


def always(_: Any) -> bool:
    """Folds whatever the estimator is."""
    return True


def builds(*names: str, folds: Callable[[Any], bool] = never) -> Callable[[Builder], Builder]:
    """A decorator: the function that builds the network of estimators with these class names."""

    def add(function: Builder) -> Builder:
        _BUILDERS.update(dict.fromkeys(names, Entry(function, folds)))
        return function

    return add


def builder_of(estimator: Any) -> Entry:
    """The builder for an estimator, by its class or one that it inherits from.

    Raises:
        UnsupportedModel: where there is none; the text lists what there is.
    """
    for name in names_of(estimator):
        if name in _BUILDERS:
            return _BUILDERS[name]
    raise UnsupportedModel(
        f"There is no network equal to a {type(estimator).__name__}. Neuralized are: {', '.join(sorted(_BUILDERS))}; "
        "explain others by removal, method='shapley_sampling'"
    )


def names_of(estimator: Any) -> list[str]:
    """Names of the classes of an estimator, its own first, in the libraries whose attributes are known."""
    return [cls.__name__ for cls in type(estimator).__mro__ if cls.__module__.split(".")[0] in _LIBRARIES]


def tensor(values: Any) -> Tensor:
    """An array, dense or sparse, as a tensor of double precision."""
    values = values.toarray() if hasattr(values, "toarray") else values
    return torch.as_tensor(values).detach().to(DTYPE).clone()


class Lambda(nn.Module):
    """A fixed function of tensors as a module, named for display."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


@builds("OneVsRestClassifier", "MultiOutputRegressor")
def several(estimator: Any, request: Request) -> nn.Module:
    """One estimator for each class or target, by its first output: ``[N, K]``, of two classes ``[N]``."""
    classifies = type(estimator).__name__ == "OneVsRestClassifier"
    request.choose(estimator, "decision_function" if classifies else "predict")
    plain = replace(request, output=None)
    parts = [builder_of(part).build(part, plain) for part in estimator.estimators_]
    return parts[0] if classifies and len(parts) == 1 else Beside(parts)
