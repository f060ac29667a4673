"""What the engine knows of a tensor beside its values: tags, kept values and names of weights."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from headwater.propagate.affine import Affine
    from headwater.propagate.calls import Call
    from headwater.propagate.pointwise import Chain

_ATTRIBUTE = "_headwater_tag"


@dataclass(frozen=True)
class Source:
    """The explained input on its way to the first affine operators, for rules that give relevance to zeros.

    Attributes:
        dummy: a zero tensor, shaped like the tagged tensor, whose gradient is the *relevance* of the input.
        low, high: bounds of the values, broadcastable to the tensor.
        pixels: True where the element stems from the explained input, None where all do.
    """

    dummy: Tensor
    low: Tensor | None
    high: Tensor | None
    pixels: Tensor | None


class Tag:
    """Facts about one live tensor, valid for the version of its values at which they were noted."""

    # What few tensors have stands here, so that a tag costs little to make.
    gate: str | None = None  # "sigmoid" or "softmax": constant in a product
    chain: Chain | None = None  # an elementwise function of one live tensor
    token: object = None  # what the functions of this tensor as a root share
    call: Call | None = None  # the last call of the chain
    viewed = False  # another tensor may share its values
    materialized: Tensor | None = None  # the same values with the chain's secant as backward
    affine: Affine | None = None  # the affine call that made it, for folding
    operand: Tensor | None = None  # the input of that call
    source: Source | None = None  # the explained input, so far only moved or shifted and scaled
    weight = False  # made of parameters alone
    positions: Tensor | None = None  # where in the explained token ids its values came from
    ids = 0  # identity of the explained token ids that it holds

    def __init__(self, engine: Any, version: int, depth: int = 0, *, first: bool = True, nonneg: bool = False) -> None:
        self.engine = engine
        self.version = version
        self.depth = depth  # affine operators on the longest path from the input
        self.first = first  # reached from the input without an affine operator
        self.nonneg = nonneg  # known to hold no negative value

    def renewed(self, version: int) -> Tag:
        """The same facts for a copy of the tensor."""
        tag = Tag(self.engine, version, self.depth, first=self.first, nonneg=self.nonneg)
        tag.gate, tag.source, tag.affine, tag.operand = self.gate, self.source, self.affine, self.operand
        tag.chain, tag.call, tag.token = self.chain, self.call, self.token
        return tag


def attach(tensor: Tensor, tag: Tag) -> None:
    """Attach a tag to a tensor object (a view or a copy does not inherit it)."""
    setattr(tensor, _ATTRIBUTE, tag)


def raw_tag(tensor: Tensor) -> Tag | None:
    """The tag of a tensor object, however old."""
    return getattr(tensor, _ATTRIBUTE, None)


def is_weight(tensor: Tensor) -> bool:
    """Whether a tensor is a parameter or was made of parameters alone."""
    tag = raw_tag(tensor)
    if tag is not None and (tag.weight or type(tensor) is Tensor):
        return tag.weight
    return isinstance(tensor, nn.Parameter)  # asked last: torch answers it in Python


def is_live(value: Any) -> bool:
    """Whether an argument carries relevance."""
    return isinstance(value, Tensor) and value.requires_grad and not is_weight(value)


class Kept:
    """A value needed again in the backward walk, safe from in-place operators of the model."""

    __slots__ = ("__weakref__", "passing", "relu_safe", "value", "widened")

    def __init__(self, value: Tensor, relu_safe: bool = False) -> None:
        self.value = value
        self.passing: Tensor | None = None  # what of its relevance goes on, where not all does
        self.widened: Callable[[Tensor], Tensor] | None = None  # puts what is cropped back among zeros
        self.relu_safe = relu_safe  # a following ReLU in place changes only values whose factor is zero


class Keeper:
    """Finds the kept values that an in-place operator is about to overwrite, and copies them first."""

    def __init__(self) -> None:
        self._by_storage: dict[int, list[weakref.ref[Kept]]] = {}

    def keep(self, value: Tensor, relu_safe: bool = False) -> Kept:
        """Keep an alias of ``value``; it is copied only if an in-place operator comes."""
        kept = Kept(value, relu_safe)
        self._register(kept, weakref.ref(kept))
        return kept

    def _register(self, kept: Kept, reference: weakref.ref[Kept]) -> None:
        if kept.value.layout != torch.strided:  # without a storage of its own
            return
        self._by_storage.setdefault(kept.value.untyped_storage()._cdata, []).append(reference)

    def preserve(self, target: Tensor, relu: bool = False) -> None:
        """Copy what shares memory with ``target``, which is about to change in place."""
        if target.layout != torch.strided:
            return
        key = target.untyped_storage()._cdata
        references = self._by_storage.pop(key, None)
        if references is None:
            return
        for reference in references:
            kept = reference()
            if kept is None:
                continue
            if relu and kept.relu_safe:
                self._by_storage.setdefault(key, []).append(reference)
            else:
                kept.value = kept.value.clone()
                self._register(kept, reference)

    def clear(self) -> None:
        """Let every kept value go: through them graph nodes would refer to themselves, unseen by the collector."""
        for references in self._by_storage.values():
            for reference in references:
                kept = reference()
                if kept is not None:
                    del kept.value
        self._by_storage.clear()


def product(value: Tensor, factor: Tensor) -> Tensor:
    """Relevance of a tensor, ``value * factor``, where a factor of zero wins over infinity (masks).

    Of a complex tensor it is the real part of value times conjugate factor, which is how torch defines its gradients.
    """
    value, factor = (t if t.layout == torch.strided else t.to_dense() for t in (value, factor))
    relevance = (value * factor.conj()).real if factor.is_complex() else value * factor
    return relevance.masked_fill_(factor == 0, 0)
