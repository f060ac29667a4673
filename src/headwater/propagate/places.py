"""Where in the user's model a call happened: the innermost module on the stack and the line of code."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from headwater.errors import InvalidInput

_PACKAGE = str(Path(__file__).resolve().parents[1])
_TORCH = str(Path(torch.__file__).resolve().parent)


def modules(model: Any) -> list[nn.Module]:
    """All modules of a model, each once, without their names; empty where the model is no module."""
    found: dict[int, nn.Module] = {}
    rest: list[nn.Module | None] = [model] if isinstance(model, nn.Module) else []
    while rest:
        module = rest.pop()
        if module is not None and id(module) not in found:
            found[id(module)] = module
            if module._modules:
                rest.extend(reversed(module._modules.values()))
    return list(found.values())


def layer_names(model: Any) -> dict[int, str]:
    """Names of a model's modules by identity; empty where the model is no module."""
    return {id(m): name for name, m in model.named_modules()} if isinstance(model, nn.Module) else {}


def layer_here(names: dict[int, str]) -> str:
    """Name of the innermost module on this thread's call stack ("" for the model itself or none)."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_argcount and code.co_varnames[0] == "self" and not code.co_filename.startswith(_PACKAGE):
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module):
                return names.get(id(module), type(module).__name__)
        frame = frame.f_back
    return ""


def line_here() -> str:
    """``file:line`` of the innermost code that is neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_PACKAGE, _TORCH)):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "an unknown line"


def describe_here(model: Any) -> str:
    """``in layer 'x' (file:line)`` for an error's text."""
    layer = layer_here(layer_names(model))
    return f"in {f'layer {layer!r}' if layer else 'the model itself'} ({line_here()})"


def module_named(model: Any, name: str) -> nn.Module:
    """A module by its name in ``model.named_modules()``.

    Raises:
        InvalidInput: for a name that the model does not have; the text names those that are alike.
    """
    known = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    if name not in known:
        close = difflib.get_close_matches(name, known, 3) or list(known)[1:6]
        raise InvalidInput(f"The model has no module {name!r}; it has {', '.join(map(repr, close))}")
    return known[name]


def modules_matching(model: Any, patterns: Iterable[str]) -> tuple[str, ...]:
    """Names of modules, where ``*`` and ``?`` in a name stand for any; the ending ``:input`` is kept.

    Raises:
        InvalidInput: where nothing matches.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        if not any(sign in pattern for sign in "*?["):
            found[pattern] = None
            continue
        name, colon, ending = pattern.partition(":")
        known = [n for n, _ in model.named_modules() if n] if isinstance(model, nn.Module) else []
        matching = [n for n in known if fnmatchcase(n, name)]
        if not matching:
            raise InvalidInput(f"No module of the model matches {name!r}; it has {', '.join(map(repr, known[:5]))} ...")
        found |= {f"{n}{colon}{ending}": None for n in matching}
    return tuple(found)


def leads_to(tensor: Tensor, leaves: Iterable[Tensor]) -> bool:
    """Whether the autograd graph above ``tensor`` reaches one of ``leaves``."""
    wanted = {torch.autograd.graph.get_gradient_edge(leaf).node for leaf in leaves}
    stack, seen = [tensor.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in wanted:
            return True
        stack.extend(edge[0] for edge in node.next_functions)
    return False


def unseen(tensor: Tensor, model: Any) -> str:
    """Text of the error for a tensor that an invisible operator made."""
    node = type(tensor.grad_fn).__name__ if tensor.grad_fn is not None else "unknown"
    return (
        f"A tensor {describe_here(model)} was made by an operator that cannot be seen ({node}): a custom "
        "autograd.Function, torch.vmap or an extension. Call its plain PyTorch version instead while explaining."
    )
