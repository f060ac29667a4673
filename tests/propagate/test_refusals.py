"""What is refused, each time with one sentence that names the culprit and the remedy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_balanced, assert_same, assert_unchanged, fingerprint


class Body(nn.Module):
    """Two linear layers around any function, which lives in the layer ``middle``."""

    class Middle(nn.Module):
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x)

    def __init__(self, function: Callable[[Tensor], Tensor], width: int = 4) -> None:
        super().__init__()
        self.enter, self.middle, self.head = nn.Linear(4, 4), self.Middle(function), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.enter(x)))


def body(function: Callable[[Tensor], Tensor], width: int = 4) -> tuple[nn.Module, Tensor]:
    return Body(function, width).eval(), torch.randn(2, 4)


def refused(model: Any, x: Any, *patterns: str, kind: type[Exception] = hw.HeadwaterError, **options: Any) -> None:
    """The explanation is refused, the text matches every pattern, and the model is as before."""
    state = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else None
    finite = state is not None and all(t.isfinite().all() for t in state)
    before = fingerprint(model) if finite else None  # NaN equals nothing, itself included
    with pytest.raises(kind, match=patterns[0]) as caught:
        hw.explain(model, x, **options)
    for pattern in patterns[1:]:
        caught.match(pattern)
    assert isinstance(caught.value, hw.HeadwaterError)
    assert torch.overrides._get_current_function_mode() is None
    if before is not None:
        assert_unchanged(before, model)


# ---------------------------------------------------------------------- operators


def test_an_operator_without_a_treatment() -> None:
    def values(x: Tensor) -> Tensor:
        return torch.linalg.qr(x[:, :, None] * x[:, None, :]).Q[:, 0]

    model, x = body(values)
    refused(model, x, "linalg_qr", "'middle'", r"test_refusals\.py:\d+", "register|plan", kind=hw.UnsupportedOperator)
    plan = hw.plan(model, x)
    gaps = [row for row in plan if row.status != "ok"]
    assert ["linalg_qr" in row.operator for row in gaps] == [True]
    assert gaps[0].layer == "middle"
    assert "linalg_qr" in str(plan)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


cube = Cube.apply  # taken before the explanation, so that what its forward does stays unseen

PLACES = ["before a layer", "at the output", "beside a seen path", "before an in-place operator", "at the input"]


@pytest.mark.parametrize("place", PLACES)
def test_a_custom_autograd_function(place: str) -> None:
    class Last(Body):
        def forward(self, x: Tensor) -> Tensor:
            return cube(super().forward(x))

    class First(Body):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(cube(x))

    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "before a layer": cube,
        "beside a seen path": lambda x: x + cube(x),
        "before an in-place operator": lambda x: cube(x).relu_(),
    }
    kinds: dict[str, Callable[..., nn.Module]] = {"at the output": Last, "at the input": First}
    model = kinds.get(place, Body)(functions.get(place, torch.relu)).eval()
    refused(model, torch.randn(2, 4), "Cube", kind=hw.UnsupportedOperator)


def test_a_custom_operator() -> None:
    @torch.library.custom_op("headwater_tests::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    twice.register_autograd(lambda ctx, gradient: gradient * 2)
    refused(*body(twice), "twice", kind=hw.UnsupportedOperator)


@pytest.mark.parametrize("member", [nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.GELU())])
def test_a_map_that_repeats_random_numbers_is_refused_by_name(member: nn.Module) -> None:
    model = torch.vmap(lambda one: member(one) * 2, randomness="same")
    refused(model, torch.randn(2, 4), r"torch\.vmap")


def test_nested_tensors_are_refused_by_name() -> None:
    def ragged(x: Tensor) -> Tensor:
        rows = torch.nested.as_nested_tensor([x[0, :2], x[1, :3]])
        return torch.nested.to_padded_tensor(rows.relu(), 0.0)

    refused(ragged, torch.randn(2, 4), "nested_tensor", kind=hw.UnsupportedOperator)


def test_batch_norm_without_statistics_of_its_own_is_refused_with_the_reason() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
    refused(model, torch.randn(2, 4), "depends on the others", kind=hw.UnsupportedModel)


def test_a_model_for_so_many_samples_is_told_how_to_be_asked() -> None:
    graph = torch.rand(6, 6)
    with pytest.raises(RuntimeError) as caught:
        hw.explain(lambda x: graph @ x, torch.randn(6, 3), 0, "integrated_gradients")
    assert "batch_size=" in "".join(caught.value.__notes__)
    e = hw.explain(lambda x: graph @ x, torch.randn(6, 3), 0, "integrated_gradients", batch_size=6)
    assert e.relevance.shape == (6, 3)


def test_ending_the_relevance_is_a_warning() -> None:
    model, x = body(lambda x: x + torch.relu(x).detach())
    with pytest.warns(hw.HeadwaterWarning, match=r"detach.*'middle'"):
        e = hw.explain(model, x, ledger=True)
    assert_balanced(e, 1e-4)


def test_an_output_that_does_not_depend_on_the_input() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hw.HeadwaterWarning)
        refused(*body(lambda x: x.detach()), "does not depend on x")


# ---------------------------------------------------------------------- models that cannot be seen into


def scripted(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def test_torchscript() -> None:
    model, x = body(torch.relu)
    linear = nn.Linear(4, 3).eval()
    refused(scripted(lambda: torch.jit.script(linear)), x, "TorchScript", kind=hw.UnsupportedModel)
    refused(scripted(lambda: torch.jit.trace(model, x)), x, "TorchScript", kind=hw.UnsupportedModel)
    whole = nn.Sequential(linear, nn.ReLU())
    whole.add_module("last", scripted(lambda: torch.jit.script(nn.Linear(3, 2))))
    refused(whole.eval(), x, "'last'", "TorchScript", "eager", kind=hw.UnsupportedModel)


def softly_clamped(x: Tensor, bound: float = 2.0) -> Tensor:
    return (x / bound).tanh() * bound


@pytest.mark.parametrize("make", [torch.jit.script, lambda f: torch.jit.trace(f, torch.ones(2, 4))])
def test_a_scripted_function_is_explained_as_it_was_written(make: Callable[[Any], Any]) -> None:
    model, x = body(scripted(lambda: make(softly_clamped)))
    before, call = model(x), vars(torch.jit.ScriptFunction)["__call__"]
    found = hw.explain(model, x, ledger=True)
    assert found.ledger is not None
    assert found.ledger.unexplained().max() < 1e-5
    assert vars(torch.jit.ScriptFunction)["__call__"] is call
    assert torch.equal(model(x), before)
    model.middle.function = softly_clamped
    torch.testing.assert_close(found.relevance, hw.explain(model, x).relevance)


def test_numbers_read_from_live_tensors() -> None:
    read = body(lambda x: torch.as_tensor([[x.sum(), x.mean(), x.amax(), x.amin()]] * 2))
    refused(*read, "as_tensor", kind=hw.UnsupportedOperator)


def test_a_quantized_module() -> None:
    model, x = body(torch.relu)
    quantized = scripted(lambda: torch.ao.quantization.quantize_dynamic(model, {nn.Linear}))
    refused(quantized, x, "enter", "quantized", "float", kind=hw.UnsupportedModel)


def test_a_compiled_module_is_explained_as_the_eager_one() -> None:
    model, x = body(F.gelu)
    eager = hw.explain(model, x)
    compiled: Any = torch.compile(model, backend="eager")
    assert torch.equal(hw.explain(compiled, x).relevance, eager.relevance)
    with torch.no_grad():
        compiled(x)
    assert torch.equal(hw.explain(compiled, x).relevance, eager.relevance)
    assert torch.equal(hw.explain(compiled, x).output, eager.output)


def test_a_module_with_a_compiled_part() -> None:
    model, x = body(F.gelu)
    eager = hw.explain(model, x)
    model.middle = torch.compile(model.middle, backend="eager")
    assert torch.equal(hw.explain(model, x).relevance, eager.relevance)
    model.middle = Body.Middle(torch.compile(F.gelu, backend="eager"))
    assert torch.equal(hw.explain(model, x).relevance, eager.relevance)


def test_a_function_and_a_module_compiled_in_place_are_not_compiled_while_explained() -> None:
    traced = []

    def backend(graph: Any, example: Any) -> Any:
        traced.append(graph)
        return graph.forward

    model, x = body(torch.compile(F.gelu, backend=backend))
    relevance = hw.explain(model, x).relevance
    assert not traced  # else Dynamo would trace the engine itself, which takes minutes on a large model
    plain, _ = body(F.gelu)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(hw.explain(plain, x).relevance, relevance)
    plain.compile(backend=backend)
    assert torch.equal(hw.explain(plain, x).relevance, relevance)
    assert not traced


def inner_gradient(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = torch.ones_like(x).requires_grad_()
        (slope,) = torch.autograd.grad(y.pow(4).sum(), y)
    return x - slope


def live_gradient(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x if x.requires_grad else x.requires_grad_()
        (slope,) = torch.autograd.grad(y.pow(4).sum(), y, create_graph=True)
    return x - slope


def test_a_forward_in_inference_mode() -> None:
    model, x = body(torch.inference_mode()(lambda x: x * 2))
    refused(model, x, "does not depend on x", "no_grad", kind=hw.InvalidInput)


GRADIENTS: list[Callable[[Tensor], Tensor]] = [
    inner_gradient,
    live_gradient,
    lambda x: x - torch.func.grad(lambda y: y.pow(4).sum())(x),
    lambda x: x - torch.func.vjp(lambda y: y.pow(4), x)[1](torch.ones_like(x))[0],
    lambda x: x - torch.func.jvp(lambda y: y.pow(4), (x,), (torch.ones_like(x),))[1],
]


@pytest.mark.parametrize("function", GRADIENTS, ids=["constant", "live", "grad", "vjp", "jvp"])
def test_a_model_that_takes_a_gradient_itself(function: Callable[[Tensor], Tensor]) -> None:
    model, x = body(function)
    refused(model, x, "takes a gradient within its forward", "explain the network", kind=hw.UnsupportedModel)
    model(x)  # and elsewhere it goes on as ever


@pytest.mark.parametrize("model", [None, "resnet18", nn.Linear])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises((hw.HeadwaterError, TypeError)):
        hw.explain(model, torch.randn(2, 4))


# ---------------------------------------------------------------------- training mode

TRAINING: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), (2, 4)),
    "dropout of channels": (lambda: nn.Sequential(nn.Conv1d(4, 4, 1), nn.Dropout1d(0.5), nn.Flatten()), (2, 4, 3)),
    "alpha dropout": (lambda: nn.Sequential(nn.Linear(4, 4), nn.AlphaDropout(0.5)), (2, 4)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), (2, 4)),
    "functional dropout": (lambda: Body(lambda x: F.dropout(x, 0.3)), (2, 4)),
    "functional batch norm": (lambda: Body(lambda x: F.batch_norm(x, None, None, training=True)), (2, 4)),
    "batch norm without statistics": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)), (2, 4),
    ),
    "recurrent dropout": (lambda: Recurrent(), (2, 3, 4)),
    "attention dropout": (lambda: Attending(), (2, 3, 4)),
}  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core = nn.LSTM(4, 3, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.core(x)[0][:, -1]


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.core(x, x, x, need_weights=False)[0].mean(1)


@pytest.mark.parametrize("case", TRAINING)
def test_training_mode(case: str) -> None:
    make, shape = TRAINING[case]
    refused(make().train(), torch.randn(shape), r"eval\(\)|training")


@pytest.mark.parametrize("case", ["dropout", "batch norm", "recurrent dropout", "attention dropout"])
def test_the_remedy_works(case: str) -> None:
    make, shape = TRAINING[case]
    assert_balanced(hw.explain(make().train().eval(), torch.randn(shape), ledger=True), 1e-4)


def test_training_mode_without_dropout_or_batch_norm_is_fine() -> None:
    model, x = body(torch.relu)
    assert torch.equal(hw.explain(model.train(), x).relevance, hw.explain(model.eval(), x).relevance)


def test_dropout_is_allowed_on_request() -> None:
    model, x = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3)).train(), torch.randn(2, 4)
    before = fingerprint(model)
    e = hw.explain(model, x, allow_training=True, seed=1, ledger=True)
    assert_unchanged(before, model)
    assert_balanced(e, 1e-4)
    assert torch.equal(hw.explain(model, x, allow_training=True, seed=1).relevance, e.relevance)
    assert not torch.equal(hw.explain(model, x, allow_training=True, seed=2).relevance, e.relevance)
    refused(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train(), x, r"eval\(\)", allow_training=True)


# ---------------------------------------------------------------------- inputs


def test_an_empty_batch() -> None:
    model, x = body(torch.relu)
    refused(model, x[:0], "empty batch", kind=ValueError)
    refused(model, x[0], r"read as \d+ samples.*returned.*x\[None\]", kind=ValueError)
    refused(model, (x[:0],), r"x\[0\].*empty batch", kind=ValueError)


@pytest.mark.parametrize("x", [[1.0, 2.0], "text", 3.0, None, (), {}, torch.tensor(1.0)])
def test_what_is_no_input(x: Any) -> None:
    refused(body(torch.relu)[0], x, "tensor|samples|raw text", kind=ValueError)


def test_floats_where_token_ids_are_wanted() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 3)).eval()
    refused(model, torch.rand(2, 3), "ids", kind=ValueError)
    bag = nn.Sequential(nn.EmbeddingBag(10, 4), nn.Linear(4, 3)).eval()
    refused(bag, torch.rand(2, 3), "ids", kind=ValueError)


def test_ids_where_floats_are_wanted() -> None:
    refused(lambda x: x.float() * 2, torch.randint(5, (2, 3)), "embedding", "float", kind=ValueError)


def test_token_ids_out_of_range() -> None:
    """The model's own error comes through: it names the cause."""
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 3)).eval()
    with pytest.raises((IndexError, hw.HeadwaterError), match="range"):
        hw.explain(model, torch.full((2, 3), 10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 3}, "out of range"),
        ({"method": "magic"}, "'magic'.*lrp"),
        ({"method": "integrated"}, r"'integrated' \(did you mean 'integrated_gradients'"),
        ({"composite": "magic"}, "'magic'.*epsilon_plus"),
        ({"composite": 3}, "composite.*int"),
        ({"batch_size": 0}, "batch_size.*1"),
        ({"layers": ["nowhere"]}, "'nowhere'.*enter"),
        ({"composite": "epsilon_gamma_box", "bounds": (0.0, 0.1)}, "bounds"),
        ({"composite": "epsilon_gamma_box", "bounds": 1.0}, "bounds.*low, high"),
        ({"composite": "epsilon_gamma_box", "bounds": (torch.zeros(7), torch.ones(7))}, "bounds"),
        ({"method": "gradient", "composite": "epsilon"}, "composite"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    refused(*body(torch.relu), message, kind=ValueError, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hw.Composite({"convolution": hw.rules.ZPlus()}), "'convolution'.*conv"),
        (lambda: hw.Composite({"depth:0.5": hw.rules.ZPlus()}), "depth"),
        (lambda: hw.Composite({"conv": "zplus"}), "conv.*rule"),
        (lambda: hw.Composite({"conv": hw.rules.ZPlus}), r"'conv'.*write ZPlus\(\)"),
        (lambda: hw.rules.AlphaBeta(2, 2), "alpha - beta = 1"),
        (lambda: hw.rules.AlphaBeta(0.5, -0.5), "beta >= 0"),
    ],
)
def test_wrong_composites(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(hw.InvalidComposite, match=message):
        make()


def test_the_models_own_error_comes_through() -> None:
    """An exception half-way is the user's to see, and leaves nothing behind."""

    def fail(x: Tensor) -> Tensor:
        raise KeyError("mine")

    model, x = body(fail)
    before = fingerprint(model)
    with pytest.raises(KeyError, match="mine"):
        hw.explain(model, x)
    assert_unchanged(before, model)
    assert torch.overrides._get_current_function_mode() is None
    model.middle.function = torch.relu
    hw.explain(model, x)
    with pytest.raises(RuntimeError, match="shape"):
        hw.explain(model, torch.randn(2, 5))


def test_probabilities_are_explained_with_a_warning() -> None:
    model, x = body(torch.relu)
    whole = nn.Sequential(model, nn.Softmax(1))
    with pytest.warns(hw.HeadwaterWarning, match="logit"):
        e = hw.explain(whole, x, ledger=True)
    assert_same(e.output, whole(x).detach().amax(1), 1e-6)
    assert_balanced(e, 1e-4)
