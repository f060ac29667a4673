"""Afterwards the model is as before, and what surrounds the call (precision, grad mode, threads) changes nothing."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater import propagated
from tests.models.checks import assert_own, own_scores
from tests.reference.audit import assert_balanced, assert_same, assert_unchanged, fingerprint

METHODS = [m.name for m in propagated.ROWS if m.run]  # tests/contract has all methods, on simpler models


class Net(nn.Module):
    """What keeps state or writes in place: batch norm, dropout, recurrence, attention, a weight norm."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.5)]
        self.conv = nn.Sequential(*layers)
        self.core = nn.GRU(8, 8, batch_first=True)
        self.mix = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mT
        return self.head(self.mix(self.core(x)[0]).mean(1))


def given(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    return Net().to(dtype).eval(), torch.randn(2, 3, 7).to(dtype)


# ---------------------------------------------------------------------- the model afterwards


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_the_model_as_it_was(method: str) -> None:
    layers = [nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(20, 3)]
    model, x = nn.Sequential(*layers).eval(), torch.rand(2, 3, 7)
    output = model(x).detach()
    before, kept = fingerprint(model), x.clone()
    hw.explain(model, x, method=method)
    assert_unchanged(before, model)
    assert torch.equal(x, kept)
    assert not x.requires_grad
    assert x.grad is None
    assert torch.equal(model(x), output)


OPTIONS = [{}, {"ledger": True}, {"differentiable": True}, {"layers": ["core", "head"]}, {"batch_size": 1}]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_leaves_the_model_as_it_was(options: dict[str, Any]) -> None:
    model, x = given()
    before = fingerprint(model)
    hw.explain(model, x, **options)
    assert_unchanged(before, model)
    hw.plan(model, x)
    hw.selfcheck(model, x)
    assert_unchanged(before, model)


def test_gradients_and_a_leaf_input_are_left_alone() -> None:
    model, x = given()
    x.requires_grad_()
    model(x).sum().backward()
    before, gradient = fingerprint(model), x.grad.clone()
    assert all(p.grad is not None for p in model.parameters())
    e = hw.explain(model, x)
    assert_unchanged(before, model)
    assert torch.equal(x.grad, gradient)
    assert x.requires_grad
    assert not e.relevance.requires_grad
    model.zero_grad()
    x.grad = None
    model(x).sum().backward()
    assert torch.equal(x.grad, gradient), "the model's ordinary gradients have changed"


def test_an_input_is_not_written_to() -> None:
    model, x = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)).eval(), torch.randn(2, 4)
    kept = x.clone()
    e = hw.explain(model, x)
    assert torch.equal(x, kept)
    assert torch.equal(e.inputs, kept)
    expected = hw.explain(nn.Sequential(nn.ReLU(), model[1]).eval(), x)
    assert_same(e.relevance, expected.relevance, 1e-6)


def test_torch_itself_is_left_alone() -> None:
    """No function is patched and no mode stays: every model runs at its old speed afterwards."""
    model, x = given()
    before = [dict(vars(space)) for space in (torch, torch.Tensor, nn.functional, nn.Module)]
    hw.explain(model, x, ledger=True, layers=["core"])
    after = [dict(vars(space)) for space in (torch, torch.Tensor, nn.functional, nn.Module)]
    for old, new in zip(before, after, strict=True):
        assert [name for name in old if new.get(name) is not old[name]] == []
    assert torch.overrides._get_current_function_mode() is None


def test_hooks_of_the_user_keep_working() -> None:
    model, x = given()
    seen: list[tuple[int, ...]] = []
    model.core.register_forward_hook(lambda module, args, out: seen.append(tuple(out[0].shape)))
    model.conv.register_forward_hook(lambda module, args, out: 2 * out)
    before, own = fingerprint(model), own_scores(model, x)
    e = hw.explain(model, x, ledger=True)
    assert_own(e.output, (scores.amax(1) for scores in own))
    assert_balanced(e, 1e-4)
    assert_unchanged(before, model)
    assert seen == [(2, 7, 8)] * 3


def test_explaining_again_gives_the_same() -> None:
    """Nothing is kept from call to call, nor from another composite or weight in between."""
    model, x = given()
    first = hw.explain(model, x, composite="epsilon_plus")
    hw.explain(model, x, composite="epsilon_alpha2_beta1")
    assert torch.equal(hw.explain(model, x, composite="epsilon_plus").relevance, first.relevance)
    with torch.no_grad():
        model.conv[0].weight.neg_()
    changed = hw.explain(model, x, composite="epsilon_plus")
    fresh = Net().eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(changed.relevance, hw.explain(fresh, x, composite="epsilon_plus").relevance)
    assert not torch.equal(changed.relevance, first.relevance)


# ---------------------------------------------------------------------- precision, grad mode, frozen weights


