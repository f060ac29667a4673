"""Recorded explanations give what ordinary ones give: on other inputs, weights and branches than were recorded."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater import compiled
from headwater.compiled import Explainer, explain_recorded
from headwater.explanation import leaves
from headwater.propagate.trace import Recording, Untraceable
from tests.micro.networks import NETWORKS
from tests.reference.audit import assert_same, call, mapped

pytestmark = pytest.mark.filterwarnings("error::headwater.HeadwaterWarning")


@pytest.fixture(autouse=True)
def plain_graph(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Most tests run the recorded graph itself: inductor needs seconds for each."""
    if "slow" not in request.keywords:

        def unavailable(*_: Any, **__: Any) -> None:
            raise RuntimeError("no compiler")

        monkeypatch.setattr(Recording, "compile", unavailable)


def mlp() -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4))
    return layers.double().eval()


def points(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def assert_equal(found: hw.Explanation, wanted: hw.Explanation, tolerance: float = 1e-12) -> None:
    """The same explanation in every field."""
    pairs = zip(leaves(found.relevance), leaves(wanted.relevance), strict=True)
    for a, b in pairs:
        assert a.dtype == b.dtype
        assert not a.requires_grad
        assert_same(a, b, tolerance)
    assert_same(found.output, wanted.output, tolerance)
    assert_same(found.reference, wanted.reference, tolerance)
    for name, relevance in wanted.layers.items():
        for a, b in zip(leaves(found.layers[name]), leaves(relevance), strict=True):
            assert_same(a, b, tolerance)
    if isinstance(wanted.target, Tensor):
        assert torch.equal(found.target, wanted.target)
    else:
        assert found.target == wanted.target
    for a, b in zip(leaves(found.inputs), leaves(wanted.inputs), strict=True):
        assert torch.equal(a, b)
    for name in ("method", "composite", "complete", "sources"):
        assert getattr(found, name) == getattr(wanted, name)


def assert_recorded(explainer: Explainer, x: Any, target: Any = None, tolerance: float = 1e-12) -> None:
    """A replayed explanation is the ordinary one."""
    before = explainer.fallbacks
    found = explainer(x, target)
    assert explainer.recorded
    assert explainer.fallbacks == before
    assert_equal(found, hw.explain(explainer.model, x, target, **explainer.options), tolerance)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(x).mean(1))
        return scores


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 5, batch_first=True, bidirectional=True), nn.Linear(10, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.lstm(x)[0][:, -1])
        return scores


def convolutional() -> nn.Module:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Conv2d(4, 4, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(16, 3)).double().eval()


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (2, 6)),
    "transformer": (Transformer, (2, 5, 8)),
    "recurrent": (Recurrent, (2, 3, 4)),
    "convolutional": (convolutional, (2, 3, 10, 10)),
}


@pytest.mark.parametrize("composite", [None, "epsilon_plus_flat", "epsilon_alpha2_beta1"])
@pytest.mark.parametrize("name", MODELS)
def test_new_inputs(name: str, composite: str | None) -> None:
    build, shape = MODELS[name]
    explainer = Explainer(build(), composite=composite)
    explainer(points(*shape))
    for _ in range(2):
        assert_recorded(explainer, points(*shape))
    assert explainer.recorded == 1


@pytest.mark.parametrize(
    "method", ["gradient", "gradient_x_input", "sensitivity", "guided_backprop", "deconvnet", "deep_taylor"]
)
def test_methods(method: str) -> None:
    explainer = Explainer(convolutional(), method=method, bounds=(-5, 5) if method == "deep_taylor" else None)
    for _ in range(2):
        explainer(points(2, 3, 10, 10))
    assert_recorded(explainer, points(2, 3, 10, 10))


SAMPLED = sorted(NETWORKS)[::24]


@pytest.mark.parametrize("name", SAMPLED)
def test_micro_networks(name: str) -> None:
    """Recorded or not, every answer is the ordinary one: on the same input, on a larger one, with samples turned."""
    warnings.simplefilter("ignore")
    case = NETWORKS[name].fresh()
    explainer = Explainer(case.model)
    turned = mapped(lambda t: t.flip(0), case.inputs)
    shifted = mapped(lambda t: t * 1.5 if t.is_floating_point() else t, case.inputs)
    for x in (case.inputs, case.inputs, turned, shifted):
        with torch.no_grad():
            scores = case.score(call(case.model, x))
        assert_equal(explainer(x, case.score), hw.explain(case.model, x, case.score))
        assert_same(explainer(x, case.score).output, scores, 1e-12)


