"""What ``hw.explain`` returns: its parts, saved and loaded, layers, batches, structured inputs, derivatives."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_balanced, assert_same, tensors
from tests.test_tokens import Reader

ZERO = hw.Composite({"default": hw.rules.Zero()})


class Net(nn.Module):
    """Convolution, batch norm, pooling, reuse of a module, and biases everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2))
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)
        self.features[1].running_mean.uniform_(-0.5, 0.5)
        self.features[1].running_var.uniform_(0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean((2, 3))
        return self.head(torch.relu(self.mix(torch.relu(self.mix(x)))))


def given() -> tuple[Net, Tensor]:
    return Net().double().eval(), torch.randn(5, 2, 6, 6, dtype=torch.float64)


class Pieces(nn.Module):
    """Two inputs of different form, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.relu(self.a(left)) + self.b(right.mean(1))


def pieces() -> tuple[nn.Module, Tensor, Tensor]:
    return Pieces().double().eval(), torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 5, 2, dtype=torch.float64)


class Hidden(NamedTuple):
    """What a layer may return."""

    states: Tensor


# ---------------------------------------------------------------------- parts


def test_parts() -> None:
    model, x = given()
    e = hw.explain(model, x)
    assert isinstance(e, hw.Explanation)
    assert e.relevance.shape == x.shape
    assert e.relevance.dtype == x.dtype
    assert not e.relevance.requires_grad
    assert not e.output.requires_grad
    assert e.output.shape == e.reference.shape == (5,)
    assert (e.reference == 0).all()
    assert torch.equal(e.output, model(x).detach().amax(1))
    assert torch.equal(e.inputs, x)
    assert e.method == "lrp"
    assert e.ledger is None
    assert e.layers == {}
    assert "lrp" in repr(e)


def test_delta_is_what_the_ledger_names() -> None:
    model, x = given()
    e = hw.explain(model, x, ledger=True)
    total = e.relevance.sum((1, 2, 3))
    assert_same(e.delta, (e.output - total) / e.output.abs(), 1e-12)
    named = sum(sum(row.absorbed.values(), torch.zeros(5, dtype=torch.float64)) for row in e.ledger)
    assert_same(named, e.output - total, 1e-9)


def test_delta_of_a_network_without_losses_is_zero() -> None:
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double().eval()
    e = hw.explain(model, torch.randn(4, 4, dtype=torch.float64), composite=ZERO, ledger=True)
    assert e.delta.abs().max() < 1e-12
    assert (e.ledger.absorbed() == 0).all()


@pytest.mark.parametrize("method", ["gradient", "sensitivity", "guided_backprop", "deconvnet"])
def test_delta_is_none_where_a_method_is_not_complete(method: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    assert hw.explain(model, torch.randn(4, 4), method=method).delta is None


@pytest.mark.parametrize("method", ["lrp", "occlusion", "integrated_gradients"])
def test_an_explanation_cites_its_method(method: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    e = hw.explain(model, torch.rand(2, 4), method=method)
    assert e.method == method
    assert e.cite() == next(m for m in hw.methods() if m.name == method).source.replace("; ", "\n")


@pytest.mark.parametrize("row", hw.methods(), ids=lambda row: row.name)
def test_every_method_names_its_source(row: Any) -> None:
    assert any(year in row.source for year in map(str, range(2001, 2027))), row.source
    assert row.needs
    assert row.composition


# ---------------------------------------------------------------------- saved and loaded


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, (tuple, list)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


def assert_survives(e: hw.Explanation, path: Path) -> hw.Explanation:
    e.save(path)
    back = hw.load(path)
    for part in ("relevance", "output", "reference", "inputs", "layers", "method", "composite", "delta"):
        assert_equal(getattr(e, part), getattr(back, part))
    assert back.cite() == e.cite()
    if e.ledger is None:
        assert back.ledger is None
        return back
    rows = list(zip(e.ledger, back.ledger, strict=True))
    for row, other in rows:
        for part in ("layer", "operator", "rule", "incoming", "outgoing", "unexplained", "absorbed"):
            assert_equal(getattr(row, part), getattr(other, part))
    assert_equal(e.ledger.absorbed(), back.ledger.absorbed())
    assert_equal(e.ledger.unexplained(), back.ledger.unexplained())
    return back


def test_a_saved_explanation_comes_back(tmp_path: Path) -> None:
    model, x = given()
    e = hw.explain(model, x, target=[0, 1, 2, 0, 1], ledger=True, layers=["mix", "features.0"])
    back = assert_survives(e, tmp_path / "saved.safetensors")
    assert torch.equal(back.target, torch.tensor([0, 1, 2, 0, 1]))
    assert isinstance(back.layers["mix"], list)


def test_structured_inputs_come_back(tmp_path: Path) -> None:
    model, left, right = pieces()
    assert_survives(hw.explain(model, (left, right)), tmp_path / "tuple")
    assert_survives(hw.explain(model, {"right": right, "left": left}), tmp_path / "dict")
    assert_survives(hw.explain(Reader().eval(), torch.randint(10, (3, 6))), tmp_path / "ids")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_precision_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).to(dtype).eval()
    assert_survives(hw.explain(model, torch.randn(2, 4).to(dtype)), tmp_path / "saved")


@pytest.mark.parametrize("target", [hw.target.Margin(0, 1), hw.target.Sum(), hw.target.LogOdds(1), lambda z: z[:, 0]])
def test_every_target_can_be_saved(tmp_path: Path, target: Any) -> None:
    model, x = given()
    back = assert_survives(hw.explain(model, x, target=target), tmp_path / "saved")
    assert back.target is not None


def test_nothing_is_pickled(tmp_path: Path) -> None:
    model, x = given()
    path = tmp_path / "saved"
    hw.explain(model, x, ledger=True).save(path)
    content = path.read_bytes()
    assert not content.startswith((b"\x80", b"PK"))  # neither a pickle nor an archive that may hold one
    assert safetensors.torch.load(content)
    # how it fails hangs on what the first byte, the length of the header, happens to mean in a pickle
    with pytest.raises((pickle.UnpicklingError, RuntimeError, KeyError, IndexError, ValueError, EOFError)):
        torch.load(path, weights_only=True)


def test_files_that_are_no_explanation(tmp_path: Path) -> None:
    with pytest.raises(hw.HeadwaterError, match="missing"):
        hw.load(tmp_path / "missing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(hw.HeadwaterError, match="cannot be read"):
        hw.load(tmp_path / "text")
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights")
    with pytest.raises(hw.HeadwaterError, match="not a saved explanation"):
        hw.load(tmp_path / "weights")
    save_file({"output": torch.zeros(2)}, tmp_path / "future", {"headwater": '{"format": 99}'})
    with pytest.raises(hw.HeadwaterError, match="format 99"):
        hw.load(tmp_path / "future")


# ---------------------------------------------------------------------- layers


def test_relevance_of_a_hidden_layer() -> None:
    """LRP-0 of a layer's output is that output times the gradient of the score with respect to it."""
    model, x = given()
    e = hw.explain(
        model,
        x,
        target=1,
        composite=ZERO,
        layers=["features", "mix", "features.0"],
    )
    leaf = model.features(x).detach().requires_grad_()
    hidden = leaf.mean((2, 3))
    first = model.mix(hidden)
    second = model.mix(torch.relu(first))
    score = model.head(torch.relu(second))[:, 1].sum()
    gradients = torch.autograd.grad(score, [leaf, first, second])
    assert_same(e.layers["features"], (leaf * gradients[0]).detach(), 1e-9)
    reused = e.layers["mix"]
    assert isinstance(reused, list)
    assert_same(tuple(reused), ((first * gradients[1]).detach(), (second * gradients[2]).detach()), 1e-9)
    assert e.layers["features.0"].shape == (5, 4, 6, 6)


FORMS: list[Callable[[Tensor], Any]] = [lambda y: {"hidden": y}, lambda y: (y, None), Hidden]


@pytest.mark.parametrize("form", FORMS, ids=["dict", "tuple", "named tuple"])
def test_relevance_of_a_layer_that_returns_a_structure(form: Callable[[Tensor], Any]) -> None:
    class Inner(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return form(super().forward(x))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = Inner(4, 4), nn.Linear(4, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            out = self.inner(x)
            return self.head(out["hidden"] if isinstance(out, dict) else out[0])

    e = hw.explain(Outer().double().eval(), torch.randn(3, 4, dtype=torch.float64), composite=ZERO, layers=["inner"])
    assert_same(e.layers["inner"].sum(1), e.output, 1e-9)


def test_relevance_is_conserved_from_layer_to_layer() -> None:
    widths = [6, 5, 4, 3]
    layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).double().eval()
    e = hw.explain(model, torch.rand(3, 6, dtype=torch.float64), composite="epsilon", layers=list("01234"))
    for relevance in e.layers.values():
        assert_same(relevance.sum(1), e.output, 1e-4)  # up to the stabilizer


def test_a_layer_that_is_not_there_is_named() -> None:
    model, x = given()
    with pytest.raises(hw.HeadwaterError, match=r"'mixed'.*mix"):
        hw.explain(model, x, layers=["mixed"])


# ---------------------------------------------------------------------- batches and structured inputs


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
def test_batches(batch_size: int) -> None:
    model, x = given()
    whole = hw.explain(model, x, ledger=True, layers=["mix", "features"])
    parts = hw.explain(model, x, ledger=True, layers=["mix", "features"], batch_size=batch_size)
    for part in ("relevance", "output", "reference", "delta", "inputs"):
        assert_same(getattr(parts, part), getattr(whole, part), 1e-9)
    assert torch.equal(parts.target, whole.target)
    assert_same(tuple(parts.layers["mix"]), tuple(whole.layers["mix"]), 1e-9)
    assert_same(parts.layers["features"], whole.layers["features"], 1e-9)
    for row, other in zip(parts.ledger, whole.ledger, strict=True):
        assert (row.layer, row.operator, row.rule) == (other.layer, other.operator, other.rule)
        assert row.absorbed.keys() == other.absorbed.keys()
        assert_same(row.incoming, other.incoming, 1e-9)
        for cause in row.absorbed:
            torch.testing.assert_close(row.absorbed[cause], other.absorbed[cause], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("target", [[0, 1, 2, 1, 0], torch.tensor([2, 2, 1, 0, 0]), hw.target.LogOdds([0, 1, 2, 1, 0])])
def test_batches_split_their_targets(target: Any) -> None:
    model, x = given()
    whole = hw.explain(model, x, target=target)
    assert_same(hw.explain(model, x, target=target, batch_size=2).relevance, whole.relevance, 1e-9)


def test_batches_split_their_bounds() -> None:
    model, x = given()
    bounds = (x - torch.rand(5, 1, 1, 1, dtype=torch.float64), x + 1)
    options: dict[str, Any] = {"composite": "epsilon_gamma_box", "bounds": bounds}
    whole = hw.explain(model, x, **options)
    assert_same(hw.explain(model, x, batch_size=2, **options).relevance, whole.relevance, 1e-9)


def test_bounds_of_channels_are_none_of_samples_where_there_are_as_many() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).double()
    x = torch.rand(3, 3, 6, 6, dtype=torch.float64) * torch.tensor([1.0, 5.0, 9.0])[:, None, None]
    options: dict[str, Any] = {
        "composite": "epsilon_gamma_box",
        "bounds": (torch.zeros(3, 1, 1), torch.tensor([1.0, 5.0, 9.0])[:, None, None]),
    }
    whole = hw.explain(model, x, **options).relevance
    for size in (1, 2):
        assert_same(hw.explain(model, x, batch_size=size, **options).relevance, whole, 1e-9)


def test_a_tuple_and_a_dict_of_inputs() -> None:
    model, left, right = pieces()
    named = hw.explain(model, {"right": right, "left": left}, ledger=True)
    placed = hw.explain(model, (left, right), ledger=True)
    assert isinstance(placed.relevance, tuple)
    assert list(named.relevance) == ["right", "left"]
    assert_same((named.relevance["left"], named.relevance["right"]), placed.relevance, 1e-12)
    assert placed.relevance[0].shape == left.shape
    assert placed.relevance[1].shape == right.shape
    assert_balanced(placed)
    parts = hw.explain(model, {"right": right, "left": left}, batch_size=2)
    assert_same(parts.relevance, named.relevance, 1e-9)
    expected = sum(r.flatten(1).sum(1) for r in tensors(placed.relevance))
    assert_same(placed.delta, (placed.output - expected) / placed.output.abs(), 1e-9)


def test_an_input_that_is_not_used_has_no_relevance() -> None:
    class Ignoring(Pieces):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return torch.relu(self.a(left))

    _, left, right = pieces()
    e = hw.explain(Ignoring().double().eval(), (left, right))
    assert torch.equal(e.relevance[1], torch.zeros_like(right))
    assert e.relevance[0].abs().sum() > 0


def test_integer_inputs_beside_floats() -> None:
    """Integers that no embedding reads are passed on: they carry no relevance."""

    class Pick(Pieces):
        def forward(self, left: Tensor, chosen: Tensor) -> Tensor:
            return self.a(left).gather(1, chosen)

    _, left, _ = pieces()
    chosen = torch.tensor([[0, 1], [2, 0], [1, 1]])
    e = hw.explain(Pick().double().eval(), (left, chosen), ledger=True)
    assert (e.ledger.unexplained() <= 1e-9 * (e.output.abs() + e.relevance[0].abs().sum(1))).all()
    assert e.relevance[0].shape == left.shape
    assert e.relevance[1] is None


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"batch_size": 1.5}, "batch_size must be at least 1, not 1.5"),
        ({"batch_size": "2"}, "batch_size must be at least 1, not '2'"),
        ({"seed": None}, "seed must be a whole number, not None"),
        ({"composite": "epsilon_gamma_box", "bounds": (3.0, -3.0)}, "low below high"),
    ],
)
def test_settings_that_are_no_such_numbers_are_refused(wrong: dict[str, Any], what: str) -> None:
    model, x = given()
    with pytest.raises(hw.InvalidInput, match=what):
        hw.explain(model, x, **wrong)


@pytest.mark.parametrize("ask", [hw.explain, hw.plan, hw.evaluate.compare])
def test_an_input_that_the_model_cannot_take_is_told_by_shape_and_type(ask: Callable[..., Any]) -> None:
    model, x = given()
    for wrong, told in ((x.float(), "float32"), (x[:, :1], "float64"), (x[:, 0], "float64")):
        with pytest.raises(hw.InvalidInput, match="the model cannot take x of shape") as refusal:
            ask(model, wrong)
        assert f"{list(wrong.shape)} and type {told}" in str(refusal.value)
        assert refusal.value.__cause__ is not None  # the model's own error, with its place
    with pytest.raises(hw.InvalidInput, match="unexpected keyword argument 'picture'"):
        ask(model, {"picture": x})


def test_an_error_beside_the_model_stays_as_it_is() -> None:
    model, x = given()

    def broken(output: Tensor) -> Tensor:
        raise KeyError("my own")

    with pytest.raises(KeyError, match="my own"):
        hw.explain(model, x, broken)


def test_a_tensor_without_values_is_refused() -> None:
    model, x = given()
    with pytest.raises(hw.InvalidInput, match="meta device"):
        hw.explain(model, x.to("meta"))
