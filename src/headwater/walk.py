"""One batch walked back through the engine: from a target's scores to the relevance of each argument."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from headwater import target as targets
from headwater.answer import Answer
from headwater.arguments import Inputs, bounds_of, box, select_bounds
from headwater.errors import HeadwaterError, HeadwaterWarning, InvalidInput, NonFinite, UnsupportedModel
from headwater.explanation import leaves
from headwater.propagate import ids as token_ids
from headwater.propagate import ledger as ledgers
from headwater.propagate import soundness
from headwater.propagate.calls import Entry
from headwater.propagate.captures import Captures, Watcher
from headwater.propagate.checkpoints import DIFFERENTIATES
from headwater.propagate.composites import Composite
from headwater.propagate.conditions import select as select_conditions
from headwater.propagate.engine import Propagation
from headwater.propagate.rules import Box
from headwater.propagate.segments import recomputed
from headwater.propagate.tags import product

_WHOLE = (
    "A rule of this composite looks at whole samples, which this model mixes or moves to another axis (as nodes of a "
    "graph): choose rules that do not, such as composite='epsilon'."
)
Move = Callable[[int, int, Tensor], tuple[Tensor, Tensor | None]]


class _Regrouped(Exception):
    """A rule looks at whole samples, and the model has moved the sample axis; its scores were these."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores


