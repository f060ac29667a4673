"""``torch.vmap``: while an explanation runs, a function that meets the explained input is called entry by entry.

Within a vectorizing map tensors are stand-ins for whole batches, which take no backward of the engine's. What such a
map computes is defined by the loop that it replaces, and that loop can be followed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import _broadcast_to_and_flatten, tree_flatten, tree_unflatten


def explained_vmap(original: Callable[..., Any], explaining: Callable[[], bool]) -> Callable[..., Any]:
    """A stand-in for what carries out ``torch.vmap``, which loops where an explanation asks for it."""

    def run(
        func: Any, size: int, in_dims: list[int | None], values: list[Any], spec: Any, out_dims: Any, randomness: str,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        def vectorized() -> Any:
            return original(func, size, in_dims, values, spec, out_dims, randomness, **kwargs)

        # Under "same" all entries draw the same numbers, which a loop would have to rewind the generators for.
        if not explaining() or not torch.is_grad_enabled() or randomness == "same":
            return vectorized()
        if not any(isinstance(v, Tensor) and v.requires_grad for v in values):
            with_grad, out = True, None
            try:
                out = vectorized()
                with_grad = any(isinstance(t, Tensor) and t.requires_grad for t in tree_flatten(out)[0])
            except RuntimeError:  # the function took the explained input from outside
                pass
            if not with_grad:
                return out
        return _looped(func, size, in_dims, values, spec, out_dims, kwargs)

    return run


def _looped(
    func: Any, size: int, in_dims: list[int | None], values: list[Any], spec: Any, out_dims: Any, kwargs: dict[str, Any]
) -> Any:
    """The results of one call for each entry, stacked along the axes that were asked for."""
    split = [v if d is None else v.unbind(d) for v, d in zip(values, in_dims, strict=True)]
    found, form = [], None
    for i in range(size):
        entry = [s if d is None else s[i] for s, d in zip(split, in_dims, strict=True)]
        results, form = tree_flatten(func(*tree_unflatten(entry, spec), **kwargs))
        found.append(results)
    assert form is not None, "a map over no entries is refused by torch"
    places = _broadcast_to_and_flatten(out_dims, form) or [0] * len(found[0])
    each = zip(zip(*found, strict=True), places, strict=True)
    stacked = [entries[0] if d is None else torch.stack(entries, d) for entries, d in each]
    return tree_unflatten(stacked, form)
