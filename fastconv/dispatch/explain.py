"""What will run, and why: the answer to "which engine, algorithm and kernel does this layer get?"."""

import inspect
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fastconv.dispatch import algorithms, backends, denormals, threads
from fastconv.dispatch.preparation import threads_for
from fastconv.planner.registry import Candidate
from fastconv.planner.request import Contraction
from fastconv.problem import memory_order, parameters
from fastconv.problem.arrays import check_numbers, compute_dtype
from fastconv.problem.errors import ArgumentError, BackendUnavailableError, one_of
from fastconv.problem.geometry import Geometry
from fastconv.problem.memory_order import MemoryOrders
from fastconv.problem.operations import FAMILIES

_PASSES = ("", "_input", "_weight")

#: Every operation that can be explained: the forward functions and, as `fastconv.grad` names them, the gradients.
OPERATIONS = tuple(family + which for family in FAMILIES for which in _PASSES)


class Explanation(NamedTuple):
    """What a call would run. `str()` of it is a page to read.

    operation       the name of the call
    output_shape    the shape of its result
    backend         the backend that computes it
    algorithm       the algorithm that computes it
    backends_passed_over, algorithms_passed_over   each other one by name, and why it was not the one
    flops           floating-point operations by the definition, whatever the algorithm
    workspace       bytes of memory beyond arguments and result, at most
    kernel          the kernel that computes it; "none" for an empty batch
    kernels_passed_over   each other one by name, the next best first, and why it was not the one
    predicted       the predicted time of each kernel that applies, in microseconds, by its name

    >>> import fastconv as fc
    >>> print(fc.explain("conv1d", (1, 4, 100), (4, 4, 3), stride=2, backend="numpy", algorithm="direct"))
    conv1d -> (1, 4, 49)
      backend    numpy
                 not numba: backend='numpy' was named
                 not cython: backend='numpy' was named
      algorithm  direct
                 not winograd: algorithm='direct' was named
                 not fft: algorithm='direct' was named
      kernel     im2col, predicted to take 16 us
                 not fft_windows: it is part of fft, and algorithm='direct' was named
      work       4,704 FLOP
      workspace  5,872 bytes at most
    """

    operation: str
    output_shape: tuple[int, ...]
    backend: str
    algorithm: str
    backends_passed_over: dict[str, str]
    algorithms_passed_over: dict[str, str]
    flops: int
    workspace: int
    kernel: str
    kernels_passed_over: dict[str, str]
    predicted: dict[str, float]

    def __str__(self) -> str:
        lines = [
            f"{self.operation} -> {self.output_shape}",
            f"  backend    {self.backend}",
            *(f"             not {name}: {reason}" for name, reason in self.backends_passed_over.items()),
            f"  algorithm  {self.algorithm}",
            *(f"             not {name}: {reason}" for name, reason in self.algorithms_passed_over.items()),
            f"  kernel     {self.kernel}{self._time(self.kernel)}",
            *(
                f"             not {name}{self._time(name)}: {reason}"
                for name, reason in self.kernels_passed_over.items()
            ),
            f"  work       {self.flops:,} FLOP",
            f"  workspace  {self.workspace:,} bytes at most",
        ]
        return "\n".join(lines)

    def _time(self, kernel: str) -> str:
        """The predicted time of a kernel in words, if there is one."""
        time = self.predicted.get(kernel, math.inf)
        return (
            "" if math.isinf(time) else f", predicted to take {time:,.{3 if time < 1 else 1 if time < 10 else 0}f} us"
        )


