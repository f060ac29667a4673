"""Functions of whole matrices: systems and inverses, determinants, powers and products, the exponential.

What divides is constant, a product of k matrices gives each 1/k, and so does a power series term by term.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from headwater.propagate.calls import bind
from headwater.propagate.nested import carries, flat
from headwater.propagate.operands import steered
from headwater.propagate.products import divisor_alone
from headwater.propagate.tags import product

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


def solve(engine: Propagation, call: Call) -> Any:
    """Linear systems and inverses: the matrix divides, so it is constant."""
    second = call.operator.name in ("cholesky_solve",)
    return steered(engine, call, call.args[1] if second else call.args[0])


def determinant(engine: Propagation, call: Call) -> Any:
    """Of degree ``n``: each of the rows takes 1/n."""
    return engine.local(call, 1 / max(call.live[0].shape[-1], 1))


def log_determinant(engine: Propagation, call: Call) -> Any:
    """``logdet`` and ``slogdet`` by the gradient, as every logarithm, which has no value at zero."""
    out = call.func(*(t.detach() if isinstance(t, Tensor) else t for t in call.args)) if engine.ledger else ()
    results = [t for t in flat([out]) if carries(t)]
    (matrix,) = call.live

    def causes(cs: Any, factors: Any) -> None:
        for y, c in zip(results, cs, strict=True):
            if c is not None:
                call.book("gradient", product(y, c))
        call.book("gradient", -product(matrix.detach(), factors[0]))

    return engine.native(call, causes)


def cholesky(engine: Propagation, call: Call) -> Any:
    """Of degree one half."""
    return engine.local(call, 2.0)


def cross(engine: Propagation, call: Call) -> Any:
    """A product of two vectors: each takes half."""
    return engine.product(call, list(call.args[:2]))


def chain(engine: Propagation, call: Call) -> Any:
    """A product of several matrices: each live one takes the same share."""
    return engine.product(call, list(bind(call, "tensors", None)[0]))


def dot(engine: Propagation, call: Call) -> Any:
    """``vecdot``: a product of values and its sum along an axis."""
    x, y, dim = bind(call, "x y dim", None, None, -1)
    x = engine.redo(torch.conj, x) if x.is_complex() else x
    return engine.redo(torch.sum, engine.redo(torch.mul, x, y), dim)


def power(engine: Propagation, call: Call) -> Any:
    """A product of ``n`` times the same matrix, each of which takes 1/n; a power of an inverse divides."""
    n = bind(call, "input n", None, None)[1]
    return engine.local(call, 1 / n) if n > 0 else divisor_alone(engine, call)


def exponential(engine: Propagation, call: Call) -> Any:
    """The exponential as its power series: in ``Aᵏ / k!`` each factor takes 1/k; ``exp(0) = 1`` is absorbed.

    So the factor of ``A`` is ``Σ 1/k ∂(Aᵏ / k!)``, which is the mean of the derivative along the way from zero to
    ``A``: the secant from zero of an elementwise function, for one of a matrix. The mean is taken by Gauss-Legendre
    quadrature with as many points as the norm of the matrix asks for to be exact up to rounding.
    """
    (x,) = bind(call, "input", None)
    with torch.set_grad_enabled(engine.differentiable):
        out = call.func(x)
    kept = engine.keeper.keep(x if engine.differentiable else x.detach())

    def walk(c: Tensor) -> list[Tensor]:
        a = kept.value
        if engine.ledger:
            call.book("f(0)", product(torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a), c))
        shape = (-1, *[1] * a.dim())
        places, weights = (torch.tensor(t, dtype=c.dtype, device=c.device).view(shape) for t in _quadrature(_norm(a)))
        with torch.enable_grad():
            points = places * a if engine.differentiable else (places * a).requires_grad_()
            values = torch.linalg.matrix_exp(points)
        slopes = torch.autograd.grad(values, points, weights * c, create_graph=engine.differentiable)[0]
        return [slopes.sum(0)]

    return engine.reroute(call, out, [x], walk)


def _norm(a: Tensor) -> int:
    """The largest of the norms of matrices, rounded up to a multiple of 8, so that recordings hold for others too.

    At most 64, beyond which single precision overflows soon.
    """
    if not a.numel():
        return 8
    norm = torch.linalg.matrix_norm(a.detach(), 1).max().nan_to_num(0.0, 64.0)
    return 8 * int((norm.clamp(1.0, 64.0) / 8).ceil())


@functools.cache
def _quadrature(norm: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Places between zero and one, and weights, for functions that grow as fast as ``exp(norm * t)``."""
    places, weights = np.polynomial.legendre.leggauss(10 + norm)
    return tuple((places + 1) / 2), tuple(weights / 2)
