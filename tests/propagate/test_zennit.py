"""Zennit 0.5.1 as an outside reference on small VGG-like and ResNet-like networks, where the two define the same thing.

Where they do not, and what is done about it here:
- a one-hot output gradient makes Zennit explain the number 1; the output itself is seeded instead;
- Zennit's z+ keeps positive biases in the denominator, ours ignores biases: its biases are zeroed in that rule;
- Zennit stabilizes every rule, its sums and its average pooling with 1e-6: 1e-300 wherever a rule has no epsilon;
- Zennit's batch-norm merge leaves ``bn.eps`` in place, which moves the output: it is moved to the variance beforehand;
- Zennit sees modules only, and gives a functional ``x + f(x)`` twice its relevance: the sum is a module here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import TIGHT, assert_balanced, relative_error, score, seed
from tests.reference.nets import double, draw, norm

pytest.importorskip("zennit", reason="zennit, the outside reference of these tests, is not installed")
from zennit import composites, rules
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.layer import Sum
from zennit.types import AvgPool, Convolution, Linear

NONE = 1e-300


def vgg(batch_norm: bool = False) -> nn.Sequential:
    """Two blocks and a classifier, with biases; input ``[N, 3, 12, 12]``."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate([(3, 4), (4, 6)]):
        for first in (inputs, outputs):
            layers += [nn.Conv2d(first, outputs, 3, padding=1)]
            layers += [norm(nn.BatchNorm2d(outputs))] if batch_norm else []
            layers += [nn.ReLU()]
        layers += [nn.MaxPool2d(2) if i == 0 else nn.AvgPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(54, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 4))
    return double(model, 0.3)


class Block(nn.Module):
    """A residual block as Zennit needs it: every activation and the sum are modules used once."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.relu1 = norm(nn.BatchNorm2d(outputs)), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), norm(nn.BatchNorm2d(outputs))
        self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(nn.BatchNorm2d(outputs)))
        self.sum, self.relu2 = Sum(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        through = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(self.sum(torch.stack([self.down(x), through], dim=-1)))


def resnet() -> nn.Sequential:
    """A stem, two residual blocks, global average pooling; input ``[N, 3, 12, 12]``."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), norm(nn.BatchNorm2d(4)), nn.ReLU(), nn.MaxPool2d(2),
        Block(4, 4, 1), Block(4, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    return double(model, 0.4)


def without_norm_eps(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_var += m.eps
            m.eps = 0.0
    return model


def by_zennit(
    model: nn.Module, x: Tensor, dense: Callable[[], Any], conv: Callable[[], Any], first: Any = None
) -> Tensor:
    """Relevance of ``score`` under a rule for dense layers, one for convolutions, and perhaps one for the first."""
    layer_map = [
        (nn.ReLU, rules.Pass()), (Sum, rules.Norm(NONE)), (AvgPool, rules.Norm(NONE)),
        (Convolution, conv()), (Linear, dense()),
    ]  # fmt: skip
    options: dict[str, Any] = {"canonizers": [SequentialMergeBatchNorm()], "layer_map": layer_map}
    if first is None:
        composite = composites.LayerMapComposite(**options)
    else:
        composite = composites.SpecialFirstLayerMapComposite(first_map=[(Convolution, first)], **options)
    with Gradient(without_norm_eps(model), composite, attr_output=lambda y: y.detach() * seed(y)) as attributor:
        _, relevance = attributor(x.clone().requires_grad_())
    return relevance.detach()


def plus() -> Any:
    return rules.ZPlus(stabilizer=NONE, zero_params=["bias"])


RECIPES: dict[str, dict[str, Any]] = {
    "epsilon": {"dense": lambda: rules.Epsilon(1e-6), "conv": lambda: rules.Epsilon(1e-6)},
    "epsilon_plus": {"dense": lambda: rules.Epsilon(1e-6), "conv": plus},
    "epsilon_plus_flat": {"dense": lambda: rules.Epsilon(1e-6), "conv": plus, "first": rules.Flat(NONE)},
    "epsilon_alpha2_beta1": {
        "dense": lambda: rules.Epsilon(1e-6),
        "conv": lambda: rules.AlphaBeta(2.0, 1.0, stabilizer=NONE),
    },
    "epsilon_gamma_box": {
        "dense": lambda: rules.Epsilon(1e-6),
        "conv": lambda: rules.Gamma(0.25, stabilizer=NONE),
        "first": rules.ZBox(-2.0, 2.0, stabilizer=NONE),
    },
}
NETWORKS = {"vgg": vgg, "vgg with batch norm": lambda: vgg(batch_norm=True), "resnet": resnet}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("network", NETWORKS)
def test_preset_equals_zennit(network: str, recipe: str) -> None:
    model, x = NETWORKS[network]().eval(), draw(2, 3, 12, 12).clamp(-2, 2)
    expected = by_zennit(model, x, **RECIPES[recipe])
    e = hw.explain(model, x, target=score, composite=recipe, bounds=(-2.0, 2.0), ledger=True)
    assert_balanced(e)
    assert relative_error(e.relevance, expected) <= TIGHT


@pytest.mark.parametrize("network", NETWORKS)
def test_gamma_everywhere_equals_zennit(network: str) -> None:
    model, x = NETWORKS[network]().eval(), draw(2, 3, 12, 12)
    generalized = {
        "dense": lambda: rules.Gamma(0.5, stabilizer=NONE),
        "conv": lambda: rules.Gamma(0.5, stabilizer=NONE),
    }
    e = hw.explain(model, x, target=score, composite=hw.Composite({"default": hw.rules.Gamma(0.5)}), ledger=True)
    assert_balanced(e)
    assert relative_error(e.relevance, by_zennit(model, x, **generalized)) <= TIGHT


def test_zennits_own_z_plus_differs_by_the_bias_in_its_denominator() -> None:
    model, x = double(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())), draw(1, 3, 3, 3)
    ours = hw.explain(model, x, target=score, composite=hw.Composite({"default": hw.rules.ZPlus()})).relevance
    keeping_bias = by_zennit(model, x, plus, lambda: rules.ZPlus(stabilizer=NONE))
    assert relative_error(ours, keeping_bias) > 1e-3
    ours_with_bias = hw.explain(model, x, target=score, composite=hw.Composite({"default": hw.rules.AlphaBeta(1, 0)}))
    assert relative_error(ours_with_bias.relevance, keeping_bias) <= TIGHT
