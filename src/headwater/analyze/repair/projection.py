"""An artefact's direction in a layer, and layers that let nothing pass along it: class artefact compensation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput, MissingExtra

Direction = Literal["signal", "paste", "svm"]
Batches = Sequence[Tensor]
_VECTORS, _POINTS = "clarc_{}_directions", "clarc_{}_points"


def project(model: nn.Module, layer: str, direction: Tensor, reference: Tensor | None = None) -> None:
    """Let a layer pass nothing along a direction: its activations ``a`` become ``a - v (v·a - v·z)``, in place.

    The direction and its point are buffers of the module, so that ``state_dict``, ``to`` and ``deepcopy`` keep them;
    :func:`load_repaired` reads such a state. A further direction is made orthogonal to those that are there.

    Args:
        layer: a module's name, whose output is meant; or ``NAME:input`` for its (first) argument.
        direction: ``v``, of any length, shaped like one sample of the activations ``[*shape]``.
        reference: ``z``, the activations of samples without the artefact, ``[*shape]``; zeros by default.

    Raises:
        InvalidInput: an unknown layer, or a direction without length or that those before hold already.

    Source: Anders et al.: Finding and removing Clever Hans, Information Fusion 77, 2022, Section 3.3 (P-ClArC).
    """
    module, side = place_of(model, layer)
    vectors, points = _VECTORS.format(side), _POINTS.format(side)
    vector = direction.detach().clone()
    if not bool(vector.isfinite().all()) or not bool(vector.any()):
        raise InvalidInput(f"the direction at {layer!r} has no length: members and rest are alike there")
    vector /= vector.norm()
    point = vector.new_zeros(()) if reference is None else (vector * reference).sum()
    if not hasattr(module, vectors):
        _hold(module, side, vector[None], point[None])
        return
    before, at = getattr(module, vectors), getattr(module, points)
    along = (before.flatten(1) @ vector.flatten()).to(vector)
    left = vector - (along.view(-1, *[1] * vector.dim()) * before).sum(0)
    if float(left.norm()) < 1e-4:
        raise InvalidInput(f"{layer!r} lets nothing pass along this direction already")
    setattr(module, vectors, torch.cat([before, (left / left.norm())[None]]))
    setattr(module, points, torch.cat([at, ((point - along @ at) / left.norm())[None]]))


def place_of(model: nn.Module, layer: str) -> tuple[nn.Module, str]:
    """The module and ``"output"`` or ``"input"``.

    Raises:
        InvalidInput: there is no such module.
    """
    name, _, ending = layer.partition(":")
    known = dict(model.named_modules())
    if name not in known or not name or ending not in ("", "input"):
        names = [n for n in known if n]
        raise InvalidInput(f"there is no layer {layer!r}: name a module ({', '.join(names[-8:])}), or NAME:input")
    return known[name], "input" if ending else "output"


def load_repaired(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Load the ``state_dict`` of a repaired model into one of the original architecture, with its projections.

    Raises:
        InvalidInput: projections in modules that this model does not have.
    """
    for key in state:
        for side in ("output", "input"):
            name, dot, last = key.rpartition(".")
            if dot and last == _VECTORS.format(side):
                module = place_of(model, name)[0]
                _hold(module, side, state[key].clone(), state[f"{name}.{_POINTS.format(side)}"].clone())
    model.load_state_dict(state)
    return model


def candidates(model: nn.Module, x: Tensor, most: int = 12) -> list[str]:
    """Layers at which an artefact could be projected out: inputs of the affine modules after the first, evenly spread.

    Raises:
        InvalidInput: there is none that runs once.
    """
    names: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, _args, name=name: names.append(name))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
    ]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    once = [name for name in dict.fromkeys(names) if names.count(name) == 1][1:]
    if not once:
        raise InvalidInput("the model has no second linear or convolutional module that runs once: name a layer=")
    picked = sorted({round(i) for i in torch.linspace(0, len(once) - 1, min(most, len(once))).tolist()})
    return [f"{once[i]}:input" for i in picked]


def direction_of(
    model: nn.Module, layer: str, bearing: Batches, without: Batches, svm: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The artefact's direction ``[*shape]`` in a layer, and the mean activations of samples with and without it.

    By default the difference of the means, which is the signal vector cov(a, t) / var(t) of activations a and their
    kind t: a classifier's normal holds what cancels distractors too, and projecting along it leaves signal behind.

    Args:
        bearing, without: batches of samples of either kind.
        svm: take the normal of a linear classifier.

    Raises:
        InvalidInput: the layer's value is no float tensor of the batch, or there are several.

    Source: Pahde et al.: Navigating neural space, 2022, Eq. 5 (signal); Anders et al. 2022, Section 3.1 (classifier).
    """
    means = []
    for batches in (bearing, without):
        total = sum(a.sum(0) for a in _activations(model, layer, batches))
        means.append(torch.as_tensor(total) / sum(map(len, batches)))
    vector = _normal(model, layer, bearing, without).to(means[0]) if svm else means[0] - means[1]
    return vector, means[0], means[1]


def _normal(model: nn.Module, layer: str, bearing: Batches, without: Batches) -> Tensor:
    try:
        from sklearn.svm import LinearSVC
    except ModuleNotFoundError as error:
        raise MissingExtra("spray", "scikit-learn") from error
    rows = [torch.cat([a.cpu().float() for a in _activations(model, layer, b)]) for b in (bearing, without)]
    features = torch.cat([side.flatten(1) for side in rows]).numpy()
    kinds = [1] * len(rows[0]) + [0] * len(rows[1])
    scale = float(abs(features).max()) or 1.0
    fitted = LinearSVC(class_weight="balanced", random_state=0, dual="auto", max_iter=5000).fit(features / scale, kinds)
    return torch.from_numpy(fitted.coef_[0]).view(rows[0].shape[1:])


def _activations(model: nn.Module, layer: str, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    seen: list[Any] = []

    def see(a: Any) -> Any:
        seen.append(a)
        return a

    for x in batches:
        seen.clear()
        with swapped(model, layer, see), torch.no_grad():
            model(x)
        if len(seen) != 1:
            raise InvalidInput(f"{layer!r} runs {len(seen)} times for one input: choose a layer that runs once")
        a = seen[0]
        if not isinstance(a, Tensor) or not a.is_floating_point() or not a.dim() or len(a) != len(x):
            raise InvalidInput(f"the value at {layer!r} is no float tensor [N, ...]: choose another layer")
        yield a


@contextmanager
def swapped(model: nn.Module, layer: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """Within, ``change`` is applied to the activations of a layer."""
    module, side = place_of(model, layer)
    if side == "input":
        handle = module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
    else:
        handle = module.register_forward_hook(lambda _module, _args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def _hold(module: nn.Module, side: str, vectors: Tensor, points: Tensor) -> None:
    module.register_buffer(_VECTORS.format(side), vectors)
    module.register_buffer(_POINTS.format(side), points)
    if side == "input":
        module.register_forward_pre_hook(_before)
    else:
        module.register_forward_hook(_after)


def _before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (projected(args[0], module.clarc_input_directions, module.clarc_input_points), *args[1:])


def _after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    return projected(output, module.clarc_output_directions, module.clarc_output_points)


def projected(a: Tensor, vectors: Any, points: Any) -> Tensor:
    """Activations ``[N, *shape]`` with their parts along orthonormal ``vectors [k, *shape]`` put to ``points [k]``."""
    flat = vectors.flatten(1)
    along = a.flatten(1) @ flat.t() - points
    return a - (along @ flat).view_as(a)
