"""What goes wrong for users elsewhere, each as a test of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from tests.reference import rules
from tests.reference.audit import (
    TIGHT,
    assert_accounted,
    assert_balanced,
    assert_same,
    assert_unchanged,
    fingerprint,
    gradient_times_input,
    relative_error,
    score,
)
from tests.reference.nets import double, draw, explain, folded, norm

ZERO = {"default": hw.rules.Zero()}


class Toy(nn.Module):
    """A toy network without biases: ``body`` between two linear layers."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor], width: int = 6, **parts: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.first, self.middle = nn.Linear(5, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.last = nn.Linear(width, 3, bias=False)
        for name, part in parts.items():
            self.add_module(name, part)
        double(self)

    def forward(self, v: Tensor) -> Tensor:
        return self.last(self.body(self, self.first(v)))


def complete(e: hw.Explanation) -> None:
    """Balanced, and the sum of relevance over the output is 1."""
    assert_balanced(e)
    assert_same(e.relevance.flatten(1).sum(1) / e.output, torch.ones_like(e.output))
    assert e.delta is not None
    assert (e.delta.abs() <= TIGHT).all()


# The table: toy networks, the sum of relevance over the output should be 1 --------------------------------------------


PLAIN = {
    "plain": lambda m, h: m.relu(m.middle(m.relu_too(h))),
    "in-place ReLU": lambda m, h: m.in_place(m.middle(m.in_place_too(h))),
    "reused ReLU": lambda m, h: m.relu(m.middle(m.relu(h))),
    "F.relu": lambda m, h: F.relu(m.middle(F.relu(h))),
}


@pytest.mark.parametrize("spelling", PLAIN)
def test_plain_networks_with_every_relu(spelling: str) -> None:
    parts = {"relu": nn.ReLU(), "relu_too": nn.ReLU(), "in_place": nn.ReLU(True), "in_place_too": nn.ReLU(True)}
    model, x = Toy(PLAIN[spelling], **parts), draw(3, 5)
    for table in (ZERO, {"default": hw.rules.Gamma(0.25)}, {"default": hw.rules.ZPlus()}):
        complete(explain(model, x, table))
    assert_same(explain(model, x, ZERO).relevance, gradient_times_input(model, x))


def test_one_linear_used_twice_has_the_right_map() -> None:
    model, x = Toy(lambda m, h: m.middle(m.middle(h.relu()).relu()).relu()), draw(3, 5)
    e = explain(model, x, ZERO)
    complete(e)
    assert_same(e.relevance, gradient_times_input(model, x))


def test_one_linear_used_twice_under_gamma_against_loops() -> None:
    model, x = Toy(lambda m, h: m.middle(m.middle(h.relu()).relu()).relu()), draw(3, 5)
    shared = rules.layer_of(model.middle, (6,))
    steps = [rules.layer_of(model.first, (5,)), shared, shared, rules.layer_of(model.last, (6,))]
    below = [x]
    for layer in (model.first, model.middle, model.middle):
        below.append(layer(below[-1]).relu().detach())
    z = model(x).detach()
    relevance = z * torch.autograd.functional.jacobian(lambda v: score(v).sum(), z)
    for layer, a in list(zip(steps, below, strict=True))[::-1]:
        relevance = rules.redistribute(layer, rules.generalized_gamma(0.25), a, relevance)
    e = explain(model, x, {"default": hw.rules.Gamma(0.25)})
    complete(e)
    assert relative_error(e.relevance, relevance) <= TIGHT


def test_residual() -> None:
    model, x = Toy(lambda m, h: h + m.middle(h.relu()).relu()), draw(3, 5)
    e = explain(model, x, ZERO)
    complete(e)
    assert_same(e.relevance, gradient_times_input(model, x))
    complete(explain(model, x, {"default": hw.rules.Gamma(0.25)}))


def test_functional_gelu() -> None:
    complete(explain(Toy(lambda m, h: F.gelu(m.middle(F.gelu(h)))), draw(3, 5), ZERO))


def test_product_gate() -> None:
    complete(explain(Toy(lambda m, h: h * m.middle(h)), draw(3, 5), ZERO))


def test_layer_norm() -> None:
    model = Toy(lambda m, h: m.norm(h), norm=nn.LayerNorm(6, elementwise_affine=False))
    complete(explain(model, draw(3, 5), ZERO))


