"""Filters during propagation (Tjoa and Guan 2020): by their formulas, at every kind of operator, any callable."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater import filters, rules
from tests.reference.audit import assert_balanced, assert_same, score
from tests.reference.nets import double, draw, norm


def by_hand(relevance: Tensor, name: str, alpha: float, factor: float = 2.0) -> Tensor:
    """The filtered relevance, element by element, with the threshold of each sample."""
    out = relevance.clone()
    for n in range(len(relevance)):
        top = float(relevance[n].abs().max())
        for i, r in enumerate(relevance[n].flatten().tolist()):
            reaches = abs(r) >= alpha * top
            if name == "clamp":
                r = max(-alpha * top, min(alpha * top, r))
            elif name == "pass":
                r = 0.0 if reaches else r
            else:
                r = factor * r if reaches else r
            out[n].view(-1)[i] = r
    return out


CASES: list[tuple[Any, str, float]] = [
    (filters.Clamp(0.05), "clamp", 0.05), (filters.Clamp(0.6), "clamp", 0.6), (filters.FractionPass(0.2), "pass", 0.2),
    (filters.FractionAmplify(0.5), "amplify", 0.5), (filters.FractionAmplify(0.7, factor=3.0), "amplify", 0.7),
]  # fmt: skip


@pytest.mark.parametrize(("filter_", "name", "alpha"), CASES)
def test_the_papers_filters_between_two_layers(filter_: Any, name: str, alpha: float) -> None:
    model, x = double(nn.Sequential(nn.Linear(5, 7, bias=False), nn.Linear(7, 3, bias=False))), draw(3, 5)
    hidden = hw.explain(model, x, target=score, composite="lrp_0", layers=["0"]).layers["0"]
    filtered = by_hand(hidden, name, alpha, getattr(filter_, "factor", 2.0))
    z = model[0](x).detach()
    expected = torch.einsum("nj,ji,ni->ni", filtered / z, model[0].weight.detach(), x)
    e = hw.explain(
        model, x, target=score, composite=hw.Composite({"layer:0": (rules.Zero(), filter_), "default": rules.Zero()}),
        ledger=True,
    )  # fmt: skip
    assert_same(e.relevance, expected)
    assert_balanced(e)
    assert any("filter" in row.absorbed for row in e.ledger)


def network(inplace: bool = False) -> nn.Sequential:
    return double(
        nn.Sequential(
            nn.Conv2d(2, 5, 3), norm(nn.BatchNorm2d(5)), nn.ReLU(inplace), nn.Conv2d(5, 4, 3), nn.SiLU(inplace),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3),
        ),
        0.4,
    )  # fmt: skip


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    "selector",
    ["relu", "silu", "pointwise", "homogeneous", "max_pool2d", "conv", "linear", "input", "affine", "layer:2",
     "layer:3", "layer:4", "layer:5", "depth:0-0.5"],
)  # fmt: skip
def test_a_filter_acts_wherever_it_is_placed(selector: str, inplace: bool) -> None:
    model, x = network(inplace), draw(2, 2, 8, 8)
    table = {"affine": rules.Epsilon(), selector: (rules.Epsilon(), lambda r: torch.zeros_like(r))}
    for ledger in (False, True):
        e = hw.explain(model, x, target=score, composite=hw.Composite(table), ledger=ledger)
        assert e.relevance.abs().max() == 0
    assert_balanced(e)
    one = {**table, selector: (rules.Epsilon(), lambda r: torch.ones_like(r))}
    plain = hw.explain(model, x, target=score, composite=hw.Composite({"affine": rules.Epsilon()})).relevance
    assert_same(hw.explain(model, x, target=score, composite=hw.Composite(one)).relevance, plain)


def test_an_activation_written_in_python_is_filtered_as_one_function() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act, self.head = nn.Linear(4, 6), Gelu(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.act(self.layer(x)))

    class Gelu(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return 0.5 * z * (1 + torch.tanh(0.8 * (z + 0.04 * z**3)))

    model, x = double(Written()), draw(3, 4)
    table = {"affine": rules.Zero(), "layer:act": (rules.Zero(), lambda r: torch.full_like(r, 2.0))}
    plain = hw.explain(model, x, target=score, composite="lrp_0").relevance
    assert_same(hw.explain(model, x, target=score, composite=hw.Composite(table)).relevance, 2 * plain)


def test_filters_look_at_samples_alone_and_at_any_callable() -> None:
    model, x = network(), draw(4, 2, 8, 8)
    x[0] *= 10

    def culled(relevance: Tensor) -> Tensor:
        top = relevance.abs().flatten(1).amax(1).view(-1, *[1] * (relevance.dim() - 1))
        return (relevance.abs() < 0.5 * top).to(relevance.dtype)

    for filter_ in (filters.Clamp(0.3), culled):
        table = hw.Composite({"conv": (rules.Gamma(), filter_), "default": rules.Epsilon()})
        together = hw.explain(model, x, target=score, composite=table).relevance
        apart = [hw.explain(model, x[i : i + 1], target=score, composite=table).relevance for i in range(4)]
        assert_same(together, torch.cat(apart))


def test_what_is_no_filter_is_refused() -> None:
    with pytest.raises(hw.InvalidComposite, match="no filter"):
        hw.Composite({"conv": (rules.Zero(), 0.5)})
    for wrong in (lambda r: 0.5, lambda r: r.new_ones(7, 7, 7, 7)):
        with pytest.raises(hw.InvalidComposite, match="multiplier that broadcasts"):
            hw.explain(
                network(), draw(2, 2, 8, 8), target=score, composite=hw.Composite({"conv": (rules.Zero(), wrong)})
            )
