"""Linear maps ``z = w x`` as rules need them: with any input or weight, transposed, and scaled by channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class LinearMap:
    """``z = x Wᵀ`` on the last axis; weight ``(out, in)``."""

    inputs = -1  # the axis of the input's features
    scales = True  # the weight can be scaled by output channel
    by_shape = True  # to transpose it, the shape of the input is all that is looked at
    own_node = True  # the node that torch makes leads back by the same map, with nothing moved behind it
    layout: Any = None  # where the outputs' channels lie in the weight, if that may differ

    def pair(self, x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor] | None:
        """Input and weight whose product is that of ``x`` with ``v`` plus that of ``y`` with ``w``."""
        return torch.cat([x, y], -1), torch.cat([v, w], 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return F.linear(x, w)

    def transpose(self, c: Tensor, w: Tensor, like: Tensor) -> Tensor:
        return c.matmul(w)

    def channels(self, z: Tensor) -> tuple[int, ...]:
        return (-1,)

    def per_channel(self, z: Tensor, t: Tensor) -> Tensor | None:
        return t if t.shape == z.shape[-1:] else None

    def scale(self, w: Tensor, s: Tensor) -> Tensor:
        return w * s[:, None]

    def outer(self, s: Tensor, x: Tensor, w: Tensor) -> Tensor:
        """``Σ s x`` over samples and places for each weight: the gradient of ``(s * (w x)).sum()``, shaped like it."""
        return s.flatten(0, -2).t() @ x.flatten(0, -2)

    def inner(self, v: Tensor, w: Tensor) -> Tensor:
        """``Σ v w`` over the inputs of each output, ``[outputs]``."""
        return (v * w).sum(1)


class ConvMap:
    """A batched (transposed) convolution of any dimension without bias; weight as torch has it."""

    def __init__(self, stride: Any, padding: Any, dilation: Any, groups: int, output_padding: Any, transposed: bool):
        self.options = (stride, padding, dilation, transposed, output_padding, groups)

    inputs, scales, own_node = 1, True, True

    @property
    def layout(self) -> Any:
        """Which axis of the weight the output channels are on, and their groups."""
        return self.options[3], self.options[5]

    @property
    def by_shape(self) -> bool:
        """Only torch's kernels for grouped convolutions do without a copy of an input of stride zero."""
        return bool(self.options[5] > 1)

    def pair(self, x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor] | None:
        """As for linear maps; None where channels are grouped."""
        transposed, groups = self.options[3], self.options[5]
        return (torch.cat([x, y], 1), torch.cat([v, w], 0 if transposed else 1)) if groups == 1 else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return torch.convolution(x, w, None, *self.options)

    def transpose(self, c: Tensor, w: Tensor, like: Tensor) -> Tensor:
        # Only the shape of the input matters for its gradient; where its type will not do, a scalar stands in for it.
        shape = like if like.dtype == c.dtype else c.new_empty(1).expand(like.shape)
        mask = [True, False, False]
        return torch.ops.aten.convolution_backward(c, shape, w, None, *self.options, mask)[0]

    def channels(self, z: Tensor) -> tuple[int, ...]:
        return (1, -1, *[1] * (z.dim() - 2))

    def per_channel(self, z: Tensor, t: Tensor) -> Tensor | None:
        alone = t.numel() == z.shape[1] and (t.shape[-z.dim() + 1 :] == z.shape[1:2] + (1,) * (z.dim() - 2))
        return t.reshape(-1) if alone else None

    def scale(self, w: Tensor, s: Tensor) -> Tensor:
        transposed, groups = self.options[3], self.options[5]
        if not transposed:
            return w * s.view(-1, *[1] * (w.dim() - 1))
        per_group = w.unflatten(0, (groups, -1)) * s.view(groups, 1, -1, *[1] * (w.dim() - 2))
        return per_group.flatten(0, 1)

    def outer(self, s: Tensor, x: Tensor, w: Tensor) -> Tensor:
        """As for linear maps."""
        mask = [False, True, False]
        return torch.ops.aten.convolution_backward(s, x, w, None, *self.options, mask)[1]

    def inner(self, v: Tensor, w: Tensor) -> Tensor:
        """As for linear maps."""
        transposed, groups = self.options[3], self.options[5]
        if not transposed:
            return (v * w).flatten(1).sum(1)
        return (v * w).unflatten(0, (groups, -1)).sum(1).flatten(2).sum(2).flatten()


class CroppedMap(ConvMap):
    """A convolution of whose output some places are kept, as behind causal padding or a transposed convolution.

    Args:
        whole: the convolution.
        index: a slice for every axis of its output; samples and channels are whole.
        places: the sizes of its output but for samples and channels.
    """

    def __init__(self, whole: ConvMap, index: tuple[slice, ...], places: torch.Size) -> None:
        self.options, self.index, self.places = whole.options, index, places

    def widened(self, t: Tensor) -> Tensor:
        """A tensor shaped like what is kept, among zeros, shaped like the whole output."""
        whole = t.new_zeros((*t.shape[:2], *self.places))
        whole[self.index] = t
        return whole

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return super().forward(x, w)[self.index]

    def transpose(self, c: Tensor, w: Tensor, like: Tensor) -> Tensor:
        return super().transpose(self.widened(c), w, like)

    def outer(self, s: Tensor, x: Tensor, w: Tensor) -> Tensor:
        return super().outer(self.widened(s), x, w)


class AnyMap:
    """Any function linear in ``x`` and in ``w`` (einsum, a matrix product from the left); transposed by autograd."""

    inputs = -1  # the last axis, where rules look for features
    scales = False  # no axis of the weight is known as that of the channels
    by_shape, own_node = True, False
    layout: Any = None

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.forward = function

    def pair(self, x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor] | None:
        """None: which axes could be joined is unknown."""
        return None

    def transpose(self, c: Tensor, w: Tensor, like: Tensor) -> Tensor:
        with torch.enable_grad():
            x = torch.zeros_like(like, dtype=w.dtype, requires_grad=True)
            z = self.forward(x, w)
        return torch.autograd.grad(z, x, c, create_graph=torch.is_grad_enabled())[0]

    def channels(self, z: Tensor) -> tuple[int, ...]:
        return (-1,)

    def per_channel(self, z: Tensor, t: Tensor) -> Tensor | None:
        return t if t.shape == z.shape[-1:] else None

    def scale(self, w: Tensor, s: Tensor) -> Tensor:
        assert self.scales, "a weight whose channels are not known is never folded into"
        return w * s.view(-1, *[1] * (w.dim() - 1))


class DeformedMap(AnyMap):
    """A deformable convolution, its places given, as a function of input and weight."""

    inputs, scales = 1, True
    channels, per_channel = ConvMap.channels, ConvMap.per_channel


Map = LinearMap | ConvMap | AnyMap
