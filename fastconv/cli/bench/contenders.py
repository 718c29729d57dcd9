"""The contenders: every engine in the registry, PyTorch and ONNX Runtime.

A contender runs inside its own process, on arrays whose numbers are the same in every process. It makes empty arrays as
its library places them, and functions that compute: a layer's forward pass, or a gradient. `build` gives one function
without arguments to call and to time, `rotation` gives one for each copy of the arrays, for calls on cold data. Both
raise `Declined` with the reason where a contender has no such call.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np

from fastconv import functional, grad
from fastconv.cli.bench.problems import Problem, placed
from fastconv.dispatch import backends
from fastconv.dispatch.threads import set_num_threads
from fastconv.problem.arrays import Array
from fastconv.problem.errors import MissingExtraError
from fastconv.problem.extras import require
from fastconv.problem.geometry import Geometry

Timed: TypeAlias = Callable[[], Any]
#: A forward pass with its weight bound: from an input to the result, both of the contender's own kind of array.
Forward: TypeAlias = Callable[[Any], Any]

#: Which of input, weight and the output's gradient a pass reads.
READS = {"forward": (0, 1), "input": (1, 2), "weight": (0, 2)}
#: The most sessions of ONNX Runtime for one layer: each takes about 0.1 MB and 0.8 ms.
_SESSIONS = 512


class Declined(Exception):  # noqa: N818 - it is no error: the row stays empty
    """Why a contender has no call for a problem's pass."""


class Contender(Protocol):
    """A library on a number of threads."""

    @property
    def sessions(self) -> int | None:
        """The most weights of a layer for which it makes calls, as each costs memory and time; None if it does not."""

    def empty(self, shape: tuple[int, ...], dtype: str, channels_last: bool = False) -> Any:
        """An array of the library's own kind in memory as the library places it."""

    def forward(self, problem: Problem, weight: Any) -> Forward:
        """The forward pass with this weight."""

    def gradient(self, problem: Problem, which: str, x: Any, w: Any, dy: Any) -> Timed:
        """The call of a gradient, "input" or "weight"."""


class Engine:
    """One of our own engines, through the public functions."""

    sessions = None

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        set_num_threads(threads)  # the default would follow this thread's affinity, which is one processor

    def empty(self, shape: tuple[int, ...], dtype: str, channels_last: bool = False) -> Array:
        """Channels last: an array (N, H, W, C), seen as (N, C, H, W)."""
        if channels_last:
            return np.moveaxis(placed((shape[0], *shape[2:], shape[1]), dtype), -1, 1)
        return placed(shape, dtype)

    def forward(self, problem: Problem, weight: Array) -> Forward:
        """The public function."""
        function = getattr(functional, problem.operation)
        return functools.partial(function, weight=weight, **self._parameters(problem))

    def gradient(self, problem: Problem, which: str, x: Array, w: Array, dy: Array) -> Timed:
        """The public function for one gradient."""
        function = getattr(grad, f"{problem.operation}_{which}")
        sizes = (x.shape, w, dy) if which == "input" else (x, w.shape, dy)
        return functools.partial(function, *sizes, **self._parameters(problem))

    def _parameters(self, problem: Problem) -> dict[str, Any]:
        return {**dict(problem.parameters), "backend": self._name}


