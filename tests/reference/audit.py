"""What every explanation is checked for: a balanced ledger, a batch that equals its samples, a model left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import headwater as hw

TIGHT = 1e-9  # relative; float64
EXACT = 1e-10


def score(output: Tensor) -> Tensor:
    """A target that every output takes part in, each with a weight of its own: shape ``[N, ...]`` to ``[N]``."""
    return (output.flatten(1) * seed(output).flatten(1)).sum(1)


def seed(output: Tensor) -> Tensor:
    """The gradient of ``score``, shaped like ``output``; times ``output`` it is the relevance that enters a network."""
    one = output[0]
    pattern = torch.cos(torch.arange(one.numel(), dtype=one.dtype)) + 0.25
    return pattern.reshape(1, *one.shape).expand_as(output)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest deviation over the largest expected value."""
    assert found.shape == expected.shape, f"shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    return ((found - expected).abs().max() / expected.abs().max()).item()


def assert_same(found: Any, expected: Any, tolerance: float = TIGHT) -> None:
    """Equal up to ``tolerance`` times the largest expected value, in every tensor of a tuple or dict."""
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        assert one.shape == other.shape, f"shape {tuple(one.shape)}, expected {tuple(other.shape)}"
        deviation, scale = (one - other).abs().max().item(), other.abs().max().item()
        assert deviation <= tolerance * max(scale, 1e-300), f"deviation {deviation:.3e} at a scale of {scale:.3e}"


def magnitude(e: hw.Explanation) -> Tensor:
    """``|f| + sum |R|`` of each sample, shape ``[N]``."""
    return e.output.abs() + sum(r.abs().flatten(1).sum(1) for r in tensors(e.relevance))


def assert_balanced(e: hw.Explanation, tolerance: float = TIGHT) -> None:
    """At every operator, what came in went out or was absorbed by a named cause."""
    allowed, rows = tolerance * magnitude(e), list(e.ledger)
    assert rows, "the ledger is empty"
    for row in rows:
        assert torch.isfinite(row.unexplained).all(), (
            f"{row.operator} of {row.layer!r} booked a value that is not finite"
        )
        assert (row.unexplained.abs() <= allowed).all(), (
            f"{row.operator} of {row.layer!r} ({row.rule}): {row.unexplained.tolist()} unexplained, "
            f"{allowed.tolist()} allowed; in {row.incoming.tolist()}, out {row.outgoing.tolist()}, "
            f"absorbed {row.absorbed}"
        )


def assert_accounted(e: hw.Explanation, tolerance: float = TIGHT) -> None:
    """From end to end: the input's relevance and everything absorbed on the way add up to the explained output."""
    absorbed = sum(
        (sum(row.absorbed.values(), torch.zeros_like(e.output)) for row in e.ledger), torch.zeros_like(e.output)
    )
    total = sum(r.flatten(1).sum(1) for r in tensors(e.relevance))
    assert ((total + absorbed - e.output).abs() <= tolerance * magnitude(e)).all(), (
        f"relevance {total.tolist()}, absorbed {absorbed.tolist()}, output {e.output.tolist()}"
    )


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything about a model and its surroundings that an explanation must leave alone."""
    return {
        "parameters": {k: (p.detach().clone(), p.requires_grad, p.grad) for k, p in model.named_parameters()},
        "buffers": {k: b.clone() for k, b in model.named_buffers()},
        "training": {k: m.training for k, m in model.named_modules()},
        "hooks": {
            (k, name): len(getattr(m, name))
            for k, m in model.named_modules()
            for name in vars(m)
            if name.endswith("_hooks")
        },
        "attributes": {k: set(vars(m)) for k, m in model.named_modules()},
        "forward": {k: (type(m), m.__dict__.get("forward")) for k, m in model.named_modules()},
        "rng": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
    }


def assert_unchanged(before: dict[str, Any], model: nn.Module) -> None:
    after = fingerprint(model)
    for what in before:
        assert same(before[what], after[what]), f"the explanation changed the model's {what}"


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, tuple):
        return all(map(same, one, other))
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    return bool(one == other)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a tensor, tuple or dict, in order."""
    if isinstance(value, Tensor):
        yield value
    else:
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


def mapped(f: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A tensor, tuple or dict of the same form with ``f`` applied to each tensor."""
    if isinstance(value, Tensor):
        return f(value)
    if isinstance(value, dict):
        return {k: mapped(f, v) for k, v in value.items()}
    return tuple(mapped(f, v) for v in value)


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's own output, for inputs in any of the forms that ``hw.explain`` takes."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def gradient_times_input(model: nn.Module, inputs: Any, target: Callable[[Any], Tensor] = score) -> Any:
    """Plain autograd, for floating-point inputs."""
    leaves = mapped(lambda t: t.detach().clone().requires_grad_(t.is_floating_point()), inputs)
    target(call(model, leaves)).sum().backward()  # reentrant checkpoints refuse torch.autograd.grad
    model.zero_grad()
    return mapped(lambda t: (t * t.grad).detach() if t.requires_grad else torch.zeros_like(t), leaves)
