"""Graphs for inference: convolutions and linear layers become plans, with what is behind them.

`fuse` takes a graph as `torch.compile` gives it to a backend, of functions of `torch` and `torch.nn.functional`, and
looks for chains

    convolution -> batch norm -> + residual -> activation

in which all links but the first may be missing, each result is used by the next link alone, and weights and statistics
are parameters or buffers of the model. A chain becomes one call of the operator `fastconv::planned`. A linear layer is
a convolution with a kernel of one pixel, and begins a chain without a batch norm.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch.fx import GraphModule, Node

from fastconv.problem.errors import FastconvError
from fastconv.torch import functional
from fastconv.torch.convolution import Convolution, convolution_of
from fastconv.torch.fused import Constants, FusedLayer
from fastconv.torch.layout import to_channels_last, value_of

_CONV = "input", "weight", "bias", "stride", "padding", "dilation", "groups"
_TRANSPOSED = "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"
_DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "output_padding": 0}
#: Multiply-adds and rows of a linear layer that becomes a plan, at least: smaller ones take no time, and every library
#: reads the weight once for a single row.
_LEAST_LINEAR, _LEAST_ROWS = 100_000, 4
#: Functions that convolve, with the number of axes and the names of their arguments.
_CONVOLUTIONS: dict[Any, tuple[int, tuple[str, ...]]] = {
    torch.conv1d: (1, _CONV),
    torch.conv2d: (2, _CONV),
    torch.conv_transpose1d: (1, _TRANSPOSED),
    torch.conv_transpose2d: (2, _TRANSPOSED),
}
_OPERATORS = (torch.ops.fastconv.convolution, torch.ops.fastconv.convolution.default)
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_DTYPES = (torch.float32, torch.float64)


def _clamp(node: Node) -> Any:
    """relu6 is written as a clamp, and as a hardtanh, between 0 and 6."""
    names = ("min_val", "max_val") if node.target is F.hardtanh else ("min", "max")
    given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
    return "relu6" if [given.get(name) for name in names] == [0, 6] else None


def _leaky_relu(node: Node) -> Any:
    slope = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", 0.01)
    return ("leaky_relu", slope) if isinstance(slope, float | int) else None


def _prelu(node: Node) -> Any:
    """Its slopes are a tensor, which is among the constants of the plan."""
    return node.args[1] if len(node.args) == 2 else None


#: For a function or method the activation that it applies, or how to find it: an activation, a node of slopes, or None.
_ACTIVATIONS: dict[Any, str | Callable[[Node], Any]] = {
    **dict.fromkeys((torch.relu, torch.relu_, F.relu, "relu", "relu_"), "relu"),
    F.relu6: "relu6",
    F.hardswish: "hardswish",
    **dict.fromkeys((F.hardtanh, torch.clamp, "clamp", "clamp_"), _clamp),
    F.leaky_relu: _leaky_relu,
    **dict.fromkeys((torch.prelu, F.prelu, "prelu"), _prelu),
}


def fuse(graph: GraphModule, example: Sequence[Any]) -> list[FusedLayer]:
    """Replace the chains of a graph, in place, and choose the memory format of its maps; `example` are its inputs.

    Returns the layers of the chains.
    """
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    constants = {
        node: index
        for index, (node, value) in enumerate(zip(placeholders, example, strict=True))
        if _is_constant(value) and value.dtype in _DTYPES
    }
    order = {node: number for number, node in enumerate(graph.graph.nodes)}
    layers, shapes = [], []
    for node in list(graph.graph.nodes):
        if (chain := _Chain.of(node, constants, order)) is not None:
            weight = example[chain.constants.weight]
            layer = FusedLayer(chain.how, chain.constants, weight.shape, chain.eps, chain.activation)
            with graph.graph.inserting_before(chain.last):
                arguments = (chain.input, chain.residual, layer.number)
                found = graph.graph.call_function(torch.ops.fastconv.planned.default, arguments)
            found.meta = dict(chain.last.meta)
            chain.last.replace_all_uses_with(found)
            for link in reversed(chain.links):
                graph.graph.erase_node(link)
            layers.append(layer)
            shapes.append(tuple(value_of(chain.input).shape))
    if _are_mostly_winograd(layers, shapes):
        to_channels_last(graph, [node for node in placeholders if node not in constants])
    graph.recompile()
    return layers


def _are_mostly_winograd(layers: list[FusedLayer], shapes: list[tuple[Any, ...]]) -> bool:
    """Whether Winograd's convolutions are predicted to take most of the time of all."""
    if not all(isinstance(size, int) for shape in shapes for size in shape):  # sizes may be symbols
        return False
    times = [layer.predicted(shape) for layer, shape in zip(layers, shapes, strict=True)]
    return 2 * sum(time for kernel, time in times if kernel.startswith("winograd")) > sum(time for _, time in times)


def _is_constant(value: Any) -> bool:
    """Whether an input is a parameter or a buffer of the model, which `torch.compile` marks as static."""
    if not isinstance(value, torch.Tensor) or not value.is_cpu:
        return False
    return isinstance(value, torch.nn.Parameter) or getattr(value, "_dynamo_static_input_type", None) is not None


