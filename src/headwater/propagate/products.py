"""Products of input-dependent tensors: gates, equal shares, attention and the softmax within."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.propagate.calls import bind, node_of, on_walk
from headwater.propagate.layers import batch_norm, scaled_and_shifted
from headwater.propagate.nested import replace
from headwater.propagate.rules import CPLRP
from headwater.propagate.soundness import allow_training
from headwater.propagate.tags import is_live
from headwater.propagate.tags import product as relevance_of

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


def product(engine: Propagation, call: Call, operands: Sequence[Any], quotient: bool = False) -> Any:
    """A product of operands: a gate or divisor is constant and the rest take all, else each of k takes 1/k."""
    live = [t for t in operands if is_live(t)]
    nonneg = all(engine.tag(t).nonneg if is_live(t) else isinstance(t, (int, float)) and t >= 0 for t in operands)
    held = [operands[1]] if quotient and is_live(operands[1]) else _gates(engine, call, live)
    if held:
        if len(held) == len(live):
            return divisor_alone(engine, call)
        swap = {id(t): engine.hold(t) for t in held}
        call.args = replace(call.args, swap)
        call.kwargs = {k: replace(v, swap) for k, v in call.kwargs.items()}
        call.live = live = [t for t in live if id(t) not in swap]
        if call.operator.affine and len(live) == 1:
            return call.operator.handler(engine, call)
    engine.settle(call)
    if len(live) == 1:
        return engine.native(call, nonneg=nonneg)
    return _in_equal_shares(engine, call, nonneg)


def _in_equal_shares(engine: Propagation, call: Call, nonneg: bool) -> Any:
    """A product by its gradient over the number of its live operands; by torch's own node where nobody watches."""
    share = 1 / len(call.live)
    if not engine.unwatched:
        return engine.local(call, share, nonneg=nonneg)
    out: Tensor = engine.note(call, call.func(*call.args, **call.kwargs), nonneg)
    node_of(out).register_prehook(on_walk(engine, lambda _, cs: tuple(None if c is None else c * share for c in cs)))
    return out


def _gates(engine: Propagation, call: Call, live: list[Tensor]) -> list[Tensor]:
    """Which of several live operands are gates; none where all are."""
    if len(live) < 2:
        return []
    everywhere = call.operator.elementwise or isinstance(engine.composite.attention(call), CPLRP)
    kinds = ("sigmoid", "softmax") if everywhere else ("sigmoid",)
    gates = [t for t in live if engine.tag(t).gate in kinds or ((chain := engine.tag(t).chain) and chain.is_gate())]
    return gates if len(gates) < len(live) else []


def divisor_alone(engine: Propagation, call: Call) -> Any:
    """Only a divisor is live: it is constant, so nothing passes."""
    with torch.set_grad_enabled(engine.differentiable):
        out = call.func(*call.args, **call.kwargs)
    kept = engine.keeper.keep(out.detach())

    def walk(c: Tensor) -> list[Tensor]:
        if engine.ledger:
            call.book("divisor", relevance_of(kept.value, c))
        return [torch.zeros_like(t) for t in call.live]

    return engine.reroute(call, out, call.live, walk)


def softmax(engine: Propagation, call: Call) -> Any:
    """Softmax by its gradient (AttnLRP), which absorbs; a gate in elementwise products."""
    logarithm = "log" in call.operator.name

    def causes(cs: Any, factors: Any) -> None:
        x = call.live[0].detach()
        call.book(
            "softmax", relevance_of(call.func(*_values(call), **call.kwargs), cs[0]) - relevance_of(x, factors[0])
        )

    if logarithm or engine.differentiable:
        out = engine.native(call, causes, nonneg=not logarithm)
    else:
        out = _safe_softmax(engine, call)
    if not logarithm:
        engine.tag(out).gate = "softmax"
    return out


def _safe_softmax(engine: Propagation, call: Call) -> Any:
    """Softmax whose rows may be masked altogether: such a row is NaN, and passes nothing where the model drops it."""
    x, dim = bind(call, "input dim", None, None)[:2]
    with torch.no_grad():
        out = call.func(*call.args, **call.kwargs)
    kept, dtype = engine.keeper.keep(out), x.dtype
    inputs = engine.keeper.keep(x.detach()) if engine.ledger else None

    def walk(c: Tensor) -> list[Tensor]:
        y = torch.nan_to_num(kept.value, nan=0.0)
        factor = torch._softmax_backward_data(c, y, dim, y.dtype).to(dtype)
        if inputs is not None:
            call.book("softmax", relevance_of(kept.value, c) - relevance_of(inputs.value, factor))
        return [factor]

    return engine.reroute(call, out, [x], walk, nonneg=True)


def _values(call: Call) -> list[Any]:
    return [a.detach() if isinstance(a, Tensor) else a for a in call.args]