@dataclass(frozen=True)
class Walk:
    """Everything but the input and the target that a walk back needs.

    Attributes:
        model, composite, bounds, ledger, layers, seed, differentiable, allow_training: as for ``hw.explain``.
        result: what is returned for the input: "relevance", the "factor" itself, nothing but that of "layers", at which
            the walk ends, or nothing but "scores", which do without the walk back.
        move: puts another point in the place of each explained value: called with the argument's index, how often
            that argument was met before in this run (token ids may be embedded several times) and the value (of token
            ids, their embedding, laid out like them), it returns the point at which the model runs and what the
            factor is multiplied by (None: by that point for relevance, not at all for factors). Paths and noise are
            made of it.
        check: warn of softmax outputs.
        checkpoint: let blocks of the model run again in the walk instead of keeping what happens in them.
        through: what may pass of the outputs of layers, by name: see :mod:`headwater.propagate.conditions`.
        parts: return value and factor of each layer's output, a pair, in place of its relevance.
        watch: is shown every call of one run and its results; what it has noted then stands among the layers.
    """

    model: Callable[..., Any]
    composite: Composite
    bounds: Any = None
    ledger: bool = False
    layers: tuple[str, ...] = ()
    seed: int | None = 0
    differentiable: bool = False
    allow_training: bool = False
    result: str = "relevance"
    move: Move | None = field(default=None, compare=False)
    check: bool = True
    through: Mapping[str, Tensor] = field(default_factory=dict)
    parts: bool = False
    watch: Watcher | None = field(default=None, compare=False)
    checkpoint: bool = False

    def run(self, inputs: Inputs, target: Any) -> Answer:
        """Explain one batch."""
        try:
            return self._attempt(inputs, target)
        except RuntimeError as error:
            if "BatchedTensorImpl" in str(error):
                raise UnsupportedModel(
                    "The model calls torch.vmap, whose inside cannot be walked back through: explain a version of it "
                    "that loops, or the members of an ensemble one by one"
                ) from error
            if "differentiated Tensor" in str(error) or "does not require grad" in str(error):
                raise UnsupportedModel(DIFFERENTIATES) from error
            if "modified by an inplace operation" not in str(error):
                self._blame_the_model(inputs, error)
                raise
        return self._attempt(inputs, target, isolate=True)

    def _blame_the_model(self, inputs: Inputs, error: RuntimeError) -> None:
        """Say so where the model cannot take this input by itself either; its own error comes through."""
        if self._fails(inputs):
            error.add_note(
                f"The model fails on this input ({inputs.samples} samples) without any explanation too: check its "
                "shape, type and device, or say by batch_size= how many samples it takes at a time."
            )

    def _fails(self, inputs: Inputs) -> bool:
        """Whether the model by itself cannot take these inputs."""
        try:
            with torch.no_grad():
                inputs.call(self.model, inputs.copies())
        except (RuntimeError, IndexError):
            return True
        return False

    def _alone(self, inputs: Inputs, target: Any) -> Answer:
        """Sample by sample, for rules that look at whole samples in a model that moves the sample axis.

        Raises:
            UnsupportedModel: where the model takes no sample alone.
        """
        n = inputs.samples
        answers = []
        for i in range(n):
            rows = torch.tensor([i])
            through = select_conditions(self.through, rows, n)
            move = None if self.move is None else _of_row(self.move, i, n)
            walk = replace(self, bounds=select_bounds(self.bounds, inputs, rows), through=through, move=move)
            alone = inputs.select(rows)
            try:
                answers.append(walk.run(alone, targets.select(target, rows, n)))
            except (RuntimeError, IndexError) as error:
                if isinstance(error, HeadwaterError) or not self._fails(alone):
                    raise
                raise UnsupportedModel(f"{_WHOLE} It takes no sample alone.") from error
        return Answer.join(answers)

    def _attempt(self, inputs: Inputs, target: Any, isolate: bool = False) -> Answer:
        engine = Propagation(
            self.composite, self.model, ledger=self.ledger, differentiable=self.differentiable,
            allow_training=self.allow_training, isolate=isolate, seed=self.seed,
        )  # fmt: skip
        engine.samples = inputs.samples
        try:
            return self._run(engine, inputs, target)
        except _Regrouped as regrouped:
            together = regrouped.scores
        finally:
            engine.close()
        answer, near = self._alone(inputs, target), torch.finfo(together.dtype).eps ** 0.5
        if answer.output.shape != together.shape:
            raise UnsupportedModel(f"{_WHOLE} Its scores are not one for each entry of the first axis.")
        if bool(((answer.output.detach() - together).abs() > near * together.abs().max()).any()):
            warnings.warn(
                f"{_WHOLE} Each sample was explained alone, where its score is another than among the others.",
                HeadwaterWarning,
                stacklevel=4,
            )
        return answer

    def _run(self, engine: Propagation, inputs: Inputs, target: Any) -> Answer:
        entered = self.enter(engine, inputs)
        hidden = (target.layer,) if isinstance(target, targets.Neuron) else ()
        engine.watch = self.watch
        seen = (*self.layers, *hidden)
        forgetting = recomputed(engine, self.model, (*seen, *self.through)) if self.checkpoint else nullcontext()
        picked = False
        with Captures(engine, self.model, seen, self.through) as captures, forgetting, engine:
            raw = inputs.call(self.model, entered)
            if hidden:
                scores, resolved = captures.neuron(target), target
            elif targets.is_function(target):
                scores, resolved = targets.call(raw, target, inputs.samples), target
            else:
                output = engine.settled(targets.select_output(raw))
                self._warn_probabilities(engine, output)
                inputs.refuse_a_lone_sample(output)
                inputs.warn_of_series(output, target)
                known = engine.own_tag(output) is not None  # else the engine must look at what made it
                picked = known and engine.bare and targets.is_class(output, target)
                if not picked:
                    scores, resolved = targets.score(output, target, inputs.mask)
        if picked:  # a choice among scores has its own gradient: the engine need not look on
            scores, resolved = targets.score(output, target, inputs.mask)
            engine.follow(scores, output)
        scores = engine.settled(scores)
        total = scores.sum()
        if not soundness.finite(scores, total):
            raise soundness.locate(self.model, lambda: inputs.call(self.model, inputs.values))
        if not engine.reaches(scores):
            raise InvalidInput(_unreached(inputs, engine))
        if engine.regrouped and inputs.samples > 1:
            raise _Regrouped(scores.detach())
        if self.result == "scores":
            return Answer([None] * len(entered), scores.detach(), resolved)
        engine.depth = engine.tag(scores).depth
        if self.watch is not None:
            captures.found |= self.watch.noted()
        captures.check()
        ends = [] if self.result == "layers" else engine.ends()
        found = _walk(engine, scores, total, ends + captures.ends())
        if self.result == "layers":
            relevance: list[Tensor | None] = [None] * len(entered)
        else:
            relevance = self._collect(engine, inputs, entered, found[: len(ends)])
        read = captures.parts if self.parts else captures.relevance
        layers: dict[str, list[Any]] = dict(read(found[len(ends) :]))
        return Answer(
            relevance, scores if self.differentiable else scores.detach(), resolved,
            rows=ledgers.collect(engine.calls) if self.ledger else None,
            layers={k: v[0] if len(v) == 1 else v for k, v in layers.items()},
        )  # fmt: skip

    def enter(self, engine: Propagation, inputs: Inputs) -> list[Any]:
        """Make the explained arguments live; what the model is to be called with."""
        # Bounds are those of the input itself, which noise and paths leave: only rules that use them look.
        wanted = self.bounds is not None and self.composite.has_input_rules
        boxed = wanted or any(isinstance(rule, Box) for rule in self.composite.rules)
        boxed = boxed and not engine.planning
        engine.move = self.move
        entered = []
        for i, value in enumerate(inputs.values):
            if not inputs.explained(i):
                entered.append(value)
                continue
            low = high = None
            if boxed and value.is_floating_point():
                low, high = box(bounds_of(self.bounds, inputs, i), value)
            entered.append(engine.enter(value, low, high, i))
        return entered

    def _warn_probabilities(self, engine: Propagation, output: Tensor) -> None:
        tag = engine.own_tag(output)
        if self.check and tag is not None and tag.gate == "softmax":
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
            if not soundness.finite(r):
                raise NonFinite(
                    "The relevance is not finite: a factor overflowed. Try float32 or float64, or a larger epsilon."
                )
        return relevance

    def _result(self, entry: Entry, factor: Tensor | None, extra: Tensor | None) -> Tensor:
        value = entry.leaf if entry.multiplier is None else entry.multiplier
        value = value if self.differentiable else value.detach()
        factor = torch.zeros_like(value) if factor is None else factor
        if self.result == "factor" and entry.multiplier is None:
            return factor
        # The explained values are finite; what embeds them or was put in their place may not be.
        finite = entry.multiplier is None and entry.positions is None and self.move is None
        total = value * factor if finite else product(value, factor)
        return total if extra is None else total + extra


