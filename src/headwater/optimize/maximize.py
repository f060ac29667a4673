"""Activation maximization: an input that a model scores as high as it can, found by ascent on the input alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from headwater import target as targets
from headwater.arguments import Inputs
from headwater.errors import InvalidInput
from headwater.optimize.climb import blurred, climb, places, roughness, spatial, variation
from headwater.points import Place, generator
from headwater.propagate import soundness
from headwater.question import Question

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Ascent = Callable[..., torch.optim.Optimizer]
_OPTIMIZERS: Mapping[str, _Ascent] = {"adam": torch.optim.Adam, "sgd": partial(torch.optim.SGD, momentum=0.9)}


@dataclass(frozen=True)
class Prior:
    """What keeps an optimum natural; every weight is 0 where it is not wanted.

    Attributes:
        l2: weight of the mean square of the values (Simonyan et al. 2014).
        tv: weight of the total variation, a mean over neighbours (Mahendran and Vedaldi 2015).
        spectral: weight of the power at high frequencies, see :func:`headwater.optimize.climb.roughness`.
        decay: weight decay: each step shrinks the values by ``rate * decay`` of themselves.
        jitter: each step sees the input rolled by up to this many places (Olah et al. 2017).
        blur: standard deviation of a Gaussian blur, every fourth step (Yosinski et al. 2015).
        bounds: lowest and highest value, to which each step is clamped.
        axes: along which values lie beside each other; by default those after the channels.
    """

    l2: float = 0.0
    tv: float = 0.0
    spectral: float = 0.0
    decay: float = 0.0
    jitter: int = 0
    blur: float = 0.0
    bounds: tuple[float, float] | None = None
    axes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("l2", "tv", "spectral", "decay", "jitter", "blur"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise InvalidInput(f"{name} must be a number of at least 0, not {value!r}")
        if self.bounds is not None and not (len(self.bounds) == 2 and self.bounds[0] < self.bounds[1]):
            raise InvalidInput(f"bounds must be (low, high) with low < high, not {self.bounds!r}")

    def penalty(self, value: Tensor) -> Tensor:
        """What is subtracted from the score, ``[N]``."""
        axes = spatial(value, self.axes)
        total = self.l2 * value.square().flatten(1).mean(1) if self.l2 else value.new_zeros(len(value))
        total = total + self.tv * variation(value, axes) if self.tv else total
        return total + self.spectral * roughness(value, axes) if self.spectral else total

    def settle(self, value: Tensor, step: int, rate: float) -> Tensor:
        """Values after a step: decayed, blurred, clamped."""
        if self.decay:
            value = value * (1 - rate * self.decay)
        if self.blur and step % 4 == 0:
            value = blurred(value, self.blur, spatial(value, self.axes))
        return value if self.bounds is None else value.clamp(*self.bounds)


@dataclass
class Optimum:
    """What :func:`maximize` finds.

    Attributes:
        x: the optimal inputs, shaped like the model's input, N of them; of token ids their embedding.
        score: the model's scores of them, ``[N]``; ``target``: as resolved.
        curve: the scores of each step, ``[steps + 1, N]``; where a start has stopped, its last.
        objective: score less penalties, of the same shape.
        stopped: the step at which each start stopped improving, ``[N]``; -1 where it had not by the last step.
        start: where the search began, shaped like ``x``.
    """

    x: Any
    score: Tensor
    target: Any
    curve: Tensor
    objective: Tensor
    stopped: Tensor
    start: Any

    @property
    def converged(self) -> Tensor:
        """Whether each start stopped improving before the last step, ``[N]``."""
        return self.stopped >= 0

    def plot(self, **options: Any) -> Figure:
        """The optimal inputs beside their learning curves; see :func:`headwater.show.optimum.plot`.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        from headwater.show.optimum import plot

        return plot(self, **options)

    def save(self, path: str | Path) -> Path:
        """Save ``x``, ``start``, ``score``, ``curve``, ``objective`` and ``stopped`` as safetensors."""
        from safetensors.torch import save_file

        tensors = {name: getattr(self, name) for name in ("score", "curve", "objective", "stopped")}
        for name in ("x", "start"):
            value = getattr(self, name)
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            tensors |= {name: value} if isinstance(value, Tensor) else {f"{name}.{k}": v for k, v in items}
        save_file({k: v.contiguous() for k, v in tensors.items() if isinstance(v, Tensor)}, path)
        return Path(path)

    def __repr__(self) -> str:
        reached = ", ".join(f"{s:.4g}" for s in self.score[:8].tolist())
        return f"Optimum(scores {reached}, {len(self.curve) - 1} steps, {int(self.converged.sum())} converged)"


