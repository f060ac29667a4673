"""Functions of whole matrices and of logarithms of sums, against their series, their definition and wider numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import headwater as hw
from tests.reference.audit import assert_balanced, assert_same

F64 = torch.float64


def matrices(scale: float = 1.0, n: int = 4) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, n, n, dtype=F64) * scale


def weighted(y: Tensor) -> Tensor:
    """A score in which every value has a weight of its own."""
    return (y.flatten(1) * torch.arange(y[0].numel(), dtype=y.dtype).cos()).sum(1)


def explained(function: Callable[[Tensor], Tensor], x: Tensor) -> hw.Explanation:
    e = hw.explain(function, x, target=weighted, ledger=True)
    assert_balanced(e)
    return e


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_the_exponential_is_its_power_series_in_whose_terms_each_factor_has_the_same_share(scale: float) -> None:
    x = matrices(scale)
    e = explained(torch.linalg.matrix_exp, x)
    a = x.clone().requires_grad_()
    expected, term = torch.zeros_like(x), torch.eye(4, dtype=F64).expand_as(a)
    for k in range(1, 60):
        term = term @ a / k
        (slope,) = torch.autograd.grad(weighted(term).sum(), a, retain_graph=True)
        expected += x * slope / k
    assert_same(e.relevance, expected)
    assert_same(e.ledger.causes()["f(0)"], weighted(torch.eye(4, dtype=F64).expand_as(x)))


def test_the_exponential_of_diagonal_matrices_is_that_of_numbers() -> None:
    v = matrices()[:, 0] * 5
    of_matrices = explained(lambda v: torch.linalg.matrix_exp(torch.diag_embed(v)).diagonal(dim1=1, dim2=2), v)
    assert_same(of_matrices.relevance, explained(torch.exp, v).relevance)


def test_large_matrices_and_single_precision() -> None:
    x = matrices(8.0)
    exact = explained(torch.linalg.matrix_exp, x)
    found = hw.explain(torch.linalg.matrix_exp, x.float(), target=weighted)
    assert torch.allclose(found.relevance.double(), exact.relevance, rtol=1e-3)


def test_powers_and_products_share_equally() -> None:
    x = matrices()
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(weighted(leaf @ leaf @ leaf).sum(), leaf)
    assert_same(explained(lambda x: torch.linalg.matrix_power(x, 3), x).relevance, x * slope / 3)
    thrice = explained(lambda x: torch.stack([torch.linalg.multi_dot([m, m, m]) for m in x]), x)
    assert_same(thrice.relevance, x * slope / 3)
    assert_same(explained(lambda x: torch.linalg.matrix_power(x, -2), x).relevance, torch.zeros_like(x))


def positive(x: Tensor) -> Tensor:
    return x @ x.mT + torch.eye(4, dtype=x.dtype)


def test_logarithms_of_determinants_pass_their_gradient() -> None:
    x = matrices()
    leaf = positive(x).requires_grad_()
    (slope,) = torch.autograd.grad(leaf.logdet().sum(), leaf)
    for function in (torch.logdet, lambda m: torch.linalg.slogdet(m).logabsdet):
        assert_same(explained(lambda m, f=function: f(m)[:, None], leaf.detach()).relevance, leaf.detach() * slope)


SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "cholesky_ex": (lambda x: torch.linalg.cholesky_ex(positive(x)).L, lambda x: torch.linalg.cholesky(positive(x))),
    "vecdot": (lambda x: torch.linalg.vecdot(x, x.flip(1)), lambda x: (x * x.flip(1)).sum(-1)),
    "matmul": (lambda x: torch.linalg.matmul(x, x.mT), lambda x: x @ x.mT),
    "pinverse": (lambda x: torch.stack([torch.pinverse(m) @ m for m in x]), lambda x: torch.linalg.pinv(x) @ x),
    "erfc": (torch.special.erfc, torch.erfc),
    "log1p": (lambda x: torch.special.log1p(x.abs()), lambda x: torch.log1p(x.abs())),
    "i0e": (torch.special.i0e, lambda x: torch.special.i0(x) * (-x.abs()).exp()),
    "cov": (
        lambda x: torch.stack([torch.cov(m) for m in x]),
        lambda x: (x - x.mean(2, keepdim=True)) @ (x - x.mean(2, keepdim=True)).mT / 3,
    ),
    "diagflat": (lambda x: torch.stack([torch.diagflat(m[0]) for m in x]), lambda x: torch.diag_embed(x[:, 0])),
    "diagonal": (torch.linalg.diagonal, lambda x: x.diagonal(dim1=1, dim2=2)),
    "degrees": (torch.rad2deg, lambda x: x * (180 / torch.pi)),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_an_operator_is_explained_as_what_it_is_short_for(name: str) -> None:
    short, written = SPELLINGS[name]
    x = matrices()
    assert_same(explained(short, x).relevance, explained(written, x).relevance)


@pytest.mark.parametrize("axes", [1, (1, 2)])
def test_log_sum_exp_of_scores_in_the_thousands(axes: int | tuple[int, ...]) -> None:
    """In float32 ``exp(x - logsumexp(x))`` adds up to one only to 1e-4, of which relevance makes the thousandfold."""
    x = torch.randn(3, 4, 5, dtype=F64) - 4000.3

    def model(x: Tensor) -> Tensor:
        return x.logsumexp(axes).reshape(len(x), -1)

    exact = hw.explain(model, x, target=0).relevance
    e = hw.explain(model, x.float(), target=0, ledger=True)
    assert float((e.relevance - exact).abs().max() / exact.abs().max()) < 1e-3
    assert float(e.ledger.unexplained().max() / e.output.abs().max()) < 1e-6


def test_log_sum_exp_of_masked_rows() -> None:
    x = torch.randn(2, 4, dtype=F64)
    mask = torch.tensor([[True, True, False, True], [False] * 4])
    e = hw.explain(lambda x: x.masked_fill(~mask, -torch.inf).logsumexp(1).exp()[:, None], x, target=0)
    assert bool(e.relevance.isfinite().all())
    assert bool((e.relevance[~mask] == 0).all())


NOWHERE_AT_ZERO: dict[str, Callable[[Tensor], Tensor]] = {
    "lgamma": torch.lgamma,
    "digamma": torch.digamma,
    "trigamma": lambda x: torch.polygamma(1, x),
    "mvlgamma": lambda x: torch.mvlgamma(x, 2),
    "acosh": torch.acosh,
    "ndtri": lambda x: torch.special.ndtri(x / 9),
}


@pytest.mark.parametrize("name", NOWHERE_AT_ZERO)
def test_functions_without_a_value_at_zero_pass_their_gradient(name: str) -> None:
    x, function = matrices().abs() + 1.5, NOWHERE_AT_ZERO[name]
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(weighted(function(leaf)).sum(), leaf)
    assert_same(explained(function, x).relevance, x * slope)
