"""Batch norm and normalized inputs: sign-dependent rules must see the weights that the network really applies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from tests.reference import rules
from tests.reference.audit import EXACT, TIGHT, assert_balanced, relative_error, score, seed
from tests.reference.nets import double, draw, explain, folded, norm

SIGNED = {
    "gamma": hw.rules.Gamma(0.25),
    "z plus": hw.rules.ZPlus(),
    "alpha 2 beta 1": hw.rules.AlphaBeta(2, 1),
    "alpha 2 beta 1 without bias": hw.rules.AlphaBeta(2, 1, bias=False),
    "epsilon": hw.rules.Epsilon(1e-2),
}


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 4), lambda: nn.BatchNorm1d(4), (5,)),
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, padding=1), lambda: nn.BatchNorm1d(4), (2, 6)),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1), lambda: nn.BatchNorm2d(4), (2, 5, 5)),
    "conv2d without bias": (lambda: nn.Conv2d(2, 4, 3, bias=False), lambda: nn.BatchNorm2d(4), (2, 5, 5)),
    "conv2d, no affine": (lambda: nn.Conv2d(2, 4, 3), lambda: nn.BatchNorm2d(4, affine=False), (2, 5, 5)),
    "conv2d groups": (lambda: nn.Conv2d(4, 4, 3, groups=2), lambda: nn.BatchNorm2d(4), (4, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), lambda: nn.BatchNorm3d(2), (1, 3, 3, 3)),
    "transposed conv2d": (lambda: nn.ConvTranspose2d(2, 3, 2, stride=2), lambda: nn.BatchNorm2d(3), (2, 3, 3)),
}


@pytest.mark.parametrize("rectified", [False, True], ids=["signed", "rectified"])
@pytest.mark.parametrize("rule", SIGNED)
@pytest.mark.parametrize("pair", PAIRS)
def test_batch_norm_equals_hand_folded_weights(pair: str, rule: str, rectified: bool) -> None:
    build_affine, build_norm, shape = PAIRS[pair]
    affine, bn, x = double(build_affine()), norm(build_norm()), draw(2, *shape)
    by_hand = folded(affine, bn)
    around: list[nn.Module] = [nn.ReLU()] if rectified else []
    two = nn.Sequential(*around, affine, bn, *around)
    one = nn.Sequential(*around, by_hand, *around)
    assert relative_error(two(x).detach(), one(x).detach()) < 1e-13
    table = {"default": SIGNED[rule]}
    expected = explain(one, x, table).relevance
    assert relative_error(explain(two, x, table).relevance, expected) <= EXACT


def test_batch_norm_against_loops() -> None:
    conv, bn, x = double(nn.Conv2d(2, 3, 3, padding=1)), norm(nn.BatchNorm2d(3)), draw(2, 2, 4, 4)
    z = bn(conv(x)).detach()
    layer = rules.layer_of(folded(conv, bn), (2, 4, 4))
    expected = rules.redistribute(layer, rules.generalized_gamma(0.25), x, z * seed(z))
    found = explain(nn.Sequential(conv, bn), x, {"default": hw.rules.Gamma(0.25)})
    assert relative_error(found.relevance, expected) <= TIGHT


class Registered(nn.Module):
    """Batch norms registered in another order than they are used in, one of them called functionally."""

    def __init__(self) -> None:
        super().__init__()
        self.second_norm, self.first_norm = norm(nn.BatchNorm2d(3)), norm(nn.BatchNorm2d(3))
        self.second, self.first = double(nn.Conv2d(3, 3, 3)), double(nn.Conv2d(2, 3, 3), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first_norm(self.first(x)))
        n = self.second_norm
        return F.batch_norm(self.second(x), n.running_mean, n.running_var, n.weight, n.bias, False, 0.1, n.eps)


@pytest.mark.parametrize("rule", SIGNED)
def test_folding_follows_execution_order(rule: str) -> None:
    model, x = Registered().eval(), draw(2, 2, 6, 6)
    with torch.no_grad():
        model.first_norm.weight.mul_(-1.5)
    by_hand = nn.Sequential(folded(model.first, model.first_norm), nn.ReLU(), folded(model.second, model.second_norm))
    table = {"default": SIGNED[rule]}
    assert relative_error(explain(model, x, table).relevance, explain(by_hand, x, table).relevance) <= EXACT


@pytest.mark.parametrize("rule", SIGNED)
def test_two_batch_norms_on_one_convolution(rule: str) -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.left, self.right = (
                double(nn.Conv2d(2, 3, 3)),
                norm(nn.BatchNorm2d(3)),
                norm(nn.BatchNorm2d(3)),
            )

        def forward(self, x: Tensor) -> Tensor:
            z = self.conv(x)
            return torch.cat([F.relu(self.left(z)), self.right(z), z], 1)

    class ByHand(nn.Module):
        def __init__(self, fork: Fork) -> None:
            super().__init__()
            self.left, self.right, self.bare = folded(fork.conv, fork.left), folded(fork.conv, fork.right), fork.conv

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([F.relu(self.left(x)), self.right(x), self.bare(x)], 1)

    fork, x = Fork().eval(), draw(2, 2, 4, 4)
    with torch.no_grad():
        fork.right.weight.mul_(-0.7)
    table = {"default": SIGNED[rule]}
    assert relative_error(explain(fork, x, table).relevance, explain(ByHand(fork), x, table).relevance) <= EXACT


def test_folding_leaves_the_users_weights_and_a_later_change_counts() -> None:
    model, x = nn.Sequential(double(nn.Conv2d(2, 3, 3)), norm(nn.BatchNorm2d(3)), nn.ReLU()), draw(2, 2, 5, 5)
    table = {"default": hw.rules.Gamma(0.25)}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    explain(model, x, table)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with torch.no_grad():
        model[0].weight.mul_(-1.0)
        model[1].running_var.mul_(3.0)
    by_hand = nn.Sequential(folded(model[0], model[1]), nn.ReLU())
    assert relative_error(explain(model, x, table).relevance, explain(by_hand, x, table).relevance) <= EXACT


# Bounds through what stands between the pixels and the first affine operator --------------------------------

MEAN, STD = torch.tensor([0.3, 0.5]).double().reshape(2, 1, 1), torch.tensor([0.2, 0.4]).double().reshape(2, 1, 1)


class Normalized(nn.Module):
    """Pixels in [0, 1], normalized inside the model in one of several spellings, then a convolution."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling, self.conv = spelling, double(nn.Conv2d(2, 3, 3, padding=1))
        self.register_buffer("mean", MEAN)
        self.register_buffer("std", STD)
        self.bn = nn.BatchNorm2d(2, eps=0.0, affine=False).double().eval()
        self.bn.running_mean.copy_(MEAN.flatten())
        self.bn.running_var.copy_(STD.flatten() ** 2)

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.mean, self.std
        normalized = {
            "sub div": lambda: (x - mean) / std,
            "functions": lambda: torch.div(torch.sub(x, mean), std),
            "in place": lambda: x.clone().sub_(mean).div_(std),
            "mul add": lambda: x * (1 / std) + (-mean / std),
            "reversed": lambda: -(mean - x) / std,
            "batch norm": lambda: self.bn(x),
            "through views": lambda: ((x.permute(0, 2, 3, 1) - mean.flatten()) / std.flatten()).permute(0, 3, 1, 2),
            "by channel": lambda: torch.stack([(x[:, i] - mean[i]) / std[i] for i in range(2)], 1),
        }[self.spelling]()
        return self.conv(normalized)


