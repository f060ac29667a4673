"""One question put to a model, and the two ways to ask it: walk back from the score, or call again on other inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from headwater import target as targets
from headwater.answer import Answer
from headwater.arguments import Inputs, select_bounds
from headwater.batches import in_batches
from headwater.errors import InvalidInput, InvalidTarget, NonFinite
from headwater.propagate import soundness
from headwater.propagate.captures import Watcher, activation
from headwater.propagate.composites import Composite, preset
from headwater.propagate.conditions import select as select_conditions
from headwater.propagate.places import module_named
from headwater.propagate.prepared import keeping
from headwater.walk import Move, Walk

Result = TypeVar("Result")

AT_A_TIME = 1 << 23  # values of the input that one batch of repeated calls holds by default


@dataclass(frozen=True)
class Question:
    """What every method is asked: why does this model give these inputs this score?

    Attributes:
        model: a module or any function of tensors.
        inputs: what it is called with, N samples.
        target: as the user gave it, or :meth:`fixed`.
        composite: the user's own table of rules; None leaves the choice to the method.
        bounds, ledger, layers, batch_size, seed, progress, differentiable, allow_training, checkpoint: as for
            ``hw.explain``.
        through: what may pass of the outputs of layers, as :func:`headwater.propagate.conditions.conditions` has it.
        move: other points than the inputs, at which every walk of this question runs; see :class:`headwater.walk.Walk`.
    """

    model: Callable[..., Any]
    inputs: Inputs
    target: Any = None
    composite: Composite | str | None = None
    bounds: Any = None
    ledger: bool = False
    layers: tuple[str, ...] = ()
    batch_size: int | None = None
    seed: int = 0
    progress: bool | None = None
    differentiable: bool = False
    allow_training: bool = False
    move: Move | None = None
    through: Mapping[str, Tensor] = field(default_factory=dict)
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None and (not _is_whole(self.batch_size) or self.batch_size < 1):
            raise InvalidInput(f"batch_size must be at least 1, not {self.batch_size!r}")
        if not _is_whole(self.seed):
            raise InvalidInput(f"seed must be a whole number, not {self.seed!r}")
        if self.checkpoint and (self.ledger or self.differentiable):
            kept = "ledger" if self.ledger else "differentiable"
            raise InvalidInput(f"{kept}=True needs what checkpoint=True lets go: leave one of them out")

    # ------------------------------------------------------------------ walk back

    def walk(
        self, composite: Composite | str, result: str = "relevance", *, move: Move | None = None, check: bool = False,
        parts: bool = False,
    ) -> Answer:  # fmt: skip
        """Walk back from the score, ``batch_size`` samples at a time.

        Args:
            composite: the rules; those that the user gave go before.
            result, move, check, parts: see :class:`headwater.walk.Walk`. With ``move`` the batch is not divided, so
                that rows keep their places.
        """
        move = move or self.move
        walk = self.walker(composite, result, move=move, check=check, parts=parts)
        return self.run(walk) if move is not None else self.each(lambda batch: batch.run(walk))

    def each(self, answer: Callable[[Question], Answer]) -> Answer:
        """The answers to ``batch_size`` samples at a time, joined; all at once where rows have their own points."""
        n = self.inputs.samples
        if self.move is not None or (self.batch_size or n) >= n:
            return answer(self)

        def work(rows: slice) -> Answer:
            return answer(self.select(torch.arange(rows.start, rows.stop)))

        return Answer.join(self.in_batches(work, n, self.batch_size or n))

    def walker(
        self, composite: Composite | str, result: str = "relevance", *, move: Move | None = None, check: bool = False,
        parts: bool = False, watch: Watcher | None = None,
    ) -> Walk:  # fmt: skip
        """The walk of these rules (or the user's own in their place) through this model."""
        table = resolve(composite if self.composite is None else self.composite)
        return Walk(
            self.model, table, self.bounds, self.ledger, self.layers, self.seed, self.differentiable,
            self.allow_training, result, move, check, self.through, parts, watch, self.checkpoint,
        )  # fmt: skip

    def run(self, walk: Walk) -> Answer:
        """One walk over all samples at once, with their own bounds."""
        if walk.bounds is not self.bounds or walk.through is not self.through:
            walk = replace(walk, bounds=self.bounds, through=self.through)
        return walk.run(self.inputs, self.target)

    # ------------------------------------------------------------------ call again

    def fixed(self) -> Question:
        """The same question with its target written down, so that it can be put to other inputs; one forward."""
        return self if self._is_fixed else self.scored()[0]

    def scored(self) -> tuple[Question, Tensor]:
        """The question :meth:`fixed`, and its scores ``[N]``, from one forward.

        Raises:
            NonFinite: where the model returns NaN or infinity.
        """

        def work(rows: slice) -> tuple[Any, Tensor]:
            part = self.select(torch.arange(rows.start, rows.stop))
            if self._is_fixed:
                return self.target, part.scores()
            with torch.no_grad(), soundness.repeatable(self.seed):
                output = targets.select_output(part.inputs.call(self.model, part.inputs.copies()))
                part.inputs.refuse_a_lone_sample(output)
                part.inputs.warn_of_series(output, part.target)
                scores, resolved = targets.score(output, part.target, part.inputs.mask)
            return targets.fixed(output, part.target, resolved), _finite(scores)

        parts = self.in_batches(work, self.inputs.samples, self.rows_at_a_time)
        return replace(self, target=targets.join([t for t, _ in parts])), torch.cat([scores for _, scores in parts])

    @property
    def _is_fixed(self) -> bool:
        return targets.is_function(self.target) or isinstance(self.target, targets.Neuron)

    def scores(self, *, spent: bool = False) -> Tensor:
        """The model's scores on these inputs, ``[N]``, without gradients, in one forward.

        Args:
            spent: nobody needs the inputs any more: the model may write to them, so no copies are made.

        Raises:
            NonFinite: where the model returns NaN or infinity.
        """
        if self.move is not None:
            values = list(self.inputs.values)
            if not all(values[i].is_floating_point() for i in self.explained):
                return replace(self, composite=None, ledger=False, layers=()).walk("gradient", "scores").output
            for i in self.explained:
                values[i] = self.move(i, 0, values[i])[0]
            return replace(self.about(values), move=None).scores()
        with torch.no_grad(), soundness.repeatable(self.seed):
            if isinstance(self.target, targets.Neuron):
                scores = _neuron(self.model, self.inputs, self.target)
            else:
                raw = self.inputs.call(self.model, self.inputs.values if spent else self.inputs.copies())
                if targets.is_function(self.target):
                    scores = targets.call(raw, self.target, self.inputs.samples)
                else:
                    scores = targets.score(targets.select_output(raw), self.target, self.inputs.mask)[0]
        return _finite(scores)

    # ------------------------------------------------------------------ other inputs

    def select(self, rows: Tensor) -> Question:
        """The question about the samples at these indices ``[M]``; one may occur several times."""
        n = self.inputs.samples
        return replace(
            self, inputs=self.inputs.select(rows), target=targets.select(self.target, rows, n),
            bounds=select_bounds(self.bounds, self.inputs, rows), through=select_conditions(self.through, rows, n),
        )  # fmt: skip

    def about(self, values: list[Any]) -> Question:
        """The question about other values of the arguments, as many samples as now."""
        return replace(self, inputs=self.inputs.replaced(values))

    @property
    def explained(self) -> list[int]:
        """Which arguments are explained, by their places."""
        return [i for i in range(len(self.inputs.values)) if self.inputs.explained(i)]

    @property
    def rows_at_a_time(self) -> int:
        """How many rows one forward holds where a method makes many of each sample."""
        if self.batch_size is not None:
            return self.batch_size
        n = self.inputs.samples
        tensors = [v for v in self.inputs.values if isinstance(v, Tensor) and v.dim() and len(v) == n]
        return max(1, min(256, AT_A_TIME // max(1, sum(v[0].numel() for v in tensors))))

    def in_batches(
        self, work: Callable[[slice], Result], total: int, size: int | None = None, label: str = "explaining"
    ) -> list[Result]:
        """The results of ``work`` on slices of ``range(total)``; see :func:`headwater.batches.in_batches`."""
        size = size or self.rows_at_a_time
        with keeping(self.model) if size < total else contextlib.nullcontext():
            return in_batches(work, total, size, self.progress, label)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator of random numbers that begins at the question's seed."""
        return torch.Generator(device).manual_seed(self.seed)


@contextlib.contextmanager
def posed(model: Any, allow_training: bool = False) -> Iterator[None]:
    """What every question about a model is asked in: with gradients, in eager mode, of a model that can be explained.

    Raises:
        UnsupportedModel, NonFinite: see :func:`headwater.propagate.soundness.check_model`.
    """
    soundness.check_model(model, allow_training)
    with torch.inference_mode(False), torch.enable_grad(), soundness.eager():
        yield


def resolve(composite: Composite | str) -> Composite:
    """A table of rules, also by its preset's name.

    Raises:
        InvalidComposite: for an unknown name; InvalidInput: for what is no table.
    """
    if isinstance(composite, str):
        return preset(composite)
    if not isinstance(composite, Composite):
        raise InvalidInput(
            f"composite must be a preset's name or a headwater.Composite, not {type(composite).__name__}"
        )
    return composite


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _finite(scores: Tensor) -> Tensor:
    if not bool(scores.isfinite().all()):
        raise NonFinite("The model's score is NaN or infinite, on x or on an input that the method made of it")
    return scores


def _neuron(model: Any, inputs: Inputs, target: targets.Neuron) -> Tensor:
    """One activation ``[N]`` inside the model, in its last run."""
    found: list[Any] = []
    hook = module_named(model, target.layer).register_forward_hook(lambda module, args, out: found.append(out))
    try:
        inputs.call(model, inputs.copies())
    finally:
        hook.remove()
    if not found:
        raise InvalidTarget(f"Layer {target.layer!r} did not run")
    return activation(targets.select_output(found[-1]), target)
