"""The census on a handful of architectures: rows, resuming, limits, the oracle, and the reports."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from benchmarks import census, census_operators, census_oracle, census_trial, census_vision
from benchmarks.census_subjects import Built, NotBuilt, Subject, enliven
from benchmarks.census_trial import Row, trial
from benchmarks.mend import mend_torchvision, suppressed


def mlp() -> Built:
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 3))
    return Built(model, torch.randn(1, 4), "1x4")


class Orthogonalized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.qr(x[:, :, None] * x[:, None]).Q.flatten(1)


def refused() -> Built:
    return Built(Orthogonalized(), torch.randn(1, 3))


def unbuilt() -> Built:
    raise NotBuilt("no such thing")


def dies() -> Built:
    os._exit(3)


def sleeps() -> Built:
    time.sleep(60)
    return mlp()


def broken() -> Built:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                raise ZeroDivisionError("only under gradients")
            return x

    return Built(Broken(), torch.randn(1, 3))


@pytest.mark.parametrize(
    ("build", "status", "reason"),
    [
        (mlp, "balanced", ""),
        (refused, "refused", "linalg_qr"),
        (unbuilt, "not built", "no such thing"),
        (broken, "crashed", "ZeroDivisionError"),
    ],
)
def test_what_becomes_of_an_architecture(build: Any, status: str, reason: str) -> None:
    row = trial(Subject("here", build.__name__, build), census_oracle.check)
    assert (row.status, reason in row.reason) == (status, True), row
    if status == "balanced":
        assert row.single is not None
        assert row.single < 1e-5
        assert row.double is not None
        assert row.double < 1e-12
        assert row.oracle.startswith("agrees with the surrogate")
    if status == "refused":
        assert row.operator == "linalg_qr"


def test_processes_that_die_or_are_late_are_rows() -> None:
    todo = [Subject("here", build.__name__, build) for build in (dies, sleeps, mlp)]
    rows = {row.name: row for row in census.run(todo, jobs=2, seconds=8, gigabytes=2, oracle=1)}
    assert rows["mlp"].status == "balanced"
    assert (rows["dies"].status, rows["sleeps"].status) == ("not built", "not built")
    assert "status 3" in rows["dies"].reason
    assert "longer" in rows["sleeps"].reason


def test_a_wrong_engine_is_found_by_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    built = mlp()
    enliven(built.model)
    assert census_oracle.check(built, None).startswith("agrees with the surrogate")
    own = hw.explain
    monkeypatch.setattr(
        census_oracle.hw, "explain", lambda *args, **options: own(*args, **{**options, "composite": "epsilon_plus"})
    )
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(9, 2)).eval()
    assert census_oracle.check(Built(model, torch.randn(1, 2, 4)), None).startswith("DISAGREES")


def test_what_must_not_be_is_told_by_the_exit_status() -> None:
    rows = [
        Row("here", "a", "balanced", oracle="agrees to 1e-7"), Row("here", "b", "refused", "no treatment"),
        Row("here", "c", "crashed", census.OUT_OF_TIME), Row("here", "d", "unbalanced"),
        Row("here", "e", "crashed", "?"), Row("here", "f", "balanced", oracle="DISAGREES by 0.2"),
    ]  # fmt: skip
    assert [census.wrong(row) for row in rows] == [False, False, False, True, True, True]


def test_the_census_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, table = tmp_path / "rows.jsonl", tmp_path / "table.csv"
    kept = Row("torch.nn", "ReLU", "crashed", "kept as it was")
    rows.write_text(json.dumps(census_trial.as_dict(kept)) + "\n")
    arguments = ["--rows", str(rows), "--only", "torch.nn:ReLU", "torch.nn:GELU", "--source", "torch.nn"]
    census.main([*arguments, "--table", str(table)])
    printed = capsys.readouterr().out
    assert "1/1 torch.nn:GELU: balanced" in printed
    assert "| all | 2 | 2 | 1 | 0 | 0 | 1 | 50.0 % |" in printed
    assert [r["name"] for r in csv.DictReader(table.open())] == ["GELU", "ReLU"]
    census.main([*arguments, "--again", "crashed"])
    assert "| all | 2 | 2 | 2 | 0 | 0 | 0 | 100.0 % |" in capsys.readouterr().out


def test_a_sample_is_always_the_same_and_of_every_source() -> None:
    found = [Subject(source, str(i), mlp) for source in ("a", "b") for i in range(30)]
    picked = census.choose(found, 10, [])
    assert picked == census.choose(list(reversed(found)), 10, [])
    assert {s.source for s in picked} == {"a", "b"}
    assert len(picked) == 10


def test_the_operators_of_torch_are_many_and_named_once() -> None:
    names = [s.name for s in census_operators.subjects()]
    assert len(names) == len(set(names)) >= 150


def test_a_configuration_is_cut_and_its_relations_stay() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers import LlamaConfig

    from benchmarks.census_transformers import VOCABULARY, shrink

    config = LlamaConfig()
    before = config.intermediate_size / config.hidden_size
    shrink(config, 16, image=True)
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (256, 2, VOCABULARY)
    assert config.hidden_size == config.num_attention_heads * config.head_dim
    assert config.intermediate_size / config.hidden_size == before
    assert config.eos_token_id < VOCABULARY


def test_detectors_are_asked_for_the_scores_of_what_they_find() -> None:
    mend_torchvision()
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    subject = next(s for s in census_vision.torchvision() if s.name == "ssdlite320_mobilenet_v3_large")
    row = trial(subject)
    assert (row.status, row.target) == ("balanced", "found scores"), row
    assert row.softmax


def test_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30], [0, 0, 10, 9]])
    assert suppressed(boxes, torch.tensor([0.5, 0.9, 0.1, 0.3]), 0.5).tolist() == [1, 2]
    assert suppressed(boxes[:0], torch.zeros(0), 0.5).tolist() == []


def test_what_is_told_of_single_classes_builds_them_and_is_small() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from benchmarks.census_transformers import PARTICULARS, subjects

    found = {s.name: s for s in subjects()}
    assert set(PARTICULARS) <= set(found)
    for name in ("MinistralForCausalLM", "Blip2QFormerModel", "Siglip2VisionModel", "DecisionTransformerModel"):
        built = found[name].build()
        assert built.note.endswith("widths given")
        assert sum(p.numel() for p in built.model.parameters()) < 1_000_000


class TwoTexts(nn.Module):
    """Attention from one text to another; ids of the second may be shifted on the way."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.embedding, self.last, self.shift = nn.Embedding(9, 4), nn.Linear(4, 3), shift

    def forward(self, input_ids: Tensor, other_ids: Tensor) -> Tensor:
        a, b = self.embedding(input_ids), self.embedding(other_ids + self.shift)
        return self.last((a @ b.mT).softmax(-1) @ b).mean(1)


