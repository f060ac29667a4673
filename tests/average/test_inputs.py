"""Averages over what users pass: token ids in any layout, tuples and dicts, half precision, awkward shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_same
from tests.reference.nets import double, draw
from tests.test_tokens import MOVED

PATHS = ["integrated_gradients", "smooth_ig", "smoothgrad"]


class Reader(nn.Module):
    """Token ids to class scores, by a smooth function of their embedding."""

    def __init__(self, way: Callable[[nn.Embedding, Tensor], Tensor] = MOVED["as they are"]) -> None:
        super().__init__()
        self.way, self.embed, self.mix, self.head = way, nn.Embedding(10, 4), nn.Linear(4, 5), nn.Linear(5, 3)

    def read(self, embedded: Tensor) -> Tensor:
        weight = torch.arange(1, embedded.shape[1] + 1, dtype=embedded.dtype)[:, None]
        return self.head((torch.tanh(self.mix(embedded)) * weight).sum(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.read(self.way(self.embed, ids))


@pytest.mark.parametrize("way", [w for w in MOVED if w not in ("one by one", "in two halves", "looked up twice")])
@pytest.mark.parametrize("method", PATHS)
def test_token_ids_are_moved_at_their_embedding(method: str, way: str) -> None:
    """As the same method on the embedding itself, however the model lays the ids out."""
    model, ids = double(Reader(MOVED[way])), torch.randint(10, (3, 6))
    embedded = model.embed(ids).detach()
    e = hw.explain(model, ids, target=1, method=method)
    assert_same(e.relevance, hw.explain(model.read, embedded, target=1, method=method).relevance)
    assert e.tokens().shape == (3, 6)


@pytest.mark.parametrize("way", ["one by one", "in two halves", "looked up twice"])
def test_ids_that_are_embedded_several_times(way: str) -> None:
    model, ids = double(Reader(MOVED[way])), torch.randint(10, (3, 6))
    expected = hw.explain(model.read, model.embed(ids).detach(), target=1, method="IG").relevance
    assert_same(hw.explain(model, ids, target=1, method="IG").relevance, expected)


@pytest.mark.parametrize("way", MOVED)
def test_baselines_of_token_ids(way: str) -> None:
    """Ids in the place of ids, or floats in the place of their embedding."""
    model, ids, others = double(Reader(MOVED[way])), torch.randint(10, (3, 6)), torch.randint(10, (3, 6))
    at = model.embed(others).detach()
    expected = hw.explain(model.read, model.embed(ids).detach(), target=1, method="IG", baselines=at)
    e = hw.explain(model, ids, target=1, method="IG", baselines=others)
    assert_same(e.relevance, expected.relevance)
    assert_same(e.reference, model(others)[:, 1])
    pad = hw.explain(model, ids, target=1, method="IG", baselines=torch.tensor(7))
    assert_same(pad.reference, model(torch.full_like(ids, 7))[:, 1])
    if way in ("as they are", "flipped", "flat"):
        floats = hw.explain(model, ids, target=1, method="IG", baselines=at)
        assert_same(floats.relevance, expected.relevance)


def test_references_of_token_ids() -> None:
    model, ids, others = double(Reader()), torch.randint(10, (3, 6)), torch.randint(10, (8, 6))
    e = hw.explain(model, ids, target=1, method="expected_gradients", references=others)
    embedded = model.embed(ids).detach(), model.embed(others).detach()
    expected = hw.explain(model.read, embedded[0], target=1, method="expected_gradients", references=embedded[1])
    assert_same(e.relevance, expected.relevance)
    assert_same(e.reference, expected.reference)


def test_what_has_no_factor_is_not_averaged_over_embeddings() -> None:
    with pytest.raises(hw.InvalidInput, match="embeddings"):
        hw.explain(double(Reader()), torch.randint(10, (3, 6)), method="smoothgrad", of="smoothgrad")
    with pytest.raises(hw.InvalidInput, match="along a path"):
        hw.explain(double(nn.Linear(4, 2)), draw(2, 4), method="integrated_gradients", of="smoothgrad")


class Two(nn.Module):
    """A picture and a row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rest = nn.Conv2d(1, 2, 3), nn.Linear(5, 3)

    def forward(self, picture: Tensor, row: Tensor, scale: float = 1.0) -> Tensor:
        return self.rest(torch.cat([torch.tanh(self.conv(picture)).mean((2, 3)), torch.sin(row)], 1)) * scale


