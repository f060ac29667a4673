"""Layers and inputs under fixed seeds, and batch norm folded by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_balanced, score


def double(module: nn.Module, factor: float = 1.0) -> Any:
    """In float64 and evaluation mode, parameters drawn under a fixed seed."""
    generator = torch.Generator().manual_seed(7)
    module = module.double().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(factor * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return module


def draw(*shape: int, key: int = 3) -> Tensor:
    """Of both signs, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(key), dtype=torch.float64)


def norm(module: nn.Module) -> Any:
    """A batch norm whose every statistic and weight, signs included, was drawn."""
    module = double(module)
    generator = torch.Generator().manual_seed(5)
    for name, b in module.named_buffers():
        if name == "running_var":
            b.copy_(torch.rand(b.shape, generator=generator, dtype=b.dtype) + 0.5)
        elif name == "running_mean":
            b.copy_(torch.randn(b.shape, generator=generator, dtype=b.dtype))
    return module


def folded(affine: Any, bn: Any) -> Any:
    """A new affine module: w' = s w, b' = s (b - mean) + shift with s = scale / sqrt(var + eps)."""
    scale = 1.0 if bn.weight is None else bn.weight.detach()
    shift = 0.0 if bn.bias is None else bn.bias.detach()
    s = scale * (bn.running_var + bn.eps).rsqrt()
    options: dict[str, Any] = {"bias": True, "dtype": torch.float64}
    if isinstance(affine, nn.Linear):
        new: Any = nn.Linear(affine.in_features, affine.out_features, **options)
    else:
        shape = {k: getattr(affine, k) for k in ("stride", "padding", "dilation", "groups")}
        new = type(affine)(affine.in_channels, affine.out_channels, affine.kernel_size, **shape, **options)
    outputs = 1 if getattr(affine, "transposed", False) else 0
    bias = 0.0 if affine.bias is None else affine.bias.detach()
    with torch.no_grad():
        new.weight.copy_(affine.weight * s.reshape([-1 if d == outputs else 1 for d in range(affine.weight.ndim)]))
        new.bias.copy_((bias - bn.running_mean) * s + shift)
    return new.eval()


def explain(model: nn.Module, x: Tensor, table: dict[str, Any] | None, **options: Any) -> hw.Explanation:
    """LRP of ``score`` under a composite's table (None: the default recipe), its ledger checked."""
    composite = None if table is None else hw.Composite(table)
    e = hw.explain(model, x, target=score, composite=composite, ledger=True, **options)
    assert_balanced(e)
    return e
