"""How the micro networks are written: a module from a function and its parts, an input, and a table by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.reference.audit import score


class Net(nn.Module):
    """``forward(*inputs)`` is ``body(self, *inputs)``; parts are modules, and tensors that become parameters."""

    def __init__(self, body: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.body = body
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.double().eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.body(self, *args, **kwargs)


@dataclass(frozen=True)
class Case:
    """A network, what it is called with (a tensor, tuple or dict), and the scalar that is explained."""

    model: nn.Module
    inputs: Any
    score: Callable[[Any], Tensor] = score


@dataclass(frozen=True)
class Network:
    """``homogeneous``: f(t x) = t f(x) for every t > 0, piecewise linear or not, so that LRP-0 is gradient x input."""

    build: Callable[[], Case]
    homogeneous: bool

    def fresh(self) -> Case:
        """Always the same weights and input."""
        torch.manual_seed(0)
        return self.build()


class Table(dict[str, Network]):
    """Networks by name; its decorators file a function under its own name."""

    def homogeneous(self, build: Callable[[], Case]) -> Callable[[], Case]:
        return self._file(build, True)

    def other(self, build: Callable[[], Case]) -> Callable[[], Case]:
        return self._file(build, False)

    def _file(self, build: Callable[[], Case], homogeneous: bool) -> Callable[[], Case]:
        assert build.__name__ not in self, f"two networks are called {build.__name__}"
        self[build.__name__] = Network(build, homogeneous)
        return build


def x(*shape: int) -> Tensor:
    """An input of both signs."""
    return torch.randn(shape, dtype=torch.float64)


def up(*shape: int) -> Tensor:
    """A positive input, away from zero."""
    return torch.rand(shape, dtype=torch.float64) + 0.2


def ids(*shape: int, words: int = 11) -> Tensor:
    return torch.randint(1, words, shape)


def w(*shape: int) -> Tensor:
    """A weight."""
    return torch.randn(shape, dtype=torch.float64) / shape[-1] ** 0.5


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, bias=False, **options)


def net(body: Callable[..., Any], inputs: Any, **parts: Any) -> Case:
    return Case(Net(body, **parts), inputs)


def between(body: Callable[[Tensor], Any], width: int = 6) -> Case:
    """A function or module of ``[3, width]`` between two linear layers of the same width."""
    parts = own(body)
    return net(lambda m, v: m.b(body(m.a(v))), x(3, 5), a=linear(5, width), b=linear(width, 4), **parts)


def on_map(body: Callable[[Tensor], Tensor]) -> Case:
    """A function or module of ``[3, 4, 6, 6]`` between a convolution and a dense layer."""
    model = Net(lambda m, v: m.b(body(m.a(v)).flatten(1)), a=conv(2, 4, padding=1), **own(body))
    example = x(3, 2, 6, 6)
    with torch.no_grad():
        features = body(model.a(example)).flatten(1).shape[1]
    model.b = linear(features, 4).double()
    return Case(model, example)


def own(body: Callable[..., Any]) -> dict[str, nn.Module]:
    """A module that is called must belong to the model that calls it."""
    return {"part": body} if isinstance(body, nn.Module) else {}


def file_functions(
    file: Callable[[Callable[[], Case]], Any], functions: dict[str, Any], around: Callable[[Any], Case]
) -> None:
    """File each function of a dictionary, in its surroundings, as a network of its own."""

    def named(name: str, body: Any) -> Callable[[], Case]:
        def build() -> Case:
            return around(body)

        build.__name__ = name
        return build

    for name, body in functions.items():
        file(named(name, body))
