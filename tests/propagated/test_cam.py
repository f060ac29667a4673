"""Class activation maps against their formulas and Captum, on every layout that they are asked about."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_same
from tests.reference.nets import double, draw, norm


def pooled(dims: int = 2) -> nn.Sequential:
    """Convolutions, global average pooling and one linear layer, for 1 to 3 spatial axes."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[dims - 1]
    return double(
        nn.Sequential(
            conv(2, 5, 3), nn.ReLU(), conv(5, 4, 3), nn.ReLU(inplace=True), pool(1), nn.Flatten(), nn.Linear(4, 3)
        ),
        0.4,
    )


def dense() -> nn.Sequential:
    return double(
        nn.Sequential(
            nn.Conv2d(2, 5, 3), norm(nn.BatchNorm2d(5)), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3),
        ),
        0.4,
    )  # fmt: skip


def map_and_gradient(model: nn.Sequential, x: Tensor, layer: int, target: int) -> tuple[Tensor, Tensor]:
    maps = model[: layer + 1](x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model[layer + 1 :](maps.clone())[:, target].sum(), maps)
    return maps.detach(), gradient


def upsampled(heat: Tensor, x: Tensor) -> Tensor:
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[x.dim() - 2]
    wide = F.interpolate(heat[:, None], size=x.shape[2:], mode=mode, align_corners=False)
    return (wide / x.shape[1]).expand_as(x)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_cam_is_the_class_weighted_map(dims: int) -> None:
    model, x = pooled(dims), draw(2, 2, *[9] * dims)
    found = hw.explain(model, x, target=1, method="cam")
    maps = model[:4](x).detach()
    expected = (model[6].weight[1].view(1, -1, *[1] * dims) * maps).sum(1).detach()
    assert_same(found.details["map"], expected)
    assert_same(found.relevance, upsampled(expected, x))
    # The mean of the map and the bias are the output.
    assert_same(found.details["map"].flatten(1).mean(1) + model[6].bias[1].detach(), found.output)


def test_cam_refuses_what_it_does_not_describe() -> None:
    with pytest.raises(hw.UnsupportedModel, match="grad_cam"):
        hw.explain(dense(), draw(2, 2, 12, 12), target=1, method="cam")
    hidden = double(nn.Sequential(*pooled()[:6], nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)))
    for layer in (None, "3"):
        with pytest.raises(hw.UnsupportedModel, match=r"'relu' follows|more than one"):
            hw.explain(hidden, draw(2, 2, 12, 12), target=1, method="cam", layer=layer)
    named = hw.explain(pooled(), draw(2, 2, 9, 9), target=1, method="cam", layer="3").relevance
    assert_same(named, hw.explain(pooled(), draw(2, 2, 9, 9), target=1, method="cam").relevance)
    with pytest.raises(hw.InvalidInput, match="a module's name"):
        hw.explain(pooled(), draw(2, 2, 9, 9), target=1, method="cam", layer=["3"])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_grad_cam_by_its_formula(dims: int) -> None:
    model, x = pooled(dims), draw(2, 2, *[9] * dims)
    maps, gradient = map_and_gradient(model, x, 3, 2)
    weights = gradient.flatten(2).mean(2)
    expected = torch.einsum("nk,nk...->n...", weights, maps).clamp(min=0)
    for layer in (None, "3"):
        found = hw.explain(model, x, target=2, method="grad_cam", layer=layer)
        assert_same(found.details["map"], expected)
        assert_same(found.relevance, upsampled(expected, x))


def test_grad_cam_plus_plus_by_its_formula_in_loops() -> None:
    model, x = dense(), draw(2, 2, 12, 12)
    maps, gradient = map_and_gradient(model, x, 4, 1)
    expected = torch.zeros(2, *maps.shape[2:], dtype=maps.dtype)
    for n in range(2):
        for k in range(maps.shape[1]):
            weight, total = 0.0, float(maps[n, k].sum())
            for g in gradient[n, k].flatten().tolist():
                below = 2 * g**2 + total * g**3
                weight += (g**2 / below if below else 0.0) * max(g, 0.0)
            expected[n] += weight * maps[n, k]
    found = hw.explain(model, x, target=1, method="grad_cam_plus_plus")
    assert_same(found.details["map"], expected.clamp(min=0))


def test_grad_cam_and_guided_grad_cam_are_captums() -> None:
    attr = pytest.importorskip("captum.attr", reason="captum, the outside reference, is not installed")
    model, x = dense(), draw(3, 2, 12, 12)
    theirs = attr.LayerGradCam(model, model[4]).attribute(x, target=1, relu_attributions=True)[:, 0].detach()
    assert_same(hw.explain(model, x, target=1, method="grad_cam").details["map"], theirs)
    # Captum upsamples to the nearest pixel unless asked, and does not spread over channels.
    guided = attr.GuidedGradCam(model, model[4]).attribute(x, target=1, interpolate_mode="bilinear").detach()
    assert_same(hw.explain(model, x, target=1, method="guided_grad_cam").relevance, guided)


