"""The gradients of every operation, as contractions.

For complex arrays the other factor is conjugated, so that a gradient is the adjoint:
<conv2d(x, w), y> = <x, conv2d_input(y, w)>.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, TypeAlias

import numpy as np

from fastconv.backends import memory
from fastconv.dispatch.call import check_dtypes, contract, find_call, sum_pixels
from fastconv.problem import parameters
from fastconv.problem.arrays import Array, as_array, check_shape, common_dtype, compute_dtype, prepared
from fastconv.problem.errors import ArgumentError
from fastconv.problem.operations import Operation

#: The gradients with respect to input, weight and bias; None for one that was not asked for.
Gradients: TypeAlias = tuple[Array | None, Array | None, Array | None]

#: Dtypes of arrays that every engine computes with as they are.
_PLAIN = frozenset(map(np.dtype, (np.float32, np.float64)))


def input_gradient(
    operation: Operation, input_size: Any, weight: Any, grad_output: Any, how: tuple[Any, ...],
    algorithm: str, backend: str | None, out: Array | None,
) -> Array:  # fmt: skip
    """The gradient with respect to the input; `how` are the parameters of the operation."""
    weight, grad_output = as_array("weight", weight), as_array("grad_output", grad_output)
    which = "input", operation
    key, call = find_call(which, grad_output, weight, None, (input_size, *how), algorithm, backend, out)
    if call is not None:
        return call(grad_output, weight, None, out)
    size = _size("input_size", input_size, (operation.spatial + 1, operation.spatial + 2))
    geometry = operation.geometry(size, weight.shape, *how, names=("input_size", "weight"))
    check_shape("grad_output", grad_output, geometry.output_shape, "the output's")
    return contract(
        geometry, **geometry.maps(output=grad_output), weight=weight.conj(),
        dtype=common_dtype(weight=weight, grad_output=grad_output),
        algorithm=algorithm, backend=backend, out=out, key=key,
    )  # fmt: skip


def weight_gradient(
    operation: Operation, input: Any, weight_size: Any, grad_output: Any, how: tuple[Any, ...],
    algorithm: str, backend: str | None, out: Array | None,
) -> Array:  # fmt: skip
    """The gradient with respect to the weight, likewise."""
    input, grad_output = as_array("input", input), as_array("grad_output", grad_output)
    maps = (grad_output, input) if operation.is_transposed else (input, grad_output)
    which = "weight", operation
    key, call = find_call(which, *maps, None, (weight_size, *how), algorithm, backend, out)
    if call is not None:
        return call(*maps, None, out)
    size = _size("weight_size", weight_size, (operation.spatial + 2,))
    geometry = operation.geometry(input.shape, size, *how, names=("input", "weight_size"))
    check_shape("grad_output", grad_output, geometry.output_shape, "the output's")
    return contract(
        geometry, **geometry.maps(input=input.conj(), output=grad_output),
        dtype=common_dtype(input=input, grad_output=grad_output),
        algorithm=algorithm, backend=backend, out=out, key=key,
    )  # fmt: skip


def bias_gradient(
    grad_output: Any, spatial: int, data_format: Any, algorithm: str, backend: str | None, out: Array | None
) -> Array:
    """The gradient with respect to the bias, of an operation with `spatial` axes."""
    grad_output = as_array("grad_output", grad_output)
    return sum_pixels(
        "grad_output", grad_output, spatial=spatial, data_format=data_format, algorithm=algorithm, backend=backend,
        out=out,
    )  # fmt: skip


def all_gradients(
    operation: Operation, grad_output: Any, input: Any, weight: Any, output_mask: Any, how: tuple[Any, ...],
    algorithm: str, backend: str | None,
) -> Gradients:  # fmt: skip
    """The three gradients, or those of them that `output_mask` names."""
    mask = list(output_mask) if isinstance(output_mask, Sequence | np.ndarray) else []
    if len(mask) != 3 or not all(isinstance(wanted, bool | np.bool_) for wanted in mask):
        shown = parameters.shown(output_mask)
        raise ArgumentError(f"output_mask must be three booleans, for input, weight and bias, not {shown}")
    grad_output, input, weight = (
        as_array(name, array) for name, array in (("grad_output", grad_output), ("input", input), ("weight", weight))
    )
    geometry = operation.geometry(input.shape, weight.shape, *how)
    check_shape("grad_output", grad_output, geometry.output_shape, "the output's")
    dtype, options = grad_output.dtype, (how, geometry.data_format, algorithm, backend)
    if dtype in _PLAIN and dtype == input.dtype == weight.dtype and grad_output.flags.aligned:
        return _each(operation, grad_output, input, weight, mask, *options)
    read: tuple[dict[str, Array], ...] = {"weight": weight}, {"input": input}, {}  # beside `grad_output`
    check_dtypes(backend, *({**others, "grad_output": grad_output} for others in compress(read, mask)))
    found: list[Array | None] = [None, None, None]
    made: dict[np.dtype[Any], Array] = {}  # `grad_output` in each dtype that is computed in: it is converted once
    for index, others in compress(enumerate(read), mask):
        dtype = common_dtype(**others, grad_output=grad_output)
        computed = compute_dtype(dtype)
        if computed not in made:
            made[computed] = prepared(grad_output, computed)
        given = {"input": input, "weight": weight} | {name: prepared(one, computed) for name, one in others.items()}
        alone = [index == number for number in range(3)]
        gradients = _each(operation, made[computed], given["input"], given["weight"], alone, *options)
        found[index] = _rounded(gradients[index], dtype)
    return found[0], found[1], found[2]


def _each(
    operation: Operation, grad_output: Array, input: Array, weight: Array, mask: Sequence[bool], how: tuple[Any, ...],
    data_format: str, algorithm: str, backend: str | None,
) -> Gradients:  # fmt: skip
    """The gradients that `mask` names, one after the other."""
    by = (algorithm, backend, None)
    return (
        input_gradient(operation, input.shape, weight, grad_output, how, *by) if mask[0] else None,
        weight_gradient(operation, input, weight.shape, grad_output, how, *by) if mask[1] else None,
        bias_gradient(grad_output, operation.spatial, data_format, *by) if mask[2] else None,
    )


def _rounded(result: Array | None, dtype: np.dtype[Any]) -> Array | None:
    """A result in its dtype, if it is computed in a wider one."""
    if result is None or result.dtype == dtype:
        return result
    rounded = memory.empty(result.shape, dtype)
    with np.errstate(all="ignore"):
        rounded[...] = result
    return rounded


def _size(name: str, value: Any, lengths: tuple[int, ...]) -> tuple[int, ...]:
    return parameters.sizes(name, value, lengths, f"a shape of {' or '.join(map(str, lengths))} integers")
