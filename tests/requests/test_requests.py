"""The requests that users of attribution libraries make most painfully, a test each, in the words of the request.

The numbers are those of a list of 25 that was read from issue threads; each test names some of these threads.
"""

from __future__ import annotations

import ast
import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import headwater as hw
from headwater.evaluate import pixel_flipping
from headwater.show import text_html, text_terminal
from headwater.show.colour import rgb

SOURCE = Path(hw.__file__).parent
ZERO = hw.Composite({"default": hw.rules.Zero()})


class Body(nn.Module):
    """Linear layers without biases around ``body(model, hidden)``."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 6, bias=False), nn.Linear(6, 3, bias=False)
        self.body = body
        for name, part in parts.items():
            self.add_module(name, part)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self, self.first(x)))


def floats(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def middle() -> nn.Linear:
    return nn.Linear(6, 6, bias=False)


def visual(**bias: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, **bias), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3, **bias)
    ).eval()


def test_01_functional_and_residual_operators_are_right() -> None:
    """captum#342, #546; shap#3938; zennit#176."""
    spelt: list[Callable[[Any, Tensor], Tensor]] = [
        lambda m, h: m.middle(F.relu(h)) + h,
        lambda m, h: h.add_(m.middle(torch.relu(h))),
        lambda m, h: torch.cat([h, m.middle(h.clamp(min=0))], 1).unflatten(1, (2, 6)).sum(1),
        lambda m, h: (m.middle.weight @ F.leaky_relu(h).T).T - h,
    ]
    for body in spelt:
        model, x = Body(body, middle=middle()), floats(4, 5)
        e = hw.explain(model, x, composite=ZERO, ledger=True)
        assert torch.allclose(e.relevance.sum(1), e.output)
        model.zero_grad()
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf).amax(1).sum(), leaf)
        assert torch.allclose(e.relevance, x * gradient)  # piecewise linear: what LRP-0 is


def test_02_unsupported_layers_are_listed_before_a_run() -> None:
    """captum#712, #1232, #792, #1154; zennit#51."""
    model = Body(lambda m, h: torch.linalg.qr(h[:, :, None] * h[:, None]).Q[:, 0])
    plan = hw.plan(model, floats(2, 5))
    assert [(row.operator, row.status) for row in plan.gaps] == [("linalg_qr", "gap")]
    assert {row.rule for row in plan} - {"none"}
    with pytest.raises(hw.UnsupportedOperator, match=r"linalg_qr.*test_requests\.py:\d+"):
        hw.explain(model, floats(2, 5))


def test_03_where_the_scores_do_not_add_up_is_said() -> None:
    """shap#3363, #3505, #3725; innvestigate#116; captum#351."""
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    e = hw.explain(model, floats(4, 5), composite=ZERO, ledger=True)
    gap = e.output - e.relevance.sum(1)
    assert e.delta is not None
    assert torch.allclose(e.delta, gap / e.output.abs())
    assert torch.allclose(e.ledger.causes()["bias"], gap)
    assert {row.layer for row in e.ledger if row.absorbed} == {"0", "2"}
    assert e.ledger.unexplained().abs().max() < 1e-12
    assert e.check(model) is not None


def test_04_a_module_that_is_used_twice_has_a_record_of_each_call() -> None:
    """captum#1082, #1104, #578; shap#3725."""
    model, x = Body(lambda m, h: m.shared(m.relu(m.shared(m.relu(h)))), shared=middle(), relu=nn.ReLU()), floats(4, 5)
    e = hw.explain(model, x, composite=ZERO, ledger=True, layers=["shared"])
    assert [row.layer for row in e.ledger].count("shared") == 2
    assert len(e.layers["shared"]) == 2
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).amax(1).sum(), leaf)
    assert torch.allclose(e.relevance, x * gradient)


