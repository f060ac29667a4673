"""An independent oracle for the census: the plain gradient of a surrogate, whose every operator is rewritten.

Under LRP-0 with AttnLRP each treatment is the ordinary gradient of another function with the same values: an
activation ``f(z)`` becomes ``z`` times the constant ``(f(z) - f(0)) / z``; a gate, a divisor and a standard deviation
are detached; a product of two tensors is half with the one and half with the other detached. So relevance is
``x * gradient`` of that surrogate by torch's own autograd, with nothing of the engine in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

import headwater as hw
from benchmarks.census_subjects import Built, converted

TOLERANCE = 1e-3  # of the largest relevance, in float32
_BENT = """
gelu silu mish elu selu celu softplus tanh hardswish hardtanh relu6 sigmoid hardsigmoid exp softsign logsigmoid
log_sigmoid threshold tanhshrink softshrink erf square pow log1p sin cos
"""
_VIEWS = """
view reshape expand expand_as unsqueeze squeeze flatten transpose permute contiguous unflatten view_as repeat
movedim getitem chunk split unbind to float double
"""
_REFUSED = """
lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell clamp sqrt reciprocal log prod var
logsumexp maximum minimum max min cdist grid_sampler grid_sample embedding_bag multi_head_attention_forward
instance_norm local_response_norm normalize norm linalg_vector_norm baddbmm bilinear cosine_similarity lerp addcmul
cumprod complex view_as_complex polar rsub scatter_reduce segment_reduce index_put cummax log_softmax
linalg_solve linalg_inv linalg_pinv linalg_det linalg_cross linalg_matrix_exp matrix_exp inverse inv det cross atan2
arctan2 hypot xlogy renorm copysign fmod logaddexp logcumsumexp std_mean var_mean
"""


_BENT_NAMES, _VIEW_NAMES, _REFUSED_NAMES = (frozenset(names.split()) for names in (_BENT, _VIEWS, _REFUSED))
_IN_PLACE = {f"{name}_" for name in (*_BENT_NAMES, "mul", "div")}  # whose in-place forms are not rewritten


class NotApplicable(Exception):
    """The surrogate has no rewriting for a call, or elementwise calls form one function that it does not follow."""


class Surrogate(TorchFunctionMode):
    """Rewrites each call on tensors that require grad (the weights do not)."""

    def __init__(self, ids: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.ids = ids
        self.embedded: dict[str, list[Tensor]] = {name: [] for name in ids}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").strip("_")
        if name == "einsum" and len(args) == 2 and isinstance(args[1], (list, tuple)):
            args = (args[0], *args[1])
        if name == "embedding":
            for key, ids in self.ids.items():
                if _same_ids(args[0], ids):
                    self.embedded[key].append(func(*args, **kwargs).detach().requires_grad_())
                    return self.embedded[key][-1].clone()
        if not any(_live(a) for a in (*args, *kwargs.values())) or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if name in _REFUSED_NAMES or getattr(func, "__name__", "") in _IN_PLACE:
            raise NotApplicable(name)
        if name in _BENT_NAMES:
            return self._bent(func, *args, **kwargs)
        rewrite = getattr(self, f"_{_ALIASES.get(name, name)}", None)
        if rewrite is not None:
            return rewrite(func, *args, **kwargs)
        out = func(*args, **kwargs)
        if name in _VIEW_NAMES:
            for t in out if isinstance(out, (tuple, list)) else [out]:
                _inherit(t, args[0])
        return out

    def _bent(self, func: Any, z: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs.pop("inplace", None)
        if _fact(z, "bends") or _fact(z, "shifted") or any(_live(a) for a in args):
            raise NotApplicable("a function of a function")
        wide = z.detach().double()
        with torch.no_grad():
            # of a copy: the arguments may say that it works in place
            y, constant = func(wide.clone(), *args, **kwargs), func(torch.zeros_like(wide), *args, **kwargs)
        with torch.enable_grad():
            zero = torch.zeros_like(wide).requires_grad_()
            slope = torch.autograd.grad(func(zero.clone(), *args, **kwargs).sum(), zero)[0]
        near = wide.abs() < 1e-8
        secant = torch.where(near, slope, (y - constant) / torch.where(near, torch.ones_like(y), wide))
        out = z * secant.to(z.dtype) + (y - wide * secant).to(z.dtype)
        return _mark(out, gate=bool((constant != 0).any()), root=_root(z), bends=True)

    def _softmax(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        return _mark(func(*args, **kwargs), gate=True)

    def _rsqrt(self, func: Any, z: Tensor) -> Tensor:
        return func(z.detach())  # the reciprocal of a divisor

    def _add(self, func: Any, a: Any, b: Any, **kwargs: Any) -> Any:
        out = func(a, b, **kwargs)
        kept = a if _live(a) else b
        if not (_live(a) and _live(b)) and isinstance(out, Tensor):
            if _fact(kept, "bends"):
                raise NotApplicable("a shifted function")
            if not isinstance(a if kept is b else b, Tensor):
                _mark(out, shifted=True, root=_root(kept))
        return out

    def _sub(self, func: Any, a: Any, b: Any, **kwargs: Any) -> Any:
        return self._add(func, a, b, **kwargs)

    def _mul(self, func: Any, a: Any, b: Any, **kwargs: Any) -> Any:
        if not (_live(a) and _live(b)):
            return _inherit(func(a, b, **kwargs), a if _live(a) else b)
        if _root(a) is _root(b):
            raise NotApplicable("a product of functions of one tensor")
        gates = [_fact(t, "gate") for t in (a, b)]
        if any(gates) and not all(gates):
            return func(a.detach(), b, **kwargs) if gates[0] else func(a, b.detach(), **kwargs)
        return _half(func, a, b, **kwargs)

    def _div(self, func: Any, a: Any, b: Any, **kwargs: Any) -> Any:
        if not _live(b):
            return _inherit(func(a, b, **kwargs), a)
        if not _live(a) or _root(a) is _root(b):
            raise NotApplicable("div")
        return func(a, b.detach(), **kwargs)

    def _matmul(self, func: Any, a: Tensor, b: Tensor, **kwargs: Any) -> Tensor:
        return _half(func, a, b, **kwargs) if _live(a) and _live(b) else func(a, b, **kwargs)

    def _of_weights(self, func: Any, x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        _refuse_live(weight)
        return func(x, weight, *args, **kwargs)

    _linear = _conv1d = _conv2d = _conv3d = _of_weights

    def _addmm(self, func: Any, bias: Any, a: Tensor, b: Tensor) -> Tensor:
        if _live(b) or _live(bias):
            raise NotApplicable("addmm")
        return func(bias, a, b)

    def _einsum(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        live = [i for i, a in enumerate(args) if _live(a)]
        if len(live) == 1:
            return func(*args, **kwargs)
        if len(live) != 2:
            raise NotApplicable("einsum")
        return _half(lambda a, b: func(*_put(args, live, (a, b)), **kwargs), args[live[0]], args[live[1]])

    def _scaled_dot_product_attention(
        self, func: Any, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if enable_gqa:
            key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
        scores = self._matmul(torch.matmul, query, key.transpose(-2, -1))
        scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
        if attn_mask is not None:
            boolean = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if boolean else scores + attn_mask
        return self._matmul(torch.matmul, scores.softmax(-1), value)

    def _layer_norm(
        self, func: Any, x: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
    ) -> Tensor:
        _refuse_live(weight)
        x = x.contiguous()  # as the kernel's result is, of which a view may be taken next
        axes = tuple(range(-len(normalized_shape), 0))
        spread = (x.var(axes, unbiased=False, keepdim=True) + eps).sqrt().detach()
        out = (x - x.mean(axes, keepdim=True)) / spread
        out = out if weight is None else out * weight
        return out if bias is None else out + bias

    def _batch_norm(
        self, func: Any, x: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
        momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        """Written out: torch's own backward of one sample is wrong where the gradient it gets is transposed."""
        _refuse_live(weight)
        if training or mean is None or var is None:
            raise NotApplicable("statistics of the batch")
        shape = (1, -1, *[1] * (x.dim() - 2))
        out = (x - mean.view(shape)) * (var + eps).rsqrt().view(shape)
        out = out if weight is None else out * weight.view(shape)
        return out if bias is None else out + bias.view(shape)

    def _group_norm(
        self, func: Any, x: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
    ) -> Tensor:
        _refuse_live(weight)
        shape = (1, -1, *[1] * (x.dim() - 2))
        groups = x.reshape(len(x), num_groups, -1)
        spread = (groups.var(-1, unbiased=False, keepdim=True) + eps).sqrt().detach()
        out = ((groups - groups.mean(-1, keepdim=True)) / spread).reshape(x.shape)
        out = out if weight is None else out * weight.view(shape)
        return out if bias is None else out + bias.view(shape)

    def _rms_norm(self, func: Any, x: Tensor, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Tensor:
        _refuse_live(weight)
        eps = torch.finfo(x.dtype).eps if eps is None else eps
        axes = tuple(range(-len(normalized_shape), 0))
        out = x / (x.square().mean(axes, keepdim=True) + eps).sqrt().detach()
        return out if weight is None else out * weight

    def _glu(self, func: Any, x: Tensor, dim: int = -1) -> Tensor:
        value, gate = x.chunk(2, dim)
        return value * gate.sigmoid().detach()


def _unseen(function: type[Function], *args: Any, **kwargs: Any) -> Any:
    """In place of a custom Function: what it computes cannot be rewritten."""
    raise NotApplicable(f"the custom Function {function.__name__}")


_ALIASES = {
    "bmm": "matmul", "mm": "matmul", "truediv": "div", "true_divide": "div", "multiply": "mul", "rmul": "mul",
    "imul": "mul", "iadd": "add", "radd": "add", "isub": "sub", "itruediv": "div", "rmatmul": "matmul",
}  # fmt: skip


def _same_ids(used: Tensor, ids: Tensor) -> bool:
    """Whether a model looks up these ids; such that are all alike are known by where they lie, not by their value."""
    if used.data_ptr() == ids.data_ptr():
        return used.shape == ids.shape
    alike = bool((ids == ids.flatten()[0]).all())
    return not alike and used.shape[1:] == ids.shape[1:] and bool((used == ids[:1]).all())


def _live(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _refuse_live(weight: Any) -> None:
    if _live(weight):
        raise NotApplicable("a live weight")


def _mark(t: Any, **facts: Any) -> Any:
    if isinstance(t, Tensor):
        t._facts = facts
    return t


def _fact(t: Tensor, name: str) -> Any:
    return getattr(t, "_facts", {}).get(name)


def _inherit(t: Any, origin: Any) -> Any:
    return _mark(t, **getattr(origin, "_facts", {}))


def _root(t: Tensor) -> Tensor:
    root = _fact(t, "root")
    return t if root is None else root


def _put(args: Any, places: list[int], values: tuple[Tensor, Tensor]) -> list[Any]:
    out = list(args)
    for place, value in zip(places, values, strict=True):
        out[place] = value
    return out


def _half(func: Callable[..., Tensor], a: Tensor, b: Tensor, **kwargs: Any) -> Tensor:
    """A product whose gradient gives each factor half."""
    return (func(a, b.detach(), **kwargs) + func(a.detach(), b, **kwargs)) / 2


def weighted(output: Tensor) -> Tensor:
    """For each row of an output a sum in which every value has a weight of its own; masked scores have none."""
    output = output.reshape(len(output) if output.dim() else 1, -1)
    output = output.masked_fill(output.abs() > torch.finfo(output.dtype).max / 2, 0)
    weights = torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view_as(output)
    return (output * weights).sum(1)


def surrogate(built: Built) -> dict[str, Tensor]:
    """Relevance of the float inputs and of the embedded token ids, by the names of the inputs, by the surrogate.

    Raises:
        NotApplicable: where a call has no rewriting here.
    """
    frozen = [(p, p.requires_grad) for p in built.model.parameters()]
    for p, _ in frozen:
        p.requires_grad_(False)
    try:
        values = built.inputs if isinstance(built.inputs, dict) else {"": built.inputs}
        ids = {k: v for k, v in values.items() if isinstance(v, Tensor) and v.dtype == torch.long and "mask" not in k}
        lives = {
            k: v.clone().requires_grad_() if isinstance(v, Tensor) and v.is_floating_point() and "mask" not in k else v
            for k, v in values.items()
        }
        with torch.enable_grad(), patch.object(Function, "apply", classmethod(_unseen)), Surrogate(ids) as mode:
            raw = built.model(**lives) if isinstance(built.inputs, dict) else built.model(lives[""])
            score = weighted(built.output(raw)).sum()
        ends = {k: [v] for k, v in lives.items() if _live(v)} | {k: v for k, v in mode.embedded.items() if v}
        if not ends:
            raise NotApplicable("token ids that are never embedded")
        return {k: _relevance(score, parts) for k, parts in ends.items() if len({p.shape for p in parts}) == 1}
    finally:
        for p, required in frozen:
            p.requires_grad_(required)


def _relevance(score: Tensor, parts: list[Tensor]) -> Tensor:
    """Of an input, or of the embeddings ``[N, T, D]`` in which token ids enter."""
    grads = torch.autograd.grad(score, parts, retain_graph=True, allow_unused=True)
    shares = [x * (0 if g is None else g) for x, g in zip(parts, grads, strict=True)]
    return torch.stack(shares).sum(0).detach()


def check(built: Built, target: Any) -> str:
    """Compare with the surrogate where it applies, else ask the library's own check; "agrees ..." if all is well."""
    try:
        gap, precision = _gap(built), ""
        if gap >= TOLERANCE:  # of two that round otherwise in float32 neither is wrong
            gap, precision = _gap_in_double(built, gap)
    except NotApplicable as reason:
        return _selfcheck(built, target, str(reason))
    return f"{'agrees' if gap < TOLERANCE else 'DISAGREES'} with the surrogate to {gap:.0e}{precision}"


def _gap(built: Built) -> float:
    """The largest difference of relevance from the surrogate's, relative to the largest relevance.

    Raises:
        NotApplicable: where there is no surrogate, or nothing to compare.
    """
    if isinstance(built.inputs, tuple):
        raise NotApplicable("several inputs")
    with torch.random.fork_rng(devices=[]):  # some models draw masks or noise at every call: the same for both
        torch.manual_seed(0)
        expected = surrogate(built)
        torch.manual_seed(0)
        e = hw.explain(built.model, built.inputs, target=lambda raw: weighted(built.output(raw)), composite="lrp_0")
    found = e.relevance if isinstance(e.relevance, dict) else {"": e.relevance}
    found = {k: r for k, r in found.items() if r is not None}  # of a mask there is none
    if any(k not in expected and bool(r.any()) for k, r in found.items()):
        raise NotApplicable("token ids that are computed with before they are embedded")
    pairs = [(r, expected[k]) for k, r in found.items() if k in expected and r.shape == expected[k].shape]
    if not pairs:
        raise NotApplicable("nothing to compare")
    scale = max(float(x.abs().max()) for _, x in pairs) or 1.0
    return max(float((r - x).abs().max()) for r, x in pairs) / scale


def _gap_in_double(built: Built, single: float) -> tuple[float, str]:
    """The same in float64, and a word on that; what it was in float32 where the model does not run so."""
    try:
        with _in_double(built) as double:
            return _gap(double), " in float64"
    except Exception:  # many a model makes float32 tensors of its own, which do not meet float64 ones
        return single, ""


@contextlib.contextmanager
def _in_double(built: Built) -> Iterator[Built]:
    try:
        inputs = converted(built.inputs, torch.float64)
        yield replace(built, model=built.model.double(), inputs=inputs)
    finally:
        built.model.float()


def _selfcheck(built: Built, target: Any, reason: str) -> str:
    report, precision = hw.selfcheck(built.model, built.inputs, target), ""
    if not report.passed:
        with contextlib.suppress(Exception), _in_double(built) as double:
            report, precision = hw.selfcheck(double.model, double.inputs, target), " in float64"
    failed = ", ".join(c.name for c in report if not c.passed)
    return f"agrees with itself{precision} (no surrogate: {reason})" if report.passed else f"FAILS {failed}"
