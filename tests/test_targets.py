"""What scalar is explained: every kind of target, the defaults by shape, and errors that list the choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_same

ZERO = hw.Composite({"default": hw.rules.Zero()})


class Scores(nn.Module):
    """A linear map of features to scores of any shape, so that LRP-0 is the target's gradient times the input."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.linear = nn.Linear(6, torch.Size(shape).numel(), bias=False, dtype=torch.float64)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).reshape(len(x), *self.shape)


def given(*shape: int) -> tuple[Scores, Tensor]:
    return Scores(*shape).eval(), torch.randn(3, 6, dtype=torch.float64)


def assert_explained(model: nn.Module, x: Tensor, target: Any, wanted: Callable[[Tensor], Tensor]) -> hw.Explanation:
    """The output is what ``wanted`` makes of the scores, and the relevance is its gradient times the input."""
    e = hw.explain(model, x, target=target, composite=ZERO, ledger=True)
    leaf = x.clone().requires_grad_()
    expected = wanted(model(leaf))
    assert_same(e.output, expected.detach(), 1e-12)
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    assert_same(e.relevance, gradient * x, 1e-9)
    return e


CLASSES: dict[str, tuple[Any, Callable[[Tensor], Tensor]]] = {
    "default": (None, lambda z: z.amax(1)),
    "int": (2, lambda z: z[:, 2]),
    "negative int": (-1, lambda z: z[:, -1]),
    "list": ([0, 2, 1], lambda z: z[[0, 1, 2], [0, 2, 1]]),
    "numpy int": (np.int64(2), lambda z: z[:, 2]),
    "numpy array": (np.array([0, 2, 1]), lambda z: z[[0, 1, 2], [0, 2, 1]]),
    "LongTensor": (torch.tensor([3, 3, 0]), lambda z: z[[0, 1, 2], [3, 3, 0]]),
    "callable": (lambda z: z[:, 0] - 2 * z[:, 1], lambda z: z[:, 0] - 2 * z[:, 1]),
    "margin": (hw.target.Margin(1, 3), lambda z: z[:, 1] - z[:, 3]),
    "sum": (hw.target.Sum(), lambda z: z.sum(1)),
    "contrast": (hw.target.Contrast(1), lambda z: z[:, 1] - z[:, [0, 2, 3]].mean(1)),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_targets_of_class_scores(kind: str) -> None:
    target, wanted = CLASSES[kind]
    assert_explained(*given(4), target, wanted)


@pytest.mark.parametrize("classes", [1, [1, 0, 3], torch.tensor([2, 2, 2]), None])
def test_log_odds(classes: Any) -> None:
    """A log-sum-exp is not homogeneous: the output is exact, and the ledger explains where the relevance goes."""
    model, x = given(4)
    e = hw.explain(model, x, target=hw.target.LogOdds(classes), composite=ZERO, ledger=True)
    z = model(x).detach()
    chosen = z.argmax(1) if classes is None else torch.as_tensor(classes).expand(3)
    own = torch.nn.functional.one_hot(chosen, 4).bool()
    expected = z[own] - z.masked_fill(own, -torch.inf).logsumexp(1)
    assert_same(e.output, expected, 1e-12)
    assert (e.ledger.unexplained() <= 1e-9 * (e.output.abs() + e.relevance.abs().sum(1))).all()
    # The log-odds are those of the probability that the softmax gives.
    chances = z.softmax(1)[own]
    assert_same(e.output, (chances / (1 - chances)).log(), 1e-9)


def test_the_resolved_target_is_kept() -> None:
    model, x = given(4)
    assert torch.equal(hw.explain(model, x).target, model(x).argmax(1))
    assert torch.equal(hw.explain(model, x, target=2).target, torch.tensor([2, 2, 2]))
    assert torch.equal(hw.explain(model, x, target=[0, 1, 2]).target, torch.tensor([0, 1, 2]))


def test_one_score_a_sample() -> None:
    assert_explained(*given(), None, lambda z: z)


def test_one_score_in_a_column() -> None:
    assert_explained(*given(1), None, lambda z: z[:, 0])


SEQUENCES: dict[str, tuple[Any, Callable[[Tensor], Tensor]]] = {
    "default": (None, lambda z: z[:, -1].amax(1)),
    "int": (3, lambda z: z[:, -1, 3]),
    "token": (hw.target.Token(1, 4), lambda z: z[:, 1, 4]),
    "token from the end": (hw.target.Token(-2, 0), lambda z: z[:, -2, 0]),
    "position and entry": ((2, 3), lambda z: z[:, 2, 3]),
    "callable": (lambda z: z[:, :, 0].sum(1), lambda z: z[:, :, 0].sum(1)),
    "sum": (hw.target.Sum(), lambda z: z.sum((1, 2))),
}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_targets_of_token_scores(kind: str) -> None:
    target, wanted = SEQUENCES[kind]
    assert_explained(*given(4, 5), target, wanted)


def test_the_last_unpadded_token() -> None:
    """With an attention mask the default is the last token that it shows, sample by sample."""

    class Masked(Scores):
        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            return super().forward(x) + 0 * attention_mask[..., None]

    model, x = Masked(4, 5).eval(), torch.randn(3, 6, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]])
    e = hw.explain(model, {"x": x, "attention_mask": mask}, composite=ZERO)
    z = model(x, mask).detach()
    assert_same(e.output, torch.stack([z[0, 3].max(), z[1, 1].max(), z[2, 3].max()]), 1e-12)