def test_05_memory_is_held_neither_during_nor_after() -> None:
    """captum#538, #632, #1350, #1430; inseq#279; shap#1035."""
    model, x = visual(), torch.rand(8, 3, 8, 8)
    asked: list[int] = []

    def small(batch: Tensor) -> Tensor:
        asked.append(len(batch))
        if len(batch) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model(batch)

    with torch.no_grad():
        e = hw.explain(small, x, target=1, method="occlusion", batch_size=64)
    assert max(asked) > 16 >= asked[-1]  # it backed off by itself
    assert torch.allclose(e.relevance, hw.explain(model, x, target=1, method="occlusion").relevance, atol=1e-5)
    assert not e.relevance.requires_grad
    big = torch.rand(16, 3, 8, 8)
    process, sizes = psutil.Process(), []
    for _ in range(12):
        hw.explain(model, big, ledger=True)
        sizes.append(process.memory_info().rss)
    gc.collect()
    assert sizes[-1] - sizes[3] < 8 << 20


def test_06_attention_as_published() -> None:
    """zennit#169; shap#4251; LXT#32: the numbers that LXT computed once, kept in a file."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tests.models.test_lxt import read

    for family in ("bert", "gpt2", "llama"):
        model, ids, expected, _ = read(family, "attnlrp")
        e = hw.explain(model, ids, composite="attnlrp", ledger=True)
        assert F.cosine_similarity(e.tokens(), expected).item() > 0.99999
        assert e.ledger.unexplained().abs().max() < 1e-4 * e.output.abs().max()


def test_07_no_model_is_written_again() -> None:
    """LXT#21, #17, #23; TransformerLens#947: whatever release of transformers is installed runs as it is."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith("transformers.models"), path
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    tiny["num_key_value_heads"] = 2
    ids = torch.randint(3, 50, (2, 6))
    for family in ("Llama", "Qwen2", "Mistral", "Gemma", "Phi", "GPTNeoX"):
        config = getattr(transformers, f"{family}Config")(vocab_size=50, pad_token_id=0, **tiny)
        model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
        before = type(model).forward
        e = hw.explain(model, ids, ledger=True)
        assert type(model).forward is before
        assert e.ledger.unexplained().abs().max() < 1e-4 * e.output.abs().max()


def test_08_what_is_explained_is_the_models_own_output() -> None:
    """TransformerLens#615, #693."""
    model, x = visual(), torch.rand(2, 3, 8, 8)
    expected, weights = model(x), {k: v.clone() for k, v in model.state_dict().items()}
    with hw.propagating(composite="epsilon_plus"):
        inside = model(x)
    assert torch.equal(inside, expected)
    assert torch.equal(hw.explain(model, x, target=2).output, expected[:, 2].detach())
    assert torch.equal(model(x), expected)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert hw.selfcheck(model, x) is not None


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_09_recurrent_layers(kind: str) -> None:
    """captum#328, #564, #1159; shap#3415; innvestigate#205: as its cell, step by step; gates take nothing."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(nn, kind)(5, 6, bias=False, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0][:, -1]

    class Steps(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.cell = getattr(nn, f"{kind}Cell")(5, 6, bias=False)
            self.cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})

        def forward(self, x: Tensor) -> Tensor:
            state = None
            for t in range(x.shape[1]):
                state = self.cell(x[:, t], state)
            return state[0] if isinstance(state, tuple) else state  # type: ignore[return-value]

    whole = Whole().double().eval()
    steps, x = Steps(whole.layer).double().eval(), floats(3, 7, 5)
    e = hw.explain(whole, x, ledger=True)
    assert torch.allclose(e.relevance, hw.explain(steps, x).relevance, atol=1e-9)
    assert e.ledger.unexplained().abs().max() < 1e-9
    if kind == "LSTM":
        assert torch.allclose(e.relevance.sum((1, 2)), e.output, rtol=1e-4)


def test_10_token_ids_are_an_input() -> None:
    """captum#1141, #1112, #771; shap#595."""
    table = nn.Embedding(20, 6)
    model = nn.Sequential(table, nn.Flatten(), nn.Linear(24, 3, bias=False)).double().eval()
    ids = torch.randint(0, 20, (2, 4))
    e = hw.explain(model, ids, composite=ZERO)
    assert e.relevance.shape == (2, 4, 6)
    assert e.tokens().shape == (2, 4)
    assert torch.allclose(e.tokens().sum(1), e.output)
    for method in ("integrated_gradients", "shapley_sampling", "gradient_x_input"):
        assert hw.explain(model, ids, method=method).tokens().shape == (2, 4)


