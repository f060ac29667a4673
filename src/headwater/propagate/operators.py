"""The class table: every torch function belongs to one class, whatever its spelling.

``torch.add``, ``Tensor.add``, ``Tensor.__add__`` and ``Tensor.add_`` are one operator, found by its bare name. A function of
``torch.nn.functional`` that is written in Python is taken apart: its body runs under the engine. What has no row here is
an error that names it; :func:`register` adds a row.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.propagate import affine, products, recurrent
from headwater.propagate.pointwise import BENT, HOMOGENEOUS, elementwise

Handler = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Operator:
    """What the engine knows of one torch function.

    Attributes:
        name: bare name, as composites select it; ``kind``: its class.
        handler: its treatment, None where there is none.
        inplace: writes to its first argument. ``view``: only moves values. ``elementwise``: one value at a time.
        affine: takes a rule. ``metadata``: returns no values. ``moves_ids``: token ids stay token ids.
        joins: linear in all of its operands together, so that constants among them have a share of their own.
        moves_axes: may move samples away from the first axis.
        random: draws from a generator. checked: its treatment refuses training mode, so it is asked under plain gradients too.
        nonneg: "keep" (non-negative in, non-negative out), "always" or "never".
        degree: of an elementwise function: homogeneous, affine or bent.
        body: the Python body to run under the engine instead, if it is a composite of others.
    """

    name: str
    kind: str = "unknown"
    handler: Handler | None = None
    inplace: bool = False
    view: bool = False
    elementwise: bool = False
    affine: bool = False
    metadata: bool = False
    moves_ids: bool = False
    joins: bool = False
    moves_axes: bool = False
    random: bool = False
    checked: bool = False
    nonneg: str = "never"
    degree: int = HOMOGENEOUS
    body: Callable[..., Any] | None = None

    def functional(self) -> Operator:
        """The same operator, not in place."""
        return replace(self, inplace=False)

    def simple_in_place(self, call: Any) -> bool:
        """Whether its own in-place gradient is right, and no chain of elementwise functions goes on through it."""
        if self.handler is native and not self.elementwise:
            return True
        chained = any(call.engine.tag(t).chain is not None for t in call.live)
        if self.name in ("relu", "leaky_relu"):
            return not chained
        return self.name in ("add", "sub") and len(call.live) == 2 and not chained


def native(engine: Any, call: Any) -> Any:
    """The ordinary gradient."""
    return engine.native(call)


def constant(engine: Any, call: Any) -> Any:
    """No relevance passes: comparisons, indices, rounding, shapes."""
    if call.operator.name in ("detach", "data", "numpy"):
        engine.warn_detached(call)
    out = call.func(*call.args, **call.kwargs)
    return out.detach() if isinstance(out, Tensor) and out.requires_grad else out


def embedding(engine: Any, call: Any) -> Any:
    """A lookup in a live table moves its rows; live indices are floats where token ids are wanted."""
    from headwater.errors import InvalidInput

    if not call.args[0].is_floating_point() or not call.args[1].is_floating_point():
        return engine.native(call)
    where = affine.places.describe_here(engine.model)
    raise InvalidInput(f"An embedding {where} wants token ids, but got floats: pass integers (x.long())")


def dropout(engine: Any, call: Any) -> Any:
    """Dropout is homogeneous given its mask; in training mode it needs ``allow_training=True``."""
    training = call.args[2] if len(call.args) > 2 else call.kwargs.get("train", call.kwargs.get("training", True))
    if training:
        affine.allow_training(engine, "Dropout is active")
    return engine.native(call)


def prod(engine: Any, call: Any) -> Any:
    """A product along an axis: each of its k factors takes 1/k."""
    x, dim = affine.bind(call, "input dim", None, None)
    return engine.local(call, 1 / (x.numel() if dim is None else x.shape[dim]))


def variance(engine: Any, call: Any) -> Any:
    """Homogeneous of degree two: half the gradient conserves (Euler's theorem)."""
    return engine.local(call, 0.5)


def with_mean(engine: Any, call: Any) -> Any:
    """``var_mean`` and ``std_mean``, written as two."""
    x, *args = call.args
    spread = engine.redo(getattr(torch, call.operator.name.removesuffix("_mean")), x, *args, **call.kwargs)
    axes = {"dim": args[0]} if args and not isinstance(args[0], bool) else {}
    axes |= {k: v for k, v in call.kwargs.items() if k in ("dim", "keepdim")}
    if axes.get("dim", 0) is None:
        axes["dim"] = tuple(range(x.dim()))
    return spread, engine.redo(torch.mean, x, **axes)


def extremum(engine: Any, call: Any) -> Any:
    """``max``, ``min`` of a tensor with another: elementwise; along an axis: a choice, homogeneous."""
    other = call.args[1] if len(call.args) > 1 else call.kwargs.get("other")
    return elementwise(engine, call) if isinstance(other, Tensor) else engine.native(call)


def lerp(engine: Any, call: Any) -> Any:
    """``start + weight * (end - start)``, a sum and a product."""
    start, end, weight = affine.bind(call, "input end weight", None, None, None)
    return engine.redo(torch.add, start, engine.redo(torch.mul, engine.redo(torch.sub, end, start), weight))


def gated_linear_unit(engine: Any, call: Any) -> Any:
    """``glu``: one half times the sigmoid of the other."""
    x, dim = affine.bind(call, "input dim", None, -1)
    value, gate = engine.redo(torch.chunk, x, 2, dim)
    return engine.redo(torch.mul, value, engine.redo(torch.sigmoid, gate))


def cosine_similarity(engine: Any, call: Any) -> Any:
    """A product of two vectors, each divided by its constant length."""
    a, b, dim, eps = affine.bind(call, "x1 x2 dim eps", None, None, 1, 1e-8)
    units = []
    for x in (a, b):
        length = engine.redo(torch.clamp, engine.redo(torch.linalg.vector_norm, x, 2, dim, True), min=eps)
        units.append(engine.redo(torch.div, x, length))
    return engine.redo(torch.sum, engine.redo(torch.mul, *units), dim)


def add_quotient(engine: Any, call: Any) -> Any:
    """``addcmul`` and ``addcdiv``: a sum and a product or quotient."""
    base, a, b, value = affine.bind(call, "input tensor1 tensor2 value", None, None, None, 1)
    part = engine.redo(torch.mul if "mul" in call.operator.name else torch.div, a, b)
    return engine.redo(torch.add, base, part if value == 1 else engine.redo(torch.mul, part, value))


def distance(engine: Any, call: Any) -> Any:
    """``cdist``, ``pairwise_distance`` and ``dist``: a difference and its norm."""
    a, b, p = affine.bind(call, "x1 x2 p", None, None, 2.0)
    if call.operator.name == "cdist":
        a, b = engine.redo(torch.unsqueeze, a, -2), engine.redo(torch.unsqueeze, b, -3)
    gap = engine.redo(torch.sub, a, b)
    if call.operator.name == "dist":
        return engine.redo(torch.linalg.vector_norm, gap, p)
    if call.operator.name == "pairwise_distance":
        gap = engine.redo(torch.add, gap, affine.bind(call, "x1 x2 p eps", None, None, 2.0, 1e-6)[3])
    return engine.redo(torch.linalg.vector_norm, gap, p, -1)


_VIEWS = """view reshape flatten unflatten transpose t T mT H mH adjoint permute movedim moveaxis swapaxes swapdims squeeze
unsqueeze expand expand_as view_as reshape_as contiguous clone to float double half bfloat16 type type_as cpu cuda chunk split
split_with_sizes tensor_split hsplit vsplit dsplit unsafe_chunk unsafe_split unbind select narrow getitem index_select
masked_select take take_along_dim gather flip fliplr flipud roll rot90 repeat repeat_interleave tile diagonal diag diag_embed
diagonal_scatter tril triu unfold as_strided ravel atleast_1d atleast_2d atleast_3d pixel_shuffle pixel_unshuffle
channel_shuffle positive alias broadcast_to broadcast_tensors real resolve_conj resolve_neg index copy_like _to_copy im2col
narrow_copy pin_memory lift_fresh view_as_real view_as_complex align_to rename"""
_HOMOGENEOUS = """sum mean nansum nanmean cumsum amax amin sort topk kthvalue median nanmedian mode cummax cummin msort aminmax
max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d max_unpool2d max_unpool3d avg_pool1d
avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d
upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d
upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler
grid_sampler_2d grid_sampler_3d col2im index_add scatter scatter_add scatter_reduce segment_reduce index_put index_copy index_reduce
index_fill masked_scatter put select_scatter slice_scatter masked_fill fill zero copy setitem where cat concat concatenate
stack hstack vstack dstack column_stack row_stack block_diag pad constant_pad_nd trace norm vector_norm linalg_vector_norm
matrix_norm linalg_norm std nuclear_norm frobenius_norm pdist prelu rrelu renorm sparse_sampled_addmm
_sparse_mm spmm to_dense to_sparse coalesce _pack_padded_sequence _pad_packed_sequence cumulative_trapezoid trapezoid trapz logcumsumexp_ diff cross_ fft_fft fft_ifft fft_rfft
fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn stft istft complex fft_fftshift fft_ifftshift
segment_matmul_ max_unpool1d quantile nanquantile"""
_AXES = """transpose t T mT H mH adjoint permute movedim moveaxis swapaxes swapdims unbind select narrow getitem index_select gather
take take_along_dim flip flipud roll rot90 masked_select chunk split split_with_sizes tensor_split vsplit cat stack vstack sort topk
view_as_real matmul mm bmm einsum tensordot lstm gru rnn_tanh rnn_relu scatter scatter_add index_add index_copy index_put setitem
cumsum softmax log_softmax logsumexp sum mean amax amin max min prod var std norm linalg_vector_norm expand_as _pack_padded_sequence
_pad_packed_sequence repeat repeat_interleave expand"""
_JOINS = """index_add scatter scatter_add index_put index_copy index_fill masked_scatter put select_scatter slice_scatter
diagonal_scatter masked_fill fill zero copy setitem where cat stack hstack vstack dstack column_stack row_stack block_diag pad
constant_pad_nd"""
_CONSTANT = """argmax argmin argsort eq ne lt le gt ge greater less equal not_equal greater_equal less_equal isnan isinf
isfinite isreal isneginf isposinf sign sgn floor ceil round trunc fix heaviside zeros_like ones_like full_like rand_like randn_like
randint_like empty_like new_zeros new_ones new_full new_empty new_tensor nonzero argwhere bincount searchsorted bucketize item
tolist bool int float_scalar long short byte char index_ equal_ allclose isclose any all logical_and logical_or logical_not
logical_xor detach data numpy histc histogram unique unique_consecutive unique_dim one_hot multinomial bernoulli floor_divide
count_nonzero is_nonzero signbit isin _assert_async _assert_tensor_metadata cuda_sync digitize array argrelmax normal_like
bitwise_and bitwise_or bitwise_not bitwise_xor contains nanargmax"""
_METADATA = """shape dtype device ndim is_cuda requires_grad size dim stride numel is_contiguous is_floating_point is_complex
storage_offset data_ptr element_size get_device layout names len is_leaf grad_fn _version is_nested nelement ndimension repr
format hash str is_same_size result_type is_sparse is_mkldnn is_meta is_quantized register_hook retain_grad _is_view is_cpu itemsize
nbytes grad is_inference is_conj is_neg is_signed is_pinned untyped_storage storage reduce_ex deepcopy dlpack dlpack_device
_base output_nr is_shared requires_grad_ retains_grad volatile has_names set promote_types can_cast is_xla is_mps is_xpu is_ipu is_vulkan is_maia is_hpu is_mtia
get_default_dtype _backward_hooks name sym_size is_same_sparsity _set_grad_enabled is_sparse_csr dense_dim sparse_dim is_coalesced"""
_SMOOTH = """sigmoid tanh gelu silu mish elu selu celu softplus exp expm1 exp2 log log1p log2 log10 sqrt rsqrt reciprocal square
pow float_power erf erfc erfinv sin cos tan asin acos atan arcsin arccos arctan sinh cosh asinh acosh atanh arcsinh arccosh
arctanh softsign logsigmoid log_sigmoid hardswish hardsigmoid hardtanh relu6 clamp clip clamp_min clamp_max threshold softshrink hardshrink
tanhshrink logit xlogy nan_to_num sinc i0 special_i0 special_erf special_expit expit rpow fmod remainder frac
hypot atan2 arctan2 logaddexp logaddexp2 nextafter special_ndtr digamma lgamma"""
_GATES_NONNEG = [
    "sigmoid",
    "hardsigmoid",
    "exp",
    "exp2",
    "square",
    "relu6",
    "softplus",
    "special_expit",
    "expit",
    "sqrt",
    "rsqrt",
]


def _rows() -> dict[str, Operator]:
    rows: dict[str, Operator] = {}

    def add(names: str | Iterable[str], kind: str, handler: Handler | None, **facts: Any) -> None:
        for name in names.split() if isinstance(names, str) else names:
            rows[name] = Operator(name, kind, handler, **facts)

    add(_METADATA, "constant", constant, metadata=True)
    add(_CONSTANT, "constant", constant)
    add(_HOMOGENEOUS, "homogeneous", native, nonneg="keep")
    add("diff grid_sampler grid_sampler_2d grid_sampler_3d complex stft istft", "homogeneous", native)
    add([name for name in _HOMOGENEOUS.split() if name.startswith("fft_")], "homogeneous", native)
    add("upsample_bicubic2d _upsample_bicubic2d_aa", "homogeneous", native)
    add(_VIEWS, "homogeneous", native, view=True, nonneg="keep", moves_ids=True)
    add(_JOINS, "homogeneous", native, joins=True, moves_ids=True)
    add(
        "cat stack hstack vstack dstack column_stack pad constant_pad_nd",
        "homogeneous",
        native,
        joins=True,
        moves_ids=True,
        nonneg="join",
    )
    add("long int", "constant", constant, moves_ids=True)
    add("norm vector_norm linalg_vector_norm std", "homogeneous", native, nonneg="always")
    add("relu", "homogeneous", elementwise, elementwise=True, nonneg="always")
    add("abs absolute", "homogeneous", elementwise, elementwise=True, nonneg="always")
    add("leaky_relu neg negative", "homogeneous", elementwise, elementwise=True)
    add("add", "homogeneous", elementwise, elementwise=True, joins=True, nonneg="join")
    add("sub rsub", "homogeneous", elementwise, elementwise=True, joins=True)
    add("maximum minimum fmax fmin", "homogeneous", elementwise, elementwise=True, nonneg="join")
    add("max min", "homogeneous", extremum, nonneg="join")
    add("mul div", "product", elementwise, elementwise=True, nonneg="join")
    add(_SMOOTH, "pointwise", elementwise, elementwise=True, degree=BENT)
    add(_GATES_NONNEG, "pointwise", elementwise, elementwise=True, degree=BENT, nonneg="always")
    add(
        "dropout alpha_dropout feature_dropout feature_alpha_dropout native_dropout",
        "homogeneous",
        dropout,
        nonneg="keep",
        checked=True,
    )
    add(
        "rand randn randint randperm normal bernoulli multinomial poisson rand_like randn_like randint_like",
        "constant",
        constant,
        random=True,
    )
    add("uniform exponential geometric cauchy log_normal random", "constant", constant, random=True)
    add("prod", "product", prod)
    add("var", "product", variance, nonneg="always")
    add("var_mean std_mean", "product", with_mean)
    add("lerp", "product", lerp)
    add("glu", "product", gated_linear_unit)
    add("cosine_similarity", "product", cosine_similarity)
    add("addcmul addcdiv", "product", add_quotient)
    add("cdist pairwise_distance dist", "homogeneous", distance)
    add("softmax _softmax special_softmax log_softmax special_log_softmax", "softmax", products.softmax)
    add("logsumexp special_logsumexp", "softmax", products.logsumexp)
    add("layer_norm rms_norm group_norm instance_norm", "normalizer", products.normalizer)
    add("linear", "linear", affine.linear, affine=True)
    add("matmul mm bmm mv dot inner vdot outer ger kron _grouped_mm grouped_mm", "linear", affine.matmul, affine=True)
    add("einsum tensordot bilinear", "linear", affine.einsum, affine=True)
    add("addmm addmv baddbmm addbmm", "linear", affine.addmm, affine=True)
    for n in (1, 2, 3):
        add(f"conv{n}d conv_transpose{n}d", "conv", affine.convolution, affine=True)
    add("batch_norm", "normalizer", affine.batch_norm, checked=True)
    add("scaled_dot_product_attention", "attention", products.attention)
    add("embedding", "homogeneous", embedding)
    add("embedding_bag", "homogeneous", recurrent.embedding_bag)
    add("lstm gru rnn_tanh rnn_relu", "recurrent", recurrent.recurrent)
    add("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell", "recurrent", recurrent.cell)
    for name in ["clamp", "abs", "remainder"]:
        rows[name] = replace(rows[name], moves_ids=True)
    for name in _AXES.split():
        rows[name] = replace(rows[name], moves_axes=True)
    return rows


_ROWS = _rows()
_FOUND: dict[Any, Operator] = {}
_DISPATCHED = {
    getattr(F, name): name
    for n in (1, 2, 3)
    for name in (f"max_pool{n}d", f"adaptive_max_pool{n}d", f"fractional_max_pool{n}d")
    if hasattr(F, name)
}


def names() -> list[str]:
    """Names of all operators with a treatment."""
    return sorted(name for name, row in _ROWS.items() if not row.metadata)


def register(name: str, treatment: str | Handler = "homogeneous") -> None:
    """Give an operator a treatment.

    Args:
        name: bare name of the torch function, without underscores.
        treatment: "homogeneous" (its gradient is right), "pointwise" (secant from zero), "constant" (no relevance passes),
            or a function ``(engine, call) -> output``.

    Raises:
        ValueError: for an unknown treatment.
    """
    known: dict[str, Operator] = {
        "homogeneous": Operator(name, "homogeneous", native),
        "pointwise": Operator(name, "pointwise", elementwise, elementwise=True, degree=BENT),
        "constant": Operator(name, "constant", constant),
    }
    if callable(treatment):
        _ROWS[name] = Operator(name, "custom", treatment)
    elif treatment in known:
        _ROWS[name] = known[treatment]
    else:
        raise ValueError(f"Unknown treatment {treatment!r}: choose from {', '.join(known)} or pass a function")
    _FOUND.clear()


def classify(func: Any) -> Operator:
    """The operator of a torch function, method or property, in any spelling."""
    found = _FOUND.get(func)
    if found is None:
        found = _FOUND[func] = _classify(func)
    return found


def _classify(func: Any) -> Operator:
    if func in _DISPATCHED:
        return _ROWS[_DISPATCHED[func]]
    plain = inspect.unwrap(func)
    owner = getattr(func, "__self__", None)
    if type(func).__name__ == "method-wrapper":  # a property of Tensor
        raw = "set" if func.__name__ == "__set__" else owner.__name__
    else:
        raw = getattr(plain, "__name__", str(plain))
    name = raw.strip("_") if raw.startswith("__") else raw.removesuffix("_")
    inplace = raw == "__setitem__" or (raw.endswith("_") and not raw.endswith("__") and raw != "requires_grad_")
    if raw.startswith("__i") and raw.endswith("__") and name[1:] in _ROWS and name not in ("invert", "int", "index"):
        name, inplace = name[1:], True
    name = {"bool": "bool", "float": "item", "index": "item"}.get(name, name) if raw.startswith("__") else name
    name = _ALIASES.get(name, name)
    row = _ROWS.get(name, Operator(name))
    written_in_python = isinstance(plain, types.FunctionType)
    if (
        written_in_python
        and not row.metadata
        and row.handler not in (native, constant, embedding)
        and row.kind != "custom"
    ):
        return replace(row, body=_body(plain))
    return replace(row, inplace=inplace) if inplace else row


_ALIASES = {
    "truediv": "div", "special_expit": "sigmoid", "log_sigmoid": "logsigmoid", "swap_dims": "transpose",
    "concat": "cat", "concatenate": "cat", "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div",
    "negative": "neg", "absolute": "abs", "clip": "clamp", "arctan": "atan", "and": "logical_and", "or": "logical_or",
    "xor": "logical_xor", "invert": "logical_not", "floordiv": "floor_divide",
}  # fmt: skip


def _never(*_: Any, **__: Any) -> bool:
    return False


def _body(function: types.FunctionType) -> Callable[..., Any]:
    """A copy of a Python function of torch that does not ask for overrides again (which would recurse for ever)."""
    names = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    scope = {**function.__globals__, **dict.fromkeys(names, _never)}
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
