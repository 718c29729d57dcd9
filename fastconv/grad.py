"""The gradients of convolution and transposed convolution.

A loss L depends on the output; `grad_output` is dL/d(output). Names and order of the positional arguments are those of
`torch.nn.grad` and of the forward functions in `fastconv.functional`, where each parameter, keywords included, is
explained. Every function raises `ShapeError`, `ArgumentError`, `DTypeError` or `BackendUnavailableError`
before any work. The result's dtype is `numpy.result_type` of the arrays given.

Each gradient is one of the three contractions that link input, weight and output, see `fastconv.dispatch.call`. For
complex arrays the other factor is conjugated, so that a gradient is the adjoint:
<conv2d(x, w), y> = <x, conv2d_input(y, w)>.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Any, TypeAlias

import numpy as np

from fastconv.dispatch.call import check_dtypes, contract, find_call, sum_pixels
from fastconv.problem import parameters
from fastconv.problem.arrays import Array, as_array, check_shape, common_dtype
from fastconv.problem.errors import ArgumentError
from fastconv.problem.operations import CONV1D, CONV2D, CONV_TRANSPOSE1D, CONV_TRANSPOSE2D, Operation

#: The gradients with respect to input, weight and bias; None for one that was not asked for.
Gradients: TypeAlias = tuple[Array | None, Array | None, Array | None]


def conv2d_input(
    input_size: Sequence[int], weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", algorithm: str = "auto", backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """The gradient of `conv2d` with respect to its input: dL/d(input).

    `input_size` is the input's shape, (N, C_in, H, W) or (C_in, H, W); `weight` (C_out, C_in / groups, R, S);
    `grad_output` (N, C_out, P, Q). Returns an array of `input_size`.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv2d_input((1, 3, 3), np.ones((1, 1, 2, 2)), np.ones((1, 2, 2)))
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    """
    return _input(
        CONV2D, input_size, weight, grad_output,
        (stride, padding, dilation, groups, padding_mode), algorithm, backend, out,
    )  # fmt: skip


def conv2d_weight(
    input: Any, weight_size: Sequence[int], grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", algorithm: str = "auto", backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """The gradient of `conv2d` with respect to its weight: dL/d(weight).

    `input` is (N, C_in, H, W) or (C_in, H, W); `weight_size` the weight's shape, (C_out, C_in / groups, R, S);
    `grad_output` (N, C_out, P, Q). Returns an array of `weight_size`.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv2d_weight(np.arange(9.0).reshape(1, 3, 3), (1, 1, 2, 2), np.ones((1, 2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    return _weight(
        CONV2D, input, weight_size, grad_output,
        (stride, padding, dilation, groups, padding_mode), algorithm, backend, out,
    )  # fmt: skip


def conv2d_bias(
    grad_output: Any, *, algorithm: str = "auto", backend: str | None = None, out: Array | None = None
) -> Array:
    """The gradient of `conv2d` with respect to its bias: the sum of `grad_output` over images and pixels.

    `grad_output` is (N, C_out, P, Q) or (C_out, P, Q). Returns (C_out,).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv2d_bias(np.ones((5, 2, 3, 4)))
    array([60., 60.])
    """
    return _bias(grad_output, 2, algorithm, backend, out)


def conv2d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", output_mask: Sequence[bool] = (True, True, True), algorithm: str = "auto",
    backend: str | None = None,
) -> Gradients:  # fmt: skip
    """The gradients of `conv2d` with respect to input, weight and bias at once.

    `output_mask` says which of the three to compute; the others are None in the result.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> dx, dw, db = grad.conv2d_backward(np.ones((1, 1, 2, 2)), x, w, output_mask=(True, True, False))
    >>> dx.shape, dw.shape, db
    ((1, 1, 3, 3), (1, 1, 2, 2), None)
    """
    return _backward(
        CONV2D, grad_output, input, weight, output_mask,
        (stride, padding, dilation, groups, padding_mode), algorithm, backend,
    )  # fmt: skip


def conv_transpose2d_input(
    input_size: Sequence[int], weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, algorithm: str = "auto", backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """The gradient of `conv_transpose2d` with respect to its input: dL/d(input).

    `input_size` is the input's shape, (N, C_in, H, W) or (C_in, H, W); `weight` (C_in, C_out / groups, R, S);
    `grad_output` has the output's shape. Returns an array of `input_size`.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv_transpose2d_input((1, 2, 2), np.ones((1, 1, 2, 2)), np.ones((1, 3, 3)))
    array([[[4., 4.],
            [4., 4.]]])
    """
    return _input(
        CONV_TRANSPOSE2D, input_size, weight, grad_output,
        (stride, padding, output_padding, groups, dilation, output_size), algorithm, backend, out,
    )  # fmt: skip


def conv_transpose2d_weight(
    input: Any, weight_size: Sequence[int], grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, algorithm: str = "auto", backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """The gradient of `conv_transpose2d` with respect to its weight: dL/d(weight).

    `input` is (N, C_in, H, W) or (C_in, H, W); `weight_size` the weight's shape, (C_in, C_out / groups, R, S);
    `grad_output` has the output's shape. Returns an array of `weight_size`.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv_transpose2d_weight(np.ones((1, 2, 2)), (1, 1, 2, 2), np.arange(9.0).reshape(1, 3, 3))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    return _weight(
        CONV_TRANSPOSE2D, input, weight_size, grad_output,
        (stride, padding, output_padding, groups, dilation, output_size), algorithm, backend, out,
    )  # fmt: skip


def conv_transpose2d_bias(
    grad_output: Any, *, algorithm: str = "auto", backend: str | None = None, out: Array | None = None
) -> Array:
    """The gradient of `conv_transpose2d` with respect to its bias: as `conv2d_bias`.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv_transpose2d_bias(np.ones((2, 3, 3)))
    array([9., 9.])
    """
    return _bias(grad_output, 2, algorithm, backend, out)


def conv_transpose2d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, output_mask: Sequence[bool] = (True, True, True), algorithm: str = "auto",
    backend: str | None = None,
) -> Gradients:  # fmt: skip
    """The gradients of `conv_transpose2d` with respect to input, weight and bias at once; see `conv2d_backward`.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> x, w = np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2))
    >>> dx, dw, db = grad.conv_transpose2d_backward(np.ones((1, 1, 4, 4)), x, w, stride=2)
    >>> dx.shape, dw.shape, db
    ((1, 1, 2, 2), (1, 1, 2, 2), array([16.]))
    """
    return _backward(
        CONV_TRANSPOSE2D, grad_output, input, weight, output_mask,
        (stride, padding, output_padding, groups, dilation, output_size), algorithm, backend,
    )  # fmt: skip


def conv1d_input(
    input_size: Sequence[int], weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", algorithm: str = "auto", backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """`conv2d_input` with one spatial axis: `input_size` is (N, C_in, W) or (C_in, W).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv1d_input((1, 3), np.ones((1, 1, 2)), np.ones((1, 2)))
    array([[1., 2., 1.]])
    """
    return _input(
        CONV1D, input_size, weight, grad_output,
        (stride, padding, dilation, groups, padding_mode), algorithm, backend, out,
    )  # fmt: skip


def conv1d_weight(
    input: Any, weight_size: Sequence[int], grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", algorithm: str = "auto", backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """`conv2d_weight` with one spatial axis: `weight_size` is (C_out, C_in / groups, S).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv1d_weight(np.arange(3.0).reshape(1, 3), (1, 1, 2), np.ones((1, 2)))
    array([[[1., 3.]]])
    """
    return _weight(
        CONV1D, input, weight_size, grad_output,
        (stride, padding, dilation, groups, padding_mode), algorithm, backend, out,
    )  # fmt: skip


def conv1d_bias(
    grad_output: Any, *, algorithm: str = "auto", backend: str | None = None, out: Array | None = None
) -> Array:
    """`conv2d_bias` with one spatial axis: `grad_output` is (N, C_out, Q) or (C_out, Q).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv1d_bias(np.ones((5, 2, 4)))
    array([20., 20.])
    """
    return _bias(grad_output, 1, algorithm, backend, out)


def conv1d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", output_mask: Sequence[bool] = (True, True, True), algorithm: str = "auto",
    backend: str | None = None,
) -> Gradients:  # fmt: skip
    """`conv2d_backward` with one spatial axis.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> [g.shape for g in grad.conv1d_backward(np.ones((1, 1, 3)), np.ones((1, 1, 4)), np.ones((1, 1, 2)))]
    [(1, 1, 4), (1, 1, 2), (1,)]
    """
    return _backward(
        CONV1D, grad_output, input, weight, output_mask,
        (stride, padding, dilation, groups, padding_mode), algorithm, backend,
    )  # fmt: skip


def conv_transpose1d_input(
    input_size: Sequence[int], weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, algorithm: str = "auto", backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """`conv_transpose2d_input` with one spatial axis: `input_size` is (N, C_in, W) or (C_in, W).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv_transpose1d_input((1, 2), np.ones((1, 1, 2)), np.ones((1, 4)), stride=2)
    array([[2., 2.]])
    """
    return _input(
        CONV_TRANSPOSE1D, input_size, weight, grad_output,
        (stride, padding, output_padding, groups, dilation, output_size), algorithm, backend, out,
    )  # fmt: skip


def conv_transpose1d_weight(
    input: Any, weight_size: Sequence[int], grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, algorithm: str = "auto", backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """`conv_transpose2d_weight` with one spatial axis: `weight_size` is (C_in, C_out / groups, S).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv_transpose1d_weight(np.ones((1, 2)), (1, 1, 2), np.arange(3.0).reshape(1, 3))
    array([[[1., 3.]]])
    """
    return _weight(
        CONV_TRANSPOSE1D, input, weight_size, grad_output,
        (stride, padding, output_padding, groups, dilation, output_size), algorithm, backend, out,
    )  # fmt: skip


def conv_transpose1d_bias(
    grad_output: Any, *, algorithm: str = "auto", backend: str | None = None, out: Array | None = None
) -> Array:
    """`conv_transpose2d_bias` with one spatial axis: as `conv1d_bias`.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv_transpose1d_bias(np.ones((2, 3)))
    array([3., 3.])
    """
    return _bias(grad_output, 1, algorithm, backend, out)


def conv_transpose1d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, output_mask: Sequence[bool] = (True, True, True), algorithm: str = "auto",
    backend: str | None = None,
) -> Gradients:  # fmt: skip
    """`conv_transpose2d_backward` with one spatial axis.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> [g.shape for g in grad.conv_transpose1d_backward(np.ones((1, 1, 5)), np.ones((1, 1, 4)), np.ones((1, 1, 2)))]
    [(1, 1, 4), (1, 1, 2), (1,)]
    """
    return _backward(
        CONV_TRANSPOSE1D, grad_output, input, weight, output_mask,
        (stride, padding, output_padding, groups, dilation, output_size), algorithm, backend,
    )  # fmt: skip


def _input(
    operation: Operation, input_size: Any, weight: Any, grad_output: Any, how: tuple[Any, ...],
    algorithm: str, backend: str | None, out: Array | None,
) -> Array:  # fmt: skip
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


def _weight(
    operation: Operation, input: Any, weight_size: Any, grad_output: Any, how: tuple[Any, ...],
    algorithm: str, backend: str | None, out: Array | None,
) -> Array:  # fmt: skip
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


def _bias(grad_output: Any, spatial: int, algorithm: str, backend: str | None, out: Array | None) -> Array:
    grad_output = as_array("grad_output", grad_output)
    return sum_pixels("grad_output", grad_output, spatial=spatial, algorithm=algorithm, backend=backend, out=out)


def _backward(
    operation: Operation, grad_output: Any, input: Any, weight: Any, output_mask: Any, how: tuple[Any, ...],
    algorithm: str, backend: str | None,
) -> Gradients:  # fmt: skip
    mask = list(output_mask) if isinstance(output_mask, Sequence | np.ndarray) else []
    if len(mask) != 3 or not all(isinstance(wanted, bool | np.bool_) for wanted in mask):
        shown = parameters.shown(output_mask)
        raise ArgumentError(f"output_mask must be three booleans, for input, weight and bias, not {shown}")
    grad_output, input, weight = (
        as_array(name, array) for name, array in (("grad_output", grad_output), ("input", input), ("weight", weight))
    )
    geometry = operation.geometry(input.shape, weight.shape, *how)
    check_shape("grad_output", grad_output, geometry.output_shape, "the output's")
    by = (algorithm, backend, None)
    if not grad_output.dtype == input.dtype == weight.dtype:
        others: tuple[dict[str, Array], ...] = {"weight": weight}, {"input": input}, {}
        check_dtypes(backend, *({**other, "grad_output": grad_output} for other in compress(others, mask)))
    return (
        _input(operation, input.shape, weight, grad_output, how, *by) if mask[0] else None,
        _weight(operation, input, weight.shape, grad_output, how, *by) if mask[1] else None,
        _bias(grad_output, operation.spatial, *by) if mask[2] else None,
    )


def _size(name: str, value: Any, lengths: tuple[int, ...]) -> tuple[int, ...]:
    return parameters.sizes(name, value, lengths, f"a shape of {' or '.join(map(str, lengths))} integers")
