"""The cells of the thesis: their sizes, their parts, and the experiments as a whole."""

from __future__ import annotations

import gzip
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import experiments
from experiments import idx, report
from experiments.reproduction import Reproduction
from experiments.rnn import data as sets
from experiments.rnn import paper
from experiments.rnn.cells import CELLS, strips
from experiments.rnn.data import SIDE, Examples, Images
from experiments.rnn.explaining import METHODS, MODERN_METHODS, deep_taylor
from experiments.rnn.layers import BIAS, Dense, Dropout, Gates, draw, pool
from experiments.rnn.modern import MODERN
from experiments.rnn.training import Lesson, Size, loss, network, together, train
from experiments.rnn.verdicts import judged

WIDTH, STEPS = 7, 12


def variables(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CELLS)
def test_counts_of_tables_4_5_and_4_6(name: str) -> None:
    assert variables(CELLS[name].build(WIDTH, STEPS)) == CELLS[name].variables


@pytest.mark.parametrize(("name", "steps"), [(name, steps) for name in paper.SEQUENCE_VARIABLES for steps in (1, 4, 7)])
def test_counts_of_table_4_3(name: str, steps: int) -> None:
    model = CELLS[name].build(SIDE // steps, steps)
    assert variables(model) == paper.SEQUENCE_VARIABLES[name][steps]
    assert model.eval()(torch.zeros(2, SIDE, SIDE)).shape == (2, 10)


@pytest.mark.parametrize("name", [*CELLS, *MODERN])
def test_every_cell_is_explained_by_its_methods(name: str) -> None:
    torch.manual_seed(0)
    build, methods = (
        (MODERN[name], MODERN_METHODS) if name in MODERN else (partial(CELLS[name].build, WIDTH, STEPS), METHODS)
    )
    model = build().eval().requires_grad_(False)
    x, y = 2 * torch.rand(3, SIDE, WIDTH * STEPS) - 1, torch.tensor([0, 4, 9])
    for explain in methods.values():
        relevance = explain(model, x, y)
        assert relevance.shape == x.shape
        assert bool(relevance.isfinite().all())
    if name in CELLS:
        score = model(x).gather(1, y[:, None])[:, 0]
        assert torch.allclose(deep_taylor(model, x, y).sum((1, 2)), score, rtol=1e-3, atol=1e-4)


def test_shallow_in_plain_loops() -> None:
    torch.manual_seed(1)
    model = CELLS["Shallow"].build(4, 3).double().eval()
    x = torch.rand(SIDE, 12, dtype=torch.float64)
    recurrent = torch.zeros(256, dtype=torch.float64)

    def layer(part: Dense, a: torch.Tensor) -> torch.Tensor:
        return part.weight @ a - torch.log1p(part.bias.exp())

    for step in range(3):
        hidden = layer(model.cell.join, torch.cat([x[:, 4 * step : 4 * step + 4].flatten(), recurrent])).clamp(min=0)
        recurrent = layer(model.cell.recur, hidden).clamp(min=0)
    assert torch.allclose(model(x[None])[0], layer(model.head[0], hidden))


def test_deep_taylor_through_two_steps_of_shallow_in_plain_formulas() -> None:
    """Pixels from -1 to 1 beside recurrent activations: one denominator (Table 3.1; Section 4.2.1 left it open)."""
    torch.manual_seed(4)
    model = CELLS["Shallow"].build(2, 2).double().eval().requires_grad_(False)
    x = 2 * torch.rand(SIDE, 4, dtype=torch.float64) - 1
    join, recur, head = model.cell.join, model.cell.recur, model.head[0]
    pixels, up, down = SIDE * 2, join.weight.clamp(min=0), join.weight.clamp(max=0)
    strip = [x[:, :2].flatten(), x[:, 2:].flatten()]
    before = torch.zeros(256, dtype=torch.float64)
    first = join(torch.cat([strip[0], before])).clamp(min=0)
    recurrent = recur(first).clamp(min=0)
    last = join(torch.cat([strip[1], recurrent])).clamp(min=0)
    label = int(head(last).argmax())

    def positive(a: torch.Tensor, weight: torch.Tensor, relevance: torch.Tensor) -> torch.Tensor:
        parts = a * weight.clamp(min=0)  # [outputs, inputs]
        return (parts / parts.sum(1, keepdim=True) * relevance[:, None]).nan_to_num(0.0).sum(0)

    def mixed(values: torch.Tensor, a: torch.Tensor, relevance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        box = (values + 1) * up[:, :pixels] + (values - 1) * down[:, :pixels]
        parts = torch.cat([box, a * up[:, pixels:]], 1)
        return (parts / parts.sum(1, keepdim=True) * relevance[:, None]).sum(0).split([pixels, 256])

    at_last = positive(last, head.weight[[label]], head(last)[[label]])
    second_strip, at_recurrent = mixed(strip[1], recurrent, at_last)
    first_strip, _ = mixed(strip[0], before, positive(first, recur.weight, at_recurrent))
    expected = torch.cat([first_strip.reshape(SIDE, 2), second_strip.reshape(SIDE, 2)], 1)
    assert torch.allclose(deep_taylor(model, x[None], torch.tensor([label]))[0], expected, atol=1e-10)


def test_gated_cell_never_forgets_below_zero_and_holds_gates_for_guided_backprop() -> None:
    torch.manual_seed(2)
    model = CELLS["R-LSTM"].build(WIDTH, STEPS).eval()
    features = torch.rand(4, STEPS, 256)
    assert bool((model.cell(features) >= 0).all())
    gates = Gates(5, 3, 2)
    a, b = gates(torch.rand(4, 5))
    assert a.shape == b.shape == (4, 3)
    assert a.requires_grad
    gates.constant = True
    assert not gates(torch.rand(4, 5))[0].requires_grad


def test_literal_connections_read_the_strip_before() -> None:
    torch.manual_seed(3)
    model = CELLS["Conv+Deep"].build(WIDTH, STEPS).eval()
    x = torch.rand(1, STEPS, SIDE, WIDTH)
    changed = x.clone()
    changed[:, 2] = 0
    differs = (model.features(x) != model.features(changed)).any(2)[0]
    assert not bool(differs[:2].any())
    assert bool(differs[3])
    plain = CELLS["ConvDeep"].build(WIDTH, STEPS).eval()
    assert (plain.features(x) != plain.features(changed)).any(2)[0].nonzero().flatten().tolist() == [2]


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 60), seed=st.integers(0, 99))
def test_weights_are_cut_at_two_deviations(rows: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    weights = draw(rows, columns).detach()
    assert float(weights.abs().max()) <= 2 / math.sqrt(columns) + 1e-6


def test_biases_begin_at_a_hundredth_and_only_inhibit() -> None:
    assert math.isclose(math.log1p(math.exp(BIAS)), 0.01, rel_tol=1e-6)
    assert torch.allclose(Dense(3, 4)(torch.zeros(1, 3)), torch.full((1, 4), -0.01))


def test_pooling_sums_and_is_cut_at_the_border() -> None:
    x = torch.ones(1, 1, 4, 3)
    assert pool(x).tolist() == [[[[4.0, 4.0], [4.0, 4.0]]]]  # the mean of what is there, times four
    assert pool(torch.rand(2, 3, 28, 7)).shape == (2, 3, 14, 4)


@pytest.mark.parametrize("stationary", [False, True])
def test_stationary_dropout_keeps_its_mask(stationary: bool) -> None:
    torch.manual_seed(0)
    mask = Dropout(0.2, stationary).train().mask(12, torch.zeros(50, 3), 64)
    assert mask is not None
    assert mask.shape == (50, 12, 64)
    assert bool((mask == mask[:, :1]).all()) == stationary
    assert abs(float(mask.mean()) - 1) < 0.05
    assert Dropout(0.2, stationary).eval().mask(12, torch.zeros(50, 3), 64) is None


def some_images(count: int = 70) -> Images:
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None].expand(-1, SIDE, SIDE)
    return Images(pixels.contiguous(), torch.arange(count) % 10)