@pytest.mark.parametrize("black", [False, True], ids=["random", "all black"])
@pytest.mark.parametrize(
    "spelling", ["sub div", "functions", "in place", "mul add", "reversed", "batch norm", "through views", "by channel"]
)
@pytest.mark.parametrize("rule", ["box", "flat", "w squared"])
def test_input_rule_through_a_normalization(rule: str, spelling: str, black: bool) -> None:
    model, x = Normalized(spelling), draw(2, 2, 4, 4).abs().clamp(max=1.0) * (0.0 if black else 1.0)
    a = (x - MEAN) / STD
    z = model.conv(a).detach()
    low, high = ((v - MEAN) / STD for v in (0.0, 1.0))
    ours, formula = {
        "box": (hw.rules.Box(0.0, 1.0), rules.box(*(v.expand(2, 4, 4).flatten().tolist() for v in (low, high)))),
        "flat": (hw.rules.Flat(), rules.flat),
        "w squared": (hw.rules.WSquare(), rules.w_squared),
    }[rule]
    expected = rules.redistribute(rules.layer_of(model.conv, (2, 4, 4)), formula, a, z * seed(z))
    assert relative_error(explain(model, x, {"input": ours}).relevance, expected) <= TIGHT


def test_a_normalization_that_turns_the_sign_swaps_the_bounds() -> None:
    conv, x = double(nn.Conv2d(2, 3, 3)), draw(2, 2, 4, 4).clamp(-1, 2)

    class Inverted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1.0 - 2.0 * x

    z = conv(1.0 - 2.0 * x).detach()
    formula = rules.box([-3.0] * 32, [3.0] * 32)
    expected = rules.redistribute(rules.layer_of(conv, (2, 4, 4)), formula, 1.0 - 2.0 * x, z * seed(z))
    found = explain(nn.Sequential(Inverted(), conv), x, {"input": hw.rules.Box(-1.0, 2.0)})
    assert relative_error(found.relevance, expected) <= TIGHT


