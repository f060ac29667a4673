"""Less memory for more time: the blocks of a model keep only their inputs and run again when the walk reaches them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from headwater.errors import UnsupportedModel
from headwater.propagate import places
from headwater.propagate.calls import Reroute
from headwater.propagate.nested import carries, unique
from headwater.propagate.tags import Kept, Tag, attach

if TYPE_CHECKING:
    from headwater.propagate.engine import Propagation

_STATE = threading.local()
_LOCK = threading.Lock()
_PATCHED: dict[int, tuple[nn.Module, Any, int]] = {}  # a module, its own ``forward`` if it had one, its explanations
_PLAIN = (Tensor, int, float, str, bool, type(None), torch.dtype, torch.device)


def blocks(model: Any, whole: Iterable[str] = ()) -> dict[str, nn.Module]:
    """The blocks of a model: members, made of several layers, of its outermost lists and sequences of modules.

    Args:
        model: a module, or a function, which has none.
        whole: names of modules that must be seen as they run; no block holds one.
    """
    found: dict[str, nn.Module] = {}
    for name, container in model.named_modules() if isinstance(model, nn.Module) else ():
        if not isinstance(container, (nn.ModuleList, nn.Sequential)) or any(_within(name, block) for block in found):
            continue
        for key, member in container.named_children():
            layers = [m for m in member.modules() if next(m.parameters(recurse=False), None) is not None]
            path = f"{name}.{key}".lstrip(".")
            if len(layers) > 1 and not any(_within(w, path) and w != path for w in whole):
                found[path] = member
    return found


def _within(name: str, block: str) -> bool:
    return name == block or name.startswith(f"{block}.")


@contextlib.contextmanager
def recomputed(engine: Propagation, model: Any, whole: Iterable[str] = ()) -> Iterator[None]:
    """Within, on this thread, the blocks of a model forget what happens in them until the walk comes to them.

    Args:
        engine: the engine that treats the run; ``model``, ``whole``: as for :func:`blocks`.
    """
    segments = {id(m): name for name, m in blocks(model, whole).items()}
    modules = [m for m in model.modules() if id(m) in segments] if segments else []
    before = getattr(_STATE, "current", None)
    with _LOCK:
        for module in modules:
            _patch(module)
    _STATE.current = (engine, segments)
    try:
        yield
    finally:
        _STATE.current = before
        with _LOCK:
            for module in modules:
                _restore(module)


def _patch(module: nn.Module) -> None:
    _, own, count = _PATCHED.get(id(module), (module, module.__dict__.get("forward"), 0))
    if not count:
        forward = module.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            current = getattr(_STATE, "current", None)
            if current is None or id(module) not in current[1]:
                return forward(*args, **kwargs)
            engine, segments = current
            _STATE.current = None  # a block within a block is part of it
            try:
                return _forget(engine, segments[id(module)], forward, args, kwargs)
            finally:
                _STATE.current = current

        module.__dict__["forward"] = run
    _PATCHED[id(module)] = (module, own, count + 1)


def _restore(module: nn.Module) -> None:
    _, own, count = _PATCHED.pop(id(module))
    if count > 1:
        _PATCHED[id(module)] = (module, own, count - 1)
    elif own is None:
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = own


def _forget(engine: Propagation, name: str, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a block, let its graph go, and give its outputs a walk that runs it again."""
    with torch._C.DisableTorchFunction():
        args, kwargs = tree_map(engine.materialize, (args, kwargs))
        inputs = unique([t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and engine.reaches(t)])
        versions, entries = [t._version for t in inputs], len(engine.entries)
        if engine.allow_training:
            engine.seed_now()
        random = torch.get_rng_state() if engine.allow_training else None
    output = forward(*args, **kwargs)
    with torch._C.DisableTorchFunction():
        output = tree_map(engine.materialize, output)
        ends = _ends(engine, output)
        # What is written to, embedded or folded across the block's border is left as it is.
        leaves = all(isinstance(v, _PLAIN) for v in tree_leaves(output))
        apart = all(engine.tag(t).source is None for t in inputs) and all(engine.tag(t).affine is None for t in ends)
        if not (inputs and ends and leaves and apart) or entries != len(engine.entries):
            return output
        if versions != [t._version for t in inputs]:
            return output
        block = _Block(engine, name, forward, args, kwargs, inputs, [t.detach() for t in ends], random)
        results = Reroute.apply(engine, block.walk, len(ends), *block.values, *inputs)
        results = results if isinstance(results, tuple) else (results,)
        swap = {}
        for old, new in zip(ends, results, strict=True):
            attach(new, _fact(engine, old, new))
            swap[id(old)] = new
        return tree_map(lambda t: swap.get(id(t), t), output)