def maximize(
    model: Callable[..., Any],
    target: Any = None,
    *,
    start: Any = "zeros",
    shape: Sequence[int] | None = None,
    count: int = 1,
    scale: float = 1.0,
    steps: int = 512,
    rate: float = 0.05,
    optimizer: Literal["adam", "sgd"] = "adam",
    l2: float = 0.0,
    tv: float = 0.0,
    spectral: float = 0.0,
    decay: float = 0.0,
    jitter: int = 0,
    blur: float = 0.0,
    bounds: tuple[float, float] | None = None,
    axes: Sequence[int] | None = None,
    tolerance: float = 1e-4,
    patience: int = 50,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
    allow_training: bool = False,
) -> Optimum:
    """Find inputs that a model scores high: activation maximization, in seismology backward optimization.

    The model is frozen; an optimizer ascends its score, less penalties, on the values of the input. All starts go
    through the model in one batch, and each stops by itself.

    Args:
        model: a module or any function of tensors; it is left as it was.
        target: what is maximized; see :mod:`headwater.target`. A function of the output can be any objective, such as
            minus the loss for a desired class.
        start: "zeros", "random" (Gaussian of standard deviation ``scale``), or real inputs as for ``hw.explain``, whose
            floats are changed (of token ids, their embedding).
        shape: of one input without the sample axis, or a tuple or dict of shapes, where the start is none itself.
        count: how many random starts, an ensemble; zeros have one.
        scale: of random starts.
        steps: at most.
        rate: of the optimizer.
        optimizer: "adam", or "sgd" with momentum 0.9, whose steps shrink with the gradient: a real start that scores
            high under a bounded objective, such as the log-likelihood of a class, hardly changes.
        l2, tv, spectral, decay, jitter, blur, bounds, axes: what keeps the optimum natural; see :class:`Prior`.
        tolerance: a start stops where its objective has not grown by this share of its range so far for ``patience``
            steps.
        batch_size, seed, progress, allow_training: as for ``hw.explain``.

    Returns:
        an :class:`Optimum`: the best inputs on the way, and the learning curve.

    Raises:
        InvalidInput: for a start without a shape, options out of range; InvalidTarget: as for ``hw.explain``.

    Source: Erhan et al. 2009; Simonyan et al. 2014; Olah et al. 2017; Majstorović et al. 2023, Section 2.5.2.
    """
    prior = Prior(l2, tv, spectral, decay, jitter, blur, bounds, axes)
    for name, value in (("steps", steps), ("count", count), ("patience", patience)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInput(f"{name} must be a whole number of at least 1, not {value!r}")
    if not rate > 0:
        raise InvalidInput(f"rate must be above 0, not {rate!r}")
    if optimizer not in _OPTIMIZERS:
        raise InvalidInput(f"optimizer={optimizer!r} is not known: choose one of {', '.join(_OPTIMIZERS)}")
    soundness.check_model(model, allow_training)
    inputs = Inputs.of(_start(model, start, shape, count, scale, seed))
    question = Question(
        model, inputs, target, batch_size=batch_size, seed=seed, progress=progress, allow_training=allow_training
    )  # fmt: skip
    with torch.inference_mode(False), torch.enable_grad(), soundness.eager(), inputs.taken_by(model):
        search = _Search(question.fixed(), prior, _OPTIMIZERS[optimizer], rate, tolerance, patience)
        replace(question, batch_size=None).in_batches(search.step, steps, 1, "optimizing")
        return search.result()


def _start(model: Any, start: Any, shape: Any, count: int, scale: float, seed: int) -> Any:
    """The inputs at which the search begins."""
    if not isinstance(start, str):
        if shape is not None:
            raise InvalidInput("shape= is for starts of zeros or random values: a real start has its own")
        return start
    if start not in ("zeros", "random"):
        raise InvalidInput(f"start={start!r} is not known: pass 'zeros', 'random' or inputs")
    if shape is None:
        raise InvalidInput(f"start={start!r} needs shape=, that of one input without the sample axis")
    if isinstance(shape, Mapping):
        return {
            k: _start(model, start, s, count, scale, seed + 7919 * i) for i, (k, s) in enumerate(shape.items())
        }  # fmt: skip
    if any(isinstance(s, (tuple, list, torch.Size)) for s in shape):
        return tuple(_start(model, start, s, count, scale, seed + 7919 * i) for i, s in enumerate(shape))
    weight = next(iter(getattr(model, "parameters", tuple)()), torch.zeros(()))
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    if start == "zeros":
        return torch.zeros(1, *shape, dtype=dtype, device=weight.device)
    drawn = [torch.randn(tuple(shape), generator=generator("cpu", seed, k)) for k in range(count)]
    return torch.stack(drawn).mul_(scale).to(weight.device, dtype)


class _Search:
    """The state of one ascent: values, the best of them so far, and the curve."""

    def __init__(
        self, question: Question, prior: Prior, ascent: _Ascent, rate: float, tolerance: float, patience: int
    ) -> None:
        self.question, self.prior, self.rate = question, prior, rate
        self.tolerance, self.patience = tolerance, patience
        met = places(question)
        if len(met) != len(question.explained):
            raise InvalidInput("Token ids that the model embeds several times cannot be optimized: pass embeddings")
        self.dtypes = {place: v.dtype for place, v in met.items()}
        self.values = {place: v.float() if v.dtype.itemsize < 4 else v.clone() for place, v in met.items()}
        self.values = {place: prior.settle(v, 1, 0.0) for place, v in self.values.items()}
        self.begin = {place: v.clone() for place, v in self.values.items()}
        self.best = {place: v.clone() for place, v in self.values.items()}
        self.optimizer = ascent([v.requires_grad_() for v in self.values.values()], lr=rate, maximize=True)
        n = question.inputs.samples
        self.stopped = torch.full((n,), -1)
        self.since = torch.zeros(n, dtype=torch.long)  # steps without improvement
        self.scores: list[Tensor] = []
        self.objectives: list[Tensor] = []
        self.best_score = self.best_objective = torch.empty(0)
        self.lowest = self.mark = torch.empty(0)  # the lowest objective, and the one that growth is measured from
        self._roll = generator("cpu", question.seed, -2)

    def step(self, rows: slice) -> None:
        """Look at the values, note them, and make one step up from those that still improve."""
        if self.objectives and bool((self.stopped >= 0).all()):
            return
        self._look()
        self.optimizer.step()
        with torch.no_grad():
            resting = self.stopped >= 0
            for place, value in self.values.items():
                settled = self.prior.settle(value, rows.stop, self.rate)
                at_rest = resting.to(value.device).view(-1, *[1] * (value.dim() - 1))
                value.copy_(torch.where(at_rest, self.best[place], settled))

    def _look(self) -> None:
        """Scores, objectives and gradients at the values."""
        shifts = {place: self._shifts(v) for place, v in self.values.items()}
        scores, gradients = climb(
            self.question, {p: self._rolled(v.detach(), shifts[p]) for p, v in self.values.items()}
        )
        penalties = [self.prior.penalty(v) for v in self.values.values()]
        penalty = torch.stack([p.to(scores) for p in penalties]).sum(0)
        pulls: Sequence[Tensor | None] = [None] * len(self.values)
        if penalty.requires_grad:
            pulls = torch.autograd.grad(penalty.sum(), list(self.values.values()), allow_unused=True)
        for (place, value), pull in zip(self.values.items(), pulls, strict=True):
            gradient = gradients[place[0]]
            assert gradient is not None
            back = self._rolled(gradient.to(value), [-s for s in shifts[place]])
            value.grad = back if pull is None else back - pull
        self._note(scores.detach(), (scores - penalty).detach())

    def _shifts(self, value: Tensor) -> list[int]:
        axes, most = spatial(value, self.prior.axes), self.prior.jitter
        return [int(torch.randint(-most, most + 1, (), generator=self._roll)) if most else 0 for _ in axes]

    def _rolled(self, value: Tensor, shifts: list[int]) -> Tensor:
        return value.roll(shifts, spatial(value, self.prior.axes)) if any(shifts) else value

    def _note(self, scores: Tensor, objectives: Tensor) -> None:
        """Add to the curve, keep what is best, and see which starts have stopped improving."""
        step, resting = len(self.objectives), (self.stopped >= 0).to(scores.device)
        if not step:
            self.best_score, self.best_objective = scores, objectives
            self.lowest = self.mark = objectives
            better = torch.ones_like(resting)
        else:
            scores = torch.where(resting, self.scores[-1], scores)
            objectives = torch.where(resting, self.objectives[-1], objectives)
            better = (objectives > self.best_objective) & ~resting
        self.scores.append(scores)
        self.objectives.append(objectives)
        self.best_objective = torch.where(better, objectives, self.best_objective)
        self.best_score = torch.where(better, scores, self.best_score)
        for place, value in self.values.items():
            chosen = better.to(value.device).view(-1, *[1] * (value.dim() - 1))
            self.best[place] = torch.where(chosen, value.detach(), self.best[place])
        self.lowest = torch.minimum(self.lowest, objectives)
        grown = self.best_objective - self.mark > self.tolerance * (self.best_objective - self.lowest)
        self.mark = torch.where(grown, self.best_objective, self.mark)
        self.since = torch.where(grown.cpu(), 0, self.since + 1)
        done = (self.since >= self.patience) & (self.stopped < 0)
        self.stopped = torch.where(done, step, self.stopped)

    def result(self) -> Optimum:
        """The best values, after a last look at those of the last step."""
        if bool((self.stopped < 0).any()):
            self._look()
        question = self.question
        dtypes = self.dtypes
        return Optimum(
            x=self._packed({p: v.to(dtypes[p]) for p, v in self.best.items()}), score=self.best_score,
            target=targets.join([question.target]), curve=torch.stack(self.scores),
            objective=torch.stack(self.objectives), stopped=self.stopped,
            start=self._packed({p: v.to(dtypes[p]) for p, v in self.begin.items()}),
        )  # fmt: skip

    def _packed(self, values: Mapping[Place, Tensor]) -> Any:
        inputs = self.question.inputs
        return inputs.pack([values.get((i, 0), v) for i, v in enumerate(inputs.values)])
