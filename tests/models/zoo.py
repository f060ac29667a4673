"""Architectures that people use, randomly initialized: a register from name to a builder of (model, input).

``SMALL`` holds every family at a width that explains in a moment; ``LARGE`` the published sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Built = tuple[nn.Module, Any]
Builder = Callable[[], Built]

SMALL: dict[str, Builder] = {}
LARGE: dict[str, Builder] = {}


def small(builder: Builder) -> Builder:
    SMALL[builder.__name__] = builder
    return builder


def large(builder: Builder) -> Builder:
    LARGE[builder.__name__] = builder
    return builder


def build(name: str, dtype: torch.dtype = torch.float32) -> Built:
    """Build a registered model and its input, the same at every call.

    Parameters that are constant at initialization (biases, norms, layer scales) and the statistics of batch norm are
    drawn, so that no term of a formula is there only as zero or one.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = {**SMALL, **LARGE}[name]()
    with torch.no_grad():
        for p in model.parameters():
            if p.numel() > 1 and p.min() == p.max():
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif key.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.to(dtype).eval(), converted(x, dtype)


def converted(x: Any, dtype: torch.dtype) -> Any:
    """The same inputs with floating-point tensors in another dtype."""
    if isinstance(x, Tensor):
        return x.to(dtype) if x.is_floating_point() else x
    if isinstance(x, dict):
        return {k: converted(v, dtype) for k, v in x.items()}
    return tuple(converted(v, dtype) for v in x)


def pixels(size: int, channels: int = 3) -> Tensor:
    """Two images; shape ``[2, channels, size, size]``."""
    return torch.randn(2, channels, size, size)


def tokens(vocabulary: int, length: int = 7) -> Tensor:
    """Two sequences of token ids, none of them the padding id 0; shape ``[2, length]``."""
    return torch.randint(3, vocabulary, (2, length))


# ---------------------------------------------------------------------- convolutional networks


@small
def vgg() -> Built:
    from torchvision.models import vgg as zoo

    model = zoo.VGG(zoo.make_layers([8, "M", 16, "M", 32, 32, "M"], batch_norm=True), num_classes=5, init_weights=False)
    model.classifier = nn.Sequential(
        nn.Linear(32 * 7 * 7, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(True), nn.Linear(32, 5)
    )
    return model, pixels(32)


@small
def resnet18() -> Built:
    from torchvision.models import resnet18

    return resnet18(num_classes=5), pixels(48)


@small
def resnet_bottleneck() -> Built:
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=5, width_per_group=8), pixels(48)


@small
def densenet() -> Built:
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=6, block_config=(2, 2, 2), num_init_features=12, num_classes=5), pixels(48)


@small
def googlenet() -> Built:
    from torchvision.models import googlenet

    return googlenet(num_classes=5, aux_logits=False, init_weights=False), pixels(48)


@small
def mobilenet_v2() -> Built:
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=5, width_mult=0.25), pixels(48)


@small
def mobilenet_v3() -> Built:
    from torchvision.models import mobilenet_v3_small

    return mobilenet_v3_small(num_classes=5, width_mult=0.25), pixels(48)


@small
def efficientnet() -> Built:
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    blocks = [MBConvConfig(1, 3, 1, 8, 8, 1), MBConvConfig(4, 5, 2, 8, 16, 2), MBConvConfig(4, 3, 2, 16, 24, 1)]
    return EfficientNet(blocks, dropout=0.2, num_classes=5, last_channel=32), pixels(48)


@small
def convnext() -> Built:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    blocks = [CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)]
    return ConvNeXt(blocks, num_classes=5), pixels(32)


class UNet(nn.Module):
    """A U-Net with one skip connection per scale, transposed and bilinear upsampling; gives class scores per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = self.block(3, 8), self.block(8, 16)
        self.bottom = self.block(16, 32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.merge, self.leave = self.block(32, 16), self.block(24, 8)
        self.head = nn.Conv2d(8, 3, 1)

    @staticmethod
    def block(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        first = self.enter(x)
        second = self.down(nn.functional.max_pool2d(first, 2))
        deep = self.up(self.bottom(nn.functional.max_pool2d(second, 2)))
        deep = self.merge(torch.cat([second, deep], dim=1))
        wide = nn.functional.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.leave(torch.cat([first, wide], dim=1)))


@small
def unet() -> Built:
    return UNet(), pixels(16)


@small
def cnn_1d() -> Built:
    model = nn.Sequential(
        nn.Conv1d(3, 8, 7, stride=2, padding=3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 16, 5, dilation=2), nn.ELU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip
    return model, torch.randn(2, 3, 100)


@small
def cnn_3d() -> Built:
    model = nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.AvgPool3d(2),
        nn.Conv3d(6, 8, 3), nn.LeakyReLU(0.1), nn.AdaptiveMaxPool3d(2), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip
    return model, torch.randn(2, 1, 8, 10, 10)


# ---------------------------------------------------------------------- recurrent networks


class Recurrent(nn.Module):
    """Token ids or feature vectors through two bidirectional recurrent layers to class scores."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], vocabulary: int | None) -> None:
        super().__init__()
        self.embed = nn.Identity() if vocabulary is None else nn.Embedding(vocabulary, 6)
        self.core = kind(6, 10, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.core(self.embed(x))
        return self.head(states.mean(1))


@small
def lstm() -> Built:
    return Recurrent(nn.LSTM, None), torch.randn(2, 9, 6)


@small
def lstm_ids() -> Built:
    return Recurrent(nn.LSTM, 20), tokens(20)


@small
def gru() -> Built:
    return Recurrent(nn.GRU, None), torch.randn(2, 9, 6)


# ---------------------------------------------------------------------- transformers


@small
def vit() -> Built:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(model.heads.head.weight, std=0.2)
    return model, pixels(16)


@small
def swin() -> Built:
    from torchvision.models import SwinTransformer

    # A window of 2 in a map of 8: shifted windows, their masks and the merging of patches all take part.
    return SwinTransformer([2, 2], 12, [2, 2], [2, 2], [2, 2], num_classes=5), pixels(16)


@small
def swin_v2() -> Built:
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    options = {"num_classes": 5, "block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return SwinTransformer([2, 2], 12, [2, 2], [2, 2], [2, 2], **options), pixels(16)


def _text(name: str, attention: str = "sdpa", **options: Any) -> nn.Module:
    """A tiny model from ``transformers``; ``name`` is that of the class."""
    import transformers

    kind = getattr(transformers, name)
    return kind(kind.config_class(**options, attn_implementation=attention))


_BERT: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "num_labels": 3, "max_position_embeddings": 16, "initializer_range": 0.2,
}  # fmt: skip


@small
def bert() -> Built:
    return _text("BertForSequenceClassification", **_BERT), tokens(40)


@small
def bert_eager_padded() -> Built:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    inputs = {"input_ids": tokens(40), "attention_mask": mask}
    return _text("BertForSequenceClassification", "eager", **_BERT), inputs


@small
def gpt2() -> Built:
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40, "n_positions": 16}
    return _text("GPT2LMHeadModel", **sizes, initializer_range=0.2, bos_token_id=1, eos_token_id=2), tokens(40)


