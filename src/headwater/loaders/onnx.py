"""ONNX graphs as torch modules: brought to the operator set that onnx2torch knows, then converted by it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from headwater.errors import InvalidInput, UnsupportedModel
from headwater.loaders.loaded import package

_OPSET = 17  # the newest of which onnx2torch knows nearly all operators


def convert(path: Path) -> tuple[nn.Module, tuple[int | None, ...]]:
    """The graph in a file as a module, and the shape of its first input (None where an axis is free).

    Raises:
        InvalidInput: the file is no ONNX graph.
        UnsupportedModel: operators that onnx2torch does not know.
    """
    onnx, converter = package("onnx", "onnx"), package("onnx2torch", "onnx")
    try:
        graph = onnx.load(path)
        onnx.checker.check_model(graph)
    except Exception as error:  # protobuf and the checker have errors of their own
        raise InvalidInput(f"{path} is no ONNX graph, or is damaged: {_first_line(error)}") from error
    known = _converters()
    graph = _lowered(graph, known)
    missing = sorted({node.op_type for node in graph.graph.node} - known)
    if missing:
        raise UnsupportedModel(f"onnx2torch does not know {', '.join(missing)} in {path}: load the model as it was")
    try:
        model: nn.Module = converter.convert(graph)
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise UnsupportedModel(f"onnx2torch cannot convert {path}: {_first_line(error)}") from error
    _weights_as_parameters(model)
    return model, _shape(graph)


def _weights_as_parameters(model: nn.Module) -> None:
    """Constants of the graph arrive as buffers; as parameters, rules for weights find them."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            continue  # running statistics stay what they are
        for name, value in list(module.named_buffers(recurse=False)):
            if value.is_floating_point() and value.dim():
                delattr(module, name)
                module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _lowered(graph: Any, known: set[str]) -> Any:
    """The same graph in the operators that are known, as far as ONNX itself can say it in them."""
    inliner, versions = package("onnx.inliner", "onnx"), package("onnx.version_converter", "onnx")
    unknown = {("", node.op_type) for node in graph.graph.node} - {("", name) for name in known}
    graph = inliner.inline_local_functions(graph)
    if unknown:
        graph = inliner.inline_selected_functions(graph, sorted(unknown), inline_schema_functions=True)
    opset = next((entry.version for entry in graph.opset_import if entry.domain == ""), _OPSET)
    if opset > _OPSET:
        with suppress(RuntimeError):  # an operator that is newer: onnx2torch may know it as it is
            graph = versions.convert_version(graph, _OPSET)
    _plain_reshapes(graph)
    return graph


def _plain_reshapes(graph: Any) -> None:
    """A zero that a shape may hold is an empty axis under ``allowzero``; where it holds none, that says nothing."""
    numpy_helper = package("onnx.numpy_helper", "onnx")
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in graph.graph.node if n.op_type == "Constant"}
    for node in graph.graph.node:
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and (numpy_helper.to_array(shape) != 0).all():
            del node.attribute[:]


def _converters() -> set[str]:
    """The operators that onnx2torch converts, with those that are added to it here."""
    registry = package("onnx2torch.node_converters.registry", "onnx")
    if not any(entry.operation_type == "CastLike" for entry in registry._CONVERTER_REGISTRY):
        results = package("onnx2torch.utils.common", "onnx")

        def converted(node: Any, graph: Any) -> Any:
            return results.OperationConverterResult(
                torch_module=CastLike(), onnx_mapping=results.onnx_mapping_from_node(node)
            )

        for version in (15, 19):
            registry.add_converter(operation_type="CastLike", version=version)(converted)
    return {entry.operation_type for entry in registry._CONVERTER_REGISTRY if entry.domain == ""}


class CastLike(nn.Module):
    """A tensor in the type of another."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x.to(other.dtype)


def _shape(graph: Any) -> tuple[int | None, ...]:
    weights = {tensor.name for tensor in graph.graph.initializer}
    entered = next((value for value in graph.graph.input if value.name not in weights), None)
    if entered is None:
        return ()
    return tuple(axis.dim_value or None for axis in entered.type.tensor_type.shape.dim)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