class Torch:
    """PyTorch: the functional call without autograd, and for a gradient the native call behind autograd."""

    sessions = None

    def __init__(self, _: str, threads: int) -> None:
        self._library = require("torch", "torch", "the contender torch")
        self._library.set_num_threads(threads)

    def empty(self, shape: tuple[int, ...], dtype: str, channels_last: bool = False) -> Any:
        """Channels last: a tensor of that memory format, as in models that lie so."""
        library = self._library
        kind = library.channels_last if channels_last else library.contiguous_format
        return library.empty(shape, dtype=getattr(library, dtype), memory_format=kind)

    def forward(self, problem: Problem, weight: Any) -> Forward:
        """The function that a module calls."""
        parameters = dict(problem.parameters)
        if parameters.pop("output_size", None):
            parameters["output_padding"] = _output_padding(problem.geometry)
        function = getattr(self._library.nn.functional, problem.operation)
        return functools.partial(function, weight=weight, **parameters)

    def gradient(self, problem: Problem, which: str, x: Any, w: Any, dy: Any) -> Timed:
        """The operator behind autograd, for one gradient."""
        geometry, parameters = problem.geometry, dict(problem.parameters)
        spatial = len(geometry.axes)
        stride, padding, dilation = (
            _per_axis(parameters.get(name, default), spatial)
            for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        output_padding = list(_output_padding(geometry)) if geometry.is_transposed else [0] * spatial
        mask = [which == "input", which == "weight", False]
        arguments = (
            dy, x, w, None, stride, padding, dilation, geometry.is_transposed, output_padding, geometry.groups, mask,
        )  # fmt: skip
        chosen = mask.index(True)
        return lambda: self._library.ops.aten.convolution_backward(*arguments)[chosen]


class OnnxRuntime:
    """ONNX Runtime: a session with one Conv or ConvTranspose node and a constant weight, which it may pack beforehand.

    Its sessions share their threads and the memory of their results, as the nodes of one model do.
    """

    sessions = _SESSIONS

    def __init__(self, _: str, threads: int) -> None:
        require("onnx", "bench", "the contender onnxruntime")
        _share(threads)

    def empty(self, shape: tuple[int, ...], dtype: str, channels_last: bool = False) -> Array:
        """Channels first in any case: it has no convolution of another layout."""
        return placed(shape, dtype)

    def forward(self, problem: Problem, weight: Array) -> Forward:
        """A session of its own."""
        onnx = require("onnx", "bench", "the contender onnxruntime")
        library = require("onnxruntime", "bench", "the contender onnxruntime")
        helper, geometry = onnx.helper, problem.geometry
        operator = "ConvTranspose" if geometry.is_transposed else "Conv"
        node = helper.make_node(operator, ["x", "w"], ["y"], **_attributes(problem))
        element = helper.np_dtype_to_tensor_dtype(weight.dtype)
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info("x", element, problem.input_shape)],
            [helper.make_tensor_value_info("y", element, geometry.output_shape)],
            [onnx.numpy_helper.from_array(weight, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = library.SessionOptions()
        options.use_per_session_threads = False
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.log_severity_level = 3
        try:
            session = library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # for instance it has no kernel for some dtypes
            raise Declined(f"ONNX Runtime: {error}") from None
        return lambda x: session.run(None, {"x": x})[0]

    def gradient(self, problem: Problem, which: str, x: Array, w: Array, dy: Array) -> Timed:
        """It has none."""
        raise Declined("ONNX Runtime has no gradients")


@functools.cache
def _share(threads: int) -> None:
    """Have all sessions of this process share their threads, as threads of its own are slow to wake after another's,
    and the memory that they keep for results."""
    library = require("onnxruntime", "bench", "the contender onnxruntime")
    library.set_global_thread_pool_sizes(threads, 1)
    kind = library.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    library.create_and_register_allocator(library.OrtMemoryInfo("Cpu", kind, 0, library.OrtMemType.DEFAULT), None)


def _attributes(problem: Problem) -> dict[str, Any]:
    """The attributes of the problem's node in ONNX."""
    geometry, parameters = problem.geometry, dict(problem.parameters)
    spatial = len(geometry.axes)
    attributes = {
        "strides": _per_axis(parameters.get("stride", 1), spatial),
        "dilations": _per_axis(parameters.get("dilation", 1), spatial),
        "pads": [pads[end] for end in (0, 1) for pads in geometry.pads],
        "group": geometry.groups,
        "kernel_shape": list(problem.weight_shape[2:]),
    }
    if geometry.is_transposed:
        attributes["output_padding"] = list(_output_padding(geometry))
    return attributes


#: Contenders that are not our own engines, each with the packages that it needs.
OTHERS: dict[str, tuple[Callable[[str, int], Contender], tuple[str, ...]]] = {
    "torch": (Torch, ("torch",)),
    "onnxruntime": (OnnxRuntime, ("onnx", "onnxruntime")),
}


def contender(name: str, threads: int) -> Contender:
    """The contender `name` on `threads` threads. Raises `Declined` if a package is missing."""
    make = OTHERS[name][0] if name in OTHERS else Engine
    try:
        return make(name, threads)
    except MissingExtraError as error:
        raise Declined(str(error)) from None


def filled(library: Contender, array: Array, *, channels_last: bool = False) -> Any:
    """An array of the contender's own kind with these numbers. NumPy writes it, on one thread, whose array ever it
    is: a library's threads would each have their part of it in their cache."""
    copy = library.empty(array.shape, array.dtype.name, channels_last)
    np.copyto(as_array(copy), array)
    return copy


def build(name: str, problem: Problem, which: str, dtype: str, threads: int) -> Timed:
    """The function to time for the contender `name` on `threads` threads."""
    (timed,) = rotation(name, problem, which, dtype, threads, 0)
    return timed


def copies(problem: Problem, which: str, dtype: str, cold: int) -> int:
    """How many copies of what a pass reads take `cold` bytes or more: at least two, but one if `cold` is 0."""
    shapes = problem.shapes
    read = sum(math.prod(shapes[index]) for index in READS[which]) * np.dtype(dtype).itemsize
    return max(2, -(-cold // read)) if cold else 1


def rotation(name: str, problem: Problem, which: str, dtype: str, threads: int, cold: int) -> list[Timed]:
    """A function to time for each of `copies` copies of what the pass reads.

    A weight that is a constant of a session costs a session: where those would be too many, each takes turns with
    several inputs.
    """
    library = contender(name, threads)
    arrays = problem.arrays(dtype)
    shared = [filled(library, array) for array in arrays]
    number = copies(problem, which, dtype, cold)
    sessions: list[Forward] = []
    calls: list[Timed] = []
    for _ in range(number):
        x, w, dy = (
            filled(library, array) if number > 1 and index in READS[which] else shared[index]
            for index, array in enumerate(arrays)
        )
        if which != "forward":
            calls.append(library.gradient(problem, which, x, w, dy))
            continue
        if library.sessions is None or len(sessions) < library.sessions:
            sessions.append(library.forward(problem, w))
        calls.append(functools.partial(sessions[len(calls) % len(sessions)], x))
    return calls


def reasons() -> dict[str, str | None]:
    """Every contender, our engines first, with the reason why it cannot run here, or None."""
    others = {name: _missing(packages) for name, (_, packages) in OTHERS.items()}
    return backends.backend_reasons() | others


def _missing(packages: tuple[str, ...]) -> str | None:
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    return f"{' and '.join(absent)} is not installed" if absent else None


def _output_padding(geometry: Geometry) -> tuple[int, ...]:
    """By how much the output of a transposed convolution exceeds its least extent, on each axis."""
    return tuple(
        axis.large - ((axis.small - 1) * axis.stride - axis.pad_before - axis.pad_after + axis.span)
        for axis in geometry.axes
    )


def _per_axis(value: Any, spatial: int) -> list[int]:
    return [value] * spatial if isinstance(value, int) else list(value)


def as_array(result: Any) -> Array:
    """A contender's result as an array."""
    return np.asarray(result)
