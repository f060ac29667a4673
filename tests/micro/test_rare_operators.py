"""Operators that few models use: explained with a balanced ledger, or refused by name; never a silent gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from tests.micro.construct import linear, net, x
from tests.reference.audit import assert_accounted, assert_balanced, assert_same, score

# Each of two live tensors a and b of shape [N, 5].
OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "addcdiv": lambda a, b: torch.addcdiv(a, b, a.square() + 1),
    "addcmul": lambda a, b: torch.addcmul(a + 0.3, b, a),
    "atan2": torch.atan2,
    "bessel": lambda a, b: torch.special.i0(a) + b,
    "block diagonal": lambda a, b: torch.block_diag(*a.unsqueeze(1))[:, : 5 * len(a)].sum(1, keepdim=True) + b,
    "cdist": lambda a, b: torch.cdist(a.unsqueeze(2), b.unsqueeze(2)).flatten(1),
    "celu of a product": lambda a, b: F.celu(a * b),
    "clamp between live bounds": lambda a, b: torch.clamp(a, min=b),
    "copysign": torch.copysign,
    "cosine embedding": lambda a, b: F.cosine_similarity(a, b).unsqueeze(1),
    "cross": lambda a, b: torch.linalg.cross(a[:, :3], b[:, 1:4]),
    "cumulative minimum": lambda a, b: a.cummin(1).values + b,
    "cumulative product": lambda a, b: a.cumprod(1) + b,
    "determinant": lambda a, b: torch.linalg.det(a.unsqueeze(2) * b.unsqueeze(1) + torch.eye(5).double()).unsqueeze(1),
    "digamma": lambda a, b: torch.digamma(a.abs() + 1) + b,
    "distance": lambda a, b: F.pairwise_distance(a, b).unsqueeze(1),
    "dot products": lambda a, b: torch.stack([torch.dot(i, j) for i, j in zip(a, b, strict=True)]).unsqueeze(1),
    "fourier": lambda a, b: torch.view_as_real(torch.fft.rfft(a)).flatten(1),
    "fourier magnitude": lambda a, b: torch.fft.rfft(a).abs(),
    "float power": lambda a, b: torch.float_power(a.abs() + 1, 1.5) + b,
    "floor": lambda a, b: a + b.floor(),
    "fmax": torch.fmax,
    "fmod": lambda a, b: torch.fmod(a, 0.7) + b,
    "frexp": lambda a, b: torch.frexp(a).mantissa + b,
    "gumbel by argmax": lambda a, b: a * F.one_hot(b.argmax(1), 5),
    "heaviside": lambda a, b: a * torch.heaviside(b, torch.tensor(0.5, dtype=b.dtype)),
    "hypot": torch.hypot,
    "kronecker": lambda a, b: torch.stack([torch.kron(i, j) for i, j in zip(a, b, strict=True)]),
    "larger of a shifted one": lambda a, b: torch.maximum(a + 0.3, 1 - b),
    "ldexp": lambda a, b: torch.ldexp(a, torch.tensor(2)) + b,
    "lerp by a live weight": lambda a, b: torch.lerp(a, b, torch.sigmoid(a)),
    "log add exp": torch.logaddexp,
    "log cumulative sum exp": lambda a, b: a.logcumsumexp(1) + b,
    "logit": lambda a, b: torch.logit(torch.sigmoid(a)) + b,
    "matrix exponential": lambda a, b: torch.linalg.matrix_exp(a.unsqueeze(2) * b.unsqueeze(1)).flatten(1),
    "matrix solve": lambda a, b: torch.linalg.solve(torch.diag_embed(a.abs() + 1), b),
    "mode": lambda a, b: a.mode(1, keepdim=True).values + b,
    "nan to num": lambda a, b: a.nan_to_num() + b,
    "norm of order three": lambda a, b: a.norm(3, dim=1, keepdim=True) + b,
    "normalized by a quantile": lambda a, b: a / b.abs().quantile(0.9, 1, keepdim=True),
    "polynomial by matrix": lambda a, b: torch.stack([a, a**2, a**3], 2) @ torch.ones(3, dtype=a.dtype),
    "power with a live exponent": lambda a, b: (a.abs() + 0.1) ** b,
    "product over an axis": lambda a, b: a.prod(1, keepdim=True) + b,
    "remainder": lambda a, b: torch.remainder(a, 0.7) + b,
    "renormed": lambda a, b: a.renorm(2, 0, 0.5) + b,
    "rounded straight through": lambda a, b: a + (a.round() - a).detach() + b,
    "searched": lambda a, b: a * torch.bucketize(b, torch.tensor([-0.5, 0.5], dtype=b.dtype)),
    "sinc": lambda a, b: torch.sinc(a) + b,
    "softmax in two dimensions": lambda a, b: F.softmax(a.unsqueeze(2) * b.unsqueeze(1), dim=2).flatten(1),
    "sparsemax by sorting": lambda a, b: (a.sort(1, descending=True).values.cumsum(1) - 1) / torch.arange(1, 6) + b,
    "stack of powers": lambda a, b: torch.vander(a[:, 0], 3) + b[:, :3],
    "tensor split": lambda a, b: torch.cat([t * (i + 1) for i, t in enumerate(a.tensor_split((1, 3), 1))], 1) + b,
    "trapezoid": lambda a, b: torch.trapezoid(a, dim=1).unsqueeze(1) + b,
    "vectorized over samples": lambda a, b: torch.vmap(lambda sample: sample.relu() * 2)(a) + b,
    "xlogy": lambda a, b: torch.xlogy(a, b.abs() + 1),
}


@pytest.mark.filterwarnings("ignore::headwater.HeadwaterWarning")
@pytest.mark.parametrize("name", OPERATORS)
def test_explained_with_a_balanced_ledger_or_refused(name: str) -> None:
    torch.manual_seed(0)
    apply = OPERATORS[name]

    def body(m: Any, v: Tensor) -> Tensor:
        return apply(m.a(v), m.b(v))

    case = net(body, x(3, 5), a=linear(5, 5), b=linear(5, 5))
    try:
        audited = hw.explain(case.model, case.inputs, target=score, ledger=True)
    except hw.UnsupportedOperator:
        with pytest.raises(hw.UnsupportedOperator, match=r"register|instead"):
            hw.explain(case.model, case.inputs, target=score)
        return
    assert_balanced(audited)
    assert_accounted(audited)
    assert_same(hw.explain(case.model, case.inputs, target=score).relevance, audited.relevance)


def test_the_larger_of_a_shifted_branch_is_explained() -> None:
    torch.manual_seed(0)
    case = net(lambda m, v: torch.maximum(m.a(v) + 0.3, torch.minimum(1 - v, m.a(v))), x(3, 5), a=linear(5, 5))
    e = hw.explain(case.model, case.inputs, target=score, ledger=True)
    assert_balanced(e)
    assert_accounted(e)


class Lowering(nn.Module):
    """Clamps at bounds that it changes in place afterwards, or leaves alone."""

    def __init__(self, later: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.later = nn.Linear(4, 4), nn.Linear(4, 3), later

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 4]`` to ``[N, 3]``."""
        low = torch.full((4,), -0.1, dtype=x.dtype)
        y = self.first(x).clamp(min=low)
        low.sub_(self.later)
        scores: Tensor = self.second(y)
        return scores


def test_a_constant_that_changes_after_its_use_changes_nothing() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    changed, same = (hw.explain(Lowering(later).double().eval(), x, target=0) for later in (5.0, 0.0))
    torch.testing.assert_close(changed.relevance, same.relevance)
