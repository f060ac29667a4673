"""What joins the affine call before it: batch norm, a scale of each channel, an added bias; also behind a crop.

Rules that mind signs are not the same for a convolution followed by batch norm as for the two in one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from headwater.errors import UnsupportedModel
from headwater.propagate import places
from headwater.propagate.affine import Affine, note, treat
from headwater.propagate.maps import ConvMap, CroppedMap

if TYPE_CHECKING:
    from headwater.propagate.calls import Call
    from headwater.propagate.engine import Propagation


def fold(engine: Propagation, call: Call, x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor | None:
    """Treat ``x * scale + shift`` after an affine call as one affine call from that call's own input.

    Args:
        engine, call: the call that scales and shifts.
        x: its input, which an affine call made.
        scale, shift: one value for each channel.

    Returns:
        The output; None where there is nothing to fold into, or where the rule (LRP-0) makes no difference.
    """
    affine, live = engine.tag(x).affine, engine.tag(x).operand
    if affine is None or live is None or (scale is not None and not affine.map.scales):
        return None
    rule = engine.composite.early(affine.origin)
    if rule is not None and rule.native:
        return None
    weight = affine._weight
    if weight.numel() and not weight.untyped_storage().size():  # reading them would crash
        raise UnsupportedModel(
            f"The weights that an operator {places.describe_here(engine.model)} is folded into were taken away by "
            "sharding: shard both as one (fully_shard on their parent), or pass reshard_after_forward=False."
        )
    shape = affine.map.channels(x)
    bias = affine.bias
    if scale is not None:
        bias = None if bias is None else bias * scale.view(shape)
    if shift is not None:
        bias = shift.view(shape) if bias is None else bias + shift.view(shape)
    total = affine._scale if scale is None else scale if affine._scale is None else scale * affine._scale
    # Of an input that is never negative no sum is found by subtraction.
    inner = None if affine.nonneg or (rule is not None and not rule.uses_linear) else (affine, scale)
    whole = Affine(call, affine.map, live, affine._weight, bias, total, inner, affine.origin)
    whole.kept = affine.kept
    out = treat(engine, call, whole)
    if engine.capturing and whole._z is not None:
        if isinstance(whole.map, CroppedMap):
            whole._z.widened = whole.map.widened
        for one in (affine, affine.uncropped):
            if one is not None:
                one.folded = whole, (get_gradient_edge(out), whole._z)
                engine.folded.append(one)
    return out


def crop(engine: Propagation, call: Call, whole: Affine, z: Tensor, part: Tensor) -> None:
    """Note that ``part``, places taken from the output ``z`` of a convolution, is the output of one, to fold into.

    Only the first part that is taken is noted, so that a captured layer has one place that its relevance went to.
    """
    items = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if whole.cropped or not isinstance(whole.map, ConvMap) or whole.inner is not None or whole.kept is not None:
        return
    if not all(isinstance(item, slice) or item is ... for item in items):
        return
    at = items.index(...) if ... in items else len(items)
    items = (*items[:at], *[slice(None)] * (z.dim() - len(items) + (... in items)), *items[at + 1 :])
    if isinstance(whole.map, CroppedMap) or items[:2] != (slice(None), slice(None)):
        return
    whole.cropped = True
    linear = CroppedMap(whole.map, items, z.shape[2:])
    live = engine.tag(z).operand
    assert live is not None, "what an affine call made knows the input of that call"
    affine = Affine(call, linear, live, whole._weight, whole.bias, whole._scale, None, whole.origin)
    affine.uncropped, affine._x = whole, whole._x
    affine._z = engine.keeper.keep(part if engine.differentiable else part.detach())
    note(engine, part, affine)
    call.release()
