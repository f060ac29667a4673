"""Operators of neuralized models whose relevance is no factor: distances, projections and features of single columns.

A squared distance to a point is shared out by its own terms, ``(x_d - p_d)²``: an input that is zero takes its share
like any other, which no factor of it could say. So these operators give *relevance* to the explained input, by the
engine's own path for input rules (:class:`~headwater.propagate.tags.Source`). Of a hidden activation it becomes a
factor, and what falls on zeros there is booked as absorbed by "zero input".

Under plain gradients (``method="gradient"``, integrated gradients ...) they are ordinary differentiable functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from headwater.propagate import register
from headwater.propagate.rules import divide
from headwater.propagate.tags import Source, product

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation

Treatment = Callable[["Propagation", "Call"], Tensor]


def operator(treatment: Treatment) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """A decorator: a function of a live tensor that the engine sees as one call and treats by ``treatment``."""

    def wrap(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(function)
        def seen(x: Tensor, *args: Any) -> Tensor:
            if has_torch_function_unary(x):
                return handle_torch_function(seen, (x,), x, *args)
            return function(x, *args)

        register(function.__name__, treatment)
        return seen

    return wrap


def give(
    engine: Propagation, call: Call, relevance: Callable[[Tensor, Tensor], Tensor], nonneg: bool | None = None
) -> Tensor:
    """Treat a call of one live tensor by the relevance that its input receives.

    Args:
        engine, call: as the treatment got them.
        relevance: maps the input's value and the factor of the output to relevance, shaped like the input.
        nonneg: the output is known to hold no negative value.
    """
    (x,) = call.live
    source = engine.tag(x).source
    kept = engine.keeper.keep(x if engine.differentiable else x.detach())
    with torch.set_grad_enabled(engine.differentiable):
        out = call.func(*call.args, **call.kwargs)

    def walk(c: Tensor) -> list[Tensor | None]:
        given = relevance(kept.value, c)
        if source is None:
            return [as_factor(call, kept.value, given)]
        if source.pixels is None:
            return [None, given]
        rest = torch.where(source.pixels, torch.zeros_like(given), given)
        return [as_factor(call, kept.value, rest), given - rest]

    dummy = None if source is None else source.dummy
    result: Tensor = engine.reroute(call, out, [x], walk, nonneg, dummy=dummy)
    return result


def as_factor(call: Call, x: Tensor, relevance: Tensor) -> Tensor:
    """Relevance of a hidden activation as a factor of it; what falls on zeros has nowhere to go."""
    factor = divide(relevance.clone(), x.clone())
    if call.engine.ledger:
        call.book("zero input", relevance - product(x, factor))
    return factor


# ---------------------------------------------------------------------- squared distances


class Metric(Protocol):
    """What :func:`squared_distances` needs to know of the points it measures to."""

    def values(self, x: Tensor) -> Tensor:
        """Squared distances ``[N, M]`` of ``x`` ``[N, D]``."""

    def relevance(self, x: Tensor, c: Tensor) -> Tensor:
        """``Σ_i c_i`` times the terms of distance ``i``, ``[N, D]``, for factors ``c`` ``[N, M]``."""

    def residue(self, c: Tensor) -> Tensor | None:
        """What of the distances depends on no input, times ``c``; None where there is nothing."""


def _treat_distances(engine: Propagation, call: Call) -> Tensor:
    metric: Metric = call.args[1]

    def relevance(x: Tensor, c: Tensor) -> Tensor:
        residue = metric.residue(c) if engine.ledger else None
        if residue is not None:
            call.book("constant", residue)
        return metric.relevance(x, c)

    return give(engine, call, relevance, nonneg=True)


@operator(_treat_distances)
def squared_distances(x: Tensor, metric: Metric) -> Tensor:
    """Squared distances of ``x`` ``[N, D]`` to M points, ``[N, M]``, each explained by its own terms.

    The difference of two of them is a linear unit, ``‖x - x_j‖² - ‖x - x_i‖² = w·x + b`` with ``w = 2 (x_i - x_j)``,
    and its relevance by terms is that unit's, explained about the midpoint: ``w_d (x_d - (x_i + x_j)_d / 2)``. So the
    units between all pairs of representatives need never be formed (review, Section VI-A).
    """
    return metric.values(x)


# ---------------------------------------------------------------------- projections


def _treat_projection(engine: Propagation, call: Call) -> Tensor:
    matrix, origin, offset = call.args[1:]

    def relevance(x: Tensor, c: Tensor) -> Tensor:
        if engine.ledger:
            call.book("bias", offset * c)
        return (x - origin) * (c @ matrix)

    return give(engine, call, relevance)


@operator(_treat_projection)
def projection(x: Tensor, matrix: Tensor, origin: Tensor, offset: Tensor) -> Tensor:
    """``(x - origin) matrixᵀ + offset``, explained about the origin: ``R_d = (x - origin)_d (cᵀ matrix)_d``.

    Args:
        x: ``[N, D]``; ``matrix``: ``[K, D]``; ``origin``: ``[D]``; ``offset``: ``[K]``, absorbed as bias.
    """
    return torch.nn.functional.linear(x - origin, matrix, offset)


# ---------------------------------------------------------------------- features made of few columns each


class Features(Protocol):
    """A map from columns to features that knows which columns each feature was made of."""

    def compute(self, x: Tensor) -> Tensor:
        """Features ``[N, F]`` of ``x`` ``[N, D]``."""

    def spread(self, u: Tensor) -> Tensor:
        """The linear map ``[N, D] -> [N, F]`` whose transpose hands the relevance of features to their columns."""


def _treat_features(engine: Propagation, call: Call) -> Tensor:
    (x,), features = call.live, call.args[1]
    source = engine.tag(x).source
    if source is None or source.pixels is not None:

        def relevance(x: Tensor, c: Tensor) -> Tensor:
            z = features.compute(x)
            given = collect(features, x, product(z, c))
            if engine.ledger:
                call.book("constant", product(z, c).sum() - given.sum())
            return given

        return give(engine, call, relevance)
    with torch.set_grad_enabled(engine.differentiable):
        out = features.compute(x)
    with torch.enable_grad():
        dummy = features.spread(source.dummy)
    engine.mark(dummy)
    kept = engine.keeper.keep(out if engine.differentiable else out.detach())

    def walk(c: Tensor) -> list[Tensor | None]:
        given = product(kept.value, c)
        if engine.ledger:  # a feature of no column (the one of a polynomial) is a constant
            owned = features.spread(torch.ones_like(x))
            call.book("constant", given * (1 - owned))
            return [None, given * owned]
        return [None, given]

    result: Tensor = engine.reroute(call, out, [x], walk, dummy=dummy)
    engine.tag(result).source = Source(dummy, None, None, None)
    return result


def collect(features: Features, x: Tensor, relevance: Tensor) -> Tensor:
    """Relevance of columns ``[N, D]`` from that of their features ``[N, F]``: the transpose of ``spread``."""
    with torch.enable_grad():
        u = torch.zeros_like(x, requires_grad=True)
        (found,) = torch.autograd.grad(features.spread(u), u, relevance, create_graph=relevance.requires_grad)
    return found


@operator(_treat_features)
def column_features(x: Tensor, features: Features) -> Tensor:
    """Features of single columns (or of few): the relevance of a feature goes to the columns it was made of.

    A one-hot code, a scaled or imputed value, a tf-idf weight hand all of their relevance to their column, also where
    its value is zero; a product of columns shares by exponents.
    """
    return features.compute(x)