def test_folds_are_disjoint_and_cover_all() -> None:
    images = some_images()
    tests = [sets.split(images, fold)[1] for fold in range(sets.FOLDS)]
    assert sorted(torch.cat(tests).tolist()) == list(range(70))
    train_rows, test_rows = sets.split(images, 3)
    assert not set(train_rows.tolist()) & set(test_rows.tolist())
    assert len(train_rows) + len(test_rows) == 70
    assert sets.split(images, None)[1].tolist() == list(range(60, 70))


def test_majority_examples_are_pictures_of_their_fold() -> None:
    images = some_images()
    rows, _ = sets.split(images, 0)
    made = Examples.majority(images, rows, 100, 0)
    assert set(made.rows.flatten().tolist()) <= set(rows.tolist())
    assert bool(((images.labels[made.rows] == made.labels[:, None]) == made.marks).all())
    assert made.marks.sum(1).tolist() == [2] * 100
    x = made[:5].x()
    assert x.shape == (5, SIDE, 3 * SIDE)
    assert torch.allclose(x[0, 0, [0, 28, 56]], made.rows[0] / 127.5 - 1)
    assert strips(x, 7).shape == (5, 12, SIDE, 7)
    assert torch.equal(strips(x, 7)[:, 4], x[:, :, 28:35])