class Residual(nn.Module):
    """Functional activations, a residual sum and concatenation behind the last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        self.last = F.relu(torch.cat([h, h + self.b(h)], 1))
        return self.head(self.last.mean((2, 3)))


def test_the_last_feature_map_is_found_behind_functional_operators() -> None:
    model, x = double(Residual()), draw(2, 2, 6, 6)
    found = hw.explain(model, x, target=0, method="cam").details["map"]
    model(x)
    assert_same(found, torch.einsum("k,nkhw->nhw", model.head.weight[0], model.last).detach())


class Patches(nn.Module):
    """A vision transformer with a class token and a register; pre-norm, attention fused or written out."""

    def __init__(self, pooling: str = "token", fused: bool = True) -> None:
        super().__init__()
        self.patch, self.norm, self.qkv = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 24)
        self.extra = nn.Parameter(torch.randn(1, 2, 8))
        self.mlp, self.head, self.pooling, self.fused = nn.Linear(8, 8), nn.Linear(8, 3), pooling, fused

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.extra.expand(len(x), -1, -1), tokens], 1)
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, -1)
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v
        tokens = tokens + mixed
        tokens = tokens + F.gelu(self.mlp(tokens))
        return self.head(tokens[:, 0] if self.pooling == "token" else tokens.mean(1))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("size", [(12, 12), (8, 20)])
def test_tokens_form_a_grid(size: tuple[int, int], fused: bool) -> None:
    model, x = double(Patches(fused=fused), 0.5), draw(2, 3, *size)
    found = hw.explain(model, x, target=1, method="grad_cam")
    h, w = size[0] // 4, size[1] // 4
    assert found.details["map"].shape == (2, h, w)
    assert found.relevance.shape == x.shape
    seen: list[Tensor] = []
    hook = model.norm.register_forward_hook(lambda m, a, out: seen.append(out) or out.retain_grad())
    model(x.requires_grad_())[:, 1].sum().backward()
    hook.remove()
    tokens, gradient = seen[0].detach()[:, 2:], seen[0].grad[:, 2:]
    expected = (tokens * gradient.mean(1, keepdim=True)).sum(2).clamp(min=0).view(2, h, w)
    assert_same(found.details["map"], expected)
    named = hw.explain(model, x.detach(), target=1, method="grad_cam", layer="norm")
    assert_same(named.details["map"], expected)


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(11, 6), nn.Linear(6, 2)
        self.block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.block(self.table(ids))[:, 0])


def test_texts_get_one_value_a_token_and_series_their_length() -> None:
    ids = torch.randint(0, 11, (3, 7))
    found = hw.explain(double(Reader()), ids, target=1, method="grad_cam")
    assert found.relevance.shape == (3, 7)
    series = double(nn.Sequential(nn.Conv1d(2, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)))
    assert hw.explain(series, draw(3, 2, 10), target=1, method="grad_cam").relevance.shape == (3, 2, 10)


@pytest.mark.parametrize("method", ["cam", "grad_cam", "grad_cam_plus_plus", "guided_grad_cam"])
def test_batches_are_samples(method: str) -> None:
    model, x = pooled(), draw(5, 2, 9, 9)
    together = hw.explain(model, x, method=method)
    apart = [hw.explain(model, x[i : i + 1], method=method).relevance for i in range(5)]
    assert_same(together.relevance, torch.cat(apart))
    assert_same(hw.explain(model, x, method=method, batch_size=2).relevance, together.relevance)
    assert hw.explain(model.float(), x.float(), method=method).relevance.dtype == torch.float32
    assert together.delta is None


def test_a_model_without_places_is_refused_with_what_to_do() -> None:
    model = double(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)))
    with pytest.raises(hw.UnsupportedModel, match="layer="):
        hw.explain(model, draw(2, 4), method="grad_cam")
    with pytest.raises(hw.UnsupportedModel, match="no places"):
        hw.explain(model, draw(2, 4), method="grad_cam", layer="0")
    with pytest.raises(hw.InvalidInput, match="no module"):
        hw.explain(pooled(), draw(2, 2, 9, 9), method="grad_cam", layer="nowhere")
    with pytest.raises(hw.InvalidInput, match="has no layers="):
        hw.explain(pooled(), draw(2, 2, 9, 9), method="grad_cam", layers=["0"])