def test_a_frozen_model() -> None:
    model, x = given()
    free = hw.explain(model, x).relevance
    model.requires_grad_(False)
    before = fingerprint(model)
    assert_same(hw.explain(model, x).relevance, free, 1e-5)
    assert_unchanged(before, model)
    model.head.requires_grad_(True)
    assert_same(hw.explain(model, x).relevance, free, 1e-5)


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float64, 0.0), (torch.float32, 1e-4), (torch.bfloat16, 0.2), (torch.float16, 0.02)]
)
def test_every_precision(dtype: torch.dtype, error: float) -> None:
    """Against double precision with the same, rounded, weights and input."""
    model, x = given(dtype)
    e = hw.explain(model, x, target=1)
    assert e.relevance.dtype == e.output.dtype == dtype
    exact = hw.explain(model.double(), x.double(), target=1).relevance
    assert torch.linalg.vector_norm(e.relevance - exact) <= error * torch.linalg.vector_norm(exact)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_every_grad_mode(around: Callable[[], Any]) -> None:
    model, x = given()
    expected, unaudited = hw.explain(model, x, ledger=True, layers=["core"]), hw.explain(model, x)
    assert_same(unaudited.relevance, expected.relevance, 1e-5)
    with around():
        e = hw.explain(model, x, ledger=True, layers=["core"])
        made = x.clone()
        inside = hw.explain(model, made)
    assert torch.equal(e.relevance, expected.relevance)
    assert torch.equal(inside.relevance, unaudited.relevance)
    assert torch.equal(e.ledger.absorbed(), expected.ledger.absorbed())
    assert torch.equal(hw.explain(model, made).relevance, unaudited.relevance)


def test_a_model_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model, x = given()
    plain = Net().eval()
    plain.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
    assert_same(hw.explain(model, x).relevance, hw.explain(plain, x.clone()).relevance, 1e-6)


def test_autocast() -> None:
    """Autocast is the user's choice: the output is that of the autocast model."""
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.randn(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = model(x).detach().amax(1)
        e = hw.explain(model, x)
    assert torch.equal(e.output, own)
    assert e.relevance.dtype == torch.float32
    assert_same(e.relevance, hw.explain(model, x).relevance, 0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_another_device() -> None:
    model, x = given(torch.float64)
    expected = hw.explain(model, x, ledger=True)
    e = hw.explain(model.cuda(), x.cuda(), ledger=True)
    assert e.relevance.device.type == e.output.device.type == "cuda"
    assert_same(e.relevance.cpu(), expected.relevance, 1e-8)


def test_memory_formats_and_views() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)).eval()
    x = torch.randn(2, 3, 6, 6)
    expected = hw.explain(model, x).relevance
    assert_same(hw.explain(model, x.to(memory_format=torch.channels_last)).relevance, expected, 1e-5)
    assert_same(hw.explain(model, x.expand(2, 3, 6, 6)[:, :, :, :]).relevance, expected, 1e-5)
    one = x[:1].expand(3, 3, 6, 6)
    assert_same(hw.explain(model, one).relevance, expected[:1].expand(3, 3, 6, 6), 1e-5)


def test_batch_norm_whose_gradient_torch_gets_wrong() -> None:
    """For a batch of one whose gradient arrives transposed, torch's own batch norm backward mixes up the strides."""
    bn = nn.BatchNorm2d(4).double().eval()
    bn.running_mean.normal_()
    x, weight = torch.randn(1, 4, 3, 3, dtype=torch.float64), torch.randn(1, 9, 4, dtype=torch.float64)
    e = hw.explain(lambda x: (bn(x).reshape(1, 4, 9).transpose(1, 2) * weight).sum((1, 2)), x, ledger=True)
    assert_balanced(e)
    scale = (bn.running_var + bn.eps).rsqrt()[:, None, None]
    assert_same(e.relevance, x * scale * weight.transpose(1, 2).reshape(1, 4, 3, 3), 1e-9)


def test_a_state_that_is_written_in_place() -> None:
    """Slices of one buffer, written while others are read."""
    linear = nn.Linear(3, 3).double()

    def model(x: Tensor) -> Tensor:
        state = torch.zeros(2, 3, 2, dtype=x.dtype)
        for i in range(2):
            shifted = nn.functional.pad(x, (0, 0, 1, -1))
            shifted[:, 0] = state[:, :, i]
            y = linear(0.3 * x + 0.7 * shifted)
            state[:, :, i] = x[:, -1]
            x = x + y
        return x.sum((1, 2)) + state.sum((1, 2))

    assert_balanced(hw.explain(model, torch.randn(2, 4, 3, dtype=torch.float64), ledger=True))


# ---------------------------------------------------------------------- threads


def test_two_threads_at_once() -> None:
    """Each thread explains its own model and one that they share, by rules of its own, as if it were alone."""
    shared, x = given()
    own = [given()[0] for _ in range(2)]
    presets = ["epsilon_plus", "epsilon_alpha2_beta1"]

    def work(i: int) -> list[Tensor]:
        def relevance(model: nn.Module, ledger: bool) -> Tensor:
            return hw.explain(model, x, composite=presets[i], ledger=ledger).relevance

        return [relevance(m, ledger) for ledger in (True, False) * 3 for m in (shared, own[i])]

    alone = [work(0), work(1)]
    before = fingerprint(shared)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, range(2)))
    for expected, found in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert_unchanged(before, shared)