class _Chain:
    """A convolution and the links behind it that become its plan.

    Attributes
        how, input, constants   the convolution, None for a linear layer; what it reads; the tensors of the plan as
                                numbers of inputs
        eps                     of the batch norm
        residual, activation    what is added, and the activation, or None
        links                   the nodes of the chain
    """

    def __init__(self, node: Node, how: Convolution | None, input: Node, constants: Constants) -> None:
        self.how, self.input, self.constants, self.eps = how, input, constants, 0.0
        self.residual: Node | None = None
        self.activation: Any = None
        self.links = [node]

    @property
    def last(self) -> Node:
        """The node whose result is the chain's."""
        return self.links[-1]

    @classmethod
    def of(cls, node: Node, constants: dict[Node, int], order: dict[Node, int]) -> _Chain | None:
        """The longest chain that begins with a node; None if it is no convolution, or was taken already."""
        if node not in order or node.op != "call_function":
            return None
        if (read := _read_linear(node) or _read(node)) is None:
            return None
        how, (input, weight, bias) = read
        if weight not in constants or (bias is not None and bias not in constants) or not _is_plain(input):
            return None
        if value_of(input).dtype is not value_of(weight).dtype:  # PyTorch says so
            return None
        chain = cls(node, how, input, Constants(constants[weight], None if bias is None else constants[bias]))
        for extend in (chain._add_norm, chain._add_residual, chain._add_activation):
            user = chain._only_user(order)
            if user is not None and extend(user, constants):
                chain.links.append(user)
        return chain

    def _only_user(self, order: dict[Node, int]) -> Node | None:
        """The node that alone uses the last link, if nothing in between writes into a tensor: the convolution is moved
        there."""
        if len(self.last.users) != 1:
            return None
        (user,) = self.last.users
        between = self.last.next
        while between is not user:
            if _writes(between) or between.op == "output":
                return None
            between = between.next
        return user

    def _add_norm(self, user: Node, constants: dict[Node, int]) -> bool:
        if self.how is None or user.target is not F.batch_norm or user.args[:1] != (self.last,):
            return False
        names = "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"
        given: dict[str, Any] = dict(zip(names, user.args, strict=False)) | dict(user.kwargs)
        tensors = [given.get(name) for name in names[1:5]]
        if given.get("training", False) or tensors[0] is None or tensors[1] is None:
            return False
        if any(tensor is not None and tensor not in constants for tensor in tensors):
            return False
        numbers = [None if tensor is None else constants[tensor] for tensor in tensors]
        self.constants = Constants(*self.constants[:3], *numbers)
        self.eps = given.get("eps", 1e-5)
        return True

    def _add_residual(self, user: Node, constants: dict[Node, int]) -> bool:
        if user.target not in _ADDITIONS or len(user.args) != 2 or user.kwargs:
            return False
        first, second = user.args
        other = second if first is self.last else first
        if not isinstance(other, Node) or other is self.last or (user.target is operator.iadd and other is first):
            return False
        if not _is_plain(other) or _form(other) != _form(self.last):
            return False
        self.residual = other
        return True

    def _add_activation(self, user: Node, constants: dict[Node, int]) -> bool:
        found = _ACTIVATIONS.get(user.target)
        activation = found(user) if callable(found) else found
        if activation is None or user.args[:1] != (self.last,):
            return False
        if isinstance(activation, Node):
            if self.how is None or activation not in constants:
                return False
            self.constants = self.constants._replace(slopes=constants[activation])
        else:
            self.activation = activation
        return True


def _read_linear(node: Node) -> tuple[None, list[Any]] | None:
    """The tensors of a linear layer that is large enough."""
    if node.target is not F.linear:
        return None
    tensors: list[Any] = [*node.args, node.kwargs.get("bias")]
    input, weight, bias = tensors[:3]
    if not _is_plain(input) or not _is_plain(weight):
        return None
    *rows, inputs = value_of(input).shape
    sizes = [row for row in rows if isinstance(row, int)]  # others are symbols
    if math.prod(sizes) < _LEAST_ROWS or math.prod(sizes) * inputs * value_of(weight).shape[0] < _LEAST_LINEAR:
        return None
    return None, [input, weight, bias]


def _read(node: Node) -> tuple[Convolution, list[Any]] | None:
    """The convolution of a node and its tensors; None if it is none of those that plans compute."""
    if node.target in _OPERATORS:
        input, weight, bias, *arguments = node.args
        how: list[Any] = [tuple(one) if isinstance(one, list | tuple) else one for one in arguments]
        return convolution_of(*how), [input, weight, bias]
    if node.target not in _CONVOLUTIONS:
        return None
    axes, names = _CONVOLUTIONS[node.target]
    given: dict[str, Any] = _DEFAULTS | dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    tensors = [given[name] for name in names[:3]]
    if not _is_plain(tensors[0]) or value_of(tensors[0]).dim() != axes + 2:
        return None
    kernel = tuple(value_of(tensors[1]).shape[2:]) if isinstance(given["padding"], str) else None
    written = [given[name] for name in ("stride", "padding", "output_padding", "groups", "dilation")]
    try:
        return functional.convolution(names is _TRANSPOSED, axes, kernel, *written), tensors
    except (FastconvError, TypeError):  # PyTorch says what is wrong
        return None


def _is_plain(node: Any) -> bool:
    """Whether a node stands for a CPU tensor of floating numbers."""
    value = value_of(node) if isinstance(node, Node) else None
    return isinstance(value, torch.Tensor) and value.device.type == "cpu" and value.dtype in _DTYPES


def _form(node: Node) -> tuple[str, Any]:
    """Shape and dtype of what a node stands for; sizes may be symbols."""
    value = value_of(node)
    return str(list(value.shape)), value.dtype


def _writes(node: Node) -> bool:
    """Whether a node may write into a tensor."""
    if node.op == "call_module":
        return True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    is_operator = node.target in (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem)
    is_flagged = any(one is True for one in (*node.args, *node.kwargs.values()))  # such as inplace=True
    return is_operator or is_flagged or "out" in node.kwargs or (name.endswith("_") and not name.endswith("__"))