def test_tuples_and_dicts_of_inputs() -> None:
    model, picture, row = double(Two()), draw(2, 1, 6, 6), draw(2, 3, key=5)
    baseline = draw(1, 3, key=6)
    by_place = hw.explain(model, (picture, row), method="IG", baselines=(None, baseline))
    by_name = hw.explain(model, {"row": row, "picture": picture}, method="IG", baselines={"row": baseline})
    assert_same(by_name.relevance["picture"], by_place.relevance[0])
    assert_same(by_name.relevance["row"], by_place.relevance[1])
    assert by_place.delta.abs().max() < 1e-9
    noisy = hw.explain(model, {"picture": picture, "row": row, "scale": 2.0}, method="smoothgrad", draws=3)
    assert noisy.relevance["scale"] is None
    assert noisy.details["standard_error"]["row"].shape == row.shape
    several = hw.explain(
        model, (picture, row), method="expected_gradients", references=(draw(4, 1, 6, 6), draw(4, 3)), draws=4
    )  # fmt: skip
    assert several.relevance[0].shape == picture.shape
    for wrong, text in [((None,), "entries"), ({"rows": 1}, "names 'rows'")]:
        x: Any = (picture, row) if isinstance(wrong, tuple) else {"picture": picture, "row": row}
        with pytest.raises(hw.InvalidInput, match=text):
            hw.explain(model, x, method="IG", baselines=wrong)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("method", [*PATHS, "vargrad"])
def test_half_precision_stays_near(method: str, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = draw(2, 6)
    exact = hw.explain(model, x, target=1, method=method).relevance
    e = hw.explain(model.to(dtype), x.to(dtype), target=1, method=method)
    assert e.relevance.dtype == e.output.dtype == dtype
    assert_same(e.relevance.double(), exact, 0.1 if dtype != torch.float32 else 1e-4)


def test_shapes_that_are_awkward() -> None:
    model = double(nn.Sequential(nn.Flatten(), nn.Linear(24, 3), nn.Tanh()))
    x = draw(2, 24).view(2, 4, 6).transpose(1, 2)  # not contiguous
    for method in PATHS:
        assert hw.explain(model, x, method=method).relevance.shape == x.shape
        assert hw.explain(model, x[:1], method=method).relevance.shape == (1, 6, 4)

    def scalar(x: Tensor) -> Tensor:
        return x**3

    x = draw(4)
    assert_same(hw.explain(scalar, x, method="IG").relevance, x**3)  # one value a sample
    assert hw.explain(model, torch.zeros(1, 6, 4).double(), method="smoothgrad").relevance.isfinite().all()
    with pytest.raises(hw.InvalidInput, match="one row a sample"):
        hw.explain(lambda a, b: (a * b).sum(1), (draw(3, 4), draw(1, 4)), method="IG")


def test_neither_the_model_nor_the_input_is_changed() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.mul_(2.0).tanh_())

    model, x = double(Writes()), draw(2, 6)
    before, state, random = x.clone(), [p.clone() for p in model.parameters()], torch.get_rng_state()
    for method in PATHS:
        assert hw.explain(model, x, method=method).relevance.isfinite().all()
    e = hw.explain(model, x, method="integrated_gradients")
    assert e.delta.abs().max() < 1e-6
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(model.parameters(), state, strict=True))


def test_memory_that_runs_out_halves_the_batch() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 5:
                raise torch.OutOfMemoryError("out of memory")
            return self.net(x)

    model, x = double(Small()), draw(3, 6)
    for method in [*PATHS, "vargrad"]:
        found = hw.explain(model, x, method=method).relevance
        assert_same(found, hw.explain(model.net, x, method=method).relevance)


def test_rules_that_look_at_whole_samples_where_the_model_moves_them() -> None:
    """Such rows are walked one by one, each at its own point."""

    class Moves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.mix(x.transpose(0, 1)))).mean(0)

    model, x = double(Moves()), draw(3, 6, 4)
    composite = hw.Composite({"default": hw.rules.Epsilon(0.1, relative=True)})
    for method in ("integrated_gradients", "smoothgrad"):
        e = hw.explain(model, x, method=method, of="lrp", composite=composite)
        alone = hw.explain(model, x, method=method, of="lrp", composite=composite, batch_size=1)
        assert_same(e.relevance, alone.relevance)