def test_another_thread_keeps_its_ordinary_gradients() -> None:
    model, x = given()
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf).sum(), leaf)
    inside, done = threading.Event(), threading.Event()

    def pause(module: nn.Module, args: Any) -> None:
        if threading.current_thread().name == "explaining":
            inside.set()
            assert done.wait(10)

    model.head.register_forward_pre_hook(pause)
    thread = threading.Thread(target=hw.explain, args=(model, x), name="explaining")
    thread.start()
    try:
        assert inside.wait(10)
        (found,) = torch.autograd.grad(model(leaf).sum(), leaf)
    finally:
        done.set()
        thread.join()
    assert torch.equal(found, expected)


# ---------------------------------------------------------------------- memory

MEBI = 2**20


def growth(work: Callable[[], Any], calls: int = 12) -> float:
    """Resident memory gained over a dozen calls, in MiB, after a few to warm up.

    The lesser of two dozens: what leaks does so each time, what the allocator has not given back yet shows once.
    """
    process = psutil.Process()
    for _ in range(3):
        work()
    gained = []
    for _ in range(2):
        gc.collect()
        before = process.memory_info().rss
        for _ in range(calls):
            work()
        gc.collect()
        gained.append((process.memory_info().rss - before) / MEBI)
    return min(gained)


@pytest.fixture(scope="module")
def heavy() -> tuple[nn.Module, Tensor]:
    """Its thirteen activations take more than 1 MiB each: graphs that a dozen calls leave behind show."""
    layers = [nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU(inplace=True)) for _ in range(4)]
    model = nn.Sequential(nn.Conv2d(3, 16, 1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)).eval()
    return model, torch.randn(2, 3, 96, 96)


LASTING: dict[str, dict[str, Any]] = {
    "default": {},
    "epsilon_plus": {"composite": "epsilon_plus"},
    "ledger": {"ledger": True},
    "layers": {"layers": ["2"]},
    "differentiable": {"differentiable": True},
    "guided backprop": {"method": "guided_backprop"},
}


@pytest.mark.parametrize("case", LASTING)
def test_memory_does_not_grow(heavy: tuple[nn.Module, Tensor], case: str) -> None:
    model, x = heavy
    assert growth(lambda: hw.explain(model, x, **LASTING[case])) < 24


def test_memory_does_not_grow_through_refusals(heavy: tuple[nn.Module, Tensor]) -> None:
    model, x = heavy

    def work() -> None:
        with pytest.raises(hw.HeadwaterError):
            hw.explain(lambda x: torch.linalg.qr(model(x)[:, :, None] * model(x)[:, None]).Q, x)
        with pytest.raises(hw.HeadwaterError):
            hw.explain(model, x, target=99)

    assert growth(work) < 24


def test_nothing_is_held_after_a_call(heavy: tuple[nn.Module, Tensor]) -> None:
    """Without a garbage collection: the tensors alive are the model's, the input's and the explanation's."""
    model, x = heavy

    def alive() -> int:
        return sum(issubclass(type(o), Tensor) for o in gc.get_objects())

    e = hw.explain(model, x)
    gc.collect()
    gc.disable()
    try:
        before = alive()
        kept = [hw.explain(model, x) for _ in range(3)]
        assert alive() - before <= 3 * 5, "tensors of the explanation's graph are still there"
    finally:
        gc.enable()
    assert all(torch.equal(k.relevance, e.relevance) for k in kept)


def test_the_output_is_the_models_own() -> None:
    """Bit for bit, though every operator was treated."""
    for seed in range(5):
        torch.manual_seed(seed)
        model, x = given()
        assert_own(hw.explain(model, x, ledger=True).output, (scores.amax(1) for scores in own_scores(model, x)))


def test_a_model_with_a_sparse_buffer_that_draws_passes_its_check() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("adjacency", torch.eye(4).to_sparse())

        def forward(self, x: Tensor) -> Tensor:
            return torch.sparse.mm(self.adjacency, self.layer(x)) + torch.randn(1)

    checks = {check.name: check.passed for check in hw.selfcheck(Graph().eval(), torch.randn(4, 3), 0)}
    del checks["a batch equals its samples"]  # they are nodes of one graph
    assert all(checks.values())


@pytest.mark.parametrize("composite", ["lrp_0", "epsilon_plus"])
@pytest.mark.parametrize("ledger", [False, True])
def test_autocast_of_an_einsum_whose_input_is_narrow_already(composite: str, ledger: bool) -> None:
    torch.manual_seed(0)
    layer, weight = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 3))
    plain, x = lambda x: torch.einsum("bi,ij->bj", layer(x), weight), torch.randn(2, 4)

    def cast(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain(x)

    exact = hw.explain(plain, x, target=0, composite=composite).relevance
    found = hw.explain(cast, x, target=0, composite=composite, ledger=ledger).relevance
    assert float((found - exact).abs().max() / exact.abs().max()) < 0.02