def test_lstm() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.last = nn.LSTM(4, 6, bias=False, batch_first=True), nn.Linear(6, 3, bias=False)
            double(self)

        def forward(self, v: Tensor) -> Tensor:
            return self.last(self.lstm(v)[0][:, -1])

    complete(explain(Reader(), draw(3, 5, 4), ZERO))


def test_multihead_attention_absorbs_by_its_softmax_alone() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, bias=False, batch_first=True)
            self.last = nn.Linear(6, 3, bias=False)
            double(self)

        def forward(self, v: Tensor) -> Tensor:
            return self.last(self.attention(v, v, v)[0].mean(1))

    x = draw(3, 4, 6)
    e = explain(Reader(), x, ZERO)
    assert_accounted(e)
    assert {cause for row in e.ledger for cause, amount in row.absorbed.items() if (amount != 0).any()} == {"softmax"}
    constant = hw.explain(Reader(), x, target=score, method="cplrp", ledger=True)
    assert_balanced(constant, 1e-5)
    assert_same(constant.relevance.flatten(1).sum(1), constant.output, 1e-5)


def test_softmax_at_the_output_is_explained_with_one_warning_that_a_logit_explains_better() -> None:
    model, x = nn.Sequential(Toy(lambda m, h: h.relu()), nn.Softmax(-1)), draw(3, 5)
    with pytest.warns(hw.HeadwaterWarning, match="logit") as caught:
        e = hw.explain(model, x, target=1, ledger=True)
    assert len(caught) == 1
    assert_same(e.output, model(x)[:, 1].detach(), 1e-12)
    assert_balanced(e)
    assert_accounted(e)
    assert (e.relevance != 0).any()


# Traps seen in peers -----------------------------------------------------------------------------------------------


class RegisteredBackwards(nn.Module):
    """Batch norms are registered in the opposite order of their use."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_two, self.two = norm(nn.BatchNorm2d(3)), double(nn.Conv2d(3, 3, 3))
        self.norm_one, self.one = norm(nn.BatchNorm2d(3)), double(nn.Conv2d(2, 3, 3))

    def forward(self, v: Tensor) -> Tensor:
        return self.norm_two(self.two(self.norm_one(self.one(v)).relu()))


def test_trap_batch_norm_merged_in_registration_order() -> None:
    model, x = RegisteredBackwards().eval(), draw(2, 2, 6, 6)
    with torch.no_grad():
        model.norm_one.weight.mul_(-2)
    before, expected = fingerprint(model), model(x).detach()
    e = explain(model, x, {"default": hw.rules.ZPlus()})
    assert_unchanged(before, model)
    assert torch.equal(model(x).detach(), expected)
    assert_same(e.output, score(expected), 1e-14)
    by_hand = nn.Sequential(folded(model.one, model.norm_one), nn.ReLU(), folded(model.two, model.norm_two))
    assert relative_error(e.relevance, explain(by_hand, x, {"default": hw.rules.ZPlus()}).relevance) <= 1e-10


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.fails = double(nn.Linear(5, 6)), True

    def forward(self, v: Tensor) -> Tensor:
        h = self.first(v).relu()
        if self.fails:
            raise RuntimeError("half-way")
        return h


def test_trap_an_exception_half_way_leaves_the_model_broken() -> None:
    model, x = Failing(), draw(3, 5)
    before = fingerprint(model)
    with pytest.raises(RuntimeError, match="half-way"):
        hw.explain(model, x, target=score)
    assert_unchanged(before, model)
    assert torch.overrides._get_current_function_mode_stack() == []
    model.fails = False
    assert_same(explain(model, x, ZERO).relevance, gradient_times_input(model, x))
    with pytest.raises(hw.HeadwaterError):
        hw.explain(model, x, target=99)
    assert torch.overrides._get_current_function_mode_stack() == []


def test_trap_rules_dropped_after_the_first_call() -> None:
    model, x = Toy(lambda m, h: m.middle(h.relu()).relu()), draw(3, 5)
    composite = hw.Composite({"default": hw.rules.Gamma(0.25), "input": hw.rules.WSquare()})
    first, second, third = (hw.explain(model, x, target=score, composite=composite).relevance for _ in range(3))
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert relative_error(explain(model, x, ZERO).relevance, first) > 1e-3


@pytest.mark.parametrize(
    "table",
    [
        {"default": hw.rules.Epsilon(0.25, relative=True)},
        {"default": (hw.rules.Gamma(0.25), hw.filters.Clamp(0.2))},
        {"default": hw.rules.ZPlus(), "input": hw.rules.Box()},
    ],
    ids=["relative epsilon", "clamped", "own range"],
)
@pytest.mark.filterwarnings("ignore::headwater.HeadwaterWarning")
def test_trap_relevance_that_depends_on_the_other_samples(table: dict[str, Any]) -> None:
    model, x = Toy(lambda m, h: m.middle(h.relu()).relu()), draw(3, 5)
    alone = explain(model, x[:1], table).relevance
    beside_giants = explain(model, torch.cat([x[:1], 1e3 * x[1:]]), table).relevance
    assert_same(beside_giants[:1], alone)


def test_trap_a_logit_difference_whose_scale_and_sign_are_lost() -> None:
    model, x = Toy(lambda m, h: m.middle(h.relu()).relu()), draw(3, 5)
    composite = hw.Composite({"default": hw.rules.Gamma(0.25)})
    one, two, margin, reverse = (
        hw.explain(model, x, target=t, composite=composite)
        for t in (1, 2, hw.target.Margin(1, 2), hw.target.Margin(2, 1))
    )
    assert_same(margin.output, (model(x)[:, 1] - model(x)[:, 2]).detach(), 1e-12)
    assert_same(margin.relevance, one.relevance - two.relevance)
    assert_same(reverse.relevance, -margin.relevance)
    assert_same(margin.relevance.sum(1), margin.output)


def test_trap_a_process_wide_patch_that_changes_other_models() -> None:
    model, other, x = Toy(lambda m, h: F.gelu(h)), Toy(lambda m, h: m.norm(F.gelu(h)), norm=nn.LayerNorm(6)), draw(3, 5)
    expected = gradient_times_input(other, x)
    seen: list[Tensor] = []

    class Pausing(nn.Module):
        """Runs the other model's ordinary gradient in another thread, in the middle of an explanation."""

        def forward(self, v: Tensor) -> Tensor:
            thread = threading.Thread(target=lambda: seen.append(gradient_times_input(other, x)))
            thread.start()
            thread.join()
            return v

    hw.explain(nn.Sequential(model, Pausing()), x, target=score)
    assert_same(seen[0], expected, 0.0)
    assert_same(gradient_times_input(other, x), expected, 0.0)