def explain(
    operation: str,
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    dtype: Any = "float32",
    algorithm: str = "auto",
    backend: str | None = None,
    **geometry_parameters: Any,
) -> Explanation:
    """Which backend, algorithm and kernel a call will run, why each other one was passed over, its FLOPs and workspace.

    `operation` is the name of a forward function, or of a gradient in `fastconv.grad` such as "conv2d_weight";
    `input_shape` and `weight_shape` are those of the forward call, whose parameters (stride, padding, ...) follow as
    keywords, `data_format` among them. `dtype` is the arrays' common one. Raises what the call itself would raise.

    >>> import fastconv as fc
    >>> why = fc.explain("conv2d", (1, 64, 56, 56), (64, 64, 3, 3), padding=1, backend="numpy")
    >>> why.backend, why.algorithm, why.flops, why.output_shape
    ('numpy', 'direct', 231211008, (1, 64, 56, 56))
    """
    if not isinstance(operation, str) or operation not in OPERATIONS:
        raise ArgumentError(
            f"operation={parameters.shown(operation)} cannot be explained: {one_of(operation, OPERATIONS)}"
        )
    family = next(name for name in FAMILIES if operation in (name + which for which in _PASSES))
    which: Literal["", "_input", "_weight"] = operation[len(family) :]  # type: ignore[assignment]
    of = FAMILIES[family]
    given = check_numbers("dtype", dtype)
    computed = compute_dtype(given)
    shapes = [
        parameters.sizes(name, shape, (of.spatial + 1, of.spatial + 2), "a shape")
        for name, shape in (("input_shape", input_shape), ("weight_shape", weight_shape))
    ]
    known = inspect.signature(of.make).parameters.keys() - {"input_shape", "weight_shape", "spatial", "names"}
    for name in geometry_parameters.keys() - known:
        raise ArgumentError(f"{operation} has no argument {parameters.shown(name)}: {one_of(name, known)}")
    geometry = of.geometry(*shapes, names=("input_shape", "weight_shape"), **geometry_parameters)
    target: Contraction
    target, shape = {
        "": ("large" if geometry.is_transposed else "small", geometry.output_shape),
        "_input": ("small" if geometry.is_transposed else "large", geometry.input_shape),
        "_weight": ("weight", geometry.weight_shape),
    }[which]
    while True:
        chosen, engine, other_backends = backends.choose(backend, computed)
        method = algorithms.pick(algorithm, computed)
        lifted, orders, copied = _computed(geometry, engine, given, computed)
        found: list[Candidate] = []
        workspace = 0
        try:
            if lifted.batch:
                found = method.candidates(engine, lifted, target, computed.itemsize, threads_for(lifted), orders)
                workspace = method.workspace(
                    engine, lifted, target, computed.itemsize, threads.get_num_threads(), orders
                )
            break
        except BackendUnavailableError as error:  # `auto` takes the next engine, as in a call; a named one raises
            backends.withdraw(engine, str(error))
    algorithm_name, other_algorithms = _algorithms(algorithm, found)
    return Explanation(
        operation, shape, chosen, algorithm_name, other_backends, other_algorithms, geometry.flops,
        workspace + copied * computed.itemsize,
        next((one.name for one in found if one.passed_over is None), "none"),
        {one.name: one.passed_over for one in found if one.passed_over is not None},
        {one.name: one.microseconds for one in found if one.microseconds is not None},
    )  # fmt: skip


def _algorithms(argument: str, found: Sequence[Candidate]) -> tuple[str, dict[str, str]]:
    """The algorithm of the candidate that runs, and for each other one the reason why it does not."""
    name, origin = algorithms.check(argument)
    chosen = next((one.algorithm for one in found if one.passed_over is None), "direct" if name == "auto" else name)
    passed = {other: f"{origin} was named" for other in algorithms.ALGORITHMS if other != chosen}
    if name == "auto":
        for other in passed:
            own = [one for one in found if one.algorithm == other]
            reasons = {one.passed_over for one in own if one.microseconds is not None} or {
                one.passed_over for one in own
            }
            passed[other] = (
                "; ".join(sorted(filter(None, reasons))) or "it has no kernel for this engine and contraction"
            )
    return chosen, passed


def _computed(
    geometry: Geometry, engine: Any, given: np.dtype[Any], computed: np.dtype[Any]
) -> tuple[Geometry, MemoryOrders, int]:
    """The problem that the kernels compute, the memory orders of its maps, and the number of elements that are copied
    before and after: a map extended by its padding, and arrays converted to another dtype."""
    lifted, orders = geometry.lifted(), memory_order.standard(geometry)
    shapes = {"large": lifted.large_shape, "small": lifted.small_shape, "weight": lifted.weight_shape}
    extra = 0
    if lifted.padding_mode != "zeros":
        lifted, orders = lifted.extended(), orders._replace(large=None)
        extra += 2 * math.prod(lifted.large_shape)  # it, and what numpy.pad or the copy without padding takes
    flushes = denormals.are_copied(engine, computed)
    copies = (given != computed) + flushes
    orders = memory_order.C_ORDER if flushes else orders
    return lifted, orders, extra + copies * sum(math.prod(shape) for shape in shapes.values())
