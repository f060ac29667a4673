"""The class table: every torch function belongs to one class.

Names are bare, as :func:`headwater.propagate.operators.classify` finds them; another spelling of the same operator
needs no row of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headwater.propagate import layers, matrices, operands, pooling, products, recurrent, scattered, treatments
from headwater.propagate.kinds import Handler, Operator, gap, native
from headwater.propagate.losses import LOSSES
from headwater.propagate.pointwise import BENT, elementwise

_VIEWS = """
view reshape flatten unflatten transpose t T mT H mH adjoint permute movedim moveaxis swapaxes swapdims squeeze
unsqueeze expand expand_as view_as reshape_as contiguous clone to float double half bfloat16 type type_as cpu cuda
chunk split split_with_sizes tensor_split hsplit vsplit dsplit unsafe_chunk unsafe_split unbind select narrow getitem
index_select masked_select take take_along_dim gather flip fliplr flipud roll rot90 repeat repeat_interleave tile
diagonal diag diag_embed diagonal_scatter tril triu unfold as_strided ravel atleast_1d atleast_2d atleast_3d
pixel_shuffle pixel_unshuffle channel_shuffle positive alias broadcast_to broadcast_tensors real resolve_conj
resolve_neg index _to_copy im2col narrow_copy pin_memory lift_fresh view_as_real view_as_complex align_to rename
imag conj conj_physical diagflat linalg_diagonal combinations unsafe_split_with_sizes cfloat cdouble
"""
_HOMOGENEOUS = """
sum mean nansum nanmean cumsum amax amin sort topk kthvalue median nanmedian mode cummax cummin msort aminmax
max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d max_unpool2d
max_unpool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d
_upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler grid_sampler_2d grid_sampler_3d col2im index_add scatter
scatter_add scatter_reduce segment_reduce index_put index_copy index_reduce index_fill masked_scatter put
select_scatter slice_scatter masked_fill fill zero copy setitem where cat stack hstack vstack dstack column_stack
row_stack block_diag pad constant_pad_nd pad_sequence trace norm vector_norm linalg_vector_norm matrix_norm
linalg_norm std nuclear_norm frobenius_norm pdist prelu rrelu sparse_sampled_addmm _sparse_mm spmm to_dense to_sparse
coalesce
_pack_padded_sequence _pad_packed_sequence cumulative_trapezoid trapezoid trapz diff fft_fft fft_ifft fft_rfft
fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn stft istft complex fft_fftshift fft_ifftshift
max_unpool1d quantile nanquantile affine_grid_generator nll_loss nll_loss_nd nll_loss2d copysign frexp ldexp
linalg_svdvals linalg_eigvalsh linalg_matrix_norm fft_hfft fft_ihfft fft_rfftn fft_irfftn fft_hfft2 fft_ihfft2
fft_hfftn fft_ihfftn deg2rad rad2deg sum_to_size
"""
_AXES = """
transpose t T mT H mH adjoint permute movedim moveaxis swapaxes swapdims unbind select narrow getitem index_select
gather take take_along_dim flip flipud roll rot90 masked_select chunk split split_with_sizes tensor_split vsplit cat
stack vstack sort topk view_as_real matmul mm bmm einsum tensordot lstm gru rnn_tanh rnn_relu scatter scatter_add
index_add index_copy index_put setitem cumsum softmax log_softmax logsumexp sum mean amax amin max min prod var std
norm linalg_vector_norm expand_as _pack_padded_sequence _pad_packed_sequence repeat repeat_interleave expand
pad_sequence
"""
_JOINS = """
index_add scatter scatter_add index_put index_copy index_fill masked_scatter put select_scatter slice_scatter
diagonal_scatter masked_fill fill zero copy setitem where cat stack hstack vstack dstack column_stack row_stack
block_diag pad constant_pad_nd pad_sequence
"""
_CONSTANT = """
argmax argmin argsort eq ne lt le gt ge greater less equal not_equal greater_equal less_equal isnan isinf isfinite
isreal isneginf isposinf sign sgn floor ceil round trunc fix heaviside zeros_like ones_like full_like rand_like
randn_like randint_like empty_like new_zeros new_ones new_full new_empty new_tensor nonzero argwhere bincount
searchsorted bucketize item tolist bool int long short byte char allclose isclose any all logical_and logical_or
logical_not logical_xor detach data numpy histc histogram unique unique_consecutive unique_dim one_hot multinomial
bernoulli floor_divide count_nonzero is_nonzero signbit isin _assert_async _assert_tensor_metadata array bitwise_and
bitwise_or bitwise_not bitwise_xor contains nms
"""
_METADATA = """
shape dtype device ndim is_cuda requires_grad size dim stride numel is_contiguous is_floating_point is_complex
storage_offset data_ptr element_size get_device layout names len is_leaf grad_fn _version is_nested nelement
ndimension repr format hash str is_same_size result_type is_sparse is_mkldnn is_meta is_quantized register_hook
retain_grad _is_view is_cpu itemsize nbytes grad is_inference is_conj is_neg is_signed is_pinned untyped_storage
storage reduce_ex deepcopy dlpack dlpack_device _base output_nr is_shared retains_grad volatile has_names set
promote_types can_cast is_xla is_mps is_xpu is_ipu is_vulkan is_maia is_hpu is_mtia get_default_dtype _backward_hooks
name sym_size _set_grad_enabled is_sparse_csr dense_dim sparse_dim is_coalesced
"""
_SMOOTH = """
sigmoid tanh gelu silu mish elu selu celu softplus exp expm1 exp2 log log1p log2 log10 sqrt rsqrt reciprocal square
pow float_power erf erfc erfinv sin cos tan asin acos atan arcsin arccos sinh cosh asinh acosh atanh arcsinh arccosh
arctanh softsign logsigmoid hardswish hardsigmoid hardtanh relu6 clamp clamp_min clamp_max threshold softshrink
hardshrink tanhshrink logit xlogy nan_to_num sinc i0 special_i0 special_erf expit rpow fmod remainder frac hypot atan2
arctan2 logaddexp logaddexp2 nextafter special_ndtr digamma lgamma
special_entr special_erfcx special_i0e special_i1 special_i1e special_log_ndtr special_ndtri mvlgamma polygamma
"""
_NONNEG = "sigmoid hardsigmoid exp exp2 square relu6 softplus expit sqrt rsqrt"


def _row(names: str, kind: str, handler: Handler, **facts: Any) -> dict[str, Operator]:
    return {name: Operator(name, kind, handler, **facts) for name in names.split()}


# Where two rows name an operator, the later one holds.
_TABLE = (
    _row(_METADATA, "constant", treatments.constant, metadata=True),
    _row(_CONSTANT, "constant", treatments.constant),
    _row(_HOMOGENEOUS, "homogeneous", native, nonneg="keep"),
    _row("diff complex istft", "homogeneous", native),
    _row(" ".join(name for name in _HOMOGENEOUS.split() if name.startswith("fft_")), "homogeneous", native),
    _row("upsample_bicubic2d _upsample_bicubic2d_aa", "homogeneous", native),
    _row(_VIEWS, "homogeneous", native, view=True, nonneg="keep", moves_ids=True),
    _row("as_tensor asarray", "homogeneous", treatments.converted, view=True, nonneg="keep", moves_ids=True),
    _row("getitem", "homogeneous", layers.indexed, view=True, nonneg="keep", moves_ids=True),
    _row(_JOINS, "homogeneous", native, joins=True, moves_ids=True),
    _row(
        "cat stack hstack vstack dstack column_stack pad constant_pad_nd",
        "homogeneous",
        native,
        joins=True,
        moves_ids=True,
        nonneg="join",
    ),
    _row("long int", "constant", treatments.constant, moves_ids=True),
    _row("norm vector_norm linalg_vector_norm std", "homogeneous", native, nonneg="always"),
    _row("relu", "homogeneous", elementwise, elementwise=True, nonneg="always"),
    _row("abs", "homogeneous", elementwise, elementwise=True, nonneg="always"),
    _row("leaky_relu neg", "homogeneous", elementwise, elementwise=True),
    _row("add", "homogeneous", elementwise, elementwise=True, joins=True, nonneg="join"),
    _row("sub rsub", "homogeneous", elementwise, elementwise=True, joins=True),
    _row("maximum minimum fmax fmin", "homogeneous", elementwise, elementwise=True, nonneg="join"),
    _row("max min", "homogeneous", treatments.extremum, nonneg="join"),
    _row("mul", "product", elementwise, elementwise=True, nonneg="join"),
    _row("div", "product", operands.quotient, elementwise=True, nonneg="join"),
    _row("ldexp", "homogeneous", operands.scaled_by_power, nonneg="keep"),
    _row("quantile nanquantile", "homogeneous", operands.quantile),
    _row("prelu", "homogeneous", operands.parametric_relu),
    _row("trapezoid trapz cumulative_trapezoid", "homogeneous", operands.trapezoid),
    _row("stft", "homogeneous", operands.spectrogram),
    _row("addr", "product", operands.add_outer),
    _row("_sparse_mm spmm", "product", operands.sparse_product),
    _row("sparse_sampled_addmm", "product", operands.sparse_product, joins=True),
    _row(_SMOOTH, "pointwise", elementwise, elementwise=True, degree=BENT),
    _row(_NONNEG, "pointwise", elementwise, elementwise=True, degree=BENT, nonneg="always"),
    _row(
        "dropout alpha_dropout feature_dropout feature_alpha_dropout native_dropout",
        "homogeneous",
        treatments.dropout,
        nonneg="keep",
        checked=True,
    ),
    _row(
        "rand randn randint randperm normal bernoulli multinomial poisson rand_like randn_like randint_like",
        "constant",
        treatments.constant,
        random=True,
    ),
    _row("uniform exponential geometric cauchy log_normal random", "constant", treatments.constant, random=True),
    _row("prod", "product", treatments.prod),
    _row("var", "product", treatments.variance, nonneg="always"),
    _row("var_mean std_mean", "product", treatments.with_mean),
    _row("lerp", "product", treatments.lerp),
    _row("glu", "product", treatments.gated_linear_unit),
    _row("cosine_similarity", "product", treatments.cosine_similarity),
    _row("addcmul addcdiv", "product", treatments.add_quotient),
    _row("polar", "product", treatments.polar, elementwise=True),
    _row("angle", "pointwise", treatments.angle),
    _row(
        "pow float_power atan2 arctan2 xlogy hypot fmod remainder logaddexp logaddexp2",
        "pointwise",
        operands.elementwise_of_two,
        elementwise=True,
        degree=BENT,
    ),
    _row("clamp clamp_min clamp_max", "pointwise", operands.clamp, elementwise=True, degree=BENT),
    _row("grid_sampler grid_sampler_2d grid_sampler_3d", "homogeneous", operands.grid_sampler),
    _row("roi_align roi_pool ps_roi_align ps_roi_pool", "homogeneous", operands.of_regions, nonneg="keep"),
    _row("linalg_solve linalg_solve_ex linalg_inv linalg_inv_ex inverse linalg_pinv", "product", matrices.solve),
    _row("linalg_solve_triangular cholesky_solve", "product", matrices.solve),
    _row("linalg_det det", "product", matrices.determinant),
    _row("logdet linalg_slogdet slogdet", "product", matrices.log_determinant),
    _row("linalg_cholesky linalg_cholesky_ex cholesky", "homogeneous", matrices.cholesky),
    _row("linalg_cross cross", "product", matrices.cross),
    _row("linalg_matrix_exp matrix_exp", "product", matrices.exponential),
    _row("linalg_matrix_power matrix_power", "product", matrices.power),
    _row("linalg_multi_dot", "product", matrices.chain),
    _row("linalg_vecdot", "product", matrices.dot),
    _row("cov", "product", treatments.variance),
    _row("cumprod", "product", operands.cumulative_product),
    _row("logcumsumexp", "softmax", operands.cumulative_logsumexp),
    _row("cross_entropy_loss", "softmax", operands.cross_entropy),
    _row("mse_loss", "pointwise", operands.squared_error),
    {name: Operator(name, "pointwise", gap, body=body) for name, body in LOSSES.items()},
    _row("scatter_reduce index_reduce", "homogeneous", scattered.reduced),
    _row("segment_reduce", "homogeneous", scattered.by_segments, nonneg="keep"),
    _row("renorm", "normalizer", operands.renormed),
    _row("cdist pairwise_distance dist", "homogeneous", treatments.distance),
    _row("softmax _softmax special_softmax log_softmax special_log_softmax", "softmax", products.softmax),
    _row("logsumexp special_logsumexp", "softmax", pooling.logsumexp),
    _row("layer_norm rms_norm group_norm instance_norm", "normalizer", products.normalizer),
    _row("linear", "linear", layers.linear, affine=True),
    _row("matmul mm bmm mv dot inner vdot outer ger kron _grouped_mm grouped_mm", "linear", layers.matmul, affine=True),
    _row("einsum tensordot", "linear", layers.einsum, affine=True),
    _row("bilinear", "linear", operands.bilinear),
    _row("addmm addmv baddbmm addbmm", "linear", layers.addmm, affine=True),
    _row(
        "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
        "conv",
        layers.convolution,
        affine=True,
    ),
    _row("deform_conv2d", "conv", layers.deformed_convolution, affine=True),
    _row("batch_norm", "normalizer", layers.batch_norm, checked=True),
    _row("scaled_dot_product_attention", "attention", products.attention),
    _row("embedding", "homogeneous", treatments.embedding),
    _row("embedding_bag", "homogeneous", recurrent.embedding_bag),
    _row("lstm gru rnn_tanh rnn_relu", "recurrent", recurrent.recurrent),
    _row("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell", "recurrent", recurrent.cell),
)


def rows() -> dict[str, Operator]:
    """The treatment of every operator that has one, by its bare name; a new dictionary at each call."""
    found = {name: operator for row in _TABLE for name, operator in row.items()}
    for name in ("clamp", "abs", "remainder", "add", "sub", "mul"):  # hashes and offsets of ids
        found[name] = replace(found[name], moves_ids=True)
    for name in _AXES.split():
        found[name] = replace(found[name], moves_axes=True)
    return found