def _of_row(move: Move, i: int, n: int) -> Move:
    """What a move makes of one of ``n`` rows, where that row runs alone."""

    def one(argument: int, occurrence: int, value: Tensor) -> tuple[Tensor, Tensor | None]:
        point, multiplier = move(argument, occurrence, value.expand(n, *value.shape[1:]))
        return point[i : i + 1], None if multiplier is None else multiplier[i : i + 1]

    return one


def _walk(engine: Propagation, scores: Tensor, total: Tensor, ends: list[Any]) -> list[Tensor | None]:
    """Walk back once from the total of the scores; with a ledger once for each sample.

    The ledger's entries are then exact wherever the batch axis goes.
    """
    if not engine.ledger:
        return engine.gradients(total, ends)
    totals: list[Tensor | None] = [None] * len(ends)
    for score in scores.unbind():
        for call in engine.calls:
            call.open_books()
        for i, factor in enumerate(engine.gradients(score, ends, retain=True)):
            if factor is not None:
                before = totals[i]
                totals[i] = factor if before is None else before + factor
    return totals


def _unreached(inputs: Inputs, engine: Propagation) -> str:
    ids = [v for i, v in enumerate(inputs.values) if inputs.explained(i) and not v.is_floating_point()]
    if ids and not any(found for _, found in engine.ids.values()) and not engine.entries:
        return f"x holds {ids[0].dtype} values that the model never looks up in an embedding: pass floats or token ids"
    return "The explained output does not depend on x: it was detached, rounded or computed under no_grad on the way"
