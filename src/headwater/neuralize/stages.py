"""Preprocessing as modules: each knows which columns its features were made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput
from headwater.neuralize.geometry import AffineMap
from headwater.neuralize.operators import column_features, projection

UNKNOWN = "\x00unknown"  # a value that is in no list of categories


class Stage(nn.Module):
    """Base of stages whose features are made of single columns, or of few: relevance goes back to those.

    A subclass gives :meth:`compute`, and where features and columns are not one to one, :meth:`spread`.
    """

    relevance_without_factor = True

    def forward(self, x: Tensor) -> Tensor:
        return column_features(x, self)

    def compute(self, x: Tensor) -> Tensor:
        """Features ``[N, F]`` of columns ``[N, D]``."""
        raise NotImplementedError

    def spread(self, u: Tensor) -> Tensor:
        """The linear map whose transpose hands relevance of features to columns: one to one."""
        return u


class Rescale(Stage):
    """``(x - shift) * scale`` of each column, clamped where bounds are given."""

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor, clamp: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        self.clamp = clamp

    def compute(self, x: Tensor) -> Tensor:
        z = (x - self.shift) * self.scale
        return z if self.clamp is None else z.clamp(*self.clamp)

    @property
    def affine(self) -> AffineMap:
        """The same as a map, where nothing is clamped."""
        return AffineMap(self.scale, self.shift, torch.zeros_like(self.shift))


class Impute(Stage):
    """Missing values (NaN, or a given number) replaced; columns dropped; indicators of what was missing appended.

    Args:
        fill: ``[D]``, NaN for a column that is dropped; ``missing``: the number that marks a missing value.
        indicated: columns with an indicator, whose relevance is the column's too.
    """

    fill: Tensor
    kept: Tensor
    indicated: Tensor

    def __init__(self, fill: Tensor, missing: float, indicated: Sequence[int] = ()) -> None:
        super().__init__()
        self.missing = missing
        self.register_buffer("fill", fill)
        self.register_buffer("kept", torch.nonzero(~fill.isnan()).flatten())
        self.register_buffer("indicated", torch.tensor(list(indicated), dtype=torch.long))

    def compute(self, x: Tensor) -> Tensor:
        gone = x.isnan() if np.isnan(self.missing) else x == self.missing
        filled = torch.where(gone, self.fill, x)[:, self.kept]
        return torch.cat([filled, gone[:, self.indicated].to(x.dtype)], 1)

    def spread(self, u: Tensor) -> Tensor:
        return torch.cat([u[:, self.kept], u[:, self.indicated]], 1)

    def repaired(self, x: Tensor) -> Tensor:
        """``x`` with its missing values filled, which give the same features where nothing is indicated."""
        gone = x.isnan() if np.isnan(self.missing) else x == self.missing
        return torch.where(gone, torch.nan_to_num(self.fill), x)


class Polynomial(Stage):
    """Products of powers of columns; each column takes relevance in proportion to its exponent."""

    powers: Tensor
    shares: Tensor

    def __init__(self, powers: Tensor) -> None:
        super().__init__()
        self.register_buffer("powers", powers)
        self.register_buffer("shares", powers / powers.sum(1, keepdim=True).clamp(min=1))

    def compute(self, x: Tensor) -> Tensor:
        features = []
        for row in self.powers:  # the columns of a feature are few
            columns = torch.nonzero(row).flatten()
            features.append((x[:, columns] ** row[columns]).prod(1))
        return torch.stack(features, 1)

    def spread(self, u: Tensor) -> Tensor:
        return u @ self.shares.T


class TermWeights(Stage):
    """Counts of words to tf-idf: word by word, then one length for the document, which is constant.

    Args:
        idf: ``[V]`` or None; ``sublinear``: ``1 + log`` of counts; ``norm``: "l1", "l2", "max" or None.
    """

    idf: Tensor | None

    def __init__(self, idf: Tensor | None, norm: str | None, sublinear: bool = False) -> None:
        super().__init__()
        self.register_buffer("idf", idf)
        self.norm, self.sublinear = norm, sublinear

    def compute(self, x: Tensor) -> Tensor:
        if self.sublinear:
            x = torch.where(x > 0, 1 + torch.where(x > 0, x, 1).log(), x)
        return normalized(x if self.idf is None else x * self.idf, self.norm)


def normalized(x: Tensor, norm: str | None) -> Tensor:
    """Rows divided by their length, where they have one."""
    if norm is None:
        return x
    length = {"l1": lambda: x.abs().sum(1), "l2": lambda: x.square().sum(1).sqrt(), "max": lambda: x.abs().amax(1)}
    size = length[norm]()[:, None]
    return x / torch.where(size == 0, torch.ones_like(size), size)


class Elementwise(Stage):
    """A function of each value by itself, relevance one to one."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def compute(self, x: Tensor) -> Tensor:
        return self.function(x)


class ByEstimator(Stage):
    """Features that a fitted transformer computes itself: codes, bins, splines, quantiles.

    Relevance needs to know only which column a feature was made of. There is no gradient through them.

    Args:
        transform: the transformer's own, of an object or float array.
        owners: ``[F]``, the column of each feature.
        codes: for columns of categories, their values: the tensor holds an index into them, -1 what is unknown.
    """

    owners: Tensor

    def __init__(
        self, transform: Callable[[Any], Any], owners: Sequence[int], codes: dict[int, Sequence[Any]] | None = None
    ) -> None:
        super().__init__()
        self.transform, self.codes = transform, codes or {}
        self.register_buffer("owners", torch.tensor(list(owners), dtype=torch.long))

    def compute(self, x: Tensor) -> Tensor:
        table: Any = x.detach().cpu().numpy()
        if self.codes:
            table = table.astype(object)
            for column, values in self.codes.items():
                table[:, column] = _decoded(table[:, column], values)
        try:
            z = self.transform(table)
        except ValueError as error:
            raise InvalidInput(f"The preprocessing refuses this input: {error}") from None
        z = z.toarray() if hasattr(z, "toarray") else np.asarray(z)
        return torch.as_tensor(z, dtype=x.dtype, device=x.device)

    def spread(self, u: Tensor) -> Tensor:
        return u[:, self.owners]


def _decoded(indices: Any, values: Sequence[Any]) -> Any:
    known = np.empty(len(values) + 1, dtype=object)
    known[:-1], known[-1] = list(values), UNKNOWN
    return known[indices.astype(int)]


class Select(nn.Module):
    """Some of the columns, in an order."""

    columns: Tensor

    def __init__(self, columns: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor(list(columns), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.columns]


class Project(nn.Module):
    """A linear map to components, explained about the input that it maps to zero: for PCA, the mean."""

    relevance_without_factor = True

    matrix: Tensor
    origin: Tensor
    offset: Tensor

    def __init__(self, front: AffineMap) -> None:
        super().__init__()
        for name in ("matrix", "origin", "offset"):
            self.register_buffer(name, getattr(front, name))

    def forward(self, x: Tensor) -> Tensor:
        return projection(x, self.matrix, self.origin, self.offset)

    @property
    def affine(self) -> AffineMap:
        """The same as a map."""
        return AffineMap(self.matrix, self.origin, self.offset)


class Branches(nn.Module):
    """Several preprocessings side by side, their features joined."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)