def test_11_batch_norm_needs_no_canonizer() -> None:
    """zennit#63, #165, #193, #234: registered in another order than it runs, beside a hand-folded network."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv, self.last = nn.BatchNorm2d(4), nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.conv(x)).relu().mean((2, 3)))

    model = Normed().double().eval()
    norm = model.norm
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    folded = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.last).double()
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    folded[0].weight.data = model.conv.weight.data * scale[:, None, None, None]
    folded[0].bias.data = norm.bias.data - norm.running_mean * scale
    x, before = floats(2, 3, 6, 6), {k: v.clone() for k, v in model.state_dict().items()}
    for rule in (hw.rules.Gamma(0.25), hw.rules.AlphaBeta(2, 1), hw.rules.ZPlus()):
        table = hw.Composite({"conv": rule, "default": hw.rules.Epsilon()})
        got, expected = (hw.explain(m.eval(), x, target=0, composite=table).relevance for m in (model, folded))
        assert torch.allclose(got, expected, atol=1e-10)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_12_what_is_not_finite_is_named_and_zero_is_blank() -> None:
    """captum#1138, #959; LXT#14; inseq#268."""
    model = Body(lambda m, h: m.middle(h.relu()), middle=middle())
    broken = Body(lambda m, h: m.middle(h.relu()), middle=middle())
    broken.middle.weight.data[0, 0] = math.nan
    with pytest.raises(hw.NonFinite, match=r"middle"):
        hw.explain(broken, floats(2, 5))
    with pytest.raises(hw.NonFinite, match="x holds NaN"):
        hw.explain(model, floats(2, 5).fill_(math.nan))
    e = hw.explain(model, torch.zeros(2, 5, dtype=torch.float64))
    assert not e.relevance.any()
    assert (rgb(e.relevance.numpy()) == 255).all()
    e.plot()


def test_13_a_batch_is_its_samples() -> None:
    """innvestigate#246, #91; inseq#110; captum#950: here for plain calls, in tests/contract for all methods."""
    model, x = visual(), torch.rand(3, 3, 8, 8)
    alone = {row.name for row in hw.methods() if row.run is not None and not row.options and row.family == "propagate"}
    alone |= {"integrated_gradients", "occlusion", "shapley_sampling"}
    for method in sorted(alone - {"bilrp", "layer_relevance"}):
        whole = hw.explain(model, x, target=1, method=method).relevance
        for i in range(3):
            single = hw.explain(model, x[i : i + 1], target=1, method=method, seed=0).relevance
            if method != "shapley_sampling":  # each sample of a batch draws its own orders
                assert torch.allclose(single[0], whole[i], atol=1e-5), method


def test_14_rules_have_names_formulas_sources_and_a_sign() -> None:
    """captum#485, #563, #765; innvestigate#245; zennit#40."""
    model, x = visual(), torch.rand(2, 3, 8, 8)
    for preset in (
        "epsilon", "epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1", "cmp",
        "deep_taylor", "attnlrp", "cplrp",
    ):  # fmt: skip
        e = hw.explain(model, x, composite=preset, bounds=(0.0, 1.0))
        assert e.composite == preset
        assert e.cite()
    assert all(row.source and row.composition for row in hw.methods())
    linear = nn.Linear(2, 1, bias=False)
    linear.weight.data = torch.tensor([[2.0, -3.0]])
    e = hw.explain(linear, torch.ones(1, 2), composite="epsilon")
    assert e.relevance.tolist()[0] == pytest.approx([2.0, -3.0], rel=1e-5)  # for and against


def test_15_evaluation_is_batched() -> None:
    """Quantus#96, #350."""
    model, x = visual(), torch.rand(4, 3, 8, 8)
    calls: list[int] = []

    def counted(batch: Tensor) -> Tensor:
        calls.append(len(batch))
        return model(batch)

    found = pixel_flipping(counted, x, torch.randn(4, 8, 8), target=1, steps=7, batch_size=16)  # 7 divides no 64
    assert found.curves.shape == (4, 8)
    assert len(calls) <= math.ceil(4 * 8 / 16) + 2


