"""The contenders: every engine in the registry, PyTorch and ONNX Runtime, each as a function to call and to time.

A contender is built inside its own process, from the arrays that every process draws alike. `build` returns a function
of no arguments that computes one pass and returns its result as an array, or raises `Declined` with the reason why this
contender has no such call.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fastconv import functional, grad
from fastconv.choice import backends
from fastconv.cli.bench.problems import Problem
from fastconv.ground.arrays import Array
from fastconv.ground.extras import require

Timed: TypeAlias = Callable[[], Any]


class Declined(Exception):  # noqa: N818 - it is no error: the row stays empty
    """Why a contender has no call for a problem's pass."""


def engine(name: str, problem: Problem, which: str, dtype: str) -> Timed:
    """One of our own engines, through the public functions."""
    x, w, dy = problem.arrays(dtype)
    parameters: dict[str, Any] = {**dict(problem.parameters), "backend": name}
    if which == "forward":
        forward = getattr(functional, problem.operation)
        return lambda: forward(x, w, **parameters)
    gradient = getattr(grad, f"{problem.operation}_{which}")
    sizes = (x.shape, w, dy) if which == "input" else (x, w.shape, dy)
    return lambda: gradient(*sizes, **parameters)


def torch(_: str, problem: Problem, which: str, dtype: str) -> Timed:
    """PyTorch: the functional call without autograd, and for gradients the one native call behind autograd."""
    library = require("torch", "torch", "the contender torch")
    geometry = problem.geometry
    x, w, dy = (library.from_numpy(array) for array in problem.arrays(dtype))
    if which == "forward":
        forward = getattr(library.nn.functional, problem.operation)
        return lambda: forward(x, w, **dict(problem.parameters))
    parameters = dict(problem.parameters)
    per_axis = {
        name: _per_axis(parameters.get(name, default), len(geometry.axes))
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0))
    }
    mask = [which == "input", which == "weight", False]
    arguments = (
        dy, x, w, None, per_axis["stride"], per_axis["padding"], per_axis["dilation"], geometry.is_transposed,
        per_axis["output_padding"], geometry.groups, mask,
    )  # fmt: skip
    chosen = mask.index(True)
    return lambda: library.ops.aten.convolution_backward(*arguments)[chosen]


def onnxruntime(_: str, problem: Problem, which: str, dtype: str) -> Timed:
    """ONNX Runtime: one Conv or ConvTranspose node with the weight as a constant, which it may lay out beforehand."""
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
        attributes["output_padding"] = _per_axis(parameters.get("output_padding", 0), spatial)
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
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    options.log_severity_level = 3
    try:
        session = library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has no kernel for some dtypes
        raise Declined(f"ONNX Runtime: {error}") from None
    return lambda: session.run(None, {"x": x})[0]


#: Contenders that are not our own engines, each with the package that it needs.
OTHERS: dict[str, tuple[Callable[[str, Problem, str, str], Timed], str]] = {
    "torch": (torch, "torch"),
    "onnxruntime": (onnxruntime, "onnxruntime"),
}


def build(name: str, problem: Problem, which: str, dtype: str) -> Timed:
    """The function to time for the contender `name`."""
    return OTHERS[name][0](name, problem, which, dtype) if name in OTHERS else engine(name, problem, which, dtype)


def reasons() -> dict[str, str | None]:
    """Every contender, our engines first, with the reason why it cannot run here; None if it can."""
    others = {name: _missing(package) for name, (_, package) in OTHERS.items()}
    return backends.backend_reasons() | others


def _missing(package: str) -> str | None:
    return None if importlib.util.find_spec(package) else f"{package} is not installed"


def _per_axis(value: Any, spatial: int) -> list[int]:
    return [value] * spatial if isinstance(value, int) else list(value)


def as_array(result: Any) -> Array:
    """A contender's result as an array."""
    return np.asarray(result)
