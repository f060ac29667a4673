"""The walk through whole recurrent layers gives what their parts give, and the values are torch's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import headwater as hw
from headwater.propagate import recurrent, recurrent_parts
from tests.models.checks import assert_own, own_scores
from tests.reference.audit import assert_same


class Halved(hw.rules.Epsilon):
    """A rule of the user's own, made of one that the walk knows."""

    def factor(self, op: Any, c: Tensor) -> Tensor:
        return super().factor(op, c) / 2


RULES: dict[str, dict[str, Any]] = {
    "zero": {"default": hw.rules.Zero()},
    "epsilon": {"default": hw.rules.Epsilon(0.1)},
    "entering": {"input": hw.rules.Epsilon(0.5), "default": hw.rules.Epsilon(0.01)},
    "layers": {"layer:rnn": hw.rules.Epsilon(0.2), "default": hw.rules.Zero()},
}
OTHER_RULES: dict[str, dict[str, Any]] = {
    "signs": {"default": hw.rules.Gamma(0.25)},
    "own": {"default": Halved(0.1)},
    "relative": {"default": hw.rules.Epsilon(0.1, relative=True)},
    "flat": {"input": hw.rules.Flat(), "default": hw.rules.Epsilon(0.1)},
    "depth": {"depth:0-0.5": hw.rules.Epsilon(0.3), "default": hw.rules.Zero()},
    "filtered": {"linear": (hw.rules.Zero(), hw.filters.Clamp(0.3)), "default": hw.rules.Zero()},
}


class Reader(nn.Module):
    """A recurrent module between nothing and a linear layer that reads its outputs and its final states.

    Args:
        rnn: ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``, batch first or not.
        initial: "none"; "constant" (parameters); "live" (made of the first step); "h" or "c" (only that one live).
        packed: samples of different lengths, in no order.
        reads: "outputs", "states" or "both".
    """

    def __init__(self, rnn: Any, initial: str = "none", packed: bool = False, reads: str = "both") -> None:
        super().__init__()
        self.rnn, self.initial, self.packed, self.reads = rnn, initial, packed, reads
        self.directions = rnn.num_layers * (2 if rnn.bidirectional else 1)
        self.widths = [getattr(rnn, "proj_size", 0) or rnn.hidden_size, rnn.hidden_size][: 1 + isinstance(rnn, nn.LSTM)]
        self.start = nn.ParameterList(torch.randn(self.directions, 1, w) for w in self.widths)
        self.lift = nn.ModuleList(nn.Linear(rnn.input_size, w, bias=False) for w in self.widths)
        wide = sum(self.widths) * self.directions + 2 * self.widths[0]
        self.head = nn.Linear(wide, 3)
        self.double().eval()

    def states(self, x: Tensor) -> Any:
        """The initial states for an input ``[N, T, features]``."""
        if self.initial == "none":
            return None
        found = []
        for name, start, lift in zip("hc", self.start, self.lift, strict=False):
            one = lift(x[:, 0]) if self.initial in ("live", name) else start[0].expand(len(x), -1)
            found.append(one.expand(self.directions, *one.shape).contiguous())
        return tuple(found) if len(found) == 2 else found[0]

    def forward(self, x: Tensor) -> Tensor:
        given: Any = x
        if self.packed:
            lengths = torch.tensor([1 + (3 * i + 1) % x.shape[1] for i in range(len(x))])
            given = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        elif not self.rnn.batch_first:
            given = x.transpose(0, 1)
        y, final = self.rnn(given, self.states(x))
        if isinstance(y, PackedSequence):
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        elif not self.rnn.batch_first:
            y = y.transpose(0, 1)
        y = y.sum(1) if self.reads != "states" else y.new_zeros(len(x), y.shape[2])
        y = torch.cat([y, y], 1)[:, : 2 * self.widths[0]]
        finals = final if isinstance(final, tuple) else (final,)
        ends = [e.transpose(0, 1).flatten(1) * (self.reads != "outputs") for e in finals]
        scores: Tensor = self.head(torch.cat([y, *ends], 1))
        return scores