def attention(engine: Propagation, call: Call) -> Any:
    """``scaled_dot_product_attention``: the fused kernel runs, the gradients of q, k and v are scaled."""
    query, key, value = bind(call, "query key value", None, None, None)[:3]
    extra = bind(
        call, "query key value attn_mask dropout_p is_causal scale enable_gqa", *[None] * 4, 0.0, False, None, False
    )
    mask = extra[3]
    if extra[4]:
        allow_training(engine, "Attention has active dropout")
    if is_live(mask) or engine.differentiable:  # the fused kernels have no second derivative
        return written_out(engine, query, key, value, *extra[3:])
    constant = isinstance(engine.composite.attention(call), CPLRP)
    inputs = {id(t): t for t in call.live}
    # Half of the relevance goes to the values; the scores' half passes the softmax and is halved again in q kᵀ. What
    # does not depend on the input has no share: the other operand takes all, as of any product with a constant.
    to_scores, to_query = _shares(query, key, value)
    scales = [1 - to_scores if t is value else to_scores * to_query for t in inputs.values()]
    twice = sum(1 for t in (query, key, value) if is_live(t)) > len(inputs)
    if twice or constant or (extra[4] and engine.ledger):
        return written_out(engine, query, key, value, *extra[3:])

    def causes(cs: Sequence[Tensor | None], factors: Sequence[Tensor | None]) -> None:
        if cs[0] is not None:
            _book(call, extra, cs[0])

    if engine.unwatched and (out := _fused(engine, call, (query, key, value))) is not None:
        return out
    return engine.local(call, scales, causes=causes if engine.ledger else None)


_FUSED = tuple(f"ScaledDotProduct{kernel}Attention" for kernel in ("Flash", "Efficient", "Cudnn"))


def _fused(engine: Propagation, call: Call, operands: tuple[Tensor, Tensor, Tensor]) -> Any:
    """Attention by torch's own node, whose first three gradients are query's, key's and value's; None without one."""
    out: Tensor = call.func(*call.args, **call.kwargs)
    if not type(node_of(out)).__name__.startswith(_FUSED):
        return None
    to_scores, to_query = _shares(*operands)
    scales = (to_scores * to_query, to_scores * to_query, 1 - to_scores)

    def scale(_: Any, found: tuple[Tensor | None, ...], __: Any) -> tuple[Tensor | None, ...]:
        scaled = [None if g is None else g * s for g, s in zip(found, scales, strict=False)]
        return (*scaled, *found[3:])

    node_of(out).register_hook(on_walk(engine, scale))
    return engine.note(call, out)


def _shares(query: Tensor, key: Tensor, value: Tensor) -> tuple[float, float]:
    """The part of attention's relevance that goes to the scores, and of that what each live one of q and k gets."""
    scored = is_live(query) or is_live(key)
    to_scores = 0.5 if scored and is_live(value) else float(scored)
    return to_scores, 0.5 if is_live(query) and is_live(key) else 1.0


