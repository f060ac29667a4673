"""One question put to a model, and the two ways to ask it: walk back from the score, or call again on other inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from headwater import target as targets
from headwater.answer import Answer
from headwater.arguments import Inputs, rule_bounds, select_bounds
from headwater.batches import in_batches
from headwater.errors import InvalidInput, InvalidTarget, NonFinite
from headwater.propagate.captures import activation, module_named
from headwater.propagate.composites import Composite, preset
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
        bounds, ledger, layers, batch_size, seed, progress, differentiable, allow_training: as for ``hw.explain``.
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

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise InvalidInput(f"batch_size must be at least 1, not {self.batch_size}")

    # ------------------------------------------------------------------ walk back

    def walk(
        self, composite: Composite | str, result: str = "relevance", *, move: Move | None = None, check: bool = False
    ) -> Answer:
        """Walk back from the score, ``batch_size`` samples at a time.

        Args:
            composite: the rules; those that the user gave go before.
            result: "relevance" or "factor"; ``move`` and ``check``: see :class:`headwater.walk.Walk`. With ``move``
                the batch is not divided, so that rows keep their places.
        """
        walk = self.walker(composite, result, move=move, check=check)
        n = self.inputs.samples
        if move is not None or (self.batch_size or n) >= n:
            return self.run(walk)

        def work(rows: slice) -> Answer:
            return self.select(torch.arange(rows.start, rows.stop)).run(walk)

        return Answer.join(self.in_batches(work, n, self.batch_size or n))

    def walker(
        self, composite: Composite | str, result: str = "relevance", *, move: Move | None = None, check: bool = False
    ) -> Walk:
        """The walk of these rules (or the user's own in their place) through this model."""
        table = resolve(composite if self.composite is None else self.composite)
        return Walk(
            self.model, table, self.bounds, self.ledger, self.layers, self.seed, self.differentiable,
            self.allow_training, result, move, check,
        )  # fmt: skip

    def run(self, walk: Walk) -> Answer:
        """One walk over all samples at once, with their own bounds."""
        bounds = rule_bounds(walk.composite) if self.bounds is None else self.bounds
        return replace(walk, bounds=bounds).run(self.inputs, self.target)

    # ------------------------------------------------------------------ call again

    def fixed(self) -> Question:
        """The same question with its target written down, so that it can be put to other inputs; one forward."""
        if targets.is_function(self.target) or isinstance(self.target, targets.Neuron):
            return self

        def work(rows: slice) -> Any:
            part = self.select(torch.arange(rows.start, rows.stop))
            with torch.no_grad():
                output = targets.select_output(part.inputs.call(self.model, part.inputs.values))
            resolved = targets.score(output, part.target, part.inputs.mask)[1]
            return targets.fixed(output, part.target, resolved)

        return replace(self, target=targets.join(self.in_batches(work, self.inputs.samples, self.rows_at_a_time)))

    def scores(self) -> Tensor:
        """The model's scores on these inputs, ``[N]``, without gradients, in one forward.

        Raises:
            NonFinite: where the model returns NaN or infinity.
        """
        values = [v.detach() if isinstance(v, Tensor) else v for v in self.inputs.values]
        with torch.no_grad():
            if isinstance(self.target, targets.Neuron):
                scores = _neuron(self.model, self.inputs, self.target)
            else:
                raw = self.inputs.call(self.model, values)
                if targets.is_function(self.target):
                    scores = targets.call(raw, self.target, self.inputs.samples)
                else:
                    scores = targets.score(targets.select_output(raw), self.target, self.inputs.mask)[0]
        if not bool(scores.isfinite().all()):
            raise NonFinite("The model's score is NaN or infinite on an input that the method made of x")
        return scores

    # ------------------------------------------------------------------ other inputs

    def select(self, rows: Tensor) -> Question:
        """The question about the samples at these indices ``[M]``; one may occur several times."""
        n = self.inputs.samples
        return replace(
            self, inputs=self.inputs.select(rows), target=targets.select(self.target, rows, n),
            bounds=select_bounds(self.bounds, rows, n),
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
        return in_batches(work, total, size or self.rows_at_a_time, self.progress, label)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator of random numbers that begins at the question's seed."""
        return torch.Generator(device).manual_seed(self.seed)


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


def _neuron(model: Any, inputs: Inputs, target: targets.Neuron) -> Tensor:
    """One activation ``[N]`` inside the model, in its last run."""
    found: list[Any] = []
    hook = module_named(model, target.layer).register_forward_hook(lambda module, args, out: found.append(out))
    try:
        inputs.call(model, inputs.values)
    finally:
        hook.remove()
    if not found:
        raise InvalidTarget(f"Layer {target.layer!r} did not run")
    return activation(targets.select_output(found[-1]), target)