@pytest.mark.parametrize(
    "resize",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AdaptiveAvgPool2d(4),
        nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=False),
        nn.Upsample(size=(9, 4), mode="bilinear", align_corners=True),
        nn.Upsample(size=(3, 9), mode="bicubic"),
    ],
    ids=["average", "average without padding", "adaptive", "bilinear", "bilinear aligned", "bicubic"],
)
def test_trap_pooling_and_upsampling_given_the_gradient_of_another_function(resize: nn.Module) -> None:
    model = nn.Sequential(double(nn.Conv2d(2, 3, 3, padding=1, bias=False)), resize, nn.ReLU(), nn.Flatten()).eval()
    x = draw(2, 2, 6, 6)
    expected = gradient_times_input(model, x)
    assert_same(explain(model, x, ZERO).relevance, expected)
    assert_same(hw.explain(model, x, target=score, method="gradient").relevance * x, expected)


@pytest.mark.parametrize("method", ["lrp", "gradient", "guided_backprop", "deep_taylor", "excitation_backprop"])
def test_trap_a_batch_of_two_answered_with_one_map(method: str) -> None:
    model, x = Toy(lambda m, h: m.middle(h.relu()).relu()), draw(2, 5)
    both = hw.explain(model, x, target=score, method=method).relevance
    assert both.shape == x.shape
    for n in range(2):
        assert_same(hw.explain(model, x[n : n + 1], target=score, method=method).relevance, both[n : n + 1])
    assert relative_error(both[:1], both[1:]) > 1e-3


def test_trap_a_conserving_map_that_is_wrong_on_a_shared_layer() -> None:
    """Conservation alone says nothing of a shared layer: the map is compared with one whose layers are copies."""
    shared, x = Toy(lambda m, h: m.middle(m.middle(h).relu() - 0.5 * h).relu()), draw(3, 5)
    copies = Toy(lambda m, h: m.middle(m.again(h).relu() - 0.5 * h).relu(), again=nn.Linear(6, 6, bias=False))
    copies.load_state_dict(shared.state_dict() | {"again.weight": shared.middle.weight})
    for rule in (hw.rules.Zero(), hw.rules.Gamma(0.25), hw.rules.AlphaBeta(2, 1)):
        e = explain(shared, x, {"default": rule})
        assert_same(e.relevance, explain(copies, x, {"default": rule}).relevance)
