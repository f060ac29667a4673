from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import headwater as hw
from headwater.errors import InvalidInput, InvalidTarget, NonFinite
from headwater.evaluate import deletion, insertion, pixel_flipping
from headwater.remove.imputers import Constant, Delete, Mean, Uniform
from tests.evaluate import nets


def plain_loop(
    model: nn.Module, x: Tensor, relevance: Tensor, target: int, fill: Tensor, labels: Tensor, counts: list[int]
) -> list[float]:
    """Algorithm 3 as it stands: one feature after the other, one sample, one forward each."""
    x, number = x.clone(), int(labels.max()) + 1
    scores = [float(relevance[labels.expand_as(relevance) == f].double().sum()) for f in range(number)]
    order = sorted(range(number), key=lambda f: -scores[f])
    curve = []
    for k in range(number + 1):
        if k in counts:
            with torch.no_grad():
                curve.append(float(model(x[None])[0, target]))
        if k < number:
            where = labels.expand_as(x) == order[k]
            x[where] = fill[where]
    return curve


@pytest.mark.parametrize("features", [None, "value", "channel", 5, (4, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_curve_equals_a_plain_loops(features: Any, dtype: torch.dtype) -> None:
    model, x = nets.visual().to(dtype), nets.pictures().to(dtype)
    explanation = hw.explain(model, x)
    places = torch.arange(144).view(1, 12, 12)
    across = torch.arange(12)
    labels = {
        None: places, "value": torch.arange(432).view(3, 12, 12), "channel": torch.arange(3).view(3, 1, 1),
        5: (across[:, None] // 5 * 3 + across // 5)[None], (4, 3): (across[:, None] // 4 * 4 + across // 3)[None],
    }[features]  # fmt: skip
    number = int(labels.max()) + 1
    steps = min(7, number)
    counts = torch.linspace(0, number, steps + 1).round().int().tolist()
    found = pixel_flipping(model, x, explanation, features=features, imputer=0.25, steps=steps)
    for i in range(len(x)):
        fill = torch.full_like(x[i], 0.25)
        expected = plain_loop(model, x[i], explanation.relevance[i], int(explanation.target[i]), fill, labels, counts)
        assert found.curves[i].tolist() == pytest.approx(expected, abs=1e-5)
    curve, area = found
    assert curve.shape == (steps + 1,)
    assert area == pytest.approx(float(torch.trapezoid(curve, found.fractions)))


def test_orders_and_batches_of_any_size_agree() -> None:
    model, x = nets.visual(), nets.pictures()
    explanation = hw.explain(model, x)
    whole = pixel_flipping(model, x, explanation, steps=9)
    for batch_size in (1, 7):
        parts = pixel_flipping(model, x, explanation, steps=9, batch_size=batch_size)
        assert parts.curves.allclose(whole.curves, atol=1e-5)
    alone = pixel_flipping(model, x[1:2], explanation.relevance[1:2], explanation.target[1:2], steps=9)
    assert alone.curves[0].allclose(whole.curves[1], atol=1e-5)
    least = pixel_flipping(model, x, explanation, order="least", steps=9)
    assert least.curves.allclose(pixel_flipping(model, x, -explanation.relevance, explanation.target, steps=9).curves)
    assert whole.area < pixel_flipping(model, x, explanation, order="random", steps=9).area < least.area
    first, second = (pixel_flipping(model, x, explanation, order="random", seed=s).curves for s in (1, 1))
    assert first.equal(second)
    assert not first.equal(pixel_flipping(model, x, explanation, order="random", seed=2).curves)


def test_insertion_is_deletion_of_the_least_relevant_backwards() -> None:
    model, x = nets.visual(), nets.pictures()
    relevance = torch.randn(x.shape)
    inserted = pixel_flipping(model, x, relevance, imputer=0.0, insert=True, steps=12)
    removed = pixel_flipping(model, x, relevance, imputer=0.0, order="least", steps=12)
    assert inserted.curves.flip(1).allclose(removed.curves, atol=1e-5)


def test_outputs_are_what_they_say() -> None:
    model, x = nets.visual(), nets.pictures(5)
    relevance = torch.randn(x.shape)
    options: dict[str, Any] = {"imputer": Constant(), "steps": 4}
    wanted = model(x).argmax(1).detach()
    score, probability, accuracy = (
        pixel_flipping(model, x, relevance, output=o, **options).curves for o in ("score", "probability", "accuracy")
    )
    assert score[:, 0].tolist() == pytest.approx(model(x).max(1).values.tolist())
    assert probability[:, 0].tolist() == pytest.approx(model(x).softmax(1).max(1).values.tolist())
    assert accuracy[:, 0].tolist() == [1] * 5
    blank = model(torch.zeros(1, 3, 12, 12))[0]
    assert score[:, -1].tolist() == pytest.approx(blank[wanted].tolist(), abs=1e-6)
    assert accuracy[:, -1].tolist() == (wanted == blank.argmax()).double().tolist()
    assert deletion(model, x, relevance).curves[:, 0].tolist() == pytest.approx(probability[:, 0].tolist())
    assert insertion(model, x, relevance).curves[:, -1].tolist() == pytest.approx(probability[:, 0].tolist())


def test_areas_and_intervals() -> None:
    found = pixel_flipping(nets.visual(), nets.pictures(6), torch.rand(6, 3, 12, 12), imputer=Mean(), steps=10)
    for i, curve in enumerate(found.curves.tolist()):
        assert float(found.aopc[i]) == pytest.approx(sum(curve[0] - v for v in curve) / 11)
        area = sum((a + b) / 2 for a, b in pairwise(curve)) / 10
        assert float(found.areas[i]) == pytest.approx(area, rel=0.02)  # 144 features make no ten equal steps
        assert float(found.over[i]) == pytest.approx(curve[0] - float(found.areas[i]))
    low, high = found.area_interval()
    assert low <= found.area <= high
    low, high = found.interval()
    assert bool(((low <= found.curve) & (found.curve <= high)).all())
    probabilities = pixel_flipping(nets.visual(), nets.pictures(), torch.rand(3, 3, 12, 12), output="probability")
    assert probabilities.relative.curves[:, 0].tolist() == pytest.approx([1, 1, 1])
    assert probabilities.settings["imputer"] == "inpaint"


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 1))
@settings(max_examples=30)
def test_any_number_of_features_and_steps(features: int, steps: int, until: float) -> None:
    model, x = nn.Linear(features, 2), torch.randn(2, features)
    last = max(1, round(until * features))
    steps = min(steps, last)
    found = pixel_flipping(model, x, torch.randn(2, features), 1, steps=steps, until=until)
    assert found.curves.shape == (2, steps + 1)
    assert found.fractions[-1] == pytest.approx(last / features)
    sized = pixel_flipping(model, x, torch.randn(2, features), 1, step_size=min(steps, features))
    assert sized.fractions[-1] == 1


def test_features_of_the_users_own_and_of_different_number() -> None:
    model, x = nets.visual(), nets.pictures(2)
    labels = torch.zeros(2, 12, 12, dtype=torch.long)
    labels[0, :, 6:] = 9  # two features
    labels[1] = torch.arange(12) // 3  # four
    relevance = torch.rand(2, 12, 12)
    found = pixel_flipping(model, x, relevance, features=labels, imputer=0.0)
    assert found.curves.shape == (2, 5)
    blank = model(torch.zeros(1, 3, 12, 12))[0]
    assert found.curves[:, -1].tolist() == pytest.approx(blank[model(x).argmax(1)].tolist(), abs=1e-6)
    untouched = torch.where(labels == 0, -1, labels)  # negative labels stay
    kept = pixel_flipping(model, x[:1], relevance[:1], features=untouched[:1], imputer=0.0)
    half = x[:1].clone()
    half[..., 6:] = 0
    assert kept.curves[0, -1].item() == pytest.approx(model(half)[0, model(x[:1]).argmax()].item(), abs=1e-6)


def test_words_are_deleted_with_their_mask() -> None:
    model = nets.Words()
    ids = torch.randint(1, 20, (3, 7))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    x = {"input_ids": ids * mask, "attention_mask": mask}
    explanation = hw.explain(model, x)
    found = pixel_flipping(model, x, explanation, imputer=Delete(0))
    for i, length in enumerate((7, 5, 7)):
        words, left = ids[i, :length].tolist(), list(range(length))
        scores = explanation.relevance["input_ids"][i].sum(-1).tolist()
        curve = []
        for word in [None, *sorted(range(length), key=lambda j, s=scores: -s[j])]:
            left = [j for j in left if j != word]
            kept = torch.tensor([[words[j] for j in left]], dtype=torch.long)
            curve.append(model(kept, torch.ones_like(kept))[0, explanation.target[i]].item())
        taken = [round(f * length) for f in found.fractions.tolist()]
        assert found.curves[i].tolist() == pytest.approx([curve[k] for k in taken], abs=1e-5)


def test_a_callable_that_is_no_module_and_a_target_that_is_a_function() -> None:
    x = torch.rand(2, 5)
    found = pixel_flipping(lambda v: v.square().sum(1), x, x.square(), imputer=0.0)
    expected = [[float(v.square().sort(descending=True).values[k:].sum()) for k in range(6)] for v in x]
    assert found.curves.flatten().tolist() == pytest.approx(list(chain(*expected)))
    double = pixel_flipping(lambda v: v, x, x, lambda out: 2 * out.sum(1), imputer=0.0)
    assert double.curves[:, 0].tolist() == pytest.approx((2 * x.sum(1)).tolist())


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 9), (2, 3, 8, 8), (2, 1, 4, 6, 6)])
def test_every_kind_of_input(shape: tuple[int, ...]) -> None:
    found = pixel_flipping(lambda v: v.flatten(1).sum(1), torch.rand(shape), torch.rand(shape))
    assert bool(found.curves.isfinite().all())