def test_idx_files_are_read(tmp_path: Path) -> None:
    content = bytes([0, 0, 8, 3]) + np.array([2, 2, 3], ">i4").tobytes() + bytes(range(12))
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    assert torch.equal(idx.read(tmp_path / "x.gz"), torch.arange(12, dtype=torch.uint8).reshape(2, 2, 3))


def test_networks_together_are_what_each_is_alone() -> None:
    torch.manual_seed(0)
    nets = [CELLS["Deep"].build(WIDTH, STEPS).eval() for _ in range(2)]
    weights = {
        name: torch.stack([dict(net.named_parameters())[name] for net in nets]).detach()
        for name, _ in nets[0].named_parameters()
    }
    x = 2 * torch.rand(2, 3, SIDE, 84) - 1
    both = together(nets[0], weights, x)
    alone = torch.cat(
        [together(nets[0], {k: v[i : i + 1] for k, v in weights.items()}, x[i : i + 1]) for i in range(2)]
    )
    assert torch.allclose(both, alone, atol=0.02)
    with torch.no_grad():
        assert torch.allclose(both[1], nets[1](x[1]), atol=0.02)  # bfloat16 products
    exact = network(lambda: CELLS["Deep"].build(WIDTH, STEPS), weights, 1)
    assert torch.equal(exact(x[1]), nets[1](x[1]).detach())


def test_the_constant_logit_takes_part_in_the_loss() -> None:
    logits = torch.tensor([[[2.0, -1.0] + [-50.0] * 8]])
    expected = -2.0 + math.log(math.exp(2) + math.exp(-1) + 1)
    assert math.isclose(float(loss(logits, torch.tensor([[0]]))), expected, rel_tol=1e-5)


def test_training_stops_where_it_is_good_enough(tmp_path: Path) -> None:
    images = Images(torch.randint(0, 256, (20, SIDE, SIDE), dtype=torch.uint8), torch.arange(20) % 10)
    few = Examples.single(images, torch.arange(20))
    run = Reproduction("rnn", "quick", tmp_path, tmp_path)
    torch.manual_seed(0)
    found = train(
        run, "x", lambda: CELLS["Deep"].build(28, 1), [Lesson(few, few, few)] * 2, Size(6_000, 500, 2e-3), 0.9
    )
    assert found["seen"] < 6_000
    assert bool((found["accuracy"] >= 0.9).all())
    assert found["history"].shape[1] == 3


@pytest.mark.parametrize(
    ("scale", "held", "testable", "verdict"),
    [
        ("full", True, True, "reproduced"),
        ("full", False, True, "not reproduced"),
        ("full", True, False, "not testable here"),
        ("quick", True, True, "not testable here"),
    ],
)
def test_only_networks_that_are_accurate_enough_can_tell(
    tmp_path: Path, scale: Any, held: bool, testable: bool, verdict: str
) -> None:
    told = judged(Reproduction("rnn", scale, tmp_path, tmp_path), held, "why", testable=testable)
    assert told["verdict"] == verdict
    assert told["why"].endswith("why")


@pytest.mark.slow
@pytest.mark.data
def test_quick_run(tmp_path: Path, data: Path) -> None:
    run = Reproduction("rnn", "quick", tmp_path, data)
    module = experiments.paper("rnn")
    module.reproduce(run)
    page = report.write(run, module)
    keys = {claim.key for claim in run.claims}
    assert {"variables-4.3", "variables-4.5", "depth", "tukey-DTD", "r-lstm", "last-steps", "small-beta"} <= keys
    assert len(keys) >= 35
    assert {"variables-4.3", "variables-4.5", "conservation", "percentage"} <= {
        c.key for c in run.claims if c.verdict == "reproduced"
    }
    for picture in run.pictures:
        assert (tmp_path / "figures" / f"{picture.name}.png").stat().st_size > 5_000
    assert "figure_4_12.png" in page.read_text()
