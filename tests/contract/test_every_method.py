"""One suite for every method of the register: what all explanations have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.explanation import leaves
from headwater.remove import black_box
from tests.contract.subjects import DRAWING, METHODS, NEURONS, REFUSED, SUBJECTS, TOGETHER, asked, built, options

# taylor says so where a score has no root
pytestmark = pytest.mark.filterwarnings("default:No root was found:headwater.errors.HeadwaterWarning")

SERVED = [(m, s) for m in METHODS for s in SUBJECTS if s not in REFUSED.get(m.name, ())]
DECLINED = [(m, s) for m in METHODS for s in SUBJECTS if s in REFUSED.get(m.name, ())]


def named(value: Any) -> str:
    return value if isinstance(value, str) else value.name


def explained(method: Any, model: nn.Module, x: Tensor, subject: str, **more: Any) -> hw.Explanation:
    return hw.explain(model, x, method=method.name, **{**asked(method), **options(method, subject, model, x), **more})


def maps(explanation: hw.Explanation) -> list[Tensor]:
    """The relevance of the input, or of the hidden layer where that is what a method explains."""
    return leaves(explanation.relevance) or leaves(explanation.layers)


def close(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    scale = max(float(b.abs().max()), 1e-30)
    return float((a - b).abs().max()) <= (1e-9 if dtype == torch.float64 else 1e-3) * scale


@pytest.mark.parametrize(("method", "subject"), SERVED, ids=named)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_shapes_types_and_finite_numbers(method: Any, subject: str, dtype: torch.dtype) -> None:
    model, x = built(subject, dtype)
    explanation = explained(method, model, x, subject)
    assert explanation.output.shape == explanation.reference.shape == (3,)
    assert explanation.output.dtype == explanation.reference.dtype
    found = maps(explanation)
    assert found
    for relevance in found:
        assert len(relevance) == 3
        assert relevance.dtype == dtype
        assert relevance.device == x.device
        assert not relevance.requires_grad
        assert relevance.isfinite().all()
        assert relevance.abs().sum() > 0
    if leaves(explanation.relevance):
        shape = explanation.relevance.shape
        assert shape == x.shape if subject != "tokens" else shape[:2] == x.shape
        assert subject != "tokens" or explanation.tokens().shape == x.shape
    if explanation.complete:
        assert explanation.delta is not None
        assert explanation.delta.isfinite().all()
    assert explanation.method == method.name
    assert explanation.cite()


@pytest.mark.parametrize(("method", "subject"), SERVED, ids=named)
def test_a_batch_is_what_its_samples_are_one_by_one(method: Any, subject: str) -> None:
    if method.name in TOGETHER | DRAWING:
        pytest.skip("looks at the other samples, or draws for each")
    model, x = built(subject, torch.float64)
    whole = maps(explained(method, model, x, subject))
    chosen = {**asked(method), **options(method, subject, model, x)}
    if "target" in chosen:
        chosen["target"] = [2]
    single = maps(hw.explain(model, x[1:2], method=method.name, **chosen))
    for a, b in zip(single, whole, strict=True):
        assert close(a, b[1:2], torch.float64)


@pytest.mark.parametrize(("method", "subject"), SERVED, ids=named)
def test_small_batches_another_layout_and_the_same_seed_give_the_same(method: Any, subject: str) -> None:
    model, x = built(subject, torch.float64)
    strided = torch.stack([x, x], -1)[..., 0]
    assert not strided.is_contiguous()
    first = maps(explained(method, model, x, subject))
    again = maps(explained(method, model, x, subject))
    small = maps(explained(method, model, strided, subject, batch_size=2))
    for a, b, c in zip(first, again, small, strict=True):
        assert torch.equal(a, b)
        assert method.name in DRAWING or close(c, a, torch.float64)


@pytest.mark.parametrize(("method", "subject"), SERVED, ids=named)
def test_nothing_of_the_users_changes(method: Any, subject: str) -> None:
    model, x = built(subject)
    chosen = options(method, subject, model, x)
    x.requires_grad_(x.is_floating_point())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    given, random, numpy_random = x.detach().clone(), torch.get_rng_state(), np.random.get_state()[1]
    hw.explain(model, x, method=method.name, **asked(method), **chosen)
    after = model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert modes == [m.training for m in model.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert torch.equal(x.detach(), given)
    assert x.grad is None
    assert torch.equal(torch.get_rng_state(), random)
    assert np.array_equal(np.random.get_state()[1], numpy_random)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("method", "subject"), DECLINED, ids=named)
def test_what_a_method_cannot_serve_is_refused_in_words(method: Any, subject: str) -> None:
    model, x = built(subject)
    with pytest.raises(hw.HeadwaterError) as raised:
        explained(method, model, x, subject)
    assert len(str(raised.value)) > 20


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_a_black_box_is_served_or_refused_with_what_serves_it(method: Any) -> None:
    model, x = built("table")
    with torch.no_grad():
        weight = model[0].weight.numpy()[:3]
    predict = black_box(lambda rows: rows @ weight.T)
    chosen = {k: v for k, v in options(method, "table", model, x).items() if k not in ("patterns", "models")}
    if method.family == "remove":
        assert hw.explain(predict, x, method=method.name, target=0, **chosen).relevance.shape == x.shape
        return
    with pytest.raises(hw.HeadwaterError):
        hw.explain(predict, x, method=method.name, target=None if method.name in NEURONS else 0, **chosen)


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_wrong_arguments_are_refused_before_work_starts(method: Any) -> None:
    model, x = built("table")
    chosen = options(method, "table", model, x) if "table" not in REFUSED.get(method.name, ()) else {}
    with pytest.raises(hw.HeadwaterError, match="no option"):
        hw.explain(model, x, method=method.name, colour="red")
    with pytest.raises(hw.HeadwaterError):
        hw.explain(model, x[:0], method=method.name, **chosen)
    with pytest.raises(hw.HeadwaterError):
        hw.explain(model, torch.full_like(x, torch.nan), method=method.name, **chosen)
    with pytest.raises(hw.HeadwaterError):
        hw.explain(model.train(), x, method=method.name, **chosen)


def test_every_row_says_where_it_comes_from_and_what_it_is_made_of() -> None:
    rows = hw.methods()
    names = [row.name for row in rows] + [row.abbreviation for row in rows if row.abbreviation]
    assert len(set(names)) == len(names)
    for row in rows:
        assert all((row.name, row.family, row.source, row.needs, row.composition or row.call))
        assert (row.run is None) == bool(row.call)
