"""Calls without a live tensor: what is made of weights counts as weight, and token ids lead to their embedding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headwater.propagate import ids as token_ids
from headwater.propagate.kinds import Operator
from headwater.propagate.nested import flat
from headwater.propagate.tags import Tag, attach, is_weight, raw_tag

if TYPE_CHECKING:
    from headwater.propagate.engine import Propagation


def run(engine: Propagation, operator: Operator, func: Any, args: Any, kwargs: Any) -> Any:
    """A call without a live tensor: run as it is; results of weights are weights, moved ids stay ids."""
    tags = [tag for a in flat([args, list(kwargs.values())]) if (tag := raw_tag(a)) is not None or is_weight(a)]
    if operator.inplace and args and isinstance(args[0], Tensor) and not args[0].is_inference():
        engine.keeper.preserve(args[0])
    ids = next((t.ids for t in tags if t is not None and t.ids and t.engine is engine), 0) if engine.ids else 0
    indexes_table = operator.name in ("getitem", "index_select") and args and is_weight(args[0])
    if ids and (indexes_table or operator.name in ("embedding", "embedding_bag")):
        if operator.body is not None:
            return engine.inside(operator.body, *args, **kwargs)
        return _embed(engine, operator, ids, func, args, kwargs)
    out = engine.original(func(*args, **kwargs))  # a parameter moved to where it lies is that parameter
    if not tags:
        return out
    target = args[0] if operator.inplace and args else out
    for i, t in enumerate(flat([target])):
        if t.is_inference():
            continue
        tag = Tag(engine, t._version)
        if ids and operator.moves_ids and not t.dtype.is_floating_point and t.dtype != torch.bool:
            tag.ids, tag.positions = ids, token_ids.moved(operator, func, args, kwargs, t, i)
        tag.weight = any(u is None or u.weight for u in tags) and not operator.inplace
        if tag.ids or tag.weight:
            attach(t, tag)
    return out


def _embed(engine: Propagation, operator: Operator, ids: int, func: Any, args: Any, kwargs: Any) -> Any:
    """Token ids are explained at their embedding: its output becomes an explained leaf."""
    if operator.name == "embedding_bag":
        return operator.handler(engine, SimpleNamespace(args=args, kwargs=kwargs))
    out = func(*args, **kwargs)  # F.embedding(ids, weight), torch.embedding(weight, ids)
    looked_up = next(
        t for t in flat([args, list(kwargs.values())]) if (tag := raw_tag(t)) is not None and tag.ids == ids
    )
    positions = token_ids.positions_of(looked_up)
    if operator.name == "getitem" and positions.shape != out.shape[:-1]:
        positions = torch.full(out.shape[:-1], -1, device=out.device)
    entry = engine.embedded(ids, out, positions)
    engine.ids[ids][1].append(entry)
    return entry.live