@contextmanager
def only_parts(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within, every recurrent operator is taken apart."""
    with patch.context() as inner:
        inner.setattr(recurrent, "_epsilons", lambda *_: None)
        yield


@contextmanager
def no_parts(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within, no recurrent operator may be taken apart."""

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a recurrent operator was taken apart")

    with patch.context() as inner:
        inner.setattr(recurrent_parts, "layers", never)
        inner.setattr(recurrent_parts, "step", never)
        yield


def assert_as_parts(patch: pytest.MonkeyPatch, model: nn.Module, x: Tensor, whole: bool = True, **options: Any) -> None:
    """The same relevance as that of the parts to 1e-12, and the model's own output to the last bit."""
    with no_parts(patch) if whole else patch.context():
        e = hw.explain(model, x, **options)
    with only_parts(patch):
        parts = hw.explain(model, x, **options)
    assert e.relevance.abs().sum() > 0
    assert_same(e.relevance, parts.relevance, 1e-12)
    for name, relevance in parts.layers.items():
        assert_same(e.layers[name], relevance, 1e-12)
    own = [scores.amax(1) for scores in own_scores(model, x)]
    if "composite" in options and options["composite"].per_sample:  # explained one by one
        assert_same(e.output, own[0], 1e-12)
    else:
        assert_own(e.output, own)


networks = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]),
        "bias": st.booleans(),
        "num_layers": st.integers(1, 3),
        "bidirectional": st.booleans(),
        "batch_first": st.booleans(),
        "initial": st.sampled_from(["none", "constant", "live", "h", "c"]),
        "packed": st.booleans(),
        "reads": st.sampled_from(["outputs", "states", "both"]),
        "variant": st.booleans(),
        "samples": st.integers(1, 4),
        "steps": st.integers(1, 5),
        "rule": st.sampled_from(list(RULES)),
    }
)


def built(case: dict[str, Any]) -> tuple[Reader, Tensor]:
    torch.manual_seed(0)
    kind = case["kind"]
    options = {k: case[k] for k in ("bias", "num_layers", "bidirectional", "batch_first")}
    variants: dict[Any, dict[str, Any]] = {nn.LSTM: {"proj_size": 3}, nn.RNN: {"nonlinearity": "relu"}, nn.GRU: {}}
    special = variants[kind] if case["variant"] else {}
    model = Reader(kind(4, 5, **options, **special), case["initial"], case["packed"], case["reads"])
    return model, torch.randn(case["samples"], case["steps"], 4, dtype=torch.float64)


@given(networks)
@settings(max_examples=120)
def test_whole_layers_are_their_parts(case: dict[str, Any]) -> None:
    model, x = built(case)
    composite = hw.Composite(RULES[case["rule"]])
    entering = case["rule"] == "entering" and case["initial"] in ("live", "h", "c")
    with pytest.MonkeyPatch.context() as patch:
        assert_as_parts(patch, model, x, whole=not entering, composite=composite, target=lambda y: y.amax(1))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("rule", OTHER_RULES)
