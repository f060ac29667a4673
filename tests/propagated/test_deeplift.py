"""DeepLIFT against Captum where Captum is right, the paper's formulas in loops, and summation to delta everywhere."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_same, fingerprint, score
from tests.reference.audit import assert_unchanged as unchanged
from tests.reference.nets import double, draw, folded, norm

COMPLETE = 1e-9


def assert_complete(e: hw.Explanation, tolerance: float = COMPLETE) -> None:
    gap = e.output - e.reference
    total = e.relevance.flatten(1).sum(1)
    size = e.relevance.abs().flatten(1).sum(1) + gap.abs()
    assert ((gap - total).abs() <= tolerance * size).all(), (gap, total)


def convolutional(pool: nn.Module) -> nn.Sequential:
    return double(
        nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), pool, nn.Conv2d(5, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Linear(16, 6), nn.Sigmoid(), nn.Linear(6, 3),
        ),
        0.5,
    )  # fmt: skip


def test_rescale_is_captums_on_modules() -> None:
    attr = pytest.importorskip("captum.attr", reason="captum, the outside reference, is not installed")
    model, x, baseline = convolutional(nn.AvgPool2d(2)), draw(4, 2, 10, 10), draw(1, 2, 10, 10, key=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = attr.DeepLift(model).attribute(x, baseline, target=1).detach()
        references = draw(5, 2, 10, 10, key=8)
        shap = attr.DeepLiftShap(model).attribute(x, references, target=1).detach()
    assert_same(hw.explain(model, x, target=1, method="deeplift", baselines=baseline).relevance, theirs)
    ours = hw.explain(model, x, target=1, method="deeplift_shap", references=references, draws=5)
    assert_same(ours.relevance, shap)
    assert_complete(ours)
    assert ours.details["standard_error"].shape == x.shape


def test_max_pooling_sums_to_delta_where_captum_does_not() -> None:
    attr = pytest.importorskip("captum.attr", reason="captum, the outside reference, is not installed")
    model, x, baseline = convolutional(nn.MaxPool2d(2)), draw(4, 2, 10, 10), draw(1, 2, 10, 10, key=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, delta = attr.DeepLift(model).attribute(x, baseline, target=1, return_convergence_delta=True)
    assert delta.abs().max() > 1e-3  # Captum 0.9.0
    e = hw.explain(model, x, target=1, method="deeplift", baselines=baseline)
    assert_complete(e)
    assert e.delta is not None
    assert_same(e.reference, model(baseline)[:, 1].expand(4).detach())


def test_max_pooling_gives_all_to_the_place_that_explains_the_difference() -> None:
    """Where the maximum rises, the new place takes the rise; where it falls, the old place takes the fall."""
    x = torch.tensor([[[3.0, 0.0, 1.0, 0.0]]], dtype=torch.float64)
    baseline = torch.tensor([[[0.0, 1.0, 0.0, 4.0]]], dtype=torch.float64)
    e = hw.explain(lambda t: F.max_pool1d(t, 2).flatten(1), x, hw.target.Sum(), "deeplift", baselines=baseline)
    assert_same(e.relevance, torch.tensor([[[2.0, 0.0, 0.0, -3.0]]], dtype=torch.float64))


def revealed(w: Tensor, b: Tensor, v: Tensor, x: list[float], x0: list[float], f: Any) -> list[float]:
    """RevealCancel of ``v . f(w x + b)`` in loops, as in Section 3.5.3 of the paper."""
    total = [0.0] * len(x)
    for j in range(len(w)):
        parts = [float(w[j, i]) * (x[i] - x0[i]) for i in range(len(x))]
        up, down = sum(p for p in parts if p > 0), sum(p for p in parts if p < 0)
        at = float(b[j]) + sum(float(w[j, i]) * x0[i] for i in range(len(x)))
        rise = 0.5 * (f(at + up) - f(at)) + 0.5 * (f(at + down + up) - f(at + down))
        fall = 0.5 * (f(at + down) - f(at)) + 0.5 * (f(at + down + up) - f(at + up))
        for i, part in enumerate(parts):
            share = rise / up if part > 0 else fall / down if part < 0 else 0.0
            total[i] += float(v[j]) * share * part
    return total


@pytest.mark.parametrize(("module", "f"), [(nn.ReLU(), lambda z: max(z, 0.0)), (nn.Tanh(), math.tanh)])
def test_reveal_cancel_by_the_papers_formula(module: nn.Module, f: Any) -> None:
    model = double(nn.Sequential(nn.Linear(4, 6), module, nn.Linear(6, 1)))
    x, baseline = draw(3, 4), draw(1, 4, key=9)
    e = hw.explain(model, x, target=0, method="deeplift", baselines=baseline, rule="reveal_cancel")
    w, b, v = model[0].weight.detach(), model[0].bias.detach(), model[2].weight[0].detach()
    expected = [revealed(w, b, v, row.tolist(), baseline[0].tolist(), f) for row in x]
    assert_same(e.relevance, torch.tensor(expected, dtype=torch.float64))
    assert_complete(e)


def test_reveal_cancel_sees_the_minimum() -> None:
    """The paper's ``min(i1, i2) = i1 - relu(i1 - i2)``: rescale blames one input, RevealCancel both."""
    x = torch.tensor([[3.0, 2.0]], dtype=torch.float64)

    class Minimum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gap = nn.Linear(2, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1] - torch.relu(self.gap(x))

    model = double(Minimum())
    with torch.no_grad():
        model.gap.weight.copy_(torch.tensor([[1.0, -1.0]]))
    rescaled = hw.explain(model, x, 0, "deeplift").relevance
    revealed_ = hw.explain(model, x, 0, "deeplift", rule="reveal_cancel").relevance
    assert_same(rescaled, torch.tensor([[0.0, 2.0]], dtype=torch.float64))
    assert_same(revealed_, torch.tensor([[1.0, 1.0]], dtype=torch.float64))