def test_the_oracle_follows_every_argument_that_holds_token_ids() -> None:
    texts = {"input_ids": torch.tensor([[1, 5, 3]]), "other_ids": torch.tensor([[2, 0, 7, 4]])}
    assert census_oracle.check(Built(TwoTexts().eval(), texts), None).startswith("agrees with the surrogate")
    shifted = census_oracle.check(Built(TwoTexts(1).eval(), texts), None)
    assert "computed with before they are embedded" in shifted


class Paired(nn.Module):
    """Attention whose products are written as einsum of a list, as older models have them."""

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.einsum("nic,njc->nij", [x, x.flip(1)])
        return torch.einsum("nij,njc->nic", [scores.softmax(-1), x]).mean(1)


def test_the_oracle_sees_the_operands_of_einsum_in_a_list() -> None:
    assert census_oracle.check(Built(Paired(), torch.randn(1, 3, 4)), None).startswith("agrees with the surrogate")


def test_what_rounding_alone_parts_is_compared_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census_oracle, "TOLERANCE", 1e-9)
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)).eval()
    assert census_oracle.check(Built(model, torch.randn(1, 4)), None).endswith("in float64")
    assert next(model.parameters()).dtype == torch.float32


class Noisy(nn.Module):
    """A model that hides a part of its input, another at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x * (torch.rand_like(x) > 0.5))


def test_the_oracle_draws_what_the_engine_draws() -> None:
    assert census_oracle.check(Built(Noisy().eval(), torch.randn(1, 8)), None).startswith("agrees with the surrogate")
