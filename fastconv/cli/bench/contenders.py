"""The contenders: every engine in the registry, PyTorch and ONNX Runtime, each as a function to call and to time.

A contender is built inside its own process, from arrays that are the same in every process. `build` returns a function
without arguments that computes one pass and returns its result, or raises `Declined` with the reason why this contender
has no such call.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fastconv import functional, grad
from fastconv.cli.bench.problems import Problem
from fastconv.dispatch import backends
from fastconv.dispatch.threads import set_num_threads
from fastconv.problem.arrays import Array
from fastconv.problem.errors import MissingExtraError
from fastconv.problem.extras import require
from fastconv.problem.geometry import Geometry

Timed: TypeAlias = Callable[[], Any]


class Declined(Exception):  # noqa: N818 - it is no error: the row stays empty
    """Why a contender has no call for a problem's pass."""


def engine(name: str, problem: Problem, which: str, dtype: str, threads: int) -> Timed:
    """One of our own engines, through the public functions."""
    x, w, dy = problem.arrays(dtype)
    parameters: dict[str, Any] = {**dict(problem.parameters), "backend": name}
    set_num_threads(threads)  # the default would follow this thread's affinity, which is one processor
    if which == "forward":
        forward = getattr(functional, problem.operation)
        return lambda: forward(x, w, **parameters)
    gradient = getattr(grad, f"{problem.operation}_{which}")
    sizes = (x.shape, w, dy) if which == "input" else (x, w.shape, dy)
    return lambda: gradient(*sizes, **parameters)


def torch(_: str, problem: Problem, which: str, dtype: str, threads: int) -> Timed:
    """PyTorch: the functional call without autograd, and for a gradient the native call behind autograd."""
    library = require("torch", "torch", "the contender torch")
    geometry = problem.geometry
    x, w, dy = (library.from_numpy(array).clone() for array in problem.arrays(dtype))  # in memory as torch places it
    library.set_num_threads(threads)
    parameters = dict(problem.parameters)
    if parameters.pop("output_size", None):
        parameters["output_padding"] = _output_padding(geometry)
    if which == "forward":
        forward = getattr(library.nn.functional, problem.operation)
        return lambda: forward(x, w, **parameters)
    per_axis = {
        name: _per_axis(parameters.get(name, default), len(geometry.axes))
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    }
    per_axis["output_padding"] = list(_output_padding(geometry)) if geometry.is_transposed else [0] * len(geometry.axes)
    mask = [which == "input", which == "weight", False]
    arguments = (
        dy, x, w, None, per_axis["stride"], per_axis["padding"], per_axis["dilation"], geometry.is_transposed,
        per_axis["output_padding"], geometry.groups, mask,
    )  # fmt: skip
    chosen = mask.index(True)
    return lambda: library.ops.aten.convolution_backward(*arguments)[chosen]


def onnxruntime(_: str, problem: Problem, which: str, dtype: str, threads: int) -> Timed:
    """ONNX Runtime: one Conv or ConvTranspose node with a constant weight, which it may pack beforehand."""
    if which != "forward":
        raise Declined("ONNX Runtime has no gradients")
    onnx = require("onnx", "bench", "the contender onnxruntime")
    library = require("onnxruntime", "bench", "the contender onnxruntime")
    geometry = problem.geometry
    spatial = len(geometry.axes)
    x, w, _dy = problem.arrays(dtype)
    parameters = dict(problem.parameters)
    attributes = {
        "strides": _per_axis(parameters.get("stride", 1), spatial),
        "dilations": _per_axis(parameters.get("dilation", 1), spatial),
        "pads": [pads[end] for end in (0, 1) for pads in geometry.pads],
        "group": geometry.groups,
        "kernel_shape": list(w.shape[2:]),
    }
    if geometry.is_transposed:
        attributes["output_padding"] = list(_output_padding(geometry))
    helper, element = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    node = helper.make_node("ConvTranspose" if geometry.is_transposed else "Conv", ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", element, x.shape)],
        [helper.make_tensor_value_info("y", element, geometry.output_shape)],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = library.SessionOptions()
    options.use_per_session_threads = not _share_threads(threads)
    options.log_severity_level = 3
    try:
        session = library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # for instance it has no kernel for some dtypes
        raise Declined(f"ONNX Runtime: {error}") from None
    return lambda: session.run(None, {"x": x})[0]


@functools.cache
def _share_threads(threads: int) -> bool:
    """Have all sessions of this process share their threads: threads of its own are slow to wake after another's."""
    require("onnxruntime", "bench", "the contender onnxruntime").set_global_thread_pool_sizes(threads, 1)
    return True


#: Contenders that are not our own engines, each with the packages that it needs.
OTHERS: dict[str, tuple[Callable[[str, Problem, str, str, int], Timed], tuple[str, ...]]] = {
    "torch": (torch, ("torch",)),
    "onnxruntime": (onnxruntime, ("onnx", "onnxruntime")),
}


def build(name: str, problem: Problem, which: str, dtype: str, threads: int) -> Timed:
    """The function to time for the contender `name` on `threads` threads."""
    make = OTHERS[name][0] if name in OTHERS else engine
    try:
        return make(name, problem, which, dtype, threads)
    except MissingExtraError as error:
        raise Declined(str(error)) from None


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
