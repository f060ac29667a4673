"""``hw.explain``: one call from a model and an input to an explanation."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from headwater import methods
from headwater import target as targets
from headwater.arguments import Inputs, bounds_of, box, rule_bounds, slice_bounds
from headwater.errors import HeadwaterWarning, InvalidInput, NonFinite
from headwater.explanation import Explanation, leaves
from headwater.propagate import ids as token_ids
from headwater.propagate import ledger as ledgers
from headwater.propagate import soundness
from headwater.propagate.calls import Entry
from headwater.propagate.captures import Captures
from headwater.propagate.composites import Composite, preset
from headwater.propagate.engine import Propagation
from headwater.propagate.plan import Plan, plan_calls
from headwater.propagate.rules import Box
from headwater.propagate.tags import product


def explain(
    model: Callable[..., Any],
    x: Any,
    target: Any = None,
    method: str = "lrp",
    composite: Composite | str | None = None,
    bounds: Any = None,
    ledger: bool = False,
    layers: Sequence[str] = (),
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
    differentiable: bool = False,
    allow_training: bool = False,
    squared: bool = False,
) -> Explanation:
    """Explain which parts of an input carried a decision.

    Without more arguments this is LRP for the predicted class with one recipe that serves convolutional, recurrent and
    transformer models: γ = 0.25 for convolutions, ε = 1e-6 for every other affine operator, AttnLRP for attention,
    constant gates and divisors, secants for activations.

    Args:
        model: a module or any function of tensors; it is left as it was.
        x: a tensor ``[N, ...]``, or a tuple / dict of tensors passed on as ``model(*x)`` / ``model(**x)``. Floats are
            explained themselves (masks are not); token ids at their embedding.
        target: what is explained; see :mod:`headwater.target`. Default: by the output's shape.
        method: a name from :func:`headwater.methods`.
        composite: a preset's name or a :class:`headwater.Composite`; None takes the method's own.
        bounds: ``(low, high)`` of the input's values for rules with a box, each a scalar or broadcastable to ``x``.
        ledger: book what every operator received, passed on and absorbed; costs one walk back for each sample.
        layers: names of modules whose outputs' relevance is returned too.
        batch_size: explain this many samples at a time.
        seed: for what is random (dropout under ``allow_training``).
        progress: show a progress bar; None shows one on a terminal where there are several batches.
        differentiable: keep the graph, so that the relevance can be differentiated by input and parameters.
        allow_training: let dropout be active.
        squared: for ``method="sensitivity"``, the squared instead of the absolute gradient.

    Returns:
        An :class:`Explanation`; ``relevance`` is shaped like ``x``, with its dtype and device.

    Raises:
        HeadwaterError: every refusal: see :mod:`headwater.errors`.

    Source: Samek et al. 2021 (review), Section V and Algorithms 6-8.
    """
    row = methods.find(method)
    soundness.check_model(model, allow_training)
    inputs = Inputs.of(x)
    table = _composite(row, composite)
    bounds = rule_bounds(table) if bounds is None else bounds
    job = Job(model, row, table, bounds, ledger, tuple(layers), seed, differentiable, allow_training, squared)
    with torch.inference_mode(False), torch.enable_grad(), soundness.eager(model):
        if batch_size is None or batch_size >= inputs.samples:
            return job.finish([job.run(inputs, target)], inputs)
        if batch_size < 1:
            raise InvalidInput(f"batch_size must be at least 1, not {batch_size}")
        starts = range(0, inputs.samples, batch_size)
        parts = []
        for i in _tracked(starts, progress):
            part = replace(job, bounds=slice_bounds(bounds, i, batch_size, inputs.samples))
            parts.append(
                part.run(inputs.slice(i, i + batch_size), _slice_target(target, i, batch_size, inputs.samples))
            )
        return job.finish(parts, inputs)


def plan(
    model: Callable[..., Any], x: Any, composite: Composite | str | None = None, method: str = "lrp", bounds: Any = None
) -> Plan:
    """Every operator call of a model and its rule or gap; nothing is explained.

    Args:
        model, x, composite, method, bounds: as for :func:`explain`.

    Returns:
        rows with ``layer``, ``operator``, ``kind``, ``rule``, ``shape``, ``depth`` and ``status``; prints as a table.

    Raises:
        HeadwaterError: as :func:`explain`, except that operators without a treatment are rows, not errors.
    """
    row = methods.find(method)
    soundness.check_model(model)
    inputs = Inputs.of(x)
    table = _composite(row, composite)
    job = Job(model, row, table, bounds, False, (), 0, False, False, False)
    engine = Propagation(table, model, planning=True, seed=0)
    with torch.inference_mode(False), torch.enable_grad(), soundness.eager(model):
        try:
            entered = job.enter(engine, inputs)
            with engine:
                return plan_calls(engine, lambda: inputs.call(model, entered))
        finally:
            engine.close()


class _Regrouped(Exception):
    """A rule looks at whole samples, and the model has moved the sample axis."""


@dataclass
class Part:
    """The explanation of one batch, argument by argument."""

    relevance: list[Tensor | None]
    output: Tensor
    target: Any
    rows: list[ledgers.Row]
    layers: dict[str, list[Tensor]] = field(default_factory=dict)

    @staticmethod
    def join(parts: list[Part]) -> Part:
        """One part for several batches."""
        first = parts[0]
        if len(parts) == 1:
            return first
        return Part(
            [_cat([p.relevance[i] for p in parts]) for i in range(len(first.relevance))],
            torch.cat([p.output for p in parts]),
            _join_targets([p.target for p in parts]),
            ledgers.join([p.rows for p in parts]),
            {k: [torch.cat([p.layers[k][i] for p in parts]) for i in range(len(v))] for k, v in first.layers.items()},
        )


@dataclass
class Job:
    """Everything but the input that an explanation needs."""

    model: Callable[..., Any]
    method: methods.Method
    composite: Composite
    bounds: Any
    ledger: bool
    layers: tuple[str, ...]
    seed: int
    differentiable: bool
    allow_training: bool
    squared: bool

    def run(self, inputs: Inputs, target: Any) -> Part:
        """Explain one batch."""
        try:
            return self._attempt(inputs, target)
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                self._blame_the_model(inputs, error)
                raise
        return self._attempt(inputs, target, isolate=True)

    def _blame_the_model(self, inputs: Inputs, error: RuntimeError) -> None:
        """Say so where the model cannot take this input by itself either; its own error comes through."""
        try:
            with torch.no_grad():
                inputs.call(self.model, inputs.values)
        except RuntimeError:
            error.add_note(
                "The model fails on this input without any explanation too: check its shape, type and device."
            )

    def _alone(self, inputs: Inputs, target: Any) -> Part:
        """Sample by sample, for rules that look at whole samples in a model that moves the sample axis."""
        n = inputs.samples
        parts = []
        for i in range(n):
            job = replace(self, bounds=slice_bounds(self.bounds, i, 1, n))
            parts.append(job.run(inputs.slice(i, i + 1), _slice_target(target, i, 1, n)))
        return Part.join(parts)

    def _attempt(self, inputs: Inputs, target: Any, isolate: bool = False) -> Part:
        engine = Propagation(
            self.composite, self.model, ledger=self.ledger, differentiable=self.differentiable,
            allow_training=self.allow_training, isolate=isolate, seed=self.seed,
        )  # fmt: skip
        engine.samples = inputs.samples
        try:
            return self._run(engine, inputs, target)
        except _Regrouped:
            pass
        finally:
            engine.close()
        return self._alone(inputs, target)

    def _run(self, engine: Propagation, inputs: Inputs, target: Any) -> Part:
        entered = self.enter(engine, inputs)
        hidden = (target.layer,) if isinstance(target, targets.Neuron) else ()
        with Captures(engine, self.model, (*self.layers, *hidden)) as captures, engine:
            raw = inputs.call(self.model, entered)
            if hidden:
                scores, resolved = captures.neuron(target), target
            elif targets.is_function(target):
                scores, resolved = targets.call(raw, target, inputs.samples), target
            else:
                output = engine.settled(targets.select_output(raw))
                self._warn_probabilities(engine, output)
                scores, resolved = targets.score(output, target, inputs.mask)
        scores = engine.settled(scores)
        if not bool(scores.isfinite().all()):
            raise soundness.locate(self.model, lambda: inputs.call(self.model, inputs.values))
        if not engine.reaches(scores):
            raise InvalidInput(_unreached(inputs, engine))
        if engine.regrouped and inputs.samples > 1:
            raise _Regrouped
        engine.depth = engine.tag(scores).depth
        ends = engine.ends()
        found = _walk(engine, scores, ends + captures.ends())
        relevance = self._collect(engine, inputs, entered, found[: len(ends)])
        layers = captures.relevance(found[len(ends) :])
        rows = ledgers.collect(engine.calls) if self.ledger else []
        scores = scores if self.differentiable else scores.detach()
        return Part(relevance, scores, resolved, rows, layers)

    def enter(self, engine: Propagation, inputs: Inputs) -> list[Any]:
        """Make the explained arguments live; what the model is to be called with."""
        boxed = self.bounds is not None or any(isinstance(rule, Box) for rule in self.composite.rules)
        boxed = boxed and not engine.planning
        entered = []
        for i, value in enumerate(inputs.values):
            if not inputs.explained(i):
                entered.append(value)
                continue
            low = high = None
            if boxed and value.is_floating_point():
                low, high = box(bounds_of(self.bounds, inputs, i), value)
            entered.append(engine.enter(value, low, high))
        return entered

    def _warn_probabilities(self, engine: Propagation, output: Tensor) -> None:
        tag = engine.own_tag(output)
        if self.method.complete and tag is not None and tag.gate == "softmax":
            warnings.warn(
                "The model's output is a softmax, whose classes share one sum: a logit explains better (explain the "
                "model without its softmax, or pass target=headwater.target.LogOdds(c) on logits).",
                HeadwaterWarning,
                stacklevel=4,
            )

    def _collect(
        self, engine: Propagation, inputs: Inputs, entered: list[Any], found: list[Tensor | None]
    ) -> list[Tensor | None]:
        """Relevance of each argument of the model."""
        arrived = engine.arrived(found)
        relevance: list[Tensor | None] = []
        for i, (value, live) in enumerate(zip(inputs.values, entered, strict=True)):
            if not inputs.explained(i):
                parts = []
            elif value.is_floating_point():
                parts = [self._result(*arrived[id(live)])]
            else:
                entries = engine.ids[id(live)][1]
                found_parts = [
                    (self._result(*arrived[id(e.live)]), e.positions) for e in entries if e.positions is not None
                ]
                parts = [token_ids.gather(found_parts, value)] if found_parts else []
            relevance.append(parts[0] if parts else None)
        for r in leaves(tuple(relevance)):
            if not bool(r.isfinite().all()):
                raise NonFinite(
                    "The relevance is not finite: a factor overflowed. Try float32 or float64, or a larger epsilon."
                )
        return relevance

    def _result(self, entry: Entry, factor: Tensor | None, extra: Tensor | None) -> Tensor:
        value = entry.leaf if self.differentiable else entry.leaf.detach()
        factor = torch.zeros_like(value) if factor is None else factor
        if self.method.result == "relevance":
            total = product(value, factor)
            return total if extra is None else total + extra
        if self.method.result == "absolute":
            return factor.square() if self.squared else factor.abs()
        return factor

    def finish(self, parts: list[Part], inputs: Inputs) -> Explanation:
        """Join the batches."""
        part = Part.join(parts)
        shown = [v.detach() if r is not None else None for v, r in zip(inputs.values, part.relevance, strict=True)]
        return Explanation(
            relevance=inputs.pack(part.relevance), output=part.output, reference=torch.zeros_like(part.output.detach()),
            target=part.target, method=self.method.name,
            composite=self.composite.name if self.composite.name != "custom" else repr(self.composite),
            complete=self.method.complete and not self.composite.plain, inputs=inputs.pack(shown),
            layers={k: v[0] if len(v) == 1 else v for k, v in part.layers.items()},
            ledger=ledgers.Ledger(part.rows) if self.ledger else None, sources=tuple(self.method.source.split("; ")),
        )  # fmt: skip


def _walk(engine: Propagation, scores: Tensor, ends: list[Any]) -> list[Tensor | None]:
    """Walk back once; with a ledger once for each sample: its entries are exact wherever the batch axis goes."""
    if not engine.ledger:
        return engine.gradients(scores.sum(), ends)
    totals: list[Tensor | None] = [None] * len(ends)
    for score in scores.unbind():
        for call in engine.calls:
            call.open_books()
        for i, factor in enumerate(engine.gradients(score, ends, retain=True)):
            if factor is not None:
                before = totals[i]
                totals[i] = factor if before is None else before + factor
    return totals


def _composite(row: methods.Method, composite: Composite | str | None) -> Composite:
    if composite is None:
        return preset(row.composite)
    if row.result != "relevance" or row.name == "gradient_x_input":
        raise InvalidInput(f"Method {row.name!r} takes no composite; it is defined by its own")
    if isinstance(composite, str):
        return preset(composite)
    if not isinstance(composite, Composite):
        raise InvalidInput(
            f"composite must be a preset's name or a headwater.Composite, not {type(composite).__name__}"
        )
    return composite


def _unreached(inputs: Inputs, engine: Propagation) -> str:
    ids = [v for i, v in enumerate(inputs.values) if inputs.explained(i) and not v.is_floating_point()]
    if ids and not any(found for _, found in engine.ids.values()) and not engine.entries:
        return f"x holds {ids[0].dtype} values that the model never looks up in an embedding: pass floats or token ids"
    return "The explained output does not depend on x: it was detached, rounded or computed under no_grad on the way"


def _slice_target(target: Any, start: int, size: int, n: int) -> Any:
    if isinstance(target, (targets.LogOdds, targets.Contrast)):
        return replace(target, c=_slice_target(target.c, start, size, n))
    one_each = isinstance(target, (Tensor, list, tuple)) and len(target) == n
    return target[start : start + size] if one_each else target


def _cat(parts: list[Tensor | None]) -> Tensor | None:
    return torch.cat([p for p in parts if p is not None]) if parts[0] is not None else None


def _join_targets(found: list[Any]) -> Any:
    if isinstance(found[0], Tensor):
        return torch.cat(found)
    if isinstance(found[0], (targets.LogOdds, targets.Contrast)):
        return replace(found[0], c=torch.cat([torch.as_tensor(t.c) for t in found]))
    return found[0]


def _tracked(starts: range, progress: bool | None) -> Any:
    if progress is False:
        return starts
    if progress is None and not sys.stderr.isatty():
        return starts
    from rich.console import Console
    from rich.progress import track

    return track(starts, "explaining", console=Console(stderr=True))
