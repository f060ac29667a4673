"""Attention: fused, modular and written out, with every kind of mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.micro.construct import Case, Table, ids, linear, net, w, x

NETWORKS = Table()
homogeneous, other = NETWORKS.homogeneous, NETWORKS.other

CAUSAL = torch.ones(4, 4, dtype=torch.bool).tril()


def read(m: Any, states: Tensor) -> Tensor:
    """``[N, 4, 6]`` to ``[N, 3]``."""
    return m.out(states.mean(1))


def attention(heads: int = 2, **options: Any) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(6, heads, batch_first=True, **options)


def self_attending(**call: Any) -> Case:
    return net(lambda m, v: read(m, m.a(v, v, v, **call)[0]), x(3, 4, 6), a=attention(), out=linear(6, 3))


@other
def multihead_attention() -> Case:
    return self_attending()


@other
def multihead_attention_without_weights() -> Case:
    return self_attending(need_weights=False)


@other
def multihead_attention_causal() -> Case:
    return self_attending(attn_mask=~CAUSAL, need_weights=False)


@other
def multihead_attention_additive_mask() -> Case:
    return self_attending(attn_mask=torch.zeros(4, 4).double().masked_fill(~CAUSAL, float("-inf")))


@other
def multihead_attention_padded() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        padded = torch.tensor([False, False, False, True]).expand(len(v), 4)
        return read(m, m.a(v, v, v, key_padding_mask=padded)[0])

    return net(body, x(3, 4, 6), a=attention(), out=linear(6, 3))


@other
def multihead_attention_without_bias() -> Case:
    return net(lambda m, v: read(m, m.a(v, v, v)[0]), x(3, 4, 6), a=attention(bias=False), out=linear(6, 3))


@other
def multihead_attention_bias_key_and_zero() -> Case:
    a = attention(add_bias_kv=True, add_zero_attn=True)
    return net(lambda m, v: read(m, m.a(v, v, v)[0]), x(3, 4, 6), a=a, out=linear(6, 3))


@other
def multihead_attention_other_key_sizes() -> Case:
    a = attention(kdim=3, vdim=5)
    return net(lambda m, v: read(m, m.a(v, v[..., :3], v[..., 1:])[0]), x(3, 4, 6), a=a, out=linear(6, 3))


@other
def multihead_attention_weights_read() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        states, weights = m.a(v, v, v, average_attn_weights=False)
        return torch.cat([read(m, states), weights.mean((1, 2))], 1)

    return net(body, x(3, 4, 6), a=attention(), out=linear(6, 3))


@other
def cross_attention_to_learned_queries() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        return read(m, m.a(m.q.expand(len(v), 2, 6), v, v)[0])

    return net(body, x(3, 4, 6), a=attention(), q=w(2, 6), out=linear(6, 3))


@other
def cross_attention_to_learned_memory() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        memory = m.memory.expand(len(v), 2, 6)
        return read(m, m.a(v, memory, memory)[0] + v)

    return net(body, x(3, 4, 6), a=attention(), memory=w(2, 6), out=linear(6, 3))


def encoder_layer(**options: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, **options)


@other
def transformer_encoder_layer() -> Case:
    return net(lambda m, v: read(m, m.a(v)), x(3, 4, 6), a=encoder_layer(), out=linear(6, 3))


@other
def transformer_encoder_layer_norm_first() -> Case:
    a = encoder_layer(norm_first=True, activation="gelu", bias=False)
    return net(lambda m, v: read(m, m.a(v)), x(3, 4, 6), a=a, out=linear(6, 3))


@other
def transformer_encoder_masked() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        padded = torch.tensor([False, False, False, True]).expand(len(v), 4)
        return read(m, m.a(v, mask=~CAUSAL, src_key_padding_mask=padded))

    return net(
        body, x(3, 4, 6), a=nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False), out=linear(6, 3)
    )


@other
def transformer_decoder_layer() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        return read(
            m, m.a(v[:, :2], v[:, 2:], tgt_is_causal=True, tgt_mask=nn.Transformer.generate_square_subsequent_mask(2))
        )

    return net(body, x(3, 4, 6), a=nn.TransformerDecoderLayer(6, 2, 8, batch_first=True), out=linear(6, 3))


@other
def whole_transformer() -> Case:
    a = nn.Transformer(6, 2, 1, 1, 8, batch_first=True)
    return net(lambda m, v: read(m, m.a(v, v[:, :2])), x(3, 4, 6), a=a, out=linear(6, 3))


def fused(**options: Any) -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        q, k, value = (t.unflatten(-1, (2, 3)).transpose(1, 2) for t in m.qkv(v).chunk(3, -1))
        return read(m, F.scaled_dot_product_attention(q, k, value, **options).transpose(1, 2).flatten(2))

    return net(body, x(3, 4, 6), qkv=linear(6, 18), out=linear(6, 3))


@other
def scaled_dot_product() -> Case:
    return fused()


@other
def scaled_dot_product_causal() -> Case:
    return fused(is_causal=True)


@other
def scaled_dot_product_boolean_mask() -> Case:
    return fused(attn_mask=CAUSAL)


@other
def scaled_dot_product_additive_mask_and_scale() -> Case:
    return fused(attn_mask=torch.zeros(4, 4).double().masked_fill(~CAUSAL, float("-inf")), scale=0.3)


@other
def grouped_query_attention() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        q = m.q(v).unflatten(-1, (4, 3)).transpose(1, 2)
        k, value = (t.unflatten(-1, (2, 3)).transpose(1, 2) for t in m.kv(v).chunk(2, -1))
        attended = F.scaled_dot_product_attention(q, k, value, enable_gqa=True, is_causal=True)
        return read(m, attended.transpose(1, 2).flatten(2))

    return net(body, x(3, 4, 6), q=linear(6, 12), kv=linear(6, 12), out=linear(12, 3))


def written(multiply: Any) -> Case:
    """Two heads of three dimensions; ``multiply`` maps q, k, v of shape ``[N, 2, 4, 3]`` to the attended values."""

    def body(m: Any, v: Tensor) -> Tensor:
        q, k, value = (t.view(len(v), 4, 2, 3).transpose(1, 2) for t in m.qkv(v).split(6, -1))
        return read(m, multiply(q, k, value).transpose(1, 2).reshape(len(v), 4, 6))

    return net(body, x(3, 4, 6), qkv=linear(6, 18), out=linear(6, 3))


@other
def attention_written_out() -> Case:
    return written(lambda q, k, v: (q @ k.transpose(-2, -1) / 3**0.5).softmax(-1) @ v)


@other
def attention_by_einsum() -> Case:
    def multiply(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.softmax(torch.einsum("bhid,bhjd->bhij", q, k) * 3**-0.5, dim=-1)
        return torch.einsum("bhij,bhjd->bhid", weights, v)

    return written(multiply)


@other
def attention_written_out_masked() -> Case:
    return written(lambda q, k, v: (q @ k.mT).masked_fill(~CAUSAL, float("-inf")).softmax(-1) @ v)


@other
def attention_written_out_large_negative_mask() -> Case:
    mask = torch.zeros(4, 4).double().masked_fill(~CAUSAL, torch.finfo(torch.float64).min)
    return written(lambda q, k, v: (q @ k.mT + mask).softmax(-1) @ v)


@other
def attention_with_position_bias() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        return read(m, (m.q(v) @ m.k(v).mT + m.bias).softmax(-1) @ v)

    return net(body, x(3, 4, 6), q=linear(6, 6), k=linear(6, 6), bias=w(4, 4), out=linear(6, 3))


@other
def rotary_attention() -> Case:
    angle = torch.arange(4).double()[:, None] * torch.tensor([1.0, 0.1, 0.01]).double()
    cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)

    def turn(v: Tensor) -> Tensor:
        return v * cos + torch.cat([-v[..., 3:], v[..., :3]], -1) * sin

    def body(m: Any, v: Tensor) -> Tensor:
        return read(m, F.scaled_dot_product_attention(turn(m.q(v)), turn(m.k(v)), m.v(v), is_causal=True))

    return net(body, x(3, 4, 6), q=linear(6, 6), k=linear(6, 6), v=linear(6, 6), out=linear(6, 3))


@homogeneous
def rotated_states() -> Case:
    angle = torch.arange(4).double()[:, None]
    return net(
        lambda m, v: read(m, m.a(v) * angle.cos() + m.a(v).roll(1, -1) * angle.sin()),
        x(3, 4, 6),
        a=linear(6, 6),
        out=linear(6, 3),
    )


@other
def linear_attention() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        q, k = F.elu(m.q(v)) + 1, F.elu(m.k(v)) + 1
        return read(m, (q @ (k.mT @ v)) / (q @ k.sum(1, keepdim=True).mT))

    return net(body, x(3, 4, 6), q=linear(6, 6), k=linear(6, 6), out=linear(6, 3))


@other
def attention_pooling() -> Case:
    return net(lambda m, v: m.out((m.q(v).softmax(1) * v).sum(1)), x(3, 4, 6), q=linear(6, 1), out=linear(6, 3))


@other
def tokens_to_next_token() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        states = m.a(m.e(v) + m.p, mask=~CAUSAL, is_causal=True)
        return m.out(states[:, -1])

    return net(
        body, ids(3, 4), e=nn.Embedding(11, 6), p=w(4, 6), a=nn.TransformerEncoder(encoder_layer(), 1), out=linear(6, 3)
    )


@other
def vision_transformer() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        patches = m.patch(v).flatten(2).mT
        states = torch.cat([m.token.expand(len(v), 1, 6), patches], 1) + m.p
        return m.out(m.norm(m.a(states))[:, 0])

    return net(
        body, x(3, 2, 4, 4), patch=nn.Conv2d(2, 6, 2, 2), token=w(1, 6), p=w(5, 6), norm=nn.LayerNorm(6),
        a=encoder_layer(norm_first=True), out=linear(6, 3),
    )  # fmt: skip
