"""Moving, selecting, joining and reducing values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from tests.micro.construct import Case, Table, between, file_functions, linear, net, on_map, w, x

NETWORKS = Table()
homogeneous, other = NETWORKS.homogeneous, NETWORKS.other

ORDER = torch.tensor([5, 0, 3, 3, 1, 2])
GRID = torch.stack(
    torch.meshgrid(torch.linspace(-0.8, 0.7, 4), torch.linspace(-0.6, 0.9, 4), indexing="ij"), -1
).double()


def written_to(v: Tensor, write: Callable[[Tensor], Any]) -> Tensor:
    """A buffer like ``v`` after ``write`` has changed it in place."""
    buffer = torch.zeros_like(v)
    write(buffer)
    return buffer


def first_half_doubled(v: Tensor) -> Tensor:
    v[:, :3] *= 2
    return v


def added_in_place(v: Tensor) -> Tensor:
    v[:, 1:] += v[:, :-1].clone()
    return v


ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "sliced": lambda v: torch.cat([v[:, 3:], v[:, :3]], 1),
    "sliced_by_steps": lambda v: v[..., ::2].repeat(1, 2),
    "reversed_by_flip": lambda v: v.flip(1),
    "indexed_by_list": lambda v: v[:, [5, 0, 3, 3, 1, 2]],
    "indexed_by_tensor": lambda v: v[:, ORDER],
    "index_select": lambda v: v.index_select(1, ORDER),
    "gathered": lambda v: v.gather(1, ORDER.expand(len(v), 6)),
    "taken_along_a_dimension": lambda v: torch.take_along_dim(v, v.argsort(1), 1),
    "scattered": lambda v: torch.zeros_like(v).scatter(1, torch.arange(5, -1, -1).expand(len(v), 6), v),
    "scatter_added": lambda v: torch.zeros_like(v).scatter_add(1, ORDER.expand(len(v), 6), v),
    "scatter_added_in_place": lambda v: v.new_zeros(len(v), 6).scatter_add_(1, ORDER.expand(len(v), 6), v),
    "scatter_reduced": lambda v: torch.zeros_like(v).scatter_reduce(1, ORDER.expand(len(v), 6), v, "sum"),
    "index_added": lambda v: v.index_add(1, ORDER, v),
    "index_copied": lambda v: v.index_copy(1, ORDER[:3], v[:, :3]),
    "index_put": lambda v: torch.zeros_like(v).index_put((torch.arange(len(v)),), v),
    "slice_assigned": lambda v: written_to(v, lambda b: b.__setitem__((slice(None), slice(1, 6)), v[:, :5])),
    "column_assigned": lambda v: written_to(
        v, lambda b: [b.__setitem__((slice(None), i), v[:, 5 - i]) for i in range(6)]
    ),
    "copied_into_a_slice": lambda v: written_to(v, lambda b: b[:, :4].copy_(v[:, 2:])),
    "slice_multiplied_in_place": lambda v: first_half_doubled(v.clone()),
    "clamped_slice_multiplied_in_place": lambda v: first_half_doubled(v.clamp(min=0)),
    "slice_added_in_place": lambda v: added_in_place(v * 1.0),
    "masked_filled": lambda v: v.masked_fill(ORDER > 2, 0.0),
    "masked_filled_in_place": lambda v: v.clone().masked_fill_(v < v.flip(1), 0.0),
    "where_from_two": lambda v: torch.where(ORDER > 2, v, 2 * v.flip(1)),
    "concatenated": lambda v: torch.cat((v[:, :2], 3 * v[:, 2:]), dim=-1),
    "stacked": lambda v: torch.stack([v, v.flip(1)], 2).sum(2),
    "sequences_padded": lambda v: pad_sequence([v[:, :3].T, v.T]).sum(1).T,
    "stacked_horizontally": lambda v: torch.hstack([v[:, :1], v[:, 1:]]),
    "split": lambda v: torch.cat(v.split([1, 2, 3], 1)[::-1], 1),
    "chunked": lambda v: torch.cat(v.chunk(3, 1)[::-1], 1),
    "unbound": lambda v: torch.stack(v.unbind(1)[::-1], 1),
    "tensor_split": lambda v: torch.cat(torch.tensor_split(v, 2, 1)[::-1], 1),
    "unpacked": lambda v: (lambda a, b, *rest: torch.stack([b, a, *rest], 1))(*v.T),
    "iterated_over_samples": lambda v: torch.stack([2 * sample for sample in v]),
    "padded": lambda v: F.pad(v, (1, 1))[:, :-2],
    "padded_by_cropping": lambda v: F.pad(v, (-1, 1)),
    "rolled": lambda v: v.roll(2, 1) + v,
    "cumulative_sum": lambda v: v.cumsum(1),
    "cumulative_maximum": lambda v: v.cummax(1).values,
    "sorted": lambda v: v.sort(1, descending=True).values,
    "sorted_msort": lambda v: torch.sort(v, dim=-1)[0],
    "largest_three": lambda v: v.topk(3, 1).values.repeat(1, 2),
    "third_smallest": lambda v: v.kthvalue(3, 1, keepdim=True).values * torch.ones(6).double(),
    "median": lambda v: v.median(1, keepdim=True).values.expand(-1, 6),
    "differences": lambda v: F.pad(v.diff(dim=1), (0, 1)),
    "expanded": lambda v: v.mean(1, keepdim=True).expand(-1, 6),
    "repeated": lambda v: v[:, :2].repeat(1, 3),
    "repeat_interleaved": lambda v: v[:, :2].repeat_interleave(3, 1),
    "tiled": lambda v: v[:, :3].tile(1, 2),
    "viewed": lambda v: v.view(-1, 2, 3).permute(0, 2, 1).reshape(-1, 6),
    "unflattened": lambda v: v.unflatten(1, (2, 3)).swapaxes(1, 2).flatten(1),
    "squeezed": lambda v: v.unsqueeze(0).transpose(0, 2).movedim(0, -1).squeeze(1),
    "lower_triangle": lambda v: (v.unsqueeze(1) * torch.ones(6, 1).double()).tril().sum(1),
    "diagonal": lambda v: torch.diag_embed(v).diagonal(dim1=1, dim2=2),
    "strided_windows": lambda v: v.unfold(1, 2, 2).sum(2).repeat(1, 2),
    "contiguous_copy": lambda v: v.T.contiguous().T.clone(),
    "summed_by_einsum": lambda v: torch.einsum("ni->n", v).unsqueeze(1).expand(-1, 6),
    "linear_interpolation": lambda v: torch.lerp(v, v.flip(1), 0.3),
    "weighted_addition": lambda v: torch.add(v, v.flip(1), alpha=0.5).sub(v.roll(1, 1), alpha=2),
    "divided_by_a_number": lambda v: v / 3 + v.div(7.0) - v.true_divide(2),
    "divided_in_place": lambda v: v.clone().div_(3).mul_(2).neg_(),
    "added_in_place": lambda v: v.clone().add_(v.flip(1)).sub_(v.roll(1, 1), alpha=0.5),
    "cast_and_back": lambda v: v.to(torch.float64).double().type_as(v).contiguous(),
    "as_tensor": lambda v: torch.asarray(torch.as_tensor(v, dtype=torch.float64) * 1.0),
    "reversed_subtraction": lambda v: 0 - v,
    "largest_over_all_but_batch": lambda v: v.amax(1, keepdim=True) - v.amin(1, keepdim=True) + v,
    "norm_of_order_one": lambda v: v.abs().sum(1, keepdim=True) + v,
}

MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "map_padded_by_zeros": lambda v: F.pad(v, (1, 0, 2, 1)),
    "map_zero_pad_module": nn.ZeroPad2d(1),
    "map_reflected": lambda v: F.pad(v, (1, 1, 1, 1), mode="reflect"),
    "map_replicated": nn.ReplicationPad2d(1),
    "map_padded_around": lambda v: F.pad(v, (1, 1, 1, 1), mode="circular"),
    "map_rolled_windows": lambda v: v.roll((2, 2), (2, 3)),
    "map_nearest": lambda v: F.interpolate(v, scale_factor=2),
    "map_nearest_exact": lambda v: F.interpolate(v, size=(4, 9), mode="nearest-exact"),
    "map_bilinear": lambda v: F.interpolate(v, size=(9, 4), mode="bilinear", align_corners=False),
    "map_bilinear_aligned": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "map_bilinear_antialiased": lambda v: F.interpolate(v, size=(3, 3), mode="bilinear", antialias=True),
    "map_bicubic": lambda v: F.interpolate(v, scale_factor=1.5, mode="bicubic"),
    "map_area": lambda v: F.interpolate(v, size=(4, 4), mode="area"),
    "map_sampled_on_a_grid": lambda v: F.grid_sample(v, GRID.expand(len(v), 4, 4, 2), align_corners=False),
    "map_pixel_shuffle": nn.PixelShuffle(2),
    "map_pixel_unshuffle": nn.PixelUnshuffle(2),
    "map_channel_shuffle": lambda v: v.view(len(v), 2, 2, 6, 6).transpose(1, 2).flatten(1, 2),
    "map_channel_shuffle_module": nn.ChannelShuffle(2),
    "map_unfolded": nn.Unfold(3, padding=1),
    "map_unfolded_and_folded": lambda v: F.fold(F.unfold(v, 2, stride=2), (6, 6), 2, stride=2),
    "map_windows": lambda v: v.unfold(2, 3, 3).unfold(3, 3, 3).amax((-1, -2)),
    "map_shifted_windows": lambda v: v.view(len(v), 4, 2, 3, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(len(v), 4, -1),
    "map_transposed": lambda v: v.mT + v.flip(-1),
    "map_rotated": lambda v: v.rot90(1, (2, 3)),
    "map_cropped": lambda v: v[:, :, 1:-1, 2:],
    "map_channel_slices_summed": lambda v: v[:, 0::2] + v[:, 1::2],
    "map_channels_last": lambda v: v.to(memory_format=torch.channels_last).relu(),
    "map_dropout2d_evaluated": nn.Dropout2d().eval(),
    "map_global_context_added": lambda v: v + v.mean((2, 3), keepdim=True),
}


file_functions(homogeneous, ROWS, between)
file_functions(homogeneous, MAPS, on_map)


@homogeneous
def trilinear() -> Case:
    return net(
        lambda m, v: F.interpolate(m.a(v), scale_factor=2, mode="trilinear").flatten(1), x(2, 1, 3, 3, 3),
        a=nn.Conv3d(1, 2, 2, bias=False),
    )  # fmt: skip


@homogeneous
def graph_messages() -> Case:
    """Sums over edges, as graph networks write them: nodes of each sample along the second axis."""
    source, goal = torch.tensor([0, 1, 2, 3, 0, 2]), torch.tensor([1, 2, 3, 0, 2, 0])

    def body(m: Any, v: Tensor) -> Tensor:
        states = torch.zeros_like(v).index_add(1, goal, v[:, source])
        return m.b(m.a(states).relu().mean(1))

    return net(body, x(3, 4, 5), a=linear(5, 6), b=linear(6, 3))


@other
def masked_filled_with_a_number() -> Case:
    return between(lambda v: v.masked_fill(v < -0.2, -0.2))


@other
def padded_with_a_number() -> Case:
    return between(lambda v: F.pad(v, (1, 1), value=0.7)[:, :-2])


@other
def sequences_padded_with_a_number() -> Case:
    """Of every sample its first half and, longer, all of it."""
    return between(lambda v: pad_sequence([v[:, :3].T, v.T], padding_value=0.7).sum(1).T)


@other
def constant_concatenated() -> Case:
    return net(lambda m, v: m.b(torch.cat([m.a(v), v.new_ones(len(v), 1)], 1)), x(3, 5), a=linear(5, 6), b=linear(7, 4))


@other
def parameter_stacked() -> Case:
    return net(
        lambda m, v: m.b(torch.stack([m.a(v), m.p.expand(len(v), 6)], 1).amax(1)), x(3, 5),
        a=linear(5, 6), b=linear(6, 4), p=w(6),
    )  # fmt: skip


@other
def number_added() -> Case:
    return between(lambda v: v + 0.5)


@other
def subtracted_from_one() -> Case:
    return between(lambda v: 1 - v)


@other
def activation_with_a_slice_multiplied_in_place() -> Case:
    return between(lambda v: first_half_doubled(v.tanh()))


@other
def rectified_slice_multiplied_in_place() -> Case:
    """Homogeneous, but written for inference: ordinary autograd refuses it."""
    return between(lambda v: first_half_doubled(v.relu_()))


@other
def number_assigned() -> Case:
    def body(v: Tensor) -> Tensor:
        v = v.clone()
        v[:, 0] = 0.8
        return v

    return between(body)