def test_the_model_and_the_input_stay_as_they_are() -> None:
    model, x = nets.visual().train(False), nets.pictures()
    copy, state = x.clone(), {k: v.clone() for k, v in model.state_dict().items()}
    relevance = torch.rand(3, 12, 12, 3).movedim(-1, 1)  # not contiguous
    pixel_flipping(model, x, relevance, imputer=Uniform())
    assert x.equal(copy)
    assert all(v.equal(state[k]) for k, v in model.state_dict().items())


def test_bad_arguments_are_told() -> None:
    model, x = nets.visual(), nets.pictures()
    relevance = torch.rand(x.shape)
    for options, text in [
        ({"order": "best"}, "order"), ({"pool": "median"}, "pool"), ({"output": "loss"}, "output"),
        ({"steps": 0}, "steps"), ({"steps": 145}, "steps"), ({"steps": 3, "step_size": 2}, "step_size"),
        ({"until": 0}, "until"), ({"features": (3,)}, "patches"), ({"features": "shape"}, "features"),
        ({"imputer": "magic"}, "imputer"), ({"argument": "mask"}, "argument"),
    ]:  # fmt: skip
        with pytest.raises(InvalidInput, match=text):
            pixel_flipping(model, x, relevance, **options)
    with pytest.raises(InvalidInput, match="samples"):
        pixel_flipping(model, x, relevance[:2])
    with pytest.raises(InvalidInput, match="fits neither"):
        pixel_flipping(model, x, torch.rand(3, 5))
    with pytest.raises(InvalidTarget):
        pixel_flipping(model, x, relevance, 9)
    with pytest.raises(InvalidTarget, match="class"):
        pixel_flipping(model, x, relevance, hw.target.Sum(), output="probability")
    with pytest.raises(NonFinite):
        pixel_flipping(lambda v: v.flatten(1).sum(1) / 0, x, relevance)


