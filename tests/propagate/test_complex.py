"""Complex operators: spectra are linear maps, magnitudes are homogeneous."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import headwater as hw
from tests.reference.audit import assert_balanced, assert_same


class Filtered(nn.Module):
    """A filter applied in the frequency domain, as in spectral and Fourier-operator networks."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(9, dtype=torch.complex128))
        self.out = nn.Linear(16, 3, bias=False).double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.fft.irfft(torch.fft.rfft(x) * self.weight, n=16).relu())
        return out


class Spectrogram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(33, 3, bias=False).double()
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(64, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 64, 16, window=self.window, return_complex=True)
        out: Tensor = self.out(spectrum.abs().mean(-1))
        return out


def test_a_filter_in_the_frequency_domain() -> None:
    model, x = Filtered(), torch.randn(2, 16, dtype=torch.float64)
    e = hw.explain(model, x, target=hw.target.Sum(), composite="lrp_0", ledger=True)
    assert_balanced(e)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
    assert_same(e.relevance, gradient * x)


def test_the_magnitudes_of_a_spectrogram() -> None:
    model, x = Spectrogram(), torch.randn(2, 512, dtype=torch.float64)
    e = hw.explain(model, x, target=hw.target.Sum(), composite="lrp_0", ledger=True)
    assert_balanced(e)
    assert_same(e.relevance.sum(1), e.output, 1e-9)


def layers(x: Tensor) -> list[nn.Module]:
    generator = torch.Generator().manual_seed(3)
    found: list[nn.Module] = [
        nn.Linear(x.shape[-1], 5, dtype=torch.complex128), nn.Linear(x.shape[-1], 5, False, dtype=torch.complex128),
        nn.Conv1d(x.shape[1], 5, 3, dtype=torch.complex128),
    ]  # fmt: skip
    for layer in found:
        for p in layer.parameters():
            nn.init.normal_(p, generator=generator)
    return found


CALLS: dict[str, Callable[[list[nn.Module], Tensor], Tensor]] = {
    "linear": lambda parts, z: parts[0](z),
    "linear without bias": lambda parts, z: parts[1](z),
    "convolution": lambda parts, z: parts[2](z),
    "matrix product": lambda parts, z: z @ parts[1].weight.mT,
    "einsum": lambda parts, z: torch.einsum("ncl,kl->nck", z, parts[1].weight),
    "addmm": lambda parts, z: torch.addmm(parts[0].bias, z[:, 0], parts[1].weight.mT)[:, None],
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "lrp_0"])
def test_complex_weights_pass_their_gradient_under_every_rule(name: str, composite: str) -> None:
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    parts = nn.ModuleList(layers(x))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = parts

        def forward(self, x: Tensor) -> Tensor:
            return CALLS[name](list(self.parts), torch.fft.fft(x)).abs().mean(-1)

    model = Network()
    e = hw.explain(model, x, target=hw.target.Sum(), composite=composite, ledger=True)
    assert_balanced(e)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
    assert_same(e.relevance, gradient * x)


def test_parts_angle_and_polar_form() -> None:
    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = torch.view_as_complex(x.unflatten(1, (4, 2))).conj()
            turned = torch.polar(z.abs(), z.angle() / 2)
            return turned.real + turned.imag

    x = torch.randn(2, 8, dtype=torch.float64)
    e = hw.explain(Turned(), x, target=hw.target.Sum(), ledger=True)
    assert_balanced(e)
    written = hw.explain(Written(), x, target=hw.target.Sum(), ledger=True)
    assert_same(e.relevance, written.relevance)


class Written(nn.Module):
    """The same as ``Turned``, by their definitions."""

    def forward(self, x: Tensor) -> Tensor:
        z = torch.view_as_complex(x.unflatten(1, (4, 2)))
        z = torch.complex(z.real, -z.imag)
        length, angle = z.abs(), torch.atan2(z.imag, z.real) / 2
        return length * torch.cos(angle) + length * torch.sin(angle)