def winner(z: Tensor) -> Tensor:
    """For each sample, its most frequent class over the pixels where that class wins."""
    scores = []
    for sample in z:
        best = sample.argmax(0)
        most = best.flatten().mode().values
        scores.append(sample[most][best == most].sum())
    return torch.stack(scores)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 2, 3, 4)])
def test_pixels(shape: tuple[int, ...]) -> None:
    assert_explained(*given(*shape), None, winner)


def test_pixels_of_a_class() -> None:
    model, x = given(3, 4, 5)

    def wanted(z: Tensor) -> Tensor:
        return (z[:, 1] * (z.argmax(1) == 1)).sum((1, 2))

    assert (model(x).argmax(1) == 1).flatten(1).any(1).all()
    assert_explained(model, x, 1, wanted)


def test_a_hidden_neuron() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, dtype=torch.float64)
            self.head = nn.Linear(2 * 4 * 4, 3, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).relu().flatten(1))

    model, x = Net().eval(), torch.randn(2, 1, 6, 6, dtype=torch.float64)
    e = hw.explain(model, x, target=hw.target.Neuron("conv", (1, 2, 0)), composite=ZERO, ledger=True)
    assert_same(e.output, model.conv(x).detach()[:, 1, 2, 0], 1e-12)
    assert e.relevance[:, :, :2].abs().sum() == 0, "relevance outside the neuron's receptive field"
    assert_same(e.relevance.flatten(1).sum(1), e.output - model.conv.bias[1].detach(), 1e-9)
    assert_same(hw.explain(model, x, target=hw.target.Neuron("head", 2), composite=ZERO).relevance,
                hw.explain(model, x, target=2, composite=ZERO).relevance, 1e-12)  # fmt: skip


class Pair(NamedTuple):
    states: Tensor
    logits: Tensor


@pytest.mark.parametrize("form", ["tuple", "dict", "named tuple", "nested"])
def test_outputs_that_are_no_tensor(form: str) -> None:
    """The logits of a structure are explained, else its first float tensor."""

    class Wrapped(Scores):
        def forward(self, x: Tensor) -> Any:
            z = super().forward(x)
            return {
                "tuple": (z, x),
                "dict": {"hidden": x, "logits": z},
                "named tuple": Pair(x, z),
                "nested": (torch.arange(3), (z, x)),
            }[form]

    torch.manual_seed(1)
    plain, x = given(4)
    torch.manual_seed(1)
    wrapped = Wrapped(4).eval()
    assert torch.equal(plain.linear.weight, wrapped.linear.weight)
    assert_same(hw.explain(wrapped, x).relevance, hw.explain(plain, x).relevance, 1e-12)


