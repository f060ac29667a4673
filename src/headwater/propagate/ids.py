"""Token ids on their way to an embedding: which position of the input each of them came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.propagate.tags import raw_tag

if TYPE_CHECKING:
    from headwater.propagate.kinds import Operator

_UNMOVED = {"to", "long", "int", "type", "clone", "contiguous", "clamp", "cpu", "cuda", "detach", "abs", "remainder"}
_SCALARS = {"masked_fill": 2, "fill": 1, "setitem": 2}  # where a number may stand for an id that is no input's


def positions_of(tensor: Tensor) -> Tensor:
    """Flat positions in the explained ids, shaped like ``tensor``; -1 where an id is none of them."""
    tag = raw_tag(tensor)
    known = None if tag is None else tag.positions
    return torch.full(tensor.shape, -1, device=tensor.device) if known is None else known


def moved(operator: Operator, func: Any, args: list[Any], kwargs: dict[str, Any], out: Tensor, i: int) -> Tensor | None:
    """Positions of the ids in ``out``, the ``i``-th result: what was done to the ids is done to their positions."""
    if operator.name in _UNMOVED:
        return positions_of(args[0])
    args, kwargs = list(args), dict(kwargs)
    if operator.name in _SCALARS:
        at = _SCALARS[operator.name]
        args[at : at + 1] = [-1 if isinstance(a, (int, float)) else _positions(a) for a in args[at : at + 1]]
    if operator.name == "pad":
        return func(positions_of(args[0]), args[1] if len(args) > 1 else kwargs["pad"], "constant", -1)
    if operator.name == "constant_pad_nd":
        return func(positions_of(args[0]), args[1] if len(args) > 1 else kwargs["pad"], -1)
    if operator.joins and operator.name != "setitem":
        args = [_positions(a) for a in args]
    else:
        args[0] = positions_of(args[0]).clone() if operator.inplace else positions_of(args[0])
    result = func(*args, **kwargs)
    found = args[0] if operator.inplace else result if isinstance(result, Tensor) else result[i]
    return found if isinstance(found, Tensor) and found.shape == out.shape else None


def _positions(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value):
        return [_positions(v) for v in value]
    if isinstance(value, Tensor) and value.dtype in (torch.int64, torch.int32):
        return positions_of(value)
    return value


def gather(parts: list[tuple[Tensor, Tensor]], ids: Tensor) -> Tensor:
    """Relevance ``[*ids, D]`` from embedded parts ``[*used, D]`` and the positions ``[*used]`` that they came from."""
    columns = []
    for width in {part.shape[-1]: None for part, _ in parts}:
        first = next(part for part, _ in parts if part.shape[-1] == width)
        total = first.new_zeros((ids.numel(), width))
        for part, positions in parts:
            if part.shape[-1] == width:
                known = positions.reshape(-1) >= 0
                total = total.index_add(0, positions.reshape(-1)[known], part.reshape(-1, width)[known])
        columns.append(total.view(*ids.shape, width))
    return torch.cat(columns, -1)