def test_batch_norm_between_layer_and_activation_is_part_of_reveal_cancel() -> None:
    conv, bn = double(nn.Conv2d(2, 4, 3)), norm(nn.BatchNorm2d(4))
    tail = double(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 2)))
    x = draw(3, 2, 6, 6)
    one = hw.explain(nn.Sequential(conv, bn, *tail).eval(), x, 1, "deeplift", baselines=0.3, rule="reveal_cancel")
    other = hw.explain(
        nn.Sequential(folded(conv, bn), *tail).eval(), x, 1, "deeplift", baselines=0.3, rule="reveal_cancel"
    )
    assert_same(one.relevance, other.relevance)


FUNCTIONS: dict[str, Any] = {
    "reused and functional": lambda m, x: F.relu(m(F.relu(m(x)))),
    "residual": lambda m, x: x + F.gelu(m(x)),
    "product": lambda m, x: m(x) * torch.tanh(x),
    "square": lambda m, x: m(x) * m(x),
    "quotient": lambda m, x: m(x) / (1 + x.abs()),
    "reciprocal": lambda m, x: 1.0 / (2 + m(x).square()),
    "layer norm": lambda m, x: F.layer_norm(m(x), (6,), torch.arange(6.0).double(), torch.ones(6).double()),
    "rms norm": lambda m, x: F.rms_norm(m(x), (6,)),
    "group norm": lambda m, x: F.group_norm(m(x)[..., None], 3)[..., 0],
    "softmax": lambda m, x: F.softmax(m(x), -1),
    "log softmax": lambda m, x: F.log_softmax(m(x), -1),
    "log-sum-exp": lambda m, x: torch.logsumexp(m(x), 1, keepdim=True),
    "norm": lambda m, x: m(x).norm(dim=1, keepdim=True),
    "variance": lambda m, x: m(x).var(1, keepdim=True),
    "maximum": lambda m, x: torch.maximum(m(x), x),
    "minimum": lambda m, x: torch.minimum(m(x), x),
    "largest": lambda m, x: m(x).topk(3, dim=1).values,
    "sorted": lambda m, x: m(x).sort(1).values,
    "smallest along": lambda m, x: m(x).amin(1, keepdim=True),
    "where": lambda m, x: torch.where(x > 0, m(x), 0.1 * x),
    "in place": lambda m, x: F.elu_(m(x).mul_(2.0).add_(0.5)),
    "glu": lambda m, x: F.glu(m(x)),
    "cosine": lambda m, x: F.cosine_similarity(m(x), x, dim=1)[:, None],
    "outer product": lambda m, x: torch.einsum("ni,nj->nij", m(x), x),
    "attention": lambda m, x: F.scaled_dot_product_attention(*(m(x).view(-1, 3, 2) * s for s in (1.0, 2.0, 3.0))),
    "cumulative product": lambda m, x: m(x).cumprod(1),
    "determinant": lambda m, x: torch.linalg.det(torch.stack([m(x), x], 1)[:, :, :2])[:, None],
    "solution": lambda m, x: torch.linalg.solve(torch.eye(2).double() * 3 + m(x)[:, None, :2].sin(), x[:, :2]),
    "cross entropy": lambda m, x: F.cross_entropy(m(x), torch.tensor([1] * len(x)), reduction="none")[:, None],
    "squared error": lambda m, x: F.mse_loss(m(x), x, reduction="none"),
    "three operands": lambda m, x: torch.einsum("ni,ni,ni->ni", m(x), x, x.sin()),
    "instance norm": lambda m, x: F.instance_norm(m(x).view(-1, 2, 3)),
    "steps": lambda m, x: torch.sign(m(x)) + torch.round(3 * x),
    "fixed instance norm": lambda m, x: F.instance_norm(
        m(x).view(-1, 2, 3), torch.zeros(2).double(), torch.ones(2).double() * 4, use_input_stats=False
    ),
    "written into": lambda m, x: torch.zeros_like(x).index_copy(1, torch.tensor([1]), x[:, 2:3]) + m(x),
    "grid": lambda m, x: F.grid_sample(x.view(-1, 1, 2, 3), m(x).view(-1, 1, 3, 2).tanh(), align_corners=False),
    "matrix exponential": lambda m, x: torch.linalg.matrix_exp(torch.stack([m(x), x], 1)[:, :, :2]),
    "squared error from a constant": lambda m, x: torch.stack([F.mse_loss(v, torch.ones(6).double()) for v in m(x)])[
        :, None
    ],
    "clamp": lambda m, x: m(x).clamp(-0.5, 0.7),
    "power": lambda m, x: m(x).pow(3),
    "written gelu": lambda m, x: 0.5 * m(x) * (1 + torch.tanh(0.8 * (m(x) + 0.04 * m(x) ** 3))),
}


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_operator_sums_to_delta(name: str, rule: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return FUNCTIONS[name](self.layer, x)

    model, x = double(Model(), 0.6), draw(4, 6)
    e = hw.explain(model, x, target=score, method="deeplift", baselines=draw(4, 6, key=5), rule=rule)
    assert_complete(e)
    apart = [
        hw.explain(model, x[i : i + 1], target=lambda y, i=i: score(y), method="deeplift",
                   baselines=draw(4, 6, key=5)[i : i + 1], rule=rule).relevance
        for i in range(4)
    ]  # fmt: skip
    assert_same(e.relevance, torch.cat(apart), 1e-8)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(["rescale", "reveal_cancel"]))
