"""The memory format of a graph's maps: channels last where most of the time goes into Winograd's convolution.

Its transforms work on vectors of channels. Maps with channels last have these in memory; with channels first they are
transposed on the way in and out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

#: Calls whose success or result depends on the memory format of a tensor.
_DEPENDING = {"view", "view_as", "as_strided", "stride", "is_contiguous", "storage_offset", "data_ptr"}


def to_channels_last(graph: GraphModule, inputs: list[Node]) -> None:
    """Let the maps of a graph have their channels last, in place; `inputs` are those that are no constants.

    Outputs keep their memory format. Nothing is done if an input has its channels last already, or if the graph looks
    at the format.
    """
    maps = [node for node in inputs if _is_map(node)]
    names = {
        node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        for node in graph.graph.nodes
    }
    if not all(value_of(node).is_contiguous() for node in maps) or names & _DEPENDING:
        return
    for node in maps:
        with graph.graph.inserting_after(node):
            converted = graph.graph.call_method("contiguous", (node,), {"memory_format": torch.channels_last})
        converted.meta = dict(node.meta)
        for user in [user for user in node.users if user is not converted]:
            user.replace_input_with(node, converted)
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    with graph.graph.inserting_before(output):
        output.args = torch.fx.map_arg(output.args, lambda node: _contiguous(graph, node))


def _contiguous(graph: GraphModule, node: Node) -> Node:
    """An output in its own format."""
    if _is_map(node) and value_of(node).is_contiguous():
        return graph.graph.call_method("contiguous", (node,))
    return node


def value_of(node: Node) -> Any:
    """The tensor that a node stands for, without its numbers."""
    return node.meta.get("example_value", node.meta.get("val"))


def _is_map(node: Node) -> bool:
    value = value_of(node)
    return isinstance(value, torch.Tensor) and value.dim() == 4 and value.is_floating_point()
