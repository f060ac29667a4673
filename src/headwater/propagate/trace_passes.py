"""What is done to a recorded graph: aliases go, guards join, outside tensors become inputs, constants are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

_ATEN = torch.ops.aten


def forget_aliases(module: fx.GraphModule) -> None:
    """Drop ``detach``: without autograd it is the identity."""
    for node in module.graph.nodes:
        if node.target is _ATEN.detach.default:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)


def join_guards(module: fx.GraphModule, values: Sequence[Any]) -> None:
    """Replace the guards, the first outputs of the graph, by one: whether all of them have the values they had."""
    graph = module.graph
    (end,) = (n for n in graph.nodes if n.op == "output")
    outputs = list(end.args[0])
    guards, results = outputs[: len(values)], outputs[len(values) :]
    with graph.inserting_before(end):
        holds = None
        for guard, value in dict(zip(guards, values, strict=True)).items():
            same = graph.call_function(_ATEN.eq.Scalar, (guard, value))
            holds = same if holds is None else graph.call_function(_ATEN.logical_and.default, (holds, same))
        if holds is None:
            holds = graph.call_function(_ATEN.ones.default, ([],), {"dtype": torch.bool})
    end.args = ([holds, *results],)
    graph.eliminate_dead_code()


def lift_tensors(module: fx.GraphModule) -> list[Tensor]:
    """Make tensors from outside inputs of the graph, in the order returned; constants made while recording stay."""
    graph = module.graph
    *_, last = (n for n in graph.nodes if n.op == "placeholder")
    inputs: dict[int, fx.Node] = {}
    state: list[Tensor] = []
    for node in graph.nodes:
        if node.op != "get_attr" or all(user.target is _ATEN.lift_fresh_copy.default for user in node.users):
            continue
        tensor = getattr(module, node.target)
        if id(tensor) not in inputs:
            with graph.inserting_after(last):
                last = inputs[id(tensor)] = graph.placeholder(node.target)
            last.meta = node.meta
            state.append(tensor)
        node.replace_all_uses_with(inputs[id(tensor)])
        graph.erase_node(node)
    return state


def fold_constants(module: fx.GraphModule) -> None:
    """Compute once what depends on no input, unless something writes to it."""
    graph = module.graph
    written = _written(graph)
    known: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(module, node.target)
        elif _is_constant(node, known) and node not in written:
            known[node] = node.target(*_with(node.args, known), **_with(node.kwargs, known))
    for node in [n for n in known if n.op == "call_function"]:
        if not isinstance(known[node], Tensor) or all(user in known for user in node.users):
            continue
        name = f"_constant_{node.name}"
        module.register_buffer(name, known[node])
        with graph.inserting_before(node):
            constant = graph.get_attr(name)
        constant.meta = node.meta
        node.replace_all_uses_with(constant)
    graph.eliminate_dead_code()


def index_by_numbers(module: fx.GraphModule) -> None:
    """Replace constant masks of an index by the numbers that they select, whose count a compiler knows."""
    graph = module.graph
    for node in graph.find_nodes(op="call_function", target=_ATEN.index.Tensor):
        indices: list[Any] = []
        for index in node.args[1]:
            mask = getattr(module, index.target) if index is not None and index.op == "get_attr" else None
            if mask is None or mask.dtype != torch.bool:
                indices.append(index)
                continue
            for axis, numbers in enumerate(mask.nonzero().unbind(1)):
                name = f"{index.target}_{axis}"
                module.register_buffer(name, numbers)
                with graph.inserting_before(node):
                    indices.append(graph.get_attr(name))
        node.args = (node.args[0], indices)
    graph.eliminate_dead_code()


def _is_constant(node: fx.Node, known: Mapping[fx.Node, Any]) -> bool:
    if node.op != "call_function" or any(n not in known for n in node.all_input_nodes):
        return False
    schema = getattr(node.target, "_schema", None)
    return schema is None or not schema.is_mutable  # without a schema: the item of a tuple


def _with(value: Any, known: dict[fx.Node, Any]) -> Any:
    return fx.node.map_arg(value, lambda n: known[n])


def _written(graph: fx.Graph) -> set[fx.Node]:
    """Nodes whose values some operator changes in place, directly or through a view of them."""
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            continue
        given = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
        for argument in schema.arguments:
            alias, value = argument.alias_info, given.get(argument.name)
            if alias is not None and isinstance(value, fx.Node) and (alias.is_write or node in found):
                found.add(value)
    return found
