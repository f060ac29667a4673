"""The paper's detector, and the published picker as a detector."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

LAYERS = tuple(f"convolutions.{2 * number}" for number in range(7))  # L1 to L7 in the paper


class Detector(nn.Module):
    """Seven convolutions of 32 channels, each halving the length, and two dense layers (Section 2.3 of the paper).

    Windows ``[N, 3, 500]`` to the score before the sigmoid, ``[N]``: above 0 for an earthquake. The paper does not say
    how wide the first dense layer is; here it is as wide as its input. Weights begin as He et al. draw them: with
    torch's own, the loss does not leave its first value for hundreds of steps.
    """

    def __init__(self, channels: int = 32, length: int = 500) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(7):
            layers += [nn.Conv1d(3 if number == 0 else channels, channels, 3, stride=2, padding=1), nn.ReLU()]
            length = (length + 1) // 2
        self.convolutions = nn.Sequential(*layers)
        width = channels * length
        self.dense = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``[N]``."""
        return self.dense(self.convolutions(x).flatten(1)).squeeze(1)


class PickerAsDetector(nn.Module):
    """A network that picks arrivals, made to say whether there is one: P against noise, where that is largest.

    The difference of the two logits is one output of the picker's last layer, ``leave``, with the difference of their
    weights, and every batch norm becomes part of the convolution before it: rules that go by signs are for weights as
    they act. The picker itself is not touched.
    Windows ``[N, 3, T]`` to scores ``[N]``; above 0 where P is likelier than noise at some time.
    """

    def __init__(self, picker: nn.Module, noise: int = 0, p: int = 1) -> None:
        super().__init__()
        self.picker = _fused(copy.deepcopy(picker))
        last: nn.Conv1d = self.picker.leave  # type: ignore[assignment]
        against = nn.Conv1d(last.in_channels, 1, 1)
        with torch.no_grad():
            against.weight.copy_(last.weight[p : p + 1] - last.weight[noise : noise + 1])
            against.bias.copy_(last.bias[p : p + 1] - last.bias[noise : noise + 1])  # type: ignore[index, union-attr]
        self.picker.leave = against

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``[N]``."""
        return self.picker(x)[:, 0].amax(1)


def _fused(model: nn.Module) -> nn.Module:
    """The same module with every batch norm that follows a convolution in a sequence folded into it."""
    for block in model.modules():
        if isinstance(block, nn.Sequential) and len(block) > 1 and isinstance(block[1], nn.BatchNorm1d):
            block[0] = fuse_conv_bn_eval(block[0], block[1], transpose=isinstance(block[0], nn.ConvTranspose1d))  # type: ignore[type-var]
            block[1] = nn.Identity()
    return model
