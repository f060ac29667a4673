"""Weights prepared once for a model that is walked repeatedly: the same numbers, and never those of old weights."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import headwater as hw
from headwater.propagate.prepared import Prepared, prepared_of

RULES = ["default", "epsilon_plus", "epsilon_alpha2_beta1", "epsilon_gamma_box", "epsilon", "deep_taylor"]


class Block(nn.Module):
    """Convolutions with batch norm, one of them before a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 4, 3, padding=1, bias=False) for i in (3, 4, 4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, H, W]`` to ``[N, 3]``."""
        first, second, third = self.norms
        x = torch.relu(first(self.a(x)))
        x = torch.relu(x + third(self.c(torch.relu(second(self.b(x))))))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


@pytest.fixture
def block() -> nn.Module:
    torch.manual_seed(3)
    model = Block().eval()
    for norm in model.norms:
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model


def images(n: int = 2) -> Tensor:
    return torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1


def options(composite: str) -> dict[str, object]:
    return {"composite": composite, "bounds": (-1.0, 1.0)}


@pytest.mark.parametrize("composite", RULES)
def test_numbers_are_those_of_explain(block: nn.Module, composite: str) -> None:
    explainer = hw.Explainer(block, compile=False, **options(composite))
    wanted = hw.explain(block, images(), **options(composite)).relevance
    first, second = explainer(images()).relevance, explainer(images()).relevance
    torch.testing.assert_close(first, wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(first, second)


def test_nothing_is_prepared_twice(block: nn.Module) -> None:
    explainer = hw.Explainer(block, compile=False)
    explainer(images())
    assert explainer._prepared is not None
    before = {key: id(made) for key, (_, made) in explainer._prepared._made.items()}
    explainer(images())
    assert before
    assert {key: id(made) for key, (_, made) in explainer._prepared._made.items()} == before


def scaled(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_parameter("b.weight").mul_(-1.5)


def loaded(model: nn.Module) -> None:
    model.load_state_dict({key: value + 0.1 for key, value in model.state_dict().items()})


def spread(model: nn.Module) -> None:
    model.get_buffer("norms.1.running_var").mul_(3.0)


def exchanged(model: nn.Module) -> None:
    model.get_submodule("b").weight = nn.Parameter(-model.get_parameter("b.weight").detach())


def moved(model: nn.Module) -> None:
    weight = model.get_parameter("b.weight")
    weight.data = -weight.data


@pytest.mark.parametrize("change", [scaled, loaded, spread, exchanged, moved])
@pytest.mark.parametrize("composite", ["default", "epsilon_alpha2_beta1"])
def test_changed_weights_are_prepared_anew(
    block: nn.Module, composite: str, change: Callable[[nn.Module], None]
) -> None:
    explainer = hw.Explainer(block, compile=False, **options(composite))
    before = explainer(images()).relevance
    change(block)
    after = explainer(images()).relevance
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, hw.explain(block, images(), **options(composite)).relevance)


def test_changed_weights_leave_nothing_behind(block: nn.Module) -> None:
    explainer = hw.Explainer(block, compile=False)
    explainer(images())
    assert explainer._prepared is not None
    count = len(explainer._prepared._made)
    for _ in range(5):
        spread(block)
        scaled(block)
        torch.testing.assert_close(explainer(images()).relevance, hw.explain(block, images()).relevance)
    assert len(explainer._prepared._made) == count


def test_model_in_another_precision(block: nn.Module) -> None:
    explainer = hw.Explainer(block, compile=False)
    explainer(images())
    block.double()
    found = explainer(images().double()).relevance
    torch.testing.assert_close(found, hw.explain(block, images().double()).relevance)


def test_weights_that_are_made_anew_in_each_forward() -> None:
    torch.manual_seed(0)
    convolution = weight_norm(nn.Conv2d(3, 4, 3))
    model = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
    explainer = hw.Explainer(model, compile=False)
    explainer(images())
    with torch.no_grad():
        convolution.parametrizations.weight.original1.neg_()
    torch.testing.assert_close(explainer(images()).relevance, hw.explain(model, images()).relevance)
    assert explainer._prepared is not None
    assert not explainer._prepared._made


def test_a_model_made_in_inference_mode() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)]
        model = nn.Sequential(*layers).eval()
    whole = hw.explain(model, images(3)).relevance
    torch.testing.assert_close(hw.explain(model, images(3), batch_size=1).relevance, whole, rtol=1e-4, atol=1e-6)


class Tied(nn.Module):
    """The same weight and batch norm for a convolution and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.there, self.norm = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, H, W]`` to ``[N, 3]``."""
        x = torch.relu(self.norm(self.there(x)))
        return self.norm(nn.functional.conv_transpose2d(x, self.there.weight, padding=1)).relu().mean((2, 3))


@pytest.mark.parametrize("composite", ["default", "epsilon_alpha2_beta1"])
def test_one_weight_in_two_directions(composite: str) -> None:
    torch.manual_seed(0)
    model = Tied().eval()
    nn.init.uniform_(model.norm.running_var, 0.3, 3.0)
    explainer = hw.Explainer(model, compile=False, **options(composite))
    wanted = hw.explain(model, images(), **options(composite)).relevance
    torch.testing.assert_close(explainer(images()).relevance, wanted, rtol=1e-5, atol=1e-6)


def test_batches_and_single_samples_agree(block: nn.Module) -> None:
    whole = hw.explain(block, images(5)).relevance
    torch.testing.assert_close(hw.explain(block, images(5), batch_size=2).relevance, whole, rtol=1e-4, atol=1e-6)
    assert prepared_of(block) is None


def test_nothing_is_kept_for_derivatives(block: nn.Module) -> None:
    explainer = hw.Explainer(block, compile=False, differentiable=True)
    relevance = explainer(images()).relevance
    (gradient,) = torch.autograd.grad(relevance.square().sum(), block.get_parameter("a.weight"))
    assert gradient.abs().sum() > 0
    assert explainer._prepared is not None
    assert not explainer._prepared._made


def test_from_several_threads(block: nn.Module) -> None:
    explainer = hw.Explainer(block, compile=False)
    wanted = [hw.explain(block, images(n)).relevance for n in (1, 2, 3)] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: explainer(images(n)).relevance, [1, 2, 3] * 4))
    for mine, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-6)


def test_only_what_is_made_of_the_model_is_kept() -> None:
    model = nn.Linear(2, 2)
    prepared = Prepared(model)
    inner = prepared.made("abs", [model.weight], lambda: model.weight.detach().abs())
    assert prepared.made("abs", [model.weight], lambda: torch.zeros(())) is inner
    outer = prepared.made("neg", [inner], lambda: -inner)
    assert prepared.made("neg", [inner], lambda: torch.zeros(())) is outer
    foreign = torch.ones(2)
    assert prepared.made("neg", [foreign], lambda: -foreign) is not prepared.made("neg", [foreign], lambda: -foreign)
