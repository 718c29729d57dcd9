"""The contenders by name, and the calls that are timed of them.

A contender runs inside its own process, on arrays whose numbers are the same in every process. `build` gives one
function without arguments to call and to time, `rotation` gives one for each copy of the arrays, for calls on cold
data. Both raise `Declined` with the reason where a contender has no such call.

Names are those of our engines and of other libraries. After an engine's name may stand how it is called:

    -plan   through a plan
    -first  on channels-first maps, where the others' are channels last

as in `cython-plan` or `numba-plan-first`.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.cli.bench.engines import Engine, Plan
from fastconv.cli.bench.interface import Contender, Declined, Forward, Timed
from fastconv.cli.bench.libraries import OnnxRuntime, OpenVino, Torch
from fastconv.cli.bench.ncnn import Ncnn
from fastconv.cli.bench.problems import Problem
from fastconv.dispatch import backends
from fastconv.problem.arrays import Array
from fastconv.problem.errors import MissingExtraError

#: Which of input, weight and the output's gradient a pass reads.
READS = {"forward": (0, 1), "input": (1, 2), "weight": (0, 2)}

#: Contenders that are not our own engines, each with the packages that it needs and the extra that has them.
OTHERS: dict[str, tuple[Callable[[int, bool], Contender], tuple[str, ...], str]] = {
    "torch": (Torch, ("torch",), "torch"),
    "onnxruntime": (OnnxRuntime, ("onnx", "onnxruntime"), "bench"),
    "openvino": (OpenVino, ("openvino",), "openvino"),
    "ncnn": (Ncnn, ("ncnn",), "bench"),
}

#: Calls of a session after which it is ready.
_READY = 2

#: What may stand after an engine's name, in this order.
PLAN, FIRST = "-plan", "-first"


def contender(name: str, threads: int, channels_last: bool = False) -> Contender:
    """The contender `name` on `threads` threads. Raises `Declined` if a package is missing."""
    try:
        if name in OTHERS:
            return OTHERS[name][0](threads, channels_last)
        planned = name.removesuffix(FIRST)
        kind = Plan if planned.endswith(PLAN) else Engine
        return kind(planned.removesuffix(PLAN), threads, channels_last and planned == name)
    except MissingExtraError as error:
        raise Declined(str(error)) from None


def filled_map(library: Contender, array: Array, *, channels_last: bool = False) -> Any:
    """A map of the contender's own kind with these numbers (N, C, H, W) or (N, C, W).

    NumPy writes it, on one thread, whose array ever it is: a library's threads would each have their part of it in
    their cache.
    """
    copy = library.new_map(array.shape, array.dtype.name, channels_last)
    np.copyto(library.as_map(copy), array)
    return copy


def filled_weight(library: Contender, array: Array) -> Any:
    """A weight with these numbers, likewise."""
    copy = library.new_weight(array.shape, array.dtype.name)
    np.copyto(as_array(copy), array)
    return copy


def build(name: str, problem: Problem, which: str, dtype: str, threads: int) -> Timed:
    """The function to time for the contender `name` on `threads` threads, in the usual setup."""
    (timed,) = rotation(contender(name, threads), problem, which, dtype, 0)
    return timed


def copies(problem: Problem, which: str, dtype: str, cold: int) -> int:
    """How many copies of what a pass reads take `cold` bytes or more: at least two, but one if `cold` is 0."""
    shapes = problem.shapes
    read = sum(math.prod(shapes[index]) for index in READS[which]) * np.dtype(dtype).itemsize
    return max(2, -(-cold // read)) if cold else 1


def rotation(
    library: Contender, problem: Problem, which: str, dtype: str, cold: int, *, fused: bool = False
) -> list[Timed]:
    """A function to time for each of `copies` copies of what the pass reads.

    A weight that is a constant of a session, or of a plan, costs a session: where those would be too many, each takes
    turns with several inputs. Each is called before, as it may pack its weight in the first call, and keep how to make
    such calls in the second.
    """
    arrays = problem.arrays(dtype)
    fill = functools.partial(_filled, library)
    shared = [fill(index, array) for index, array in enumerate(arrays)]
    number = copies(problem, which, dtype, cold)
    bias = problem.bias(dtype) if fused else None
    sessions: list[Forward] = []
    calls: list[Timed] = []
    for _ in range(number):
        x, w, dy = (
            fill(index, array) if number > 1 and index in READS[which] else shared[index]
            for index, array in enumerate(arrays)
        )
        if which != "forward":
            calls.append(library.gradient(problem, which, x, w, dy))
            continue
        if library.sessions is None or len(sessions) < library.sessions:
            sessions.append(library.forward(problem, w, bias))
            for _ in range(_READY if library.sessions else 0):
                sessions[-1](x)
        calls.append(functools.partial(sessions[len(calls) % len(sessions)], x))
    return calls


def _filled(library: Contender, index: int, array: Array) -> Any:
    """One of input, weight and the output's gradient."""
    return filled_weight(library, array) if index == 1 else filled_map(library, array)


def result(library: Contender, which: str, own: Any) -> Array:
    """The result of a pass as an array whose channels are first."""
    return as_array(own) if which == "weight" else library.as_map(own)


def reasons() -> dict[str, str | None]:
    """Every contender by the name of an engine of ours or another library, with the reason why it cannot run here, or
    None; our engines first."""
    others = {name: missing(packages, extra) for name, (_, packages, extra) in OTHERS.items()}
    return backends.backend_reasons() | others


def names(*, channels_last: bool) -> dict[str, str | None]:
    """All names that a person may give to a contender in such a setup, with the same reasons."""
    ways = (PLAN, FIRST, PLAN + FIRST) if channels_last else (PLAN,)
    engines = backends.backend_reasons()
    return reasons() | {engine + way: reason for engine, reason in engines.items() for way in ways}


def usual(ours: str) -> list[str]:
    """The contenders that can run here, our engines called in the same way as `ours`."""
    way = PLAN if ours.removesuffix(FIRST).endswith(PLAN) else ""
    return [name + way * (name not in OTHERS) for name, reason in reasons().items() if reason is None]


def missing(packages: tuple[str, ...], extra: str) -> str | None:
    """Which of the packages are not installed, and the command to install them; None if all are there."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if not absent:
        return None
    return f'{" and ".join(absent)} is not installed; install it with: pip install "fastconv[{extra}]"'


def as_array(own: Any) -> Array:
    """A weight, or a map whose channels are first, of a contender's own kind as an array."""
    return np.asarray(own)
