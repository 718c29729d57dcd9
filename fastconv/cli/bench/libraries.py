"""The contenders that are not ours: PyTorch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from fastconv.cli.bench.interface import Declined, Forward, Timed
from fastconv.cli.bench.problems import Problem, output_padding, placed
from fastconv.problem.arrays import Array
from fastconv.problem.extras import require


class Torch:
    """PyTorch: the functional call without autograd, and for a gradient the native call behind autograd.

    With channels last, maps and weights are tensors of that memory format, as in models that lie so.
    """

    sessions = None

    def __init__(self, threads: int, channels_last: bool = False) -> None:
        self._library = require("torch", "torch", "the contender torch")
        self._channels_last = channels_last
        self._library.set_num_threads(threads)

    def new_map(self, shape: tuple[int, ...], dtype: str, channels_last: bool = False) -> Any:
        """A tensor; the memory format is of four axes, and a map of three has none."""
        library = self._library
        is_last = (channels_last or self._channels_last) and len(shape) == 4
        kind = library.channels_last if is_last else library.contiguous_format
        return library.empty(shape, dtype=getattr(library, dtype), memory_format=kind)

    def new_weight(self, shape: tuple[int, ...], dtype: str) -> Any:
        """A tensor in the memory format of the maps."""
        return self.new_map(shape, dtype)

    def as_map(self, own: Any) -> Array:
        """A view."""
        return np.asarray(own)

    def forward(self, problem: Problem, weight: Any, bias: Array | None = None) -> Forward:
        """The function that a module calls; relu is in place."""
        self._check(problem)
        parameters = dict(problem.parameters)
        if parameters.pop("output_size", None):
            parameters["output_padding"] = output_padding(problem.geometry)
        added = None if bias is None else self._library.from_numpy(bias)
        function = getattr(self._library.nn.functional, problem.operation)
        convolve = functools.partial(function, weight=weight, bias=added, **parameters)
        return convolve if bias is None else lambda x: convolve(x).relu_()

    def gradient(self, problem: Problem, which: str, x: Any, w: Any, dy: Any) -> Timed:
        """The operator behind autograd, for one gradient."""
        self._check(problem)
        geometry, parameters = problem.geometry, dict(problem.parameters)
        spatial = len(geometry.axes)
        stride, padding, dilation = (
            _per_axis(parameters.get(name, default), spatial)
            for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        added = list(output_padding(geometry)) if geometry.is_transposed else [0] * spatial
        mask = [which == "input", which == "weight", False]
        arguments = dy, x, w, None, stride, padding, dilation, geometry.is_transposed, added, geometry.groups, mask
        chosen = mask.index(True)
        return lambda: self._library.ops.aten.convolution_backward(*arguments)[chosen]

    def _check(self, problem: Problem) -> None:
        if self._channels_last and len(problem.geometry.axes) == 1:
            raise Declined("PyTorch has no channels-last memory format of one spatial axis")


class Sessions:
    """A library that has a session for each weight, which is a constant of it and may be packed beforehand."""

    #: Its name in messages, and the most sessions for one layer.
    title: str
    sessions: int

    def __init__(self, threads: int, channels_last: bool = False) -> None:
        self._threads, self._channels_last = threads, channels_last

    def new_map(self, shape: tuple[int, ...], dtype: str, channels_last: bool = False) -> Array:
        """Channels first in any case, as its operators take them."""
        return placed(shape, dtype)

    new_weight = new_map

    def as_map(self, own: Array) -> Array:
        """Itself."""
        return own

    def forward(self, problem: Problem, weight: Array, bias: Array | None = None) -> Forward:
        """A session of its own."""
        if self._channels_last:
            raise Declined(f"{self.title}'s models of one convolution take their maps channels first")
        return self._session(problem, weight, bias)

    def gradient(self, problem: Problem, which: str, x: Array, w: Array, dy: Array) -> Timed:
        """It has none."""
        raise Declined(f"{self.title} has no gradients")

    def _session(self, problem: Problem, weight: Array, bias: Array | None) -> Forward:
        raise NotImplementedError


class OnnxRuntime(Sessions):
    """ONNX Runtime: a session with one Conv or ConvTranspose node, and a Relu node if the pass is fused.

    Its sessions share their threads and the memory of their results, as the nodes of one model do.
    """

    title = "ONNX Runtime"
    sessions = 512  # each takes about 0.1 MB and 0.8 ms

    def __init__(self, threads: int, channels_last: bool = False) -> None:
        super().__init__(threads, channels_last)
        require("onnx", "bench", "the contender onnxruntime")
        share_onnxruntime(threads)

    def _session(self, problem: Problem, weight: Array, bias: Array | None) -> Forward:
        onnx = require("onnx", "bench", "the contender onnxruntime")
        helper, geometry = onnx.helper, problem.geometry
        constants = {"w": weight} if bias is None else {"w": weight, "b": bias}
        operator = "ConvTranspose" if geometry.is_transposed else "Conv"
        nodes = [helper.make_node(operator, ["x", *constants], ["y"], **_onnx_attributes(problem))]
        if bias is not None:
            nodes.append(helper.make_node("Relu", ["y"], ["z"]))
        element = helper.np_dtype_to_tensor_dtype(weight.dtype)
        graph = helper.make_graph(
            nodes,
            "layer",
            [helper.make_tensor_value_info("x", element, problem.input_shape)],
            [helper.make_tensor_value_info("y" if bias is None else "z", element, geometry.output_shape)],
            [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        try:
            session = onnxruntime_session(model.SerializeToString())
        except Exception as error:  # for instance it has no kernel for some dtypes
            raise Declined(f"ONNX Runtime: {error}") from None
        return lambda x: session.run(None, {"x": x})[0]


def onnxruntime_session(model: bytes) -> Any:
    """A session of ONNX Runtime that shares what `share_onnxruntime` made."""
    library = require("onnxruntime", "bench", "the contender onnxruntime")
    options = library.SessionOptions()
    options.use_per_session_threads = False
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = 3
    return library.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@functools.cache
def share_onnxruntime(threads: int) -> None:
    """Have all sessions of this process share their threads, as threads of its own are slow to wake after another's,
    and the memory that they keep for results."""
    library = require("onnxruntime", "bench", "the contender onnxruntime")
    library.set_global_thread_pool_sizes(threads, 1)
    kind = library.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    library.create_and_register_allocator(library.OrtMemoryInfo("Cpu", kind, 0, library.OrtMemType.DEFAULT), None)


def _onnx_attributes(problem: Problem) -> dict[str, Any]:
    """The attributes of the problem's node in ONNX."""
    geometry = problem.geometry
    strides, dilations = _steps(problem)
    attributes = {
        "strides": strides,
        "dilations": dilations,
        "pads": [pads[end] for end in (0, 1) for pads in geometry.pads],
        "group": geometry.groups,
        "kernel_shape": list(problem.weight_shape[2:]),
    }
    if geometry.is_transposed:
        attributes["output_padding"] = list(output_padding(geometry))
    return attributes


