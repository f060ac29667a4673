"""Feature maps: what hidden layers return, channel by channel, and the filters of the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from headwater.arguments import Inputs
from headwater.errors import InvalidInput
from headwater.method import OVERVIEW, Method
from headwater.propagate.captures import Captures, Watcher
from headwater.propagate.engine import Propagation
from headwater.question import Question, posed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class ChannelStatistics:
    """Of each channel over samples and places, ``[C]`` each.

    Attributes:
        mean, std, low, high: of its values; ``active``: the share of them above zero.
        norm: the root mean square.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    active: Tensor
    norm: Tensor


class FeatureMaps(Mapping[str, Tensor]):
    """Outputs of layers, by name: ``[N, C, *places]``, channels on axis 1 whatever the model's layout."""

    def __init__(self, maps: dict[str, Tensor]) -> None:
        self.maps = maps

    def __getitem__(self, layer: str) -> Tensor:
        return self.maps[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def __repr__(self) -> str:
        return "\n".join(f"{name:40} {tuple(t.shape)}" for name, t in self.maps.items())

    def statistics(self, layer: str) -> ChannelStatistics:
        """Statistics of each channel of a layer, over samples and places."""
        flat = self.maps[layer].transpose(0, 1).flatten(1)
        flat = flat if flat.dtype == torch.float64 else flat.float()
        return ChannelStatistics(
            flat.mean(1), flat.std(1, unbiased=False), flat.amin(1), flat.amax(1), (flat > 0).to(flat.dtype).mean(1),
            flat.square().mean(1).sqrt(),
        )  # fmt: skip

    def plot(self, layer: str, *, sample: int = 0, channels: Sequence[int] | None = None) -> Figure:
        """Pictures of a layer's channels (by default the 16 with the largest norm), on one scale; series as lines.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        from headwater.show.maps import feature_maps as draw

        return draw(self.maps[layer][sample], channels, title=f"{layer}, sample {sample}")


def feature_maps(model: Any, x: Any, layers: Sequence[str] | None = None) -> FeatureMaps:
    """What layers return for these inputs; one forward, nothing is explained.

    Args:
        model: a module; it is left as it was.
        x: inputs, as for ``hw.explain``.
        layers: names of modules; by default all convolutions.

    Returns:
        :class:`FeatureMaps`; a layer that runs several times is there as it ran last.

    Raises:
        InvalidInput: for a layer that is not there or did not run, or a model without convolutions where none is named.
        HeadwaterError: as ``hw.explain``.
    """
    if layers is None:
        named = model.named_modules() if isinstance(model, nn.Module) else ()
        layers = [name for name, module in named if isinstance(module, _CONVOLUTIONS)]
        if not layers:
            raise InvalidInput("The model has no convolution: name the modules to look at with layers=")
    layers = [layers] if isinstance(layers, str) else list(layers)
    inputs = Inputs.of(x)
    with posed(model):
        walk = Question(model, inputs).walker("gradient")
        engine = Propagation(walk.composite, model)
        engine.watch = watch = Watcher()
        try:
            entered = walk.enter(engine, inputs)
            with Captures(engine, model, tuple(layers)) as captures, engine:
                inputs.call(model, entered)
            missing = [name for name in layers if not captures.found[name]]
            if missing:
                raise InvalidInput(f"Layer {missing[0]!r} did not run, or returned no float tensor")
            found = {name: captures.found[name][-1][1].value.clone() for name in layers}
        finally:
            engine.close()
    return FeatureMaps({k: v if v.dim() < 3 else v.movedim(watch.axis(v), 1) for k, v in found.items()})


def filter_weights(model: nn.Module, layer: str | None = None) -> Tensor:
    """The weights of a convolution ``[out, in, *size]``, by default of the first; ``show.maps.filters`` draws them.

    Raises:
        InvalidInput: for a module that is not there or is no convolution.
    """
    named = {name: m for name, m in model.named_modules() if isinstance(m, _CONVOLUTIONS)}
    if not named or (layer is not None and layer not in named):
        what = "no convolution" if layer is None else f"no convolution {layer!r}"
        raise InvalidInput(f"The model has {what}; it has {', '.join(list(named)[:5]) or 'none'}")
    module = next(iter(named.values())) if layer is None else named[layer]
    weight = module.weight.detach()
    return weight.transpose(0, 1) if module.transposed else weight


ROWS = (
    Method(
        "feature_maps", "FM", "propagate", f"Zeiler, Fergus: Visualizing Convolutional Networks, ECCV 2014; "
        f"{OVERVIEW}", "named layers", "what hidden layers return, channel by channel", None, call="hw.feature_maps",
    ),
)  # fmt: skip
