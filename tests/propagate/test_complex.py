"""Complex operators: spectra are linear maps, magnitudes are homogeneous."""

from __future__ import annotations

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
