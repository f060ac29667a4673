"""Patterns: what a neuron's input looks like when it carries the neuron's signal, estimated from data.

A weight vector ``w`` says how a signal is extracted, not what it is: it also cancels what disturbs. The pattern ``a``,
with ``w · a = 1``, is the direction in which the input varies with the neuron's output. PatternNet walks the signal
back along ``a``, PatternAttribution along ``w ⊙ a`` (Kindermans et al.: Learning how to explain neural networks, 2018).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from headwater import target as targets
from headwater.answer import Answer
from headwater.errors import InvalidInput, UnsupportedOperator
from headwater.method import REVIEW, Method
from headwater.propagate.affine import Affine
from headwater.propagate.calls import Call
from headwater.propagate.composites import Composite
from headwater.propagate.engine import Propagation
from headwater.propagate.maps import AnyMap, ConvMap, LinearMap
from headwater.propagate.rules import AttnLRP, Rule, divide
from headwater.propagate.tags import product
from headwater.question import Question, posed
from headwater.samples import batches_of

Estimator = Literal["two_component", "linear"]
FORMAT = 1


@dataclass(frozen=True)
class Patterns(Mapping[str, Tensor]):
    """The patterns of a model's affine operators, by their place: the layer's name, with a number where it has several.

    Attributes:
        by_place: each shaped like the weight; ``estimator``: how they were estimated.
    """

    by_place: dict[str, Tensor]
    estimator: str

    def __getitem__(self, place: str) -> Tensor:
        return self.by_place[place]

    def __iter__(self) -> Any:
        return iter(self.by_place)

    def __len__(self) -> int:
        return len(self.by_place)

    def __repr__(self) -> str:
        return f"Patterns({self.estimator}, {len(self)} operators)"

    def of(self, op: Affine) -> Tensor:
        """The pattern of a call, on its device and in its precision.

        Raises:
            InvalidInput: where there is none, or one of another shape: it was estimated on another model.
        """
        found = self.by_place.get(op.origin.place)
        if found is None or found.shape != op.weight.shape:
            raise InvalidInput(
                f"No pattern for the weight {tuple(op.weight.shape)} at {op.origin.place!r}: estimate patterns on this "
                "very model with hw.patterns(model, data)"
            )
        return found.to(op.weight.device, op.weight.dtype)

    def save(self, path: str | Path) -> Path:
        """Save without pickle, as safetensors."""
        from safetensors.torch import save_file

        header = json.dumps({"format": FORMAT, "estimator": self.estimator, "places": list(self.by_place)})
        tensors = {str(i): t.contiguous() for i, t in enumerate(self.by_place.values())}
        save_file(tensors, path, {"headwater.patterns": header})
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> Patterns:
        """Load what :meth:`save` saved.

        Raises:
            InvalidInput: where the file is missing, holds no patterns, or has a newer format.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                header = (file.metadata() or {}).get("headwater.patterns")
                facts: dict[str, Any] = json.loads(header) if header else {"format": 0, "places": []}
                found = {place: file.get_tensor(str(i)) for i, place in enumerate(facts["places"])}
        except (SafetensorError, OSError) as error:
            raise InvalidInput(f"{path} cannot be read as saved patterns: {error}") from None
        if not 0 < facts["format"] <= FORMAT:
            raise InvalidInput(f"{path} holds no patterns of a format up to {FORMAT}, which this version reads")
        return Patterns(found, facts["estimator"])


class _Moments:
    """Running sums over samples and places in which a neuron takes part: ``Σ 1``, ``Σ y``, ``Σ x`` and ``Σ x y``."""

    def __init__(self, op: Affine) -> None:
        size, wide = op.z.shape[_channels(op)], torch.float64
        self.weight = op.weight.detach().to(wide)
        self.count = torch.zeros(size, dtype=wide, device=op.z.device)
        self.y, self.x, self.xy = self.count.clone(), torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.inner = op.map

    def add(self, op: Affine, positive: bool) -> None:
        """Take in a call: with ``positive`` only where the neuron's output is."""
        assert isinstance(op.map, (LinearMap, ConvMap)), "checked when the call was met"
        part = (op.z > 0).to(op.z.dtype) if positive else torch.ones_like(op.z)
        signal, axis = op.z * part, _channels(op)
        self.count += _by_channel(part, axis)
        self.y += _by_channel(signal, axis)
        self.x += op.map.outer(part, op.x, op.weight)
        self.xy += op.map.outer(signal, op.x, op.weight)

    def pattern(self, like: torch.dtype) -> Tensor:
        """``cov(x, y) / w · cov(x, y)``, in the regime of the sums; 0 for a neuron that never takes part."""
        assert isinstance(self.inner, (LinearMap, ConvMap)), "checked when the call was met"
        scaled = self.inner.scale
        count = divide(torch.ones_like(self.count), self.count.clone())
        covariance = scaled(self.xy, count) - scaled(self.x, count * count * self.y)
        variance = self.inner.inner(self.weight, covariance)
        return scaled(covariance, divide(torch.ones_like(variance), variance.clone())).to(like)


def _channels(op: Affine) -> int:
    return 1 if isinstance(op.map, ConvMap) else -1


def _by_channel(t: Tensor, axis: int) -> Tensor:
    return t.movedim(axis, 0).flatten(1).sum(1, dtype=torch.float64)


