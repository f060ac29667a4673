"""Custom Functions and vectorizing maps, explained as the plain code or the loop that they stand for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_balanced, assert_same, assert_unchanged, fingerprint
from tests.reference.nets import double

# ---------------------------------------------------------------------- reversible layers


class Block(nn.Module):
    """A coupling of two halves that keeps nothing for a backward pass, as reversible networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.g = nn.Sequential(nn.Linear(4, 4), nn.GELU())

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            a = a + self.f(b.detach())
        with torch.set_grad_enabled(False):
            return a, b + self.g(a)


class Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: nn.ModuleList) -> Tensor:
        a, b = x.chunk(2, -1)
        for block in blocks:
            a, b = block(a, b)
        ctx.save_for_backward(a.detach(), b.detach())
        return torch.cat([a, b], -1)

    @staticmethod
    def backward(ctx: Any, c: Tensor) -> tuple[Tensor, None]:
        raise AssertionError("the author's backward is not asked")


class Plain(Block):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        a = a + self.f(b)
        return a, b + self.g(a)


@pytest.mark.parametrize("composite", ["lrp_0", "epsilon_plus", None])
def test_reversible_layers_are_walked_through(composite: str | None) -> None:
    torch.manual_seed(0)
    blocks, head = double(nn.ModuleList(Block() for _ in range(3))), double(nn.Linear(8, 3))
    plain = double(nn.ModuleList(Plain() for _ in range(3)))
    plain.load_state_dict(blocks.state_dict())
    x = torch.randn(2, 8, dtype=torch.float64)

    def written_out(x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        for block in plain:
            a, b = block(a, b)
        return head(torch.cat([a, b], -1))

    before = fingerprint(blocks)
    e = hw.explain(lambda x: head(Reversible.apply(x, blocks)), x, target=1, composite=composite, ledger=True)
    assert_balanced(e)
    assert_same(e.relevance, hw.explain(written_out, x, target=1, composite=composite).relevance)
    assert_unchanged(before, blocks)
    assert torch.is_grad_enabled()


def test_a_forward_without_gradients_outside_a_function_still_ends_the_relevance() -> None:
    block, x = double(Block()), torch.randn(2, 8, dtype=torch.float64)
    with pytest.raises(hw.InvalidInput):
        hw.explain(lambda x: block(*x.chunk(2, -1))[1], x, target=1)


# ---------------------------------------------------------------------- local response norm


@pytest.mark.parametrize("channels", [3, 9])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_local_response_norm_across_channels_holds_its_divisor(channels: int, size: int) -> None:
    norm, x = nn.CrossMapLRN2d(size, alpha=0.5, beta=0.8, k=1.2), torch.randn(2, channels, 3, 3, dtype=torch.float64)
    e = hw.explain(norm, x, target=lambda y: y.flatten(1).sum(1), ledger=True)
    assert_balanced(e)
    assert_same(e.relevance, norm(x))


# ---------------------------------------------------------------------- vmap


def members() -> list[nn.Module]:
    torch.manual_seed(0)
    return [double(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3))) for _ in range(3)]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("method", ["lrp", "gradient", "deeplift", "integrated_gradients"])
def test_a_vectorized_ensemble_is_the_mean_of_its_members(method: str, closure: bool, frozen: bool) -> None:
    nets, x = members(), torch.randn(5, 4, dtype=torch.float64)
    weights, buffers = torch.func.stack_module_state(nets)
    if frozen:
        weights = {name: weight.detach() for name, weight in weights.items()}

    def ensemble(x: Tensor) -> Tensor:
        def one(w: dict[str, Tensor], b: dict[str, Tensor], given: Tensor) -> Any:
            return torch.func.functional_call(nets[0], (w, b), (given,))

        if closure:
            return torch.vmap(lambda w: one(w, buffers, x))(weights).mean(0)
        return torch.vmap(one, in_dims=(0, 0, None))(weights, buffers, x).mean(0)

    def looped(x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in nets]).mean(0)

    found, expected = (hw.explain(f, x, target=1, method=method).relevance for f in (ensemble, looped))
    assert_same(found, expected)
    if method == "lrp":
        assert_balanced(hw.explain(ensemble, x, target=1, ledger=True))


def test_a_map_over_samples_by_other_axes_and_in_chunks() -> None:
    net, x = members()[0], torch.randn(5, 4, dtype=torch.float64)

    def both(one: Tensor, scale: float) -> dict[str, Any]:
        return {"logits": net(one) * scale, "more": [one.square(), one.new_ones(2)]}

    def mapped(x: Tensor) -> Tensor:
        maps = torch.vmap(both, in_dims=(1, None), out_dims={"logits": 1, "more": 0}, chunk_size=2)(x.t(), 2.0)
        assert maps["more"][0].shape == (5, 4)
        assert maps["more"][1].shape == (5, 2)
        return maps["logits"].t() + maps["more"][0][:, :3]

    e = hw.explain(mapped, x, target=1, ledger=True)
    assert_balanced(e)
    assert_same(e.relevance, hw.explain(lambda x: net(x) * 2 + x.square()[:, :3], x, target=1).relevance)


def test_what_does_not_depend_on_the_input_is_vectorized_as_ever() -> None:
    entered = []

    def mask(i: Tensor) -> Tensor:
        entered.append(1)
        return i >= 2

    x = torch.randn(2, 4, dtype=torch.float64)
    e = hw.explain(lambda x: x.masked_fill(torch.vmap(mask)(torch.arange(4)), 0.0).sum(1), x)
    assert len(entered) == 1
    assert_same(e.relevance, torch.cat([x[:, :2], torch.zeros(2, 2)], 1))
    assert torch.vmap(mask)(torch.arange(4)).sum() == 2


class Reversal(torch.autograd.Function):
    """The identity, whose author turns the gradient round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, c: Tensor) -> Tensor:
        return -c


def test_differences_go_by_what_a_function_computes() -> None:
    layer, x = double(nn.Linear(4, 4)), torch.randn(3, 4, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        out: Tensor = Reversal.apply(layer(x).tanh())
        return out

    e = hw.explain(model, x, target=1, method="deeplift")
    assert_same(e.relevance, hw.explain(lambda x: layer(x).tanh(), x, target=1, method="deeplift").relevance)
    turned = hw.explain(model, x, target=1, method="gradient").relevance
    assert_same(turned, -hw.explain(lambda x: layer(x).tanh(), x, target=1, method="gradient").relevance)
