"""How layers are put together: residuals, gates, products, sharing, containers, checkpoints."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.micro.construct import Case, Table, between, conv, linear, net, on_map, w, x
from tests.reference.audit import score

NETWORKS = Table()
homogeneous, other = NETWORKS.homogeneous, NETWORKS.other


def square(body: Any) -> Case:
    """A body with one or two linear layers ``a`` and ``c`` of ``[3, 5]`` to itself."""
    return net(body, x(3, 5), a=linear(5, 5), c=linear(5, 5))


@homogeneous
def residual() -> Case:
    return square(lambda m, v: v + m.a(v).relu())


@homogeneous
def residual_in_place() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        out = m.a(v)
        out += v
        return F.relu(out, inplace=True)

    return square(body)


@homogeneous
def residual_in_place_after_batch_norm() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        out = m.n(m.a(v))
        out += v
        return m.r(out).flatten(1)

    return net(body, x(3, 4, 5, 5), a=conv(4, 4, padding=1), n=nn.BatchNorm2d(4), r=nn.ReLU(inplace=True))


@homogeneous
def residual_scaled() -> Case:
    return net(lambda m, v: v + m.g * m.a(v).relu(), x(3, 5), a=linear(5, 5), g=w(5))


@homogeneous
def two_residuals_of_one_stem() -> Case:
    return square(lambda m, v: (m.a(v).relu() + m.c(v).relu()) + v)


@homogeneous
def densely_connected() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        first = torch.cat([v, m.a(v).relu()], 1)
        return torch.cat([first, m.b(first).relu()], 1)

    return net(body, x(3, 5), a=linear(5, 4), b=linear(9, 3))


@homogeneous
def u_shaped() -> Case:
    def body(v: Tensor) -> Tensor:
        return torch.cat([v, F.interpolate(F.max_pool2d(v, 2).relu(), scale_factor=2)], 1)

    return on_map(body)


@homogeneous
def linear_used_twice() -> Case:
    return square(lambda m, v: m.a(m.a(v).relu()))


@homogeneous
def linear_used_on_two_branches() -> Case:
    return square(lambda m, v: m.a(v).relu() + m.a(m.c(v)).relu())


@homogeneous
def weight_shared_by_two_modules() -> Case:
    a, b = linear(5, 5), linear(5, 5)
    b.weight = a.weight
    return Case(nn.Sequential(a, nn.ReLU(), b).double(), x(3, 5))


@homogeneous
def activation_reused() -> Case:
    relu = nn.ReLU()
    return Case(nn.Sequential(linear(5, 6), relu, linear(6, 6), relu, linear(6, 4)).double(), x(3, 5))


@homogeneous
def activation_reused_in_place() -> Case:
    relu = nn.ReLU(inplace=True)
    return Case(nn.Sequential(linear(5, 6), relu, linear(6, 6), relu, linear(6, 4)).double(), x(3, 5))


@homogeneous
def input_rectified_in_place() -> Case:
    return square(lambda m, v: m.a(F.relu(v.clone(), inplace=True)))


@homogeneous
def containers() -> Case:
    parts = nn.ModuleDict(
        {"first": nn.ModuleList([linear(5, 5), linear(5, 5)]), "last": nn.Sequential(OrderedDict(z=linear(5, 3)))}
    )

    def body(m: Any, v: Tensor) -> Tensor:
        for layer in m.parts["first"]:
            v = layer(v).relu()
        return m.parts["last"](v)

    return net(body, x(3, 5), parts=parts)


@homogeneous
def parameter_list() -> Case:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList([w(5, 5), w(5, 5), w(5, 3)])

        def forward(self, v: Tensor) -> Tensor:
            for weight in self.weights:
                v = v.relu() @ weight
            return v

    return Case(Stack().double(), x(3, 5))


@homogeneous
def a_view_consumed_twice() -> Case:
    return square(lambda m, v: (lambda h: h[:, :3].relu() + h[:, :3] + h[:, 2:])(m.a(v)))


@homogeneous
def branch_by_value() -> Case:
    """Samples take one of two layers, by the sign of their own first value."""
    return square(lambda m, v: torch.where(v[:, :1] > 0, m.a(v), m.c(v)).relu())


@homogeneous
def experts_by_index() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        out, chosen = torch.zeros_like(v), v[:, 0] > 0
        out[chosen] = m.a(v[chosen])
        out[~chosen] = m.c(v[~chosen])
        return out

    return square(body)


@homogeneous
def tuple_of_inputs() -> Case:
    return net(lambda m, v, u: m.a(v).relu() + m.b(u), (x(3, 5), x(3, 2)), a=linear(5, 4), b=linear(2, 4))


@homogeneous
def dict_of_inputs() -> Case:
    def body(m: Any, image: Tensor, other: Tensor) -> Tensor:
        return m.a(image).relu() + m.b(other)

    return net(body, {"image": x(3, 5), "other": x(3, 2)}, a=linear(5, 4), b=linear(2, 4))


@homogeneous
def tuple_of_outputs() -> Case:
    case = square(lambda m, v: (m.a(v).relu(), m.c(v)))
    return Case(case.model, case.inputs, lambda out: score(out[0]))


@homogeneous
def dict_of_outputs() -> Case:
    case = square(lambda m, v: {"logits": m.a(v).relu(), "hidden": v})
    return Case(case.model, case.inputs, lambda out: score(out["logits"]))


@dataclass
class Output:
    logits: Tensor
    hidden: list[Tensor]


@homogeneous
def dataclass_of_outputs() -> Case:
    case = square(lambda m, v: Output(m.c(m.a(v).relu()), [v]))
    return Case(case.model, case.inputs, lambda out: score(out.logits))


class Pair(NamedTuple):
    value: Tensor
    rest: Tensor


@homogeneous
def named_tuple_between_layers() -> Case:
    return square(lambda m, v: (lambda pair: m.c(pair.value) + pair.rest)(Pair(m.a(v).relu(), v)))


@homogeneous
def checkpointed() -> Case:
    return square(lambda m, v: m.c(checkpoint(lambda u: m.a(u).relu(), v, use_reentrant=False)))


@homogeneous
def checkpointed_reentrant() -> Case:
    return square(lambda m, v: m.c(checkpoint(lambda u: m.a(u).relu(), m.a(v), use_reentrant=True)))


@homogeneous
def checkpointed_sequence() -> Case:
    layers = nn.Sequential(linear(5, 5), nn.ReLU(), linear(5, 5), nn.ReLU())
    return net(lambda m, v: checkpoint_sequential(m.layers, 2, v, use_reentrant=False), x(3, 5), layers=layers)


@homogeneous
def closure_hooks_of_the_user() -> Case:
    """A user's own forward hook that changes the output is part of the model."""
    case = square(lambda m, v: m.c(m.a(v).relu()))
    case.model.a.register_forward_hook(lambda module, args, out: 2 * out)
    return case