# ---------------------------------------------------------------------- targets


def test_the_class_is_an_input() -> None:
    explainer = Explainer(mlp())
    x = points(3, 6)
    explainer(x, 0)
    for target in (1, 3, -1):
        assert_recorded(explainer, x, target)
    assert explainer.recorded == 1
    explainer(x, [0, 1, 2])
    assert_recorded(explainer, x, [3, 1, 1])
    assert_recorded(explainer, x, torch.tensor([0, 0, 2]))
    assert explainer.recorded == 2


def test_the_predicted_class_is_that_of_each_input() -> None:
    explainer = Explainer(mlp())
    explainer(points(3, 6))
    seen = set()
    for _ in range(5):
        x = points(3, 6)
        assert_recorded(explainer, x)
        seen.update(explainer(x).target.tolist())
    assert len(seen) > 1


@pytest.mark.parametrize(
    "target",
    [
        hw.target.LogOdds(1),
        hw.target.LogOdds(),
        hw.target.Contrast([0, 1, 2]),
        hw.target.Margin(0, 2),
        hw.target.Sum(),
        hw.target.Neuron("1", 3),
        lambda y: y[:, 0] - y[:, 1],
    ],
)
def test_other_targets(target: Any) -> None:
    explainer = Explainer(mlp())
    explainer(points(3, 6), target)
    x = points(3, 6)
    found, wanted = explainer(x, target), hw.explain(explainer.model, x, target)
    assert explainer.recorded == 1
    assert not explainer.fallbacks
    assert_same(found.relevance, wanted.relevance, 1e-12)
    assert type(found.target) is type(wanted.target)


def test_classes_of_log_odds_are_inputs() -> None:
    explainer = Explainer(mlp())
    x = points(2, 6)
    for c in range(4):
        found = explainer(x, hw.target.LogOdds(c))
        assert_same(found.relevance, hw.explain(explainer.model, x, hw.target.LogOdds(c)).relevance, 1e-12)
    assert explainer.recorded == 1


def test_one_score_a_sample() -> None:
    explainer = Explainer(nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)).double().eval())
    x = points(3, 6)
    for target in (None, None, 0, 0):
        assert_equal(explainer(x, target), hw.explain(explainer.model, x, target))
    with pytest.raises(hw.InvalidTarget):
        explainer(x, 1)


@pytest.mark.parametrize("target", [7, [0, 9, 0], hw.target.Margin(0, 9), "class"])
def test_wrong_targets_are_refused(target: Any) -> None:
    explainer = Explainer(mlp())
    for given in (0, [0, 0, 0], hw.target.Margin(0, 1)):
        explainer(points(3, 6), given)
    for _ in range(2):
        with pytest.raises(hw.InvalidTarget):
            explainer(points(3, 6), target)


# ---------------------------------------------------------------------- inputs


def test_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Embedding(9, 5), nn.Linear(3, 5), nn.Linear(5, 3)
            self.double().eval()

        def forward(self, ids: Tensor, x: Tensor, mask: Tensor, scale: float = 1.0) -> Tensor:
            words = (self.a(ids) * mask[..., None]).sum(1)
            scores: Tensor = self.head(torch.relu(words + scale * self.b(x)))
            return scores

    def given(scale: float) -> dict[str, Any]:
        return {"ids": torch.randint(0, 9, (2, 4)), "x": points(2, 3), "mask": torch.ones(2, 4), "scale": scale}

    explainer = Explainer(Two())
    explainer(given(1.0))
    assert_recorded(explainer, given(1.0))
    explainer(given(2.0))
    assert explainer.recorded == 2
    assert_recorded(explainer, given(2.0))
    assert_recorded(explainer, given(1.0))


def test_shapes_and_strides_have_recordings_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(mlp())
    for x in (points(2, 6), points(3, 6), points(6, 2).t(), points(2, 12)[:, ::2]):
        explainer(x)
        assert_recorded(explainer, x.mul_(-2))
    assert explainer.recorded == 4
    monkeypatch.setattr(compiled, "LIMIT", 5)
    for n in range(4, 8):
        explainer(points(n, 6))
    assert explainer.recorded == 5


def test_input_that_is_not_finite_is_refused() -> None:
    explainer = Explainer(mlp())
    explainer(points(2, 6))
    with pytest.raises(hw.NonFinite):
        explainer(points(2, 6) * torch.nan)
    with pytest.raises(hw.InvalidInput):
        explainer([[1.0, 2.0]])
    with pytest.raises(hw.InvalidInput):
        explainer(torch.zeros(0, 6))


