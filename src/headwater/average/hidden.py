"""Hidden layers and neurons along a path: internal influence, conductance, and what explains one neuron."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headwater.answer import Answer
from headwater.average.means import check_averaged
from headwater.average.paths import Paths, integrate, integrated_gradients, nodes
from headwater.errors import InvalidInput
from headwater.points import Rows
from headwater.points import baselines as starts_at
from headwater.propagate.places import module_named
from headwater.question import Question
from headwater.target import Neuron

Parts = list[tuple[Tensor, Tensor]]  # value and factor of a layer's output, for each time that it ran


def layer_along_path(
    question: Question,
    *,
    conductance: bool,
    layer: str = "",
    baselines: Any = None,
    steps: int = 50,
    of: Any = "gradient",
) -> Answer:
    """What a layer's units contribute on the straight path from a baseline to the input.

    Internal influence (Leino et al. 2018) is the mean of ``∂f/∂y`` over the path. The conductance of a unit, summed
    over inputs (Dhamdhere et al. 2019), is ``∫ ∂f/∂y · dy/dt dt``, which is the path integral in the layer's own space
    (Shrikumar et al. 2018) and is computed as that, by the trapezoid rule: it sums to ``f(x) - f(baseline)`` over a
    layer that everything passes.

    Args:
        question: about N samples.
        conductance: or influence.
        layer: a module's name in ``model.named_modules()``.
        baselines, steps, of: as for integrated gradients; one baseline.

    Returns:
        an answer whose ``layers[layer]`` is the map of the layer, shaped like its output (a list where it ran several
        times), and whose relevance is that of the same integral at the input: integrated gradients.

    Raises:
        InvalidInput: for a layer that the model does not have, or whose samples do not lie along its first axis.
    """
    check_averaged(question, of, steps=steps)
    _check_layer(question, layer)
    if isinstance(baselines, list):
        raise InvalidInput("baselines= takes one baseline here, not a list")
    paths = Paths(starts_at(question, baselines), nodes("trapezoid" if conductance else "gauss_legendre", steps))
    lengths = (paths.nodes.high - paths.nodes.low)[0]
    previous: dict[int, Parts] = {}  # the last row of each batch, by its place

    def ask(part: Question, rows: Rows) -> Sequence[Tensor | None]:
        answer = replace(part, layers=(layer,)).walk(of.composite, "relevance", move=paths.move(rows), parts=True)
        found = answer.layers[layer]
        parts = found if isinstance(found, list) else [found]
        _check_samples(layer, parts, rows)
        if not conductance:
            return [*answer.relevance, *(g * _like(lengths[rows.point], g) for _, g in parts)]
        maps = _stretches(parts, rows, previous.get(rows.start - 1))
        for place in [p for p in previous if p < rows.start - 1]:
            del previous[place]
        previous[rows.start + len(rows.point) - 1] = [(y[-1:], g[-1:]) for y, g in parts]
        return [*answer.relevance, *maps]

    answer, means = integrate(question, of, paths, ask)
    maps = [mean.result for mean in means[len(question.inputs.values) :] if mean is not None]
    answer.layers = {layer: maps[0] if len(maps) == 1 else maps}
    return answer


def _stretches(parts: Parts, rows: Rows, before: Parts | None) -> list[Tensor]:
    """Mean factor times change of the layer's output between each row and the one before it; 0 where a path begins."""
    maps = []
    for i, (y, g) in enumerate(parts):
        first_y, first_g = before[i] if before is not None else (y[:1], g[:1])
        change, mean = y.diff(dim=0, prepend=first_y), (g + torch.cat([first_g, g[:-1]])) / 2
        maps.append(torch.where(_like(rows.point, y) == 0, torch.zeros_like(y), change * mean))
    return maps


def _like(column: Tensor, value: Tensor) -> Tensor:
    column = column.to(value.device, value.dtype) if column.is_floating_point() else column.to(value.device)
    return column.view(-1, *[1] * (value.dim() - 1))


def _check_layer(question: Question, layer: str) -> None:
    if not layer:
        names = [name for name, _ in getattr(question.model, "named_modules", list)() if name]
        raise InvalidInput(f"layer= is missing: pass the name of a module, one of {', '.join(names[:12]) or 'none'}")
    module_named(question.model, layer)