def test_random_networks_sum_to_delta(key: int, rule: str) -> None:
    generator = torch.Generator().manual_seed(key)
    activations = [nn.ReLU(), nn.GELU(), nn.Tanh(), nn.LeakyReLU(0.2), nn.Hardtanh(), nn.Softplus(), nn.LayerNorm(5)]
    picks = torch.randint(0, len(activations), (3,), generator=generator).tolist()
    layers = [m for k in picks for m in (nn.Linear(5, 5), activations[k])]
    model = double(nn.Sequential(*layers, nn.Linear(5, 2)))
    x, baseline = (torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    assert_complete(hw.explain(model, x, 1, "deeplift", baselines=baseline, rule=rule))


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.memory = nn.LSTM(6, 5, 2, bidirectional=True)  # time first
        self.gated = nn.GRU(10, 4)
        self.block = nn.TransformerEncoderLayer(4, 2, 8)
        self.head = nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.gated(self.memory(self.table(ids.t()))[0])[0]
        return self.head(self.block(h).mean(0))


def test_texts_are_explained_against_a_text_of_padding() -> None:
    model, ids = double(Reader(), 0.5), torch.randint(1, 11, (3, 7))
    padding = torch.zeros(1, 7, dtype=torch.long)
    e = hw.explain(model, ids, target=1, method="deeplift", baselines=padding)
    assert e.relevance.shape == (3, 7, 6)
    assert_complete(e)
    assert_same(e.reference, model(padding.expand(3, -1))[:, 1].detach())
    assert_complete(hw.explain(model, ids, target=1, method="deeplift", baselines=0.2))


def test_masked_tokens_and_spectra() -> None:
    """Minus infinity in a mask is no difference, and complex values share as what they are."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.block, self.head = (
                nn.Embedding(9, 4),
                nn.MultiheadAttention(4, 2, batch_first=True),
                nn.Linear(4, 2),
            )

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            h = self.table(ids)
            return self.head(self.block(h, h, h, key_padding_mask=mask)[0].mean(1))

    ids, mask = torch.randint(1, 9, (3, 6)), torch.zeros(3, 6, dtype=torch.bool)
    mask[1, 4:] = True
    e = hw.explain(double(Masked(), 0.5), {"ids": ids, "mask": mask}, 1, "deeplift", baselines={"ids": 0.1})
    assert_same(e.relevance["ids"].flatten(1).sum(1), e.output - e.reference)
    assert e.relevance["ids"][1, 4:].abs().max() > 0  # they still ask, though nobody looks at them

    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv1d(9, 4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            spectrum = torch.stft(x, 16, 8, window=torch.ones(16).to(x), return_complex=True)
            return self.head(F.relu(self.conv(torch.log1p(spectrum.abs()))).amax(-1))

    for rule in ("rescale", "reveal_cancel"):
        e = hw.explain(double(Spectrum(), 0.5), draw(3, 128), 1, "deeplift", baselines=draw(1, 128, key=5), rule=rule)
        assert_complete(e)


def test_the_same_point_and_an_input_beside_it() -> None:
    model, x = convolutional(nn.MaxPool2d(2)), draw(2, 2, 10, 10)
    assert hw.explain(model, x, 0, "deeplift", baselines=x).relevance.abs().max() == 0
    near = hw.explain(model, x, 0, "deeplift", baselines=x + 1e-9)
    gradient = hw.explain(model, x, 0, "gradient").relevance
    assert_same(near.relevance, -1e-9 * gradient, 1e-4)
    assert hw.explain(model.float(), x.float(), 0, "deeplift").relevance.dtype == torch.float32


def test_half_precision_and_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(5, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.tanh(self.a(a)) * torch.sigmoid(self.b(b))

    model, x = double(Two()), (draw(3, 4), draw(3, 5))
    e = hw.explain(model, x, 1, "deeplift", baselines=(0.1, draw(1, 5, key=4)))
    total = sum(r.sum(1) for r in e.relevance)
    assert_same(total, e.output - e.reference)
    half = hw.explain(model.bfloat16(), tuple(t.bfloat16() for t in x), 1, "deeplift")
    assert all(r.dtype == torch.bfloat16 and r.isfinite().all() for r in half.relevance)


def test_batches_several_baselines_and_the_model_unchanged() -> None:
    model, x = convolutional(nn.MaxPool2d(2)), draw(5, 2, 10, 10)
    before = fingerprint(model)
    whole = hw.explain(model, x, method="deeplift", baselines=0.1)
    assert_same(hw.explain(model, x, method="deeplift", baselines=0.1, batch_size=2).relevance, whole.relevance)
    both = hw.explain(model, x, method="deeplift", baselines=[0.1, -0.2])
    other = hw.explain(model, x, method="deeplift", baselines=-0.2)
    assert_same(both.relevance, (whole.relevance + other.relevance) / 2)
    unchanged(before, model)


def test_refusals() -> None:
    model, x = convolutional(nn.MaxPool2d(2)), draw(2, 2, 10, 10)
    with pytest.raises(hw.InvalidInput, match="rule must be"):
        hw.explain(model, x, 0, "deeplift", rule="reveal")
    with pytest.raises(hw.InvalidInput, match="broadcast"):
        hw.explain(model, x, 0, "deeplift", baselines=draw(2, 2, 9, 10))
    with pytest.raises(hw.InvalidInput, match="has no ledger="):
        hw.explain(model, x, 0, "deeplift", ledger=True)

    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x) if float(x.detach().sum()) > 0 else torch.relu(x)

    with pytest.raises(hw.UnsupportedModel, match="another path"):
        hw.explain(Branches(), torch.ones(2, 3), 0, "deeplift", baselines=-1.0)


DEPENDING: dict[str, Any] = {  # on constants that the model computes otherwise on the baseline
    "relu by a mask": lambda m, x: m(x) * (m(x) > 0),
    "negative part by a mask": lambda m, x: m(x) * (m(x) < 0),
    "mask filled": lambda m, x: m(x).masked_fill(m(x) < 0.2, 0.5),
    "mask of weights": lambda m, x: torch.einsum("ni,ni->n", m(x), (x > 0).double())[:, None],
    "picked": lambda m, x: m(x).gather(1, x.argsort(1)),
    "indexed": lambda m, x: m(x)[:, x[0].argsort()],
    "rounded straight through": lambda m, x: m(x) + (m(x).round() - m(x)).detach(),
    "cast like another": lambda m, x: (m(x) > 0).to(m(x)) * x - m(x),
    "sparse": lambda m, x: torch.sparse.mm(torch.diag(torch.arange(4.0).double()).to_sparse(), m(x)),
    "weights by choice": lambda m, x: torch.stack([F.linear(v, m.weight * (1 + (v.sum() > 0))) for v in x]),
    "made without gradients": lambda m, x: m(_settled(m, x).tanh() + x),
    "spline": lambda m, x: ((x >= 0) & (x < 1)).double() * (1 - x) * m(x),
    "written by a mask": lambda m, x: torch.where(m(x) > 0, m(x), x).index_fill(1, torch.tensor([0]), 0.0),
    "complex, written into": lambda m, x: _lowest(torch.fft.rfft(m(x))),
}


def _settled(m: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return m(m(x).tanh())


def _lowest(f: Tensor) -> Tensor:
    kept = torch.zeros_like(f)
    kept[:, :2] = f[:, :2] * 2
    return torch.fft.irfft(kept, n=6)


@pytest.mark.filterwarnings("ignore::headwater.HeadwaterWarning")
@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("name", DEPENDING)
def test_constants_that_differ_at_the_two_points_sum_to_delta(name: str, rule: str) -> None:
    layer, x = double(nn.Linear(6, 6), 0.6), draw(4, 6)

    def model(x: Tensor) -> Tensor:
        return DEPENDING[name](layer, x)

    e = hw.explain(model, x, target=score, method="deeplift", baselines=draw(4, 6, key=5), rule=rule)
    assert_complete(e)


def test_layers_chosen_by_the_input_are_another_path() -> None:
    one, other = double(nn.Linear(6, 6)), double(nn.Linear(6, 6))

    def model(x: Tensor) -> Tensor:
        scores: Tensor = one(x) if x.sum() > 0 else other(x)
        return scores

    x = draw(1, 6).abs()
    with pytest.raises(hw.UnsupportedModel, match="another path"):
        hw.explain(model, x, 0, "deeplift", baselines=-x)
    assert_complete(hw.explain(model, x, 0, "deeplift", baselines=x / 2))


def test_relu_written_with_a_mask_is_relu() -> None:
    layer, x = double(nn.Linear(6, 6), 0.6), draw(4, 6)

    def masked(x: Tensor) -> Tensor:
        z = layer(x)
        return z * (z > 0)

    options: dict[str, Any] = {"target": score, "method": "deeplift", "baselines": draw(4, 6, key=5)}
    written, usual = hw.explain(masked, x, **options), hw.explain(lambda x: layer(x).relu(), x, **options)
    assert_same(written.relevance, usual.relevance)


def test_a_model_that_draws_is_asked_with_the_same_numbers_throughout() -> None:
    encoder, x = double(nn.Linear(6, 4)), draw(3, 6)

    def sampled(x: Tensor) -> Tensor:
        mean, spread = encoder(x).chunk(2, 1)
        return mean + spread * torch.randn_like(spread)

    before = torch.get_rng_state()
    e = hw.explain(sampled, x, target=0, method="deeplift")
    assert torch.equal(before, torch.get_rng_state())
    assert_complete(e)


def test_an_operator_without_a_second_derivative_is_refused_by_name() -> None:
    lengths = torch.tensor([1, 3])
    with pytest.raises(hw.UnsupportedOperator, match=r"segment_reduce.*second derivative"):
        hw.explain(lambda x: torch.segment_reduce(x, "max", lengths=lengths), draw(4, 2), lambda y: y[:, 0], "deeplift")