def test_other_rules_get_the_parts(rule: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Reader(kind(4, 5, batch_first=True)), torch.randn(2, 3, 4, dtype=torch.float64)
    composite = hw.Composite(OTHER_RULES[rule])
    with pytest.raises(AssertionError, match="taken apart"), no_parts(monkeypatch):
        hw.explain(model, x, composite=composite)
    assert_as_parts(monkeypatch, model, x, whole=False, composite=composite)


class Loop(nn.Module):
    """A cell in a loop over the steps, from a state that is given (None, constant, or made of the first step)."""

    def __init__(self, cell: nn.Module, initial: str) -> None:
        super().__init__()
        self.cell, self.initial = cell, initial
        self.start, self.lift, self.head = nn.Parameter(torch.randn(5)), nn.Linear(4, 5), nn.Linear(5, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        if self.initial != "none":
            h = self.lift(x[:, 0]) if self.initial == "live" else self.start.expand(len(x), 5)
            state = (h, self.start.expand(len(x), 5)) if isinstance(self.cell, nn.LSTMCell) else h
        for step in x.unbind(1):
            state = self.cell(step, state)
        scores: Tensor = self.head(state[0] + state[1] if isinstance(state, tuple) else state)
        return scores


@pytest.mark.parametrize("rule", [*RULES, *OTHER_RULES])
@pytest.mark.parametrize("initial", ["none", "constant", "live"])
@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_are_their_parts(cell: Any, initial: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Loop(cell(4, 5, bias=initial != "constant"), initial)
    composite = hw.Composite({**RULES, **OTHER_RULES}[rule])
    assert_as_parts(monkeypatch, model, torch.randn(2, 3, 4, dtype=torch.float64), whole=False, composite=composite)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_a_cell_is_not_taken_apart(nonlinearity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Loop(nn.RNNCell(4, 5, nonlinearity=nonlinearity), "none")
    assert_as_parts(monkeypatch, model, torch.randn(1, 2, 4, dtype=torch.float64))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_layers_read_on_the_way(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Reader(kind(4, 5, 2, bidirectional=True)), torch.randn(2, 3, 4, dtype=torch.float64)
    assert_as_parts(monkeypatch, model, x, layers=["rnn", "head"])


class Reused(nn.Module):
    """One layer called twice, its first result changed in place, then a GRU whose input is not the explained one."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(4, 4), nn.GRU(3, 4, 2)
        self.head = nn.Linear(4, 3)
        self.other = nn.Buffer(torch.randn(6, 1, 3))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        first, _ = self.lstm(x.transpose(0, 1))
        first += 0.5
        second, (h, c) = self.lstm(first, None)
        decoded, _ = self.gru(self.other.expand(-1, len(x), -1), torch.cat([h, c]))
        scores: Tensor = self.head(decoded[-1] + second.mean(0))
        return scores


@pytest.mark.parametrize("rule", ["zero", "epsilon", "entering"])
def test_reused_layers_and_constant_inputs(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    assert_as_parts(monkeypatch, Reused(), x, composite=hw.Composite(RULES[rule]))


def test_weights_made_of_the_input_get_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hyper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.RNNCell(4, 4), nn.Linear(4, 3)
            self.double().eval()

        def forward(self, x: Tensor) -> Tensor:
            cell = self.cell
            w = cell.weight_hh * x.mean()
            h = torch.rnn_tanh_cell(x, x, cell.weight_ih, w, cell.bias_ih, cell.bias_hh)
            scores: Tensor = self.head(h)
            return scores

    assert_as_parts(monkeypatch, Hyper(), torch.randn(2, 4, dtype=torch.float64), whole=False)


def test_factors_of_several_targets_from_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Reader(nn.LSTM(4, 5)), torch.randn(2, 3, 4, dtype=torch.float64)
    with no_parts(monkeypatch), hw.propagating(composite="epsilon") as p:
        y = model(x)
        together = [p.relevance(x, of=y[:, k]) for k in range(3)]
    for k, relevance in enumerate(together):
        assert_same(relevance, hw.explain(model, x, target=k, composite="epsilon").relevance, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_low_precision_has_the_models_own_output(kind: Any, dtype: torch.dtype) -> None:
    model = Reader(kind(4, 5, 3, bidirectional=True, batch_first=True)).to(dtype)
    x = torch.randn(3, 6, 4, dtype=dtype)
    e = hw.explain(model, x, target=lambda y: y.amax(1))
    assert e.relevance.dtype == dtype
    assert torch.isfinite(e.relevance).all()
    assert_own(e.output, (s.amax(1) for s in own_scores(model, x)))


def test_values_at_zero_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        model = Reader(kind(4, 5, bias=False))
        e = hw.explain(model, torch.zeros(2, 3, 4, dtype=torch.float64), target=0)
        assert_same(e.relevance, torch.zeros_like(e.relevance), 0.0)


def test_autocast_gets_the_parts() -> None:
    class Cast(Reader):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x)

    model = Cast(nn.LSTM(4, 5)).float()
    assert torch.isfinite(hw.explain(model, torch.randn(2, 3, 4)).relevance).all()
