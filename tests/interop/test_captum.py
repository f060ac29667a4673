"""The methods where Captum expects its own: the same numbers, in NoiseTunnel, and in its measures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from headwater.interop import as_captum

attr = pytest.importorskip("captum.attr", reason="captum is not installed")
metrics = pytest.importorskip("captum.metrics", reason="captum is not installed")


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)
    ).eval()


class Several(nn.Module):
    """Two inputs, a factor for each sample and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(5, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, left: Tensor, right: Tensor, factor: Tensor | None = None, square: bool = False) -> Tensor:
        hidden = (self.left(left) + self.right(right)).relu()
        hidden = hidden if factor is None else hidden * factor[:, None]
        return self.out(hidden).square() if square else self.out(hidden)


X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([2, 0, 1])


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        ("gradient", "Saliency", {"abs": False}),
        ("gradient_x_input", "InputXGradient", {}),
        ("guided_backprop", "GuidedBackprop", {}),
        ("deconvnet", "Deconvolution", {}),
    ],
)
def test_the_numbers_are_captums(ours: str, theirs: str, options: dict[str, Any]) -> None:
    model = network()
    expected = getattr(attr, theirs)(model).attribute(X, target=TARGET, **options)
    assert torch.allclose(as_captum(ours)(model).attribute(X, target=TARGET), expected, atol=1e-6)


def test_integrated_gradients_with_baselines_and_delta() -> None:
    model, baseline = network(), torch.rand_like(X)
    ours = as_captum("integrated_gradients", steps=64, rule="gauss_legendre")(model)
    theirs = attr.IntegratedGradients(model)
    got, delta = ours.attribute(X, baselines=baseline, target=TARGET, return_convergence_delta=True)
    expected = theirs.attribute(X, baselines=baseline, target=TARGET, n_steps=64)
    assert torch.allclose(got, expected, atol=1e-4)
    assert delta.shape == (3,)
    assert torch.allclose(delta, ours.compute_convergence_delta(got, baseline, X, TARGET), atol=1e-5)
    assert ours.has_convergence_delta()


def test_removal_takes_the_baseline_as_its_filling() -> None:
    model = network()
    got = as_captum("feature_ablation", features="value")(model).attribute(X, baselines=0.3, target=1)
    assert torch.allclose(got, attr.FeatureAblation(model).attribute(X, baselines=0.3, target=1), atol=1e-6)


def test_several_inputs_and_additional_arguments() -> None:
    model = Several().eval()
    left, right, factor = torch.randn(4, 3), torch.randn(4, 5), torch.rand(4)
    for extra in (factor, (factor, True)):
        ours = as_captum("gradient_x_input")(model).attribute((left, right), target=1, additional_forward_args=extra)
        theirs = attr.InputXGradient(model).attribute((left, right), target=1, additional_forward_args=extra)
        assert isinstance(ours, tuple)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))
    single = Several().eval()
    ours = as_captum("integrated_gradients", steps=32, rule="gauss_legendre")(lambda a, b: single(a, b)).attribute(
        left, baselines=0.5, target=0, additional_forward_args=right
    )
    theirs = attr.IntegratedGradients(single).attribute(
        left, baselines=0.5, target=0, additional_forward_args=right, n_steps=32
    )
    assert isinstance(ours, Tensor)
    assert torch.allclose(ours, theirs, atol=1e-3)


def test_additional_arguments_follow_the_samples_through_removal() -> None:
    model = Several().eval()
    left, right, factor = torch.randn(4, 3), torch.randn(4, 5), torch.rand(4)
    ours = as_captum("feature_ablation", batch_size=3)(model).attribute(
        (left, right), target=1, additional_forward_args=factor
    )
    theirs = attr.FeatureAblation(model).attribute((left, right), target=1, additional_forward_args=factor)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


def test_noise_tunnel_takes_it() -> None:
    model = network()
    torch.manual_seed(0)
    ours = attr.NoiseTunnel(as_captum("gradient")(model)).attribute(
        X, nt_type="smoothgrad", nt_samples=5, stdevs=0.2, target=TARGET
    )
    torch.manual_seed(0)
    theirs = attr.NoiseTunnel(attr.Saliency(model)).attribute(
        X, nt_type="smoothgrad", nt_samples=5, stdevs=0.2, target=TARGET, abs=False
    )
    assert torch.allclose(ours, theirs, atol=1e-6)
    smooth, delta = attr.NoiseTunnel(as_captum("lrp")(model)).attribute(
        X, nt_samples=2, target=TARGET, return_convergence_delta=True
    )
    assert smooth.shape == X.shape
    assert delta.shape == (6,)


def test_captums_measures_take_it() -> None:
    model = network()
    explainer = as_captum("lrp")(model)
    found = metrics.sensitivity_max(explainer.attribute, X, perturb_radius=0.01, n_perturb_samples=2, target=TARGET)
    assert found.shape == (3,)
    noise = lambda x: (torch.full_like(x, 0.01), x - 0.01)  # noqa: E731
    found = metrics.infidelity(model, noise, X, explainer.attribute(X, target=TARGET), target=TARGET)
    assert found.shape == (3,)


def test_it_is_one_of_captums_and_leaves_the_model() -> None:
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    Lrp = as_captum("lrp", composite="epsilon_plus")
    assert issubclass(Lrp, attr.Attribution)
    assert Lrp.__name__ == "Lrp"
    got = Lrp(model).attribute(X, target=TARGET)
    assert torch.equal(got, hw.explain(model, X, target=TARGET, composite="epsilon_plus").relevance)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_targets_of_captums_kinds() -> None:
    class Grid(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x, 2 * x], 1)  # [N, 2, F]

    x = torch.randn(2, 5)
    got = as_captum("gradient")(Grid()).attribute(x, target=(1, 3))
    assert torch.equal(got, 2 * torch.eye(5)[3].expand(2, 5))
    model = network()
    for target in (1, [1, 2, 0], torch.tensor(1), torch.tensor([1])):
        expected = attr.Saliency(model).attribute(X, target=target, abs=False)
        assert torch.allclose(as_captum("gradient")(model).attribute(X, target=target), expected, atol=1e-6)


def test_refusals() -> None:
    model = network()
    with pytest.raises(hw.InvalidInput, match="Unknown method"):
        as_captum("lpr")
    with pytest.raises(hw.InvalidInput, match="no single explanation"):
        as_captum("tcav")
    with pytest.raises(hw.InvalidInput, match="no convergence delta"):
        as_captum("gradient")(model).attribute(X, return_convergence_delta=True)
    with pytest.raises(hw.InvalidInput, match="no baseline"):
        as_captum("lrp")(model).attribute(X, baselines=0)
    with pytest.raises(hw.InvalidInput, match="no option"):
        as_captum("gradient")(model).attribute(X, n_steps=5)