def test_the_input_is_neither_changed_nor_handed_out() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2).cumsum(1)

    explainer, x = Explainer(Writes()), points(2, 6)
    given = x.clone()
    for _ in range(3):
        e = explainer(x)
    assert torch.equal(x, given)
    assert e.inputs is not x


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_every_grad_mode(around: Callable[[], Any]) -> None:
    explainer = Explainer(mlp())
    with around():
        explainer(points(2, 6))
        x = points(2, 6)
        found = explainer(x)
    assert not explainer.fallbacks
    assert not found.relevance.is_inference()
    assert_equal(found, hw.explain(explainer.model, x))
    assert_recorded(explainer, points(2, 6).requires_grad_())


def test_autocast_is_explained_the_ordinary_way() -> None:
    explainer, x = Explainer(mlp().float()), torch.randn(2, 6)
    explainer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_equal(explainer(x), hw.explain(explainer.model, x))


# ---------------------------------------------------------------------- what the recorded run looked at


class Branches(nn.Module):
    """Two ways, by the sign of the input's sum; ``how`` the sign is looked at."""

    def __init__(self, how: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.how, self.a, self.b = how, nn.Linear(6, 3), nn.Linear(6, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.a(x) if self.how(x.detach()) else self.b(x).relu()
        return scores


LOOKS: dict[str, Callable[[Tensor], Any]] = {
    "bool": lambda x: x.sum() > 0,
    "item": lambda x: x.sum().sign().item() > 0,
    "tolist": lambda x: x.sum(1).sign().tolist()[0] > 0,
    "numpy": lambda x: x.sum(1).sign().numpy()[0] > 0,
    "length": lambda x: len(x.sum(1)[x.sum(1) > 0]) > 0,
    "nonzero": lambda x: len((x.sum(1) > 0).nonzero()) > 0,
    "equal": lambda x: torch.equal(x.sum(1).sign(), torch.ones(1, dtype=x.dtype)),
    "any": lambda x: any(x.sum(1) > 0),
}


@pytest.mark.parametrize("how", LOOKS)
def test_branches_on_values_are_seen(how: str) -> None:
    warnings.filterwarnings("ignore", ".*ends the relevance")  # of what the model looks at
    explainer, x = Explainer(Branches(LOOKS[how])), points(1, 6).abs()
    explainer(x)
    assert explainer.recorded == 1, "not recorded"
    assert_recorded(explainer, x + 0.5)
    with pytest.warns(hw.HeadwaterWarning, match="elsewhere"):
        assert_equal(explainer(-x), hw.explain(explainer.model, -x))
    assert_equal(explainer(-2 * x), hw.explain(explainer.model, -2 * x))  # without another warning
    assert explainer.fallbacks == 2
    assert_recorded(explainer, x)


def test_masked_selection_keeps_its_length() -> None:
    class Selects(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([row[row > 0].sum() for row in x])

    explainer = Explainer(Selects())
    x = torch.tensor([[1.0, -2.0, 3.0], [0.5, 1.0, -1.0]])
    explainer(x)
    assert_recorded(explainer, x.flip(1))
    few = torch.tensor([[1.0, -2.0, -3.0], [0.5, 1.0, -1.0]])
    with pytest.warns(hw.HeadwaterWarning, match="elsewhere"):
        assert_equal(explainer(few), hw.explain(explainer.model, few))
    assert explainer.fallbacks == 1


def test_random_models_are_explained_the_ordinary_way() -> None:
    class Random(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rand(6, dtype=x.dtype)

    explainer, x = Explainer(Random()), points(2, 6)
    with pytest.warns(hw.HeadwaterWarning, match="random"):
        explainer(x)
    assert not explainer.recorded
    assert_equal(explainer(x), hw.explain(explainer.model, x))


def test_untraceable_functions_say_why() -> None:
    with pytest.raises(Untraceable, match="random"):
        Recording(lambda x: [x + torch.rand_like(x)], [points(2)])
    with pytest.raises(Untraceable, match="shape"):
        Recording(lambda x: [x.unique()], [points(2)])


# ---------------------------------------------------------------------- weights


def test_weights_are_read_at_each_call() -> None:
    model, x = convolutional(), points(2, 3, 10, 10)
    explainer = Explainer(model)
    explainer(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
        model[1].running_mean.add_(0.3)
    assert_recorded(explainer, x)
    model.load_state_dict(
        {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    )
    assert_recorded(explainer, x)
    model[0].weight.data = torch.randn_like(model[0].weight)
    assert_recorded(explainer, x)
    assert explainer.recorded == 1


def test_weights_that_are_not_finite_are_refused() -> None:
    explainer, x = Explainer(mlp()), points(2, 6)
    explainer(x)
    with torch.no_grad():
        explainer.model[0].weight[0, 0] = torch.nan
    with pytest.raises(hw.NonFinite):
        explainer(x)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m[0], "weight", nn.Parameter(torch.randn(8, 6, dtype=torch.float64))),
        lambda m: m.__setitem__(3, nn.Tanh()),
        lambda m: m.append(nn.Tanh()),
    ],
)
def test_exchanged_parts_are_recorded_anew(change: Callable[[nn.Module], Any]) -> None:
    model, x = mlp(), points(2, 6)
    explainer = Explainer(model)
    explainer(x)
    change(model)
    explainer(x)
    assert_recorded(explainer, x)


def test_a_model_of_another_type_is_recorded_anew() -> None:
    model, x = mlp().float(), torch.randn(2, 6)
    explainer = Explainer(model)
    explainer(x)
    model.double()
    explainer(x.double())
    assert_recorded(explainer, x.double(), tolerance=1e-12)
    with pytest.raises(RuntimeError):
        explainer(x)
    model.float()
    explainer(x)
    assert_recorded(explainer, x, tolerance=1e-5)


# ---------------------------------------------------------------------- options, memory, threads


def test_bounds_and_layers() -> None:
    explainer = Explainer(
        convolutional(), composite="epsilon_gamma_box", bounds=(torch.tensor(-5.0), 5.0), layers=["0", "4"]
    )
    explainer(points(2, 3, 10, 10))
    assert_recorded(explainer, points(2, 3, 10, 10))
    assert explainer(points(2, 3, 10, 10)).layers["4"].shape == (2, 4, 2, 2)


@pytest.mark.parametrize("option", ["ledger", "differentiable", "checkpoint", "allow_training"])
def test_options_that_cannot_be_recorded(option: str) -> None:
    with pytest.raises(hw.InvalidInput, match=option):
        Explainer(mlp(), **{option: True})
    assert Explainer(mlp(), compile=False, **{option: True})(points(2, 6)).relevance.shape == (2, 6)


def test_recordings_of_the_function_are_remembered() -> None:
    model, x = mlp(), points(2, 6)
    for _ in range(3):
        assert_equal(
            explain_recorded(model, x, None, {"composite": "epsilon"}), hw.explain(model, x, composite="epsilon")
        )
        assert_equal(explain_recorded(model, x, 1, {}), hw.explain(model, x, 1))

    def function(x: Tensor) -> Tensor:
        return model(x)[:, :2]

    for _ in range(3):
        assert_equal(explain_recorded(function, x, None, {}), hw.explain(function, x))
    with pytest.raises(hw.InvalidInput, match="compile"):
        explain_recorded([], x, None, {})


def test_recordings_die_with_their_model() -> None:
    model = mlp()
    explain_recorded(model, points(2, 6), None, {})
    alive = weakref.ref(model), weakref.ref(model[0].weight)
    del model
    gc.collect()
    assert alive[0]() is None
    assert alive[1]() is None


def test_from_several_threads() -> None:
    explainer = Explainer(mlp())
    xs = [points(1 + i % 3, 6) for i in range(6)]
    wanted = [hw.explain(explainer.model, x).relevance for x in xs]
    found: list[Any] = [None] * len(xs)

    def work(i: int) -> None:
        for _ in range(3):
            found[i] = explainer(xs[i]).relevance

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(found, wanted, strict=True):
        assert_same(a, b, 1e-12)


def test_a_model_that_the_user_compiled() -> None:
    model = mlp()
    explainer = Explainer(torch.compile(model, backend="eager"))
    explainer(points(2, 6))
    x = points(2, 6)
    assert_equal(explainer(x), hw.explain(model, x))
    assert not explainer.fallbacks


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_inductor_gives_the_same_numbers(name: str) -> None:
    build, shape = MODELS[name]
    explainer = Explainer(build())
    explainer(points(*shape))
    for _ in range(2):
        assert_recorded(explainer, points(*shape), tolerance=1e-9)
        assert_recorded(explainer, points(*shape), tolerance=1e-9)
