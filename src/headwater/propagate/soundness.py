"""What is refused before work starts, and how the place is found where numbers stopped being finite."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headwater.errors import NonFinite, UnsupportedModel
from headwater.propagate import places

if TYPE_CHECKING:
    from headwater.propagate.engine import Propagation

_CHECKED: weakref.WeakKeyDictionary[nn.Module, list[tuple[int, int]]] = weakref.WeakKeyDictionary()


def check_model(model: Any, allow_training: bool = False) -> None:
    """Refuse what cannot be explained as it stands.

    Raises:
        UnsupportedModel: a scripted or quantized module, dropout or batch norm in training mode, no callable.
        NonFinite: NaN or infinity in a parameter or buffer.
    """
    modules = check_mode(model, allow_training)
    for kind, module in {type(module): module for module in reversed(modules)}.items():
        _check_kind(model, module, kind)
    if isinstance(model, nn.Module):
        _check_weights(model, modules)


def check_mode(model: Any, allow_training: bool = False) -> list[nn.Module]:
    """Refuse what gives no answer, or another one each time.

    Returns:
        The modules of the model; none of a function.

    Raises:
        UnsupportedModel: no callable, dropout or batch norm in training mode.
    """
    if not callable(model):
        remedy = ": pass headwater.neuralize(model), or headwater.black_box(model)" if hasattr(model, "predict") else ""
        raise UnsupportedModel(f"A model must be callable on its input; a {type(model).__name__} is not{remedy}")
    modules = places.modules(model)
    for module in modules:
        if module.training:
            _check_training(model, module, allow_training)
    return modules


def _check_kind(model: nn.Module, module: nn.Module, kind: type[nn.Module]) -> None:
    if issubclass(kind, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        where = _name(model, module)
        raise UnsupportedModel(f"{where} is TorchScript, whose operators cannot be seen: pass the eager module.")
    if ".quantized" in kind.__module__ and kind.__module__.startswith("torch."):
        raise UnsupportedModel(f"{_name(model, module)} ({kind.__name__}) is quantized: pass the float module.")
    if kind.__name__ == "FullyShardedDataParallel":
        where = _name(model, module)
        raise UnsupportedModel(f"{where} is sharded by FSDP1, whose weights cannot be followed: use fully_shard.")


def _name(model: nn.Module, module: nn.Module) -> str:
    name = next(name for name, m in model.named_modules() if m is module)
    return f"module {name!r}" if name else "the model"


def _check_training(model: nn.Module, module: nn.Module, allow_training: bool) -> None:
    if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 and not allow_training:
        where = _name(model, module)
        raise UnsupportedModel(f"{where} is dropout in training mode: call model.eval() before explaining.")
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        where = _name(model, module)
        raise UnsupportedModel(f"{where} is batch norm in training mode: call model.eval() before explaining.")


def allow_training(engine: Propagation, what: str) -> None:
    """Let a random layer act as in training where that was asked for, under the explanation's seed.

    Raises:
        UnsupportedModel: where it was not.
    """
    if not engine.allow_training:
        raise UnsupportedModel(f"{what} {places.describe_here(engine.model)}: call model.eval() before explaining.")
    engine.seed_now()


@contextlib.contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Random numbers are those of this seed within; afterwards the generators are as they were."""
    # One by one: torch.random.fork_rng costs more than a small model does.
    generators = [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]
    states = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _check_weights(model: nn.Module, modules: list[nn.Module]) -> None:
    """Look at the values of parameters once, and again only when one has changed."""
    weights = [t for module in modules for t in module._parameters.values() if t is not None]
    state = [(id(t), 0 if t.is_inference() else t._version) for t in weights]
    if _CHECKED.get(model) == state:
        return
    for name, tensor in model.named_parameters():
        if not tensor.is_floating_point() or tensor.device.type == "meta":
            continue
        if not finite(tensor):
            raise NonFinite(f"Parameter {name!r} holds NaN or infinity: load finite weights before explaining.")
    _CHECKED[model] = state


def finite(values: Tensor, total: Tensor | None = None) -> bool:
    """Whether a tensor of floats holds neither NaN nor infinity; one pass over it where it does not.

    Args:
        values: of any shape; ``total``: their sum, where it is known.
    """
    if total is None:
        total = (values.detach() if values.requires_grad else values).sum()
    total = total.detach()
    # Infinity and NaN less themselves are NaN, which is true. Where a sum overflows without them, each value is asked.
    return not bool(total - total) or bool(values.isfinite().all())


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Run what is compiled, be it a model, a part of one or a function, eagerly, where its operators can be seen."""
    if "torch._dynamo.eval_frame" not in sys.modules:  # imported as soon as anything is compiled
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


class _Finder(TorchFunctionMode):
    """Finds the first call whose result is NaN, or is infinite where its arguments were not."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.found = model, ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.found and isinstance(out, Tensor) and out.is_floating_point():
            bad = out.isnan().any() or (out == torch.inf).any()
            if bool(bad):
                name = getattr(func, "__name__", str(func))
                self.found = f"{name!r} {places.describe_here(self.model)}"
        return out


def locate(model: Any, run: Any) -> NonFinite:
    """The error for an output that is not finite, naming the first call on the way that was not."""
    with torch.no_grad(), _Finder(model) as finder:
        run()
    place = f", first after {finder.found}" if finder.found else ""
    return NonFinite(f"The model's output holds NaN or infinity{place}: mend the model or its input.")