@homogeneous
def frozen() -> Case:
    case = square(lambda m, v: m.c(m.a(v).relu()))
    case.model.requires_grad_(False)
    return case


# Gates and products -----------------------------------------------------------------------------------------


@other
def product_of_branches() -> Case:
    return square(lambda m, v: m.a(v) * m.c(v))


@other
def product_of_three() -> Case:
    return square(lambda m, v: m.a(v) * m.c(v) * v)


@other
def product_in_place() -> Case:
    return square(lambda m, v: m.a(v).mul_(m.c(v)))


@other
def product_by_einsum() -> Case:
    return square(lambda m, v: torch.einsum("ni,nj->nij", m.a(v), m.c(v)).flatten(1))


@other
def product_of_matrices() -> Case:
    return square(lambda m, v: torch.bmm(m.a(v).unsqueeze(2), m.c(v).unsqueeze(1)).flatten(1))


@other
def product_then_multiply_add() -> Case:
    return square(lambda m, v: torch.addcmul(v, m.a(v), m.c(v), value=0.5))


@other
def quotient_of_branches() -> Case:
    return square(lambda m, v: m.a(v) / (1 + m.c(v).abs()))


@other
def quotient_added() -> Case:
    return square(lambda m, v: torch.addcdiv(v, m.a(v), 1 + m.c(v) ** 2))


@other
def sigmoid_gate() -> Case:
    return square(lambda m, v: m.a(v) * torch.sigmoid(m.c(v)))


@other
def hard_sigmoid_gate() -> Case:
    return square(lambda m, v: F.hardsigmoid(m.c(v)) * m.a(v))


@other
def highway() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        gate = torch.sigmoid(m.c(v))
        return gate * m.a(v).relu() + (1 - gate) * v

    return square(body)


@other
def interpolated_by_a_gate() -> Case:
    return square(lambda m, v: torch.lerp(v, m.a(v), torch.sigmoid(m.c(v))))


@other
def squeeze_and_excite() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        scale = torch.sigmoid(m.b(m.a(v.mean((2, 3))).relu()))
        return (v * scale[:, :, None, None]).flatten(1)

    return net(body, x(3, 4, 5, 5), a=linear(4, 2), b=linear(2, 4))


@other
def mixture_of_experts() -> Case:
    def body(m: Any, v: Tensor) -> Tensor:
        share = m.gate(v).softmax(1)
        return share[:, :1] * m.a(v).relu() + share[:, 1:] * m.c(v)

    return net(body, x(3, 5), a=linear(5, 5), c=linear(5, 5), gate=linear(5, 2))


@other
def feature_wise_modulation() -> Case:
    return net(
        lambda m, v, u: m.a(v) * m.scale(u) + m.shift(u), (x(3, 5), x(3, 2)),
        a=linear(5, 4), scale=linear(2, 4), shift=linear(2, 4),
    )  # fmt: skip


@other
def weights_from_the_input() -> Case:
    return net(
        lambda m, v: torch.bmm(m.h(v).view(-1, 4, 5), m.a(v).unsqueeze(2)).squeeze(2),
        x(3, 5),
        h=linear(5, 20),
        a=linear(5, 5),
    )


@other
def distance_to_prototypes() -> Case:
    return net(lambda m, v: -(m.a(v).unsqueeze(1) - m.p).square().sum(-1), x(3, 5), a=linear(5, 4), p=w(3, 4))


@other
def larger_of_a_shifted_branch() -> Case:
    return square(lambda m, v: torch.maximum(m.a(v) + 0.3, torch.minimum(1 - v, m.c(v))))


@other
def stacked_activations_in_place() -> Case:
    return between(lambda v: F.elu_(F.leaky_relu_(v, 0.2)).sigmoid_())