class _Observe(Rule):
    """Takes the moments of a call when a walk comes to it, and ends the walk there."""

    uses_linear: ClassVar[bool] = False
    needs_places: ClassVar[bool] = True

    def __init__(self, positive: bool) -> None:
        self.positive = positive
        self.moments: dict[str, _Moments] = {}

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        if isinstance(op.map, AnyMap):
            raise UnsupportedOperator(
                f"No pattern can be estimated for {op.call.operator.name!r} in layer {op.origin.layer!r}, whose axes "
                "are not known: write it as F.linear or a convolution"
            )
        self.moments.setdefault(op.origin.place, _Moments(op)).add(op, self.positive)
        return c.new_zeros(()).expand(op.x.shape)


def patterns(
    model: Any,
    data: Any,
    *,
    estimator: Estimator = "two_component",
    batch_size: int = 64,
) -> Patterns:
    """Estimate the pattern of every neuron of a model from data, in one pass.

    Calls that share a weight share a pattern; batch norm is part of the affine operator before it.

    Args:
        model: a module or any function of tensors.
        data: inputs as ``hw.explain`` takes them, or an iterable of batches (a ``DataLoader``).
        estimator: "two_component" looks at the samples (and places) in which the neuron is positive, as behind a ReLU
            (the paper's S_a+-); "linear" at all of them (S_a).
        batch_size: samples in a forward pass, where ``data`` are tensors.

    Returns:
        :class:`Patterns`, to be passed as ``hw.explain(..., method="pattern_attribution", patterns=...)``.

    Raises:
        InvalidInput: for an unknown estimator, or data without samples.
        HeadwaterError: for a model that cannot be explained; see ``hw.explain``.

    Source: Kindermans et al. 2018, Eq. 4 and Section 4 (two-component estimator).
    """
    if estimator not in ("two_component", "linear"):
        raise InvalidInput(f"estimator must be 'two_component' or 'linear', not {estimator!r}")
    rule = _Observe(estimator == "two_component")
    table = Composite({"affine": rule, "attention": AttnLRP()})
    dtype = torch.float32
    with posed(model):
        for inputs in batches_of(data, batch_size):
            dtype = next((v.dtype for v in inputs.values if isinstance(v, Tensor) and v.is_floating_point()), dtype)
            Question(model, inputs, targets.Sum()).walk(table, "factor")
    return Patterns({place: moments.pattern(dtype) for place, moments in rule.moments.items()}, estimator)


@dataclass(frozen=True)
class PatternNet(Rule):
    """The signal of a neuron goes back along its pattern: ``s_in = aᵀ s_out`` in place of the gradient's ``wᵀ``."""

    patterns: Patterns
    uses_linear: ClassVar[bool] = False
    needs_places: ClassVar[bool] = True

    def factor(self, op: Affine, c: Tensor) -> Tensor:
        return op.transpose(c, self.patterns.of(op))

    def local(self, engine: Propagation, call: Call) -> Any:
        return engine.native(call) if len(call.live) > 1 else call.operator.handler(engine, call)


@dataclass(frozen=True)
class PatternAttribution(Rule):
    """``R_in = (w ⊙ a)ᵀ R_out``: what the signal contributes; biases and what the data never showed absorb."""

    patterns: Patterns
    at_input: ClassVar[bool] = True
    uses_linear: ClassVar[bool] = False
    needs_places: ClassVar[bool] = True

    def split(self, op: Affine, c: Tensor) -> tuple[Tensor | None, Tensor | None]:
        shares, relevance = op.weight * self.patterns.of(op), product(op.z, c)
        if op.booking:
            op.book("pattern", relevance * (1 - op.forward(torch.ones_like(op.x), shares)))
        return None, op.transpose(relevance, shares)


def _given(patterns: Patterns | None) -> Patterns:
    if not isinstance(patterns, Patterns):
        raise InvalidInput(
            f"This method needs patterns=, estimated by hw.patterns(model, data), not {type(patterns).__name__}"
        )
    return patterns


def pattern_net(question: Question, *, patterns: Patterns | None = None) -> Answer:
    """The signal estimated at the input: the output's score walked back along the patterns (Kindermans et al. 2018)."""
    rule = PatternNet(_given(patterns))
    answer = question.walk(Composite({"conv": rule, "linear": rule}, plain=True), "factor")

    def scaled(signal: Tensor | None) -> Tensor | None:
        return None if signal is None else signal * answer.output.view(-1, *[1] * (signal.dim() - 1))

    answer.relevance = [scaled(signal) for signal in answer.relevance]
    return answer


def pattern_attribution(question: Question, *, patterns: Patterns | None = None) -> Answer:
    """Relevance walked back along the weights times their patterns (Kindermans et al. 2018, Section 4)."""
    return question.walk(Composite({"affine": PatternAttribution(_given(patterns)), "attention": AttnLRP()}))


_SOURCE = f"Kindermans et al.: Learning How to Explain Neural Networks, ICLR 2018; {REVIEW}"
_NEEDS = "patterns of its affine operators, from data"

ROWS = (
    Method(
        "pattern_net", "PN", "propagate", _SOURCE, _NEEDS, "gradient with patterns in place of weights", pattern_net,
        takes=(),
    ),
    Method(
        "pattern_attribution", "PA", "propagate", _SOURCE, _NEEDS, "one walk back, weights times patterns",
        pattern_attribution, takes=("ledger", "layers", "through"),
    ),
)  # fmt: skip