WRONG: dict[str, tuple[tuple[int, ...], Any, str]] = {
    "too large": ((4,), 4, r"4 is out of range.*0 to 3"),
    "too negative": ((4,), -5, r"-5 is out of range"),
    "too large in a list": ((4,), [0, 9, 1], r"9 is out of range"),
    "too few": ((4,), [0, 1], r"2 targets for 3 samples"),
    "floats": ((4,), torch.tensor([0.0, 1.0, 2.0]), r"choose an int"),
    "a name": ((4,), "cat", r"choose an int"),
    "names": ((4,), ["cat", "dog", "cow"], r"choose an int"),
    "a class of one score": ((), 1, r"leave the target out"),
    "a function without one score a sample": ((4,), lambda z: z.sum(), r"must return scores \[3\]"),
    "a function that returns no tensor": ((4,), lambda z: 1.0, r"must return scores \[3\]"),
    "a margin of pixels": ((3, 4, 5), hw.target.Margin(0, 1), r"needs an output of 2 axes"),
    "log-odds of one class": ((1,), hw.target.LogOdds(0), r"at least two classes"),
    "contrast out of range": ((4,), hw.target.Contrast(7), r"7 is out of range"),
    "a margin out of range": ((4,), hw.target.Margin(0, 4), r"4 is out of range"),
    "a token of class scores": ((4,), hw.target.Token(0, 1), r"needs an output of 3 axes"),
    "a position too far": ((4, 5), hw.target.Token(4, 1), r"positions 0 to 3"),
    "an unknown token": ((4, 5), hw.target.Token(0, 5), r"tokens 0 to 4"),
    "an output of no known shape": ((2, 2, 2, 2, 2), None, r"choose an int"),
    "an unknown layer": ((4,), hw.target.Neuron("body", 0), r"'body'.*linear"),
    "a neuron out of range": ((4,), hw.target.Neuron("linear", 4), r"4.*out of range|out of range.*4"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_target_says_what_is_right(case: str) -> None:
    shape, target, message = WRONG[case]
    model, x = given(*shape)
    with pytest.raises(hw.HeadwaterError, match=message) as caught:
        hw.explain(model, x, target=target)
    assert isinstance(caught.value, ValueError)


def test_a_channel_is_no_neuron_and_the_error_says_how_to_name_one() -> None:
    model, x = (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).eval(),
        torch.rand(2, 1, 5, 5),
    )
    with pytest.raises(hw.InvalidTarget, match=r"names 9 values .* such as \(3, 0, 0\)"):
        hw.explain(model, x, target=hw.target.Neuron("0", 3))
    assert hw.explain(model, x, target=hw.target.Neuron("0", (3, 0, 0))).relevance.shape == x.shape


def test_a_function_is_refused_by_its_name() -> None:
    def rise(scores: Tensor) -> Tensor:
        return scores[:, 0]

    with pytest.raises(hw.InvalidTarget, match="not the function rise: pass ints"):
        hw.explain(nn.Linear(4, 3).eval(), torch.rand(2, 4), target=rise, method="contrastive_lrp")


def test_an_output_without_a_tensor() -> None:
    class Names(Scores):
        def forward(self, x: Tensor) -> Any:
            super().forward(x)
            return ["cat", "dog"]

    with pytest.raises(hw.HeadwaterError, match="list without a float tensor"):
        hw.explain(Names(4).eval(), torch.randn(3, 6, dtype=torch.float64))


class Speaker(nn.Module):
    """Token ids ``[N, T]`` to logits ``[N, T, V]``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.read = nn.Embedding(7, 5), nn.Linear(5, 7)

    def forward(self, ids: Tensor) -> Tensor:
        return self.read(self.embed(ids).cumsum(1))


@pytest.mark.parametrize("ids", [[3, 1], torch.tensor([[3, 1], [6, 6]])], ids=["shared", "each"])
def test_a_continuation_is_the_sum_of_its_tokens(ids: Any) -> None:
    model, x = Speaker().double(), torch.tensor([[1, 2, 3, 1], [0, 5, 6, 6]])
    e = hw.explain(model, x, target=hw.target.Continuation(ids), method="gradient_x_input")
    parts, total = torch.as_tensor(ids).expand(2, 2), torch.zeros(2, 4, 5, dtype=torch.float64)
    for i, position in enumerate((1, 2)):
        for n in range(2):
            token = hw.target.Token(position, int(parts[n, i]))
            total[n] += hw.explain(model, x[n : n + 1], target=token, method="gradient_x_input").relevance[0]
    assert torch.allclose(e.relevance, total)
    assert not e.tokens()[:, 3].any()  # the last token is predicted, not read
    single = hw.explain(model, x, target=hw.target.Continuation(ids), method="gradient_x_input", batch_size=1)
    assert torch.allclose(e.relevance, single.relevance)


@pytest.mark.parametrize("ids", [[], [1, 2, 3, 4], [9], [0.5], [[1], [2], [3]]])
def test_a_continuation_that_does_not_fit(ids: Any) -> None:
    with pytest.raises(hw.InvalidTarget, match="Continuation"):
        hw.explain(Speaker(), torch.tensor([[1, 2, 3, 1], [0, 5, 6, 6]]), target=hw.target.Continuation(ids))


def test_true_and_false_are_no_classes() -> None:
    model, x = Scores(3), torch.randn(2, 6, dtype=torch.float64)
    for wrong in (True, np.True_):
        with pytest.raises(hw.InvalidTarget, match="True"):
            hw.explain(model, x, wrong)


def test_a_function_of_the_output_returns_one_score_a_sample() -> None:
    model, x = Scores(5), torch.randn(3, 6, dtype=torch.float64)
    with pytest.raises(hw.InvalidTarget, match=r"scores \[3\], one a sample, not \[5\]"):
        hw.explain(model, x, lambda output: output[0])


def test_a_token_that_the_vocabulary_does_not_have_is_refused_for_each_sample() -> None:
    model, x = Scores(4, 7), torch.randn(2, 6, dtype=torch.float64)
    with pytest.raises(hw.InvalidTarget, match="has tokens 0 to 6"):
        hw.explain(model, x, hw.target.Token(-1, torch.tensor([9, 1])))
    one = hw.explain(model, x, hw.target.Token(-1, torch.tensor([3, 1])))
    assert one.target.tolist() == [3, 1]


def test_one_place_of_an_output_over_time_is_named_by_a_tuple() -> None:
    model, x = Scores(3, 8), torch.randn(2, 6, dtype=torch.float64)  # [N, phases, steps], say
    e = hw.explain(model, x, (1, 5), composite=ZERO)
    assert_same(e.output, model(x)[:, 1, 5].detach())


def test_scores_over_a_series_are_not_taken_for_a_vocabulary_in_silence() -> None:
    picker, x = nn.Conv1d(3, 4, 5, padding=2).double(), torch.randn(2, 3, 20, dtype=torch.float64)
    with pytest.warns(hw.HeadwaterWarning, match=r"pass target=\(class, step\)"):
        hw.explain(picker, x)
    with pytest.warns(hw.HeadwaterWarning, match="its last axis is as long as the input's"):
        hw.explain(picker, x, method="occlusion")
    hw.explain(picker, x, (1, 7))  # a warning would be an error here
    hw.explain(Scores(4, 7), torch.randn(2, 6, dtype=torch.float64))


class Finder(nn.Module):
    """Returns what detectors do: a dictionary for each picture."""

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """Two boxes for each picture."""
        return [{"boxes": picture.flatten()[:8].view(2, 4), "scores": picture.flatten()[:2]} for picture in x]


def test_of_what_a_detector_returns_the_score_is_asked_for() -> None:
    x = torch.rand(1, 1, 4, 4)
    with pytest.raises(hw.HeadwaterError, match=r"target=lambda found: found\[0\]\['scores'\]\[:1\]"):
        hw.explain(Finder(), x)
    found = hw.explain(Finder(), x, target=lambda found: found[0]["scores"][:1])
    assert float(found.relevance.sum()) == pytest.approx(float(x[0, 0, 0, 0]))