class OpenVino(Sessions):
    """OpenVINO on the CPU: a compiled model of one convolution, and an addition and relu if the pass is fused.

    It computes float32 in float32, where its default may be bfloat16, and is asked for the least latency.
    """

    title = "OpenVINO"
    sessions = 32  # each takes about 13 ms and keeps a thread or more, which sleeps

    def __init__(self, threads: int, channels_last: bool = False) -> None:
        super().__init__(threads, channels_last)
        self._library = require("openvino", "openvino", "the contender openvino")
        self._operators = require("openvino.opset13", "openvino", "the contender openvino")
        self._core = self._library.Core()

    def _session(self, problem: Problem, weight: Array, bias: Array | None) -> Forward:
        if weight.dtype != np.float32:
            raise Declined(f"OpenVINO computes {weight.dtype} in float32")
        library, operators = self._library, self._operators
        shape = problem.geometry.output_shape
        x = operators.parameter(problem.input_shape, weight.dtype)
        y = _openvino_convolution(operators, problem, x, weight)
        if bias is not None:
            y = operators.relu(operators.add(y, bias.reshape(-1, *[1] * len(problem.geometry.axes))))
        hints = {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": self._threads, "INFERENCE_PRECISION_HINT": "f32",
        }  # fmt: skip
        request = self._core.compile_model(library.Model([y], [x], "layer"), "CPU", hints).create_infer_request()

        def infer(x: Array) -> Array:
            result = np.empty(shape, np.float32)
            request.set_input_tensor(library.Tensor(x, shared_memory=True))
            request.set_output_tensor(library.Tensor(result, shared_memory=True))
            request.infer()
            return result

        return infer


def _openvino_convolution(operators: Any, problem: Problem, x: Any, weight: Array) -> Any:
    """The problem's node; groups are an axis of the weight of their own."""
    geometry = problem.geometry
    grouped = ""
    if geometry.groups > 1:
        grouped, weight = "group_", weight.reshape(geometry.groups, -1, *weight.shape[1:])
    strides, dilations = _steps(problem)
    before, after = (list(ends) for ends in zip(*geometry.pads, strict=True))
    if not geometry.is_transposed:
        return getattr(operators, grouped + "convolution")(x, weight, strides, before, after, dilations)
    return getattr(operators, grouped + "convolution_backprop_data")(
        x, weight, strides, None, before, after, dilations, output_padding=list(output_padding(geometry))
    )


def _steps(problem: Problem) -> tuple[list[int], list[int]]:
    """Stride and dilation on each axis."""
    parameters, spatial = dict(problem.parameters), len(problem.geometry.axes)
    return _per_axis(parameters.get("stride", 1), spatial), _per_axis(parameters.get("dilation", 1), spatial)


def _per_axis(value: Any, spatial: int) -> list[int]:
    return [value] * spatial if isinstance(value, int) else list(value)