@small
def llama() -> Built:
    options: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 40, "max_position_embeddings": 16, "initializer_range": 0.2,
    }  # fmt: skip
    return _text("LlamaForCausalLM", **options), tokens(40)


@small
def t5() -> Built:
    options: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 40}
    model = _text("T5ForConditionalGeneration", "eager", **options, decoder_start_token_id=0)
    return model, {"input_ids": tokens(40), "decoder_input_ids": tokens(40, 4)}


# ---------------------------------------------------------------------- graph networks


class Graph(nn.Module):
    """A graph network over graphs of one shape: node features ``[N, V, F]`` to class scores ``[N, C]``."""

    def __init__(self, core: nn.Module, channels: int, nodes: int) -> None:
        super().__init__()
        self.core, self.head = core, nn.Linear(channels, 3)
        ring = torch.arange(nodes)
        edges = torch.stack([torch.cat([ring, ring]), torch.cat([(ring + 1) % nodes, (ring * 2) % nodes])])
        self.register_buffer("edges", edges)

    def forward(self, x: Tensor) -> Tensor:
        from torch_geometric.nn import global_add_pool

        graphs, nodes = x.shape[:2]
        start = torch.arange(graphs) * nodes
        edges = (self.edges[:, None] + start[None, :, None]).flatten(1)
        states = self.core(x.flatten(0, 1), edges)
        return self.head(global_add_pool(states, torch.arange(graphs).repeat_interleave(nodes)))


def _graph(name: str, **options: Any) -> Built:
    import torch_geometric.nn

    return Graph(getattr(torch_geometric.nn, name)(5, 8, num_layers=2, **options), 8, 6), torch.randn(2, 6, 5)


SMALL |= {
    "gcn": partial(_graph, "GCN"),
    "gin": partial(_graph, "GIN"),
    "gat": partial(_graph, "GAT", heads=2),
    "gat_v2": partial(_graph, "GAT", heads=2, v2=True),
    "graph_sage": partial(_graph, "GraphSAGE"),
}


# ---------------------------------------------------------------------- published sizes


def _torchvision(name: str, size: int, **options: Any) -> Built:
    import torchvision.models

    return getattr(torchvision.models, name)(weights=None, **options), pixels(size)


LARGE |= {
    "vgg16": partial(_torchvision, "vgg16", 64, init_weights=False),
    "resnet50": partial(_torchvision, "resnet50", 96),
    "densenet121": partial(_torchvision, "densenet121", 64),
    "inception_v3": partial(_torchvision, "inception_v3", 96, init_weights=False),
    "mobilenet_v2_full": partial(_torchvision, "mobilenet_v2", 96),
    "mobilenet_v3_large": partial(_torchvision, "mobilenet_v3_large", 96),
    "efficientnet_b0": partial(_torchvision, "efficientnet_b0", 96),
    "convnext_tiny": partial(_torchvision, "convnext_tiny", 96),
    "regnet": partial(_torchvision, "regnet_y_400mf", 96),
    "shufflenet": partial(_torchvision, "shufflenet_v2_x0_5", 96),
    "vit_b_32": partial(_torchvision, "vit_b_32", 96, image_size=96),
    "swin_t": partial(_torchvision, "swin_t", 96),
    "swin_v2_t": partial(_torchvision, "swin_v2_t", 96),
}


@large
def video_resnet() -> Built:
    from torchvision.models.video import r2plus1d_18

    return r2plus1d_18(weights=None, num_classes=10), torch.randn(1, 3, 4, 32, 32)


@large
def segmentation() -> Built:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)["out"]

    return Scores(), pixels(64)


@large
def bert_base() -> Built:
    return _text("BertForSequenceClassification", num_hidden_layers=4, vocab_size=500), tokens(500, 20)


@large
def gpt2_base() -> Built:
    return _text("GPT2LMHeadModel", n_layer=4, vocab_size=500, bos_token_id=1, eos_token_id=2), tokens(500, 20)
