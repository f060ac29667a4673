"""What every method is tried on: a small model and input of each kind, and the options that keep methods quick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import headwater as hw
from headwater.patterns import patterns


class Sentences(nn.Module):
    """Token ids, embedded, through one layer of a transformer encoder, averaged and classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.classifier = nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.classifier(self.encoder(self.embedding(ids)).mean(1))


def image() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 4),
    )  # fmt: skip
    model[1].running_mean.uniform_(-0.2, 0.2)
    return model, torch.rand(3, 3, 12, 14)


def series() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(
        nn.Conv1d(2, 6, 5, stride=2), nn.ReLU(), nn.Conv1d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(6, 3),
    )  # fmt: skip
    return model, torch.randn(3, 2, 24)


def table() -> tuple[nn.Module, Tensor]:
    layers = [nn.Linear(7, 9), nn.ReLU(), nn.Dropout(0.2), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*layers), torch.randn(3, 7)


def tokens() -> tuple[nn.Module, Tensor]:
    return Sentences(), torch.randint(1, 30, (3, 6))


SUBJECTS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "image": image, "series": series, "table": table, "tokens": tokens,
}  # fmt: skip
HIDDEN = {"image": "4", "series": "2", "table": "1", "tokens": "encoder"}  # a layer whose output is not yet pooled
NEURON: dict[str, int | tuple[int, ...]] = {"image": (1, 2, 2), "series": (1, 3), "table": 2, "tokens": (1, 3)}

METHODS = tuple(row for row in hw.methods() if row.run is not None)

# What does not fit a subject must be refused with an error of Headwater's own. Everything else must be served.
_FLOATS = {"tokens"}
_CONVOLUTION = {"table"}
REFUSED: dict[str, set[str]] = {
    "cam": {"table", "tokens"}, "grad_cam": _CONVOLUTION, "grad_cam_plus_plus": _CONVOLUTION,
    "guided_grad_cam": _CONVOLUTION, "conditional_prediction_difference": _FLOATS, "monte_carlo_dropout": _FLOATS,
}  # fmt: skip
CAMS = {"grad_cam", "grad_cam_plus_plus", "guided_grad_cam"}
# What draws inside the model, differently in other batches.
DRAWING = {"monte_carlo_dropout"}
# What looks at the other samples of the batch.
TOGETHER = {"feature_permutation"}
# What explains a neuron, which fixes the target.
NEURONS = {"neuron_conductance", "neuron_integrated_gradients", "neuron_guided_backprop"}

QUICK: dict[str, dict[str, Any]] = {
    "steps": {"steps": 6}, "draws": {"draws": 4}, "permutations": {"permutations": 3}, "repeats": {"repeats": 2},
    "samples": {"samples": 40}, "starts": {"starts": 2},
}  # fmt: skip


def built(subject: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    """A subject's model in evaluation mode and its input, three samples, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = SUBJECTS[subject]()
    model = model.to(dtype).eval()
    return model, x.to(dtype) if x.is_floating_point() else x


def options(method: Any, subject: str, model: nn.Module, x: Tensor) -> dict[str, Any]:
    """A method's options for a subject: few steps and draws, and what it cannot do without."""
    own = method.options
    chosen: dict[str, Any] = {}
    for name, quick in QUICK.items():
        if name in own:
            chosen |= quick
    maps = method.name in CAMS and subject == "tokens"  # a feature map that does not show by itself
    if maps or method.name in ("internal_influence", "layer_conductance", "total_conductance", *NEURONS):
        chosen["layer"] = HIDDEN[subject]
    if "window" in own and x.dim() > 2:
        chosen["window"] = 6
    if method.name in NEURONS:
        chosen["neuron"] = NEURON[subject]
    if method.name == "kernel_shap":
        chosen["samples"] = 200
    if method.name == "ensemble":
        chosen["models"] = [model]
    if method.name == "conditional_prediction_difference":
        chosen |= {"references": _others(x), "k": 2}
    if "references" in own and method.family == "average":
        chosen["references"] = _others(x)
    if method.name == "lime" and subject == "image":
        chosen["features"] = 4
    if method.name == "shapley_exact" and subject in ("image", "series"):
        chosen["features"] = 6
    if "patterns" in own:
        chosen["patterns"] = patterns(model, x)
    return chosen


def asked(method: Any) -> dict[str, Any]:
    """What else ``hw.explain`` is asked, beside the method's options."""
    return {} if method.name in NEURONS else {"target": [0, 2, 1]}


def _others(x: Tensor) -> Tensor:
    """Examples like the input."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torch.randn(5, *x.shape[1:]).to(x.dtype) if x.is_floating_point() else torch.randint(1, 30, (5, 6))