def _ends(engine: Propagation, output: Any) -> list[Tensor]:
    found = [t for t in tree_leaves(output) if isinstance(t, Tensor) and carries(t)]
    return unique([t for t in found if engine.reaches(t)])


def _fact(engine: Propagation, old: Tensor, new: Tensor) -> Tag:
    """What is known of a tensor, for a copy of it without its history."""
    known = engine.tag(old)
    fact = Tag(engine, new._version, known.depth, first=known.first, nonneg=known.nonneg)
    fact.gate = known.gate
    return fact


class _Block:
    """One run of a block: its arguments, and its outputs to compare with those of the second run."""

    def __init__(
        self, engine: Propagation, name: str, forward: Callable[..., Any], args: Any, kwargs: Any,
        inputs: list[Tensor], values: list[Tensor], random: Tensor | None,
    ) -> None:  # fmt: skip
        self.engine, self.name, self.forward, self.values, self.random = engine, name, forward, values, random
        self.kept: list[Kept] = [engine.keeper.keep(t.detach()) for t in inputs]
        self.facts = [_fact(engine, t, t) for t in inputs]
        known = {id(t): _Place(i) for i, t in enumerate(inputs)}
        self.args, self.kwargs = tree_map(lambda v: known.get(id(v), v), (args, kwargs))

    def walk(self, *cs: Tensor | None) -> Sequence[Tensor | None]:
        """Run the block again from its kept inputs, and walk back through it."""
        engine = self.engine
        leaves = []
        for kept, fact in zip(self.kept, self.facts, strict=True):
            leaf = kept.value.detach().requires_grad_()
            attach(leaf, fact.renewed(leaf._version))
            leaves.append(leaf)
        args, kwargs = tree_map(lambda v: leaves[v.index] if isinstance(v, _Place) else v, (self.args, self.kwargs))
        depth = engine.depth
        with torch.enable_grad(), self._same_randomness():
            ends = _ends(engine, tree_map(engine.materialize, engine.inside(self.forward, *args, **kwargs)))
        engine.depth = depth
        self._check(ends)
        known = [(t, c) for t, c in zip(ends, cs, strict=True) if c is not None]
        return torch.autograd.grad([t for t, _ in known], leaves, [c for _, c in known], allow_unused=True)

    @contextlib.contextmanager
    def _same_randomness(self) -> Iterator[None]:
        if self.random is None:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random)
            yield

    def _check(self, ends: list[Tensor]) -> None:
        same = len(ends) == len(self.values) and all(
            a.shape == b.shape and torch.equal(a, b) for a, b in zip(ends, self.values, strict=True)
        )
        outside = any(places.leads_to(t, [e.leaf for e in self.engine.entries]) for t in ends)
        if outside or not same:
            raise UnsupportedModel(
                f"The block {self.name!r} does not do the same when it runs again: something in it remembers (a cache: "
                "pass use_cache=False along with the input) or is random. Mend that, or leave checkpoint out."
            )


class _Place:
    """Stands for a live tensor in the kept arguments of a block."""

    def __init__(self, index: int) -> None:
        self.index = index
