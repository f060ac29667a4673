"""Token ids on their way to an embedding: which position of the input each of them came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.propagate.tags import raw_tag

if TYPE_CHECKING:
    from headwater.propagate.kinds import Operator

_UNMOVED = {
    "to", "long", "int", "type", "clone", "contiguous", "clamp", "cpu", "cuda", "detach", "abs", "remainder",
    "as_tensor", "asarray",
}  # fmt: skip
_ARITHMETIC = {"add", "sub", "rsub", "mul"}  # hashes and offsets of ids
_SUMS = {"scatter_add", "index_add", "scatter_reduce", "index_reduce"}  # ids made of several
# Where a number, or a tensor, may stand for an id that is no input's; and where numbers are places, not ids.
_FILLINGS = {"masked_fill": (2,), "fill": (1,), "setitem": (2,), "where": (1, 2), "index_fill": (3,), "scatter": (3,)}
_FILLING_NAMES = {"value", "input", "other", "src"}
_PLACES = {"setitem": 1, "index_put": 1, "put": 1, "scatter": 2, "index_copy": 2, "index_fill": 2}
_PADDING = ("batch_first", "padding_value", "padding_side")  # what pad_sequence takes


def positions_of(tensor: Tensor) -> Tensor:
    """Flat positions in the explained ids, shaped like ``tensor``; -1 where an id is none of them."""
    tag = raw_tag(tensor)
    known = None if tag is None else tag.positions
    return torch.full(tensor.shape, -1, device=tensor.device) if known is None else known


def moved(operator: Operator, func: Any, args: list[Any], kwargs: dict[str, Any], out: Tensor, i: int) -> Tensor | None:
    """Positions of the ids in ``out``, the ``i``-th result: what was done to the ids is done to their positions."""
    if operator.name in _UNMOVED:
        return positions_of(args[0])
    if operator.name in _ARITHMETIC:
        return _of_one(args, out)
    if operator.name in _SUMS:
        return None
    if operator.name == "pad":
        return func(positions_of(args[0]), args[1] if len(args) > 1 else kwargs["pad"], "constant", -1)
    if operator.name == "constant_pad_nd":
        return func(positions_of(args[0]), args[1] if len(args) > 1 else kwargs["pad"], -1)
    if operator.name == "pad_sequence":
        given = dict(zip(_PADDING, args[1:], strict=False)) | kwargs
        return func(_positions(args[0]), **{**given, "padding_value": -1})
    args, kwargs = list(args), dict(kwargs)
    if operator.joins:
        args, kwargs = _joined(operator.name, args, kwargs)
    else:
        args[0] = positions_of(args[0])
    if operator.inplace:
        args[0] = args[0].clone()  # other tensors may share these positions
    result = func(*args, **kwargs)
    found = args[0] if operator.inplace else result if isinstance(result, Tensor) else result[i]
    return found if isinstance(found, Tensor) and found.shape == out.shape else None


def _joined(name: str, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a join of ids, with positions for ids, and -1 for numbers that are filled in."""
    fillings, places = _FILLINGS.get(name, ()), _PLACES.get(name)
    found = [a if i == places else -1 if i in fillings and _number(a) else _positions(a) for i, a in enumerate(args)]
    named = {
        k: v if k in ("index", "indices") else -1 if k in _FILLING_NAMES and _number(v) else _positions(v)
        for k, v in kwargs.items()
    }
    return found, named


def _number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _of_one(operands: list[Any], out: Tensor) -> Tensor | None:
    """Positions of the one operand that holds ids; ids computed from several positions have none."""
    tags = [raw_tag(a) for a in operands if isinstance(a, Tensor)]
    known = [tag.positions for tag in tags if tag is not None and tag.positions is not None]
    same = known and all(p.shape == known[0].shape and bool((p == known[0]).all()) for p in known[1:])
    return known[0].expand(out.shape) if same else None


def _positions(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value):
        return [_positions(v) for v in value]
    if isinstance(value, Tensor) and value.dtype in (torch.int64, torch.int32):
        return positions_of(value)
    return value


def moved_in_place(
    move: Callable[[Tensor], tuple[Tensor, Tensor | None]], value: Tensor, positions: Tensor, ids: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Another point in the place of an embedding, and its multiplier, whichever way the model has laid out the ids.

    Args:
        move: maps an embedding in the layout of the explained ids, ``[*ids, D]``, to a point and multiplier like it.
        value: the embedding as the model has it, ``[*used, D]``; rows of no explained id stay where they are.
        positions: where in the explained ids they came from, ``[*used]``; -1 for none of them.
        ids: the explained ids.
    """
    places = torch.arange(ids.numel(), device=positions.device).view(ids.shape)
    if positions.shape == ids.shape and bool((positions == places).all()):
        return move(value)
    known = positions >= 0
    ordered = value.new_zeros((ids.numel(), value.shape[-1])).index_copy(0, positions[known], value[known])
    point, multiplier = move(ordered.view(*ids.shape, -1))
    found = torch.where(known[..., None], point.flatten(0, -2)[positions], value)
    return found, None if multiplier is None else multiplier.flatten(0, -2)[positions]


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