def _scores(
    query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Scores of the product alone, and what is added to them (0, a bias or minus infinity)."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    added = torch.zeros_like(scores)
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        added = added.masked_fill(~seen, -torch.inf)
    if mask is not None:
        added = added.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else added + mask
    return scores, added


def _book(call: Call, bound: Sequence[Any], c: Tensor) -> None:
    """Book what the softmax inside the fused kernel absorbs, from the attention matrix written out."""
    values: list[Any] = [a.detach() if isinstance(a, Tensor) else a for a in bound]
    query, key, value, mask, _, causal, scale, grouped = values
    if grouped and key.shape[-3] != query.shape[-3]:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    scores, added = _scores(query, key, mask, causal, scale)
    weights = torch.nan_to_num((scores + added).softmax(-1))
    to_scores, _ = _shares(*bound[:3])
    c_weights = c * to_scores @ value.transpose(-2, -1)
    c_scores = weights * (c_weights - (weights * c_weights).sum(-1, keepdim=True))
    total, passed = relevance_of(weights, c_weights), relevance_of(scores, c_scores)
    if mask is not None and mask.dtype != torch.bool:
        call.book("constant", relevance_of(added, c_scores))
        passed = passed + relevance_of(added, c_scores)
    call.book("softmax", total - passed)


def written_out(
    engine: Propagation, query: Tensor, key: Tensor, value: Tensor, mask: Any, dropout: float, causal: bool,
    scale: float | None, grouped: bool,
) -> Any:  # fmt: skip
    """Attention as its parts, for what the fused kernel cannot serve: a live mask, one tensor in two roles, CP-LRP."""
    redo = engine.redo
    if grouped and key.shape[-3] != query.shape[-3]:
        key, value = (redo(torch.repeat_interleave, t, query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    scores = redo(torch.matmul, query, redo(torch.transpose, key, -2, -1))
    scores = redo(torch.mul, scores, query.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = redo(torch.masked_fill, scores, ~seen, -torch.inf)
    if mask is not None:
        boolean = mask.dtype == torch.bool
        scores = redo(torch.masked_fill, scores, ~mask, -torch.inf) if boolean else redo(torch.add, scores, mask)
    weights = redo(torch.softmax, scores, -1)
    if dropout:
        weights = redo(F.dropout, weights, dropout)
    return redo(torch.matmul, weights, value)


_NORMALIZERS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "layer_norm": ("input normalized_shape weight bias eps", (None, None, None, None, 1e-5)),
    "rms_norm": ("input normalized_shape weight eps", (None, None, None, None)),
    "group_norm": ("input num_groups weight bias eps", (None, None, None, None, 1e-5)),
    "instance_norm": (
        "input weight bias running_mean running_var use_input_stats momentum eps",
        (None, None, None, None, None, True, 0.1, 1e-5),
    ),
}  # names and defaults of their arguments


def normalizer_arguments(call: Call) -> dict[str, Any]:
    """The arguments of layer, RMS, group and instance norm by name."""
    names, defaults = _NORMALIZERS[call.operator.name]
    return dict(zip(names.split(), bind(call, names, *defaults), strict=False))


def normalizer(engine: Propagation, call: Call) -> Any:
    """Layer, RMS, group and instance norm: ``y = (x - mean) / σ * w + b``, ``σ`` held, the mean's gradient kept."""
    name, bound = call.operator.name, normalizer_arguments(call)
    if name == "instance_norm" and not bound["use_input_stats"]:
        return _fixed_instance_norm(engine, call, bound)
    x, weight, bias = bound["input"], bound["weight"], bound.get("bias")
    if not is_live(x) or is_live(weight) or is_live(bias):
        args = [None if a is not None and (a is weight or a is bias) else a for a in call.args]
        kwargs = {k: v for k, v in call.kwargs.items() if k not in ("weight", "bias")}
        normed = engine.redo(call.func, *args, **kwargs)
        return scaled_and_shifted(engine, normed, weight, bias, None if name in ("layer_norm", "rms_norm") else 1)
    known: Tensor | None = None  # the inverse of the spread, where the operator tells it
    with torch.set_grad_enabled(engine.differentiable):
        if name == "layer_norm" and not engine.differentiable and not torch.is_autocast_enabled(x.device.type):
            out, _, known = torch.native_layer_norm(x, bound["normalized_shape"], weight, bias, bound["eps"])
        else:
            out = call.func(*call.args, **call.kwargs)
    kept = None if known is not None else engine.keeper.keep(x if engine.differentiable else x.detach())
    whole, (shape, axes), eps = x.shape, groups(name, x, bound), bound["eps"]
    # Layer and RMS norm have a weight for each value of their last axes, the others one for each channel.
    per_channel = None if axes[0] < 0 else (1, -1, *[1] * (x.dim() - 2))

    def walk(c: Tensor) -> list[Tensor]:
        w, b = (t if t is None or per_channel is None else t.view(per_channel) for t in (weight, bias))
        if engine.ledger and b is not None:
            call.book("bias", b * c)
        centred = name != "rms_norm"
        inverse = known if kept is None else _inverse_spread(kept.value.reshape(shape), axes, eps, centred)
        assert inverse is not None, "the operator or what was kept of its input tells the spread"
        inverse = inverse.to(c.dtype)
        # What was multiplied by a weight is a temporary of our own.
        c = c.reshape(shape) * inverse if w is None else (c * w).reshape(shape).mul_(inverse)
        return [(c.sub_(c.mean(axes, keepdim=True)) if centred else c).reshape(whole)]

    out = engine.reroute(call, out, [x], walk)
    call.release()  # the walk refers to the call, but needs none of its tensors
    return out


def _fixed_instance_norm(engine: Propagation, call: Call, bound: dict[str, Any]) -> Any:
    """Instance norm with running statistics is a batch norm; the arguments are put into that one's order."""
    order = ("input", "weight", "bias", "running_mean", "running_var")
    call.args = [*(bound[k] for k in order), False, bound["momentum"], bound["eps"]]
    call.func, call.kwargs = lambda *a: F.instance_norm(a[0], a[3], a[4], a[1], a[2], False, a[6], a[7]), {}
    return batch_norm(engine, call)


def groups(name: str, x: Tensor, bound: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape for ``x`` and the axes of it over which mean and spread are taken."""
    if name in ("layer_norm", "rms_norm"):
        return tuple(x.shape), tuple(range(-len(bound["normalized_shape"]), 0))
    if x.dim() == 2 and name == "instance_norm":
        return (x.shape[0], x.shape[1]), (1,)
    return (x.shape[0], bound["num_groups"] if name == "group_norm" else x.shape[1], -1), (2,)


def _inverse_spread(x: Tensor, axes: tuple[int, ...], eps: float | None, centred: bool) -> Tensor:
    """``1 / σ`` over these axes, in single precision at least."""
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    deviation = wide - wide.mean(axes, keepdim=True) if centred else wide
    return (deviation.square().mean(axes, keepdim=True) + eps).rsqrt()