def test_16_a_metric_is_its_papers() -> None:
    """Quantus#333, #357, #338 (a hidden absolute value): pixel-flipping beside plain loops."""
    model, x, relevance = visual(), torch.rand(2, 3, 8, 8), torch.randn(2, 8, 8)
    found = pixel_flipping(model, x, relevance, target=1, imputer=0.5, step_size=1)
    for i in range(2):
        changed, scores = x[i : i + 1].clone(), []
        scores.append(model(changed)[0, 1].item())
        for place in sorted(range(64), key=lambda p: -relevance[i].flatten()[p].item()):  # negative ones come last
            changed[:, :, place // 8, place % 8] = 0.5
            scores.append(model(changed)[0, 1].item())
        assert found.curves[i].tolist() == pytest.approx(scores, abs=1e-5)


def test_17_colours_are_centred_shared_and_for_all_eyes() -> None:
    """captum#1103, #1098; shap#1317."""
    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    colours = rgb(values).astype(int)
    assert (colours[2] == 255).all()
    assert colours[0, 2] > colours[0, 0]  # blue against
    assert colours[4, 0] > colours[4, 2]  # red for
    light = colours @ [0.299, 0.587, 0.114]
    assert light[0] < light[1] < light[2] > light[3] > light[4]  # told by lightness too
    e = hw.explain(visual(), torch.rand(3, 3, 8, 8))
    figure = e.plot()
    assert sum("relevance" in axes.get_ylabel() for axes in figure.axes) == 1  # one bar for one scale


def test_18_text_is_escaped_and_its_words_are_whole() -> None:
    """captum#544, #1130, #1226 (scripts in tokens ran); ecco#51."""
    tokens, relevance = ["un", "##believ", "##able", "<script>"], [1.0, 1.0, -0.5, 0.0]
    page = text_html(tokens, relevance)
    assert "unbelievable" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    plain = text_terminal(tokens, relevance, colour=False)
    assert "unbelievable⁺⁺⁺" in plain
    assert "\x1b" not in text_terminal(["\x1b[2J"], [1.0], colour=False)


def test_19_vision_transformers() -> None:
    """grad-cam#257, #344, #426."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    options = {"img_size": 32, "num_classes": 4, "pretrained": False}
    vit = timm.create_model("vit_tiny_patch16_224", **options, patch_size=8, depth=2).eval()
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", **options, depths=(1, 1), num_heads=(2, 4), embed_dim=16, window_size=4
    ).eval()
    x = torch.rand(2, 3, 32, 32)
    for model in (vit, swin):
        e = hw.explain(model, x, ledger=True)
        assert e.relevance.shape == x.shape
        assert e.ledger.unexplained().abs().max() < 1e-4 * e.output.abs().max()
    for model, layer in ((vit, "blocks.0"), (swin, "layers.1")):
        assert hw.explain(model, x, method="grad_cam", layer=layer).relevance.shape[-2:] == (32, 32)
    with pytest.raises(hw.HeadwaterError, match=r"\d"):
        hw.explain(vit, x, method="grad_cam", layer="head")


def test_20_one_and_three_dimensions() -> None:
    """captum#206, #1223; grad-cam#83."""
    for conv, pool, shape in (
        (nn.Conv1d, nn.AdaptiveAvgPool1d, (20,)), (nn.Conv3d, nn.AdaptiveAvgPool3d, (6, 7, 8)),
    ):  # fmt: skip
        model = nn.Sequential(conv(2, 4, 3), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(4, 2)).eval()
        x = torch.rand(2, 2, *shape)
        for composite in ("epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1"):
            e = hw.explain(model, x, composite=composite, bounds=(0.0, 1.0), ledger=True)
            assert e.relevance.shape == x.shape
            assert e.ledger.unexplained().abs().max() < 1e-5
        e.plot()


def test_21_devices_are_followed_and_the_model_stays_where_it_is() -> None:
    """inseq#230; grad-cam#340; captum#1240."""
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        model, x = visual().to(device), torch.rand(2, 3, 8, 8, device=device)
        places = {k: (v.device, v.data_ptr()) for k, v in model.state_dict().items()}
        for method in ("lrp", "integrated_gradients", "occlusion"):
            assert hw.explain(model, x, method=method).relevance.device == x.device
        assert {k: (v.device, v.data_ptr()) for k, v in model.state_dict().items()} == places
    for path in SOURCE.rglob("*.py"):  # the one function that gives a moved model back is for those that load them
        assert "model.to(" not in path.read_text(), path


def test_22_targets_other_than_a_class() -> None:
    """captum#227, #1121; innvestigate#118; lrp_toolbox#12."""
    model, x = visual(), torch.rand(2, 3, 8, 8)
    output = model(x).detach()
    cases: list[tuple[Any, Tensor]] = [
        (1, output[:, 1]),
        ([0, 2], output[[0, 1], [0, 2]]),
        (torch.tensor([2, 1]), output[[0, 1], [2, 1]]),
        (lambda y: y[:, 0] - 2 * y[:, 1], output[:, 0] - 2 * output[:, 1]),
        (hw.target.Margin(0, 1), output[:, 0] - output[:, 1]),
        (hw.target.Sum(), output.sum(1)),
    ]
    for target, expected in cases:
        assert torch.allclose(hw.explain(model, x, target=target).output, expected, atol=1e-6)
    e = hw.explain(model, x, target=hw.target.Neuron("0", (1, 2, 3)))
    assert torch.allclose(e.output, model[0](x)[:, 1, 2, 3], atol=1e-6)
    dense = nn.Conv2d(3, 4, 1).eval()
    masked = hw.explain(dense, x, target=lambda y: (y[:, 2] * (x[:, 0] > 0.5)).sum((1, 2)))
    assert masked.relevance.shape == x.shape


def test_23_the_same_seed_gives_the_same_and_the_error_is_reported() -> None:
    """lime#67, #119, #199, #767."""
    model, x = visual(), torch.rand(1, 3, 8, 8)
    for method in ("lime", "shapley_sampling", "smoothgrad", "rise"):
        before = torch.get_rng_state()
        first, again = (hw.explain(model, x, target=1, method=method, seed=3) for _ in range(2))
        other = hw.explain(model, x, target=1, method=method, seed=4)
        assert torch.equal(first.relevance, again.relevance)
        assert not torch.equal(first.relevance, other.relevance)
        assert torch.equal(torch.get_rng_state(), before)  # the caller's random numbers are left alone
    for method in ("shapley_sampling", "smoothgrad"):
        assert "standard_error" in hw.explain(model, x, target=1, method=method).details


def test_24_pages_are_files_that_need_nothing() -> None:
    """captum#1192, #638, #769: no extension of a notebook, nothing fetched."""
    found = hw.compare(visual(), torch.rand(2, 3, 8, 8), methods=["gradient"], progress=False)
    page = found.to_html()
    assert "<script" not in page
    assert not any(f'{attribute}="http' in page for attribute in ("src", "href"))
    viewer = SOURCE / "viewer" / "static"
    for path in viewer.rglob("*.html"):
        text = path.read_text()
        assert not any(f'{attribute}="{start}' in text for attribute in ("src", "href") for start in ("http", "//"))


def test_25_explanations_have_gradients_and_frozen_models_work() -> None:
    """captum#652; zennit#183; grad-cam#80."""
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double().eval().requires_grad_(False)
    x = floats(2, 5)
    assert not hw.explain(model, x).relevance.requires_grad

    def total(at: Tensor) -> Tensor:
        return hw.explain(model, at, target=1, composite="epsilon", differentiable=True).relevance.pow(2).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf)
    step = torch.zeros_like(x)
    step[1, 3] = 1e-5
    assert gradient[1, 3].item() == pytest.approx(((total(x + step) - total(x - step)) / 2e-5).item(), rel=1e-5)
    with torch.no_grad():  # where users often are
        assert hw.explain(model, x).relevance.abs().sum() > 0