def test_probabilities_are_not_taken_for_logits() -> None:
    model, x = nets.visual(), nets.pictures(3)
    explanation = hw.explain(model, x)
    of_logits = pixel_flipping(model, x, explanation, steps=4, output="probability")
    of_probabilities = pixel_flipping(
        nn.Sequential(model, nn.Softmax(1)), x, explanation, steps=4, output="probability"
    )
    torch.testing.assert_close(of_probabilities.curves, of_logits.curves, atol=1e-6, rtol=0)


@pytest.mark.parametrize("output", ["probability", "accuracy"])
def test_a_single_output_has_no_class_probability(output: Any) -> None:
    model, x = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), torch.randn(3, 4)
    with pytest.raises(InvalidTarget, match=r"\[N, C\] with C > 1"):
        pixel_flipping(model, x, torch.rand(3, 4), output=output)


class Columns(nn.Module):
    """Numbers, and a kind that comes as one id a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.out = nn.Embedding(5, 2), nn.Linear(5, 2)

    def forward(self, numbers: Tensor, kind: Tensor) -> Tensor:
        return self.out(torch.cat([numbers, self.kinds(kind)], 1))


def test_an_argument_with_one_value_a_sample_is_a_feature() -> None:
    model, numbers, kind = Columns().double(), torch.randn(4, 3).double(), torch.tensor([1, 4, 2, 3])
    x = (numbers, kind)
    for method in ("occlusion", "feature_ablation", "shapley_exact", "rise"):
        e = hw.explain(model, x, 1, method=method)
        assert [r.shape for r in e.relevance] == [numbers.shape, kind.shape]
        if method != "rise":  # a linear model: what is lost is what each term adds
            lost = (model(*x) - model(numbers, torch.zeros_like(kind)))[:, 1]
            torch.testing.assert_close(e.relevance[1], lost.detach())
    flipping = pixel_flipping(model, x, e, 1)
    assert flipping.curves.shape == (4, 5)
    nothing = model(torch.zeros_like(numbers), torch.zeros_like(kind))[:, 1]
    torch.testing.assert_close(flipping.curves[:, -1], nothing.detach())


def test_a_model_in_training_mode_is_not_asked() -> None:
    model = nn.Sequential(nets.tabular(), nn.Dropout(0.5)).train()
    with pytest.raises(hw.UnsupportedModel, match=r"call model\.eval\(\)"):
        pixel_flipping(model, torch.randn(3, 6), torch.rand(3, 6))


def test_an_estimator_is_told_how_it_can_be_asked() -> None:
    class Fitted:
        def predict(self, x: Any) -> Any: ...

    with pytest.raises(hw.UnsupportedModel, match=r"headwater\.black_box\(model\)"):
        pixel_flipping(Fitted(), torch.randn(3, 6), torch.rand(3, 6))  # type: ignore[arg-type]