def test_box_through_padding_and_concatenation() -> None:
    class Front(nn.Module):
        """Stacks two copies of the picture and pads them: the zeros count no more than a convolution's own padding."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = double(nn.Conv2d(4, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(F.pad(torch.cat([x, x.flip(-1)], 1), (1, 1, 1, 1)))

    model, x = Front(), draw(2, 2, 4, 4).abs().clamp(max=1.0)
    a = torch.cat([x, x.flip(-1)], 1)
    padded = double(nn.Conv2d(4, 3, 3, padding=1))
    z = padded(a).detach()
    both = rules.redistribute(rules.layer_of(padded, (4, 4, 4)), rules.box([0.0] * 64, [1.0] * 64), a, z * seed(z))
    expected = both[:, :2] + both[:, 2:].flip(-1)
    assert relative_error(explain(model, x, {"input": hw.rules.Box(0.0, 1.0)}).relevance, expected) <= TIGHT


def test_bounds_absent_are_each_samples_own_range_with_one_warning() -> None:
    conv, x = double(nn.Conv2d(2, 3, 3)), draw(2, 2, 4, 4) * torch.tensor([1.0, 4.0]).reshape(2, 1, 1, 1)
    with pytest.warns(hw.HeadwaterWarning, match="bounds") as caught:
        e = hw.explain(conv, x, target=score, composite=hw.Composite({"input": hw.rules.Box()}), ledger=True)
    assert len(caught) == 1
    assert_balanced(e)
    z = conv(x).detach()
    for n in range(2):
        low = x[n].amin((1, 2), keepdim=True).clamp(max=0).expand(2, 4, 4).flatten().tolist()
        high = x[n].amax((1, 2), keepdim=True).clamp(min=0).expand(2, 4, 4).flatten().tolist()
        layer, r = rules.layer_of(conv, (2, 4, 4)), (z * seed(z))[n : n + 1]
        expected = rules.redistribute(layer, rules.box(low, high), x[n : n + 1], r)
        assert relative_error(e.relevance[n : n + 1], expected) <= TIGHT


class Cropped(nn.Module):
    """A convolution of whose output the ends are cut off, as in causal networks, and a norm or none."""

    def __init__(self, conv: nn.Module, norm: nn.Module, index: tuple[object, ...]) -> None:
        super().__init__()
        self.conv, self.norm, self.index = conv, norm, index

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.norm(self.conv(x)[self.index])
        return z


CROPS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], tuple[int, ...], tuple[object, ...]]] = {
    "causal conv1d": (
        lambda: nn.Conv1d(2, 4, 3, padding=2), lambda: nn.BatchNorm1d(4), (2, 6), (..., slice(None, -2)),
    ),
    "transposed conv1d": (
        lambda: nn.ConvTranspose1d(2, 4, 4, 2), lambda: nn.BatchNorm1d(4), (2, 4), (..., slice(1, -1)),
    ),
    "transposed conv2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, 2), lambda: nn.BatchNorm2d(6), (4, 3, 3),
        (slice(None), slice(None), slice(1, None), slice(None, -1, 2)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("rectified", [False, True], ids=["signed", "rectified"])
@pytest.mark.parametrize("rule", SIGNED)
@pytest.mark.parametrize("case", CROPS)
def test_batch_norm_behind_a_crop_equals_hand_folded_weights(case: str, rule: str, rectified: bool) -> None:
    build_affine, build_norm, shape, index = CROPS[case]
    affine, bn, x = double(build_affine()), norm(build_norm()), draw(2, *shape)
    around: list[nn.Module] = [nn.ReLU()] if rectified else []
    two = nn.Sequential(*around, Cropped(affine, bn, index), *around)
    one = nn.Sequential(*around, Cropped(folded(affine, bn), nn.Identity(), index), *around)
    table = {"default": SIGNED[rule]}
    expected = explain(one, x, table).relevance
    assert relative_error(explain(two, x, table).relevance, expected) <= EXACT
    assert_balanced(explain(two, x, table))


def test_a_layer_whose_output_is_cropped_and_folded_keeps_its_relevance() -> None:
    build_affine, build_norm, shape, index = CROPS["transposed conv1d"]
    two = Cropped(double(build_affine()), norm(build_norm()), index)
    one = Cropped(folded(two.conv, two.norm), nn.Identity(), index)
    x, table = draw(2, *shape), hw.Composite({"default": hw.rules.Gamma(0.25)})
    found, expected = (
        hw.explain(model, x, hw.target.Sum(), composite=table, layers=["conv"]).layers["conv"] for model in (two, one)
    )
    assert relative_error(found, expected) <= EXACT
    assert float(found[..., 0].abs().max()) == 0.0  # cut off