def _check_samples(layer: str, parts: Parts, rows: Rows) -> None:
    if not parts:
        raise InvalidInput(f"Layer {layer!r} did not run")
    for y, _ in parts:
        if not y.dim() or len(y) != len(rows.point):
            raise InvalidInput(
                f"The output of layer {layer!r}, {tuple(y.shape)}, does not have its samples along the first axis"
            )


# ---------------------------------------------------------------------- single neurons


def neuron_conductance(
    question: Question,
    *,
    layer: str = "",
    neuron: Any = None,
    baselines: Any = None,
    steps: int = 50,
    rule: str = "gauss_legendre",
    of: Any = "gradient",
) -> Answer:
    """The part of integrated gradients that flows through a hidden neuron (Dhamdhere et al. 2019, Definition 1).

    ``R_i = (x_i - x̃_i) ∫ ∂f/∂y · ∂y/∂x_i dt``. It has no sum of its own; over all neurons of a layer that everything
    passes it sums to integrated gradients.

    Args:
        question: about N samples.
        layer: a module's name; ``neuron``: an index into its output after the sample axis, an int or a tuple. Fewer
            indices than axes name a group: an int is a whole channel.
        baselines, steps, rule, of: as for integrated gradients.

    Raises:
        InvalidInput: for a layer that the model does not have, or a neuron that the layer does not have.
    """
    _check_layer(question, layer)
    shape = _shape(question, layer)
    index = _index(neuron)
    mask = torch.zeros(shape, dtype=torch.bool)
    try:
        mask[index] = True
    except IndexError:
        raise InvalidInput(f"neuron={neuron!r} is out of range for a layer output of shape {shape}") from None
    conditions = {**question.through, layer: mask[None]}
    return integrated_gradients(
        replace(question, through=conditions), baselines=baselines, steps=steps, rule=rule, of=of
    )


def neuron_integrated_gradients(
    question: Question,
    *,
    layer: str = "",
    neuron: Any = None,
    baselines: Any = None,
    steps: int = 50,
    rule: str = "gauss_legendre",
    of: Any = "gradient",
) -> Answer:
    """Integrated gradients of a hidden neuron's activation (Shrikumar et al. 2018).

    Args:
        question: about N samples.
        layer, neuron: the neuron, by its module and its index in that module's output after the sample axis.
        baselines, steps, rule, of: as for integrated gradients.
    """
    return integrated_gradients(
        _about_neuron(question, layer, neuron), baselines=baselines, steps=steps, rule=rule, of=of
    )


def neuron_guided_backprop(question: Question, *, layer: str = "", neuron: Any = None) -> Answer:
    """Guided backprop from a hidden neuron (Springenberg et al. 2015).

    Args:
        question: about N samples.
        layer, neuron: the neuron, by its module and its index in that module's output after the sample axis.
    """
    return _about_neuron(question, layer, neuron).walk("guided_backprop", "factor")


def _about_neuron(question: Question, layer: str, neuron: Any) -> Question:
    if question.target is not None:
        raise InvalidInput("This method explains a neuron: pass layer= and neuron=, and no target=")
    _check_layer(question, layer)
    return replace(question, target=Neuron(layer, _index(neuron)))


def _index(neuron: Any) -> tuple[int, ...]:
    index = neuron if isinstance(neuron, (tuple, list)) else (neuron,)
    if not index or not all(isinstance(i, int) and not isinstance(i, bool) for i in index):
        raise InvalidInput(f"neuron= must be an int or a tuple of ints, a place in the layer's output, not {neuron!r}")
    return tuple(index)


def _shape(question: Question, layer: str) -> tuple[int, ...]:
    """The shape of a layer's output after the sample axis."""
    found: list[Tensor] = []

    def note(module: Any, args: Any, output: Any) -> None:
        found.extend([output] if isinstance(output, Tensor) else [t for t in output if isinstance(t, Tensor)][:1])

    hook = module_named(question.model, layer).register_forward_hook(note)
    try:
        question.select(torch.zeros(1, dtype=torch.long)).scores()
    finally:
        hook.remove()
    if not found:
        raise InvalidInput(f"Layer {layer!r} did not run, or returned no tensor")
    return tuple(found[-1].shape[1:])
