"""The benchmarks' harness on toy networks: every figure exists; none is judged."""

from __future__ import annotations

import math
import os

import pytest
import torch

from benchmarks import gpu, measure, networks, small
from benchmarks.__main__ import table
from benchmarks.contestants import BOTH, FORWARD, Budget, contestants


@pytest.fixture(scope="module")
def results() -> list[measure.Result]:
    setting = measure.Setting("toy_vgg", batch=2, threads=1)
    return measure.run(setting, rounds=1, allocators=["default"], names=["epsilon"])


def test_times_and_memory_are_measured(results: list[measure.Result]) -> None:
    assert [r.name for r in results] == [FORWARD, BOTH, "epsilon"]
    for result in results:
        assert math.isfinite(result.ratios["default"])
        assert result.ratios["default"] > 0
        assert result.seconds["default"] > 0
        assert result.memory.peak > 0
        assert math.isfinite(result.peak_ratio)
    assert results[1].ratios["default"] == results[1].peak_ratio == 1


def test_table_has_a_line_for_each_contestant(results: list[measure.Result]) -> None:
    lines = table(results).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == [FORWARD, BOTH, "epsilon"]
    assert lines[-1].count("yes") + lines[-1].count("no ") == 2


@pytest.mark.parametrize("name", networks.TOYS)
def test_every_contestant_runs_and_leaves_the_model_as_it_was(name: str) -> None:
    model, x = networks.build(name), networks.find(name).small()
    before = model(x)
    for contestant in contestants().values():
        if contestant.serves(model):
            with contestant.open(model) as call:
                call(x)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1"])
@pytest.mark.parametrize("name", ["toy_vgg", "toy_resnet"])
def test_zennit_is_given_the_same_task(name: str, composite: str) -> None:
    pytest.importorskip("zennit", reason="zennit, which is compared with, is not installed")
    model, x, known = networks.build(name), networks.find(name).small(), contestants()
    with known[composite].open(model) as ours, known[f"zennit {composite}"].open(model) as theirs:
        expected = theirs(x)[1].detach()
        difference = ours(x).relevance - expected
    assert difference.norm() < 0.01 * expected.norm()  # zennit's z+ minds positive biases


def test_a_process_apart_has_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWATER_BENCHMARK", raising=False)
    found = measure.apart(os.getenv, "HEADWATER_BENCHMARK", environment={"HEADWATER_BENCHMARK": "yes"})
    assert (found, os.getenv("HEADWATER_BENCHMARK")) == ("yes", None)


def test_budgets_are_in_units_of_forward_and_backward() -> None:
    assert Budget(1.0, 1.5).limit(0.5) == Budget(1.0, 1.5).limit(0.5, signed=True) == 1.75
    assert Budget(1.0, 1.5, signed=2.0).limit(0.5, signed=True) == 2.0


def test_networks_are_frozen_and_keep_the_size_of_activations() -> None:
    for name in networks.TOYS:
        model = networks.build(name)
        assert not any(p.requires_grad for p in model.parameters())
        x = networks.find(name).inputs(2)
        assert 0.01 < float(model(x).std()) < 100
        assert torch.equal(networks.build(name)(x), model(x))


def test_the_gpu_run_measures_every_contestant_on_any_device() -> None:
    rates = gpu.measured("toy_lstm", "fp32", 2, torch.device("cpu"), rounds=1, peak=1e9)
    assert {FORWARD, BOTH, "epsilon", "default"} <= {rate.name for rate in rates}
    assert all(rate.per_second > 0 for rate in rates)
    shares = {rate.name: rate.matrix for rate in rates}
    assert all((shares[name] or 0) > 0 for name in gpu.PASSES)
    assert gpu.table(rates).count("\n") == len(rates) + 1


def test_without_a_gpu_it_says_what_it_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    gpu.main(["--batch", "1"])
    assert "vgg16 tf32 x1" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mlp", "cnn", "encoder", "lstm"])
def test_small_networks_have_a_line_each(name: str) -> None:
    seconds = small.measured(name, rounds=1)
    assert list(seconds) == ["F+B", *small.COMPOSITES]
    assert small.row(name, seconds).count("|") == len(seconds) + 2
