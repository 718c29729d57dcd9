"""The gradients of convolution and transposed convolution.

A loss L depends on the output; `grad_output` is dL/d(output). Names and order of the positional arguments are those of
`torch.nn.grad` and of the forward functions in `fastconv.functional`, where each parameter, keywords included, is
explained. Every function raises `ShapeError`, `ArgumentError`, `DTypeError` or `BackendUnavailableError`
before any work. The result's dtype is `numpy.result_type` of the arrays given.

Each gradient is one of the three contractions that link input, weight and output, see `fastconv.dispatch.gradients`.
With `data_format="channels_last"`, `input`, `input_size` and `grad_output` have their channels last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastconv.dispatch.gradients import Gradients, all_gradients, bias_gradient, input_gradient, weight_gradient
from fastconv.problem.arrays import Array
from fastconv.problem.operations import CONV1D, CONV2D, CONV_TRANSPOSE1D, CONV_TRANSPOSE2D


def conv2d_input(
    input_size: Sequence[int], weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
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
    return input_gradient(
        CONV2D, input_size, weight, grad_output,
        (stride, padding, dilation, groups, padding_mode, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv2d_weight(
    input: Any, weight_size: Sequence[int], grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
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
    return weight_gradient(
        CONV2D, input, weight_size, grad_output,
        (stride, padding, dilation, groups, padding_mode, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv2d_bias(
    grad_output: Any, *, data_format: str = "channels_first", algorithm: str = "auto", backend: str | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """The gradient of `conv2d` with respect to its bias: the sum of `grad_output` over images and pixels.

    `grad_output` is (N, C_out, P, Q) or (C_out, P, Q). Returns (C_out,).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv2d_bias(np.ones((5, 2, 3, 4)))
    array([60., 60.])
    """
    return bias_gradient(grad_output, 2, data_format, algorithm, backend, out)


def conv2d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", data_format: str = "channels_first",
    output_mask: Sequence[bool] = (True, True, True), algorithm: str = "auto", backend: str | None = None,
) -> Gradients:  # fmt: skip
    """The gradients of `conv2d` with respect to input, weight and bias at once.

    `output_mask` says which of the three to compute; the others are None in the result. Their bits are those of the
    functions for each one. If `grad_output` must be converted to another dtype or byte order, that is done once
    for all three.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> dx, dw, db = grad.conv2d_backward(np.ones((1, 1, 2, 2)), x, w, output_mask=(True, True, False))
    >>> dx.shape, dw.shape, db
    ((1, 1, 3, 3), (1, 1, 2, 2), None)
    """
    return all_gradients(
        CONV2D, grad_output, input, weight, output_mask,
        (stride, padding, dilation, groups, padding_mode, data_format), algorithm, backend,
    )  # fmt: skip


def conv_transpose2d_input(
    input_size: Sequence[int], weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
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
    return input_gradient(
        CONV_TRANSPOSE2D, input_size, weight, grad_output,
        (stride, padding, output_padding, groups, dilation, output_size, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv_transpose2d_weight(
    input: Any, weight_size: Sequence[int], grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
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
    return weight_gradient(
        CONV_TRANSPOSE2D, input, weight_size, grad_output,
        (stride, padding, output_padding, groups, dilation, output_size, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv_transpose2d_bias(
    grad_output: Any, *, data_format: str = "channels_first", algorithm: str = "auto", backend: str | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """The gradient of `conv_transpose2d` with respect to its bias: as `conv2d_bias`.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv_transpose2d_bias(np.ones((2, 3, 3)))
    array([9., 9.])
    """
    return bias_gradient(grad_output, 2, data_format, algorithm, backend, out)


def conv_transpose2d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, data_format: str = "channels_first",
    output_mask: Sequence[bool] = (True, True, True), algorithm: str = "auto", backend: str | None = None,
) -> Gradients:  # fmt: skip
    """The gradients of `conv_transpose2d` with respect to input, weight and bias at once; see `conv2d_backward`.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> x, w = np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2))
    >>> dx, dw, db = grad.conv_transpose2d_backward(np.ones((1, 1, 4, 4)), x, w, stride=2)
    >>> dx.shape, dw.shape, db
    ((1, 1, 2, 2), (1, 1, 2, 2), array([16.]))
    """
    return all_gradients(
        CONV_TRANSPOSE2D, grad_output, input, weight, output_mask,
        (stride, padding, output_padding, groups, dilation, output_size, data_format), algorithm, backend,
    )  # fmt: skip


def conv1d_input(
    input_size: Sequence[int], weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """`conv2d_input` with one spatial axis: `input_size` is (N, C_in, W) or (C_in, W).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv1d_input((1, 3), np.ones((1, 1, 2)), np.ones((1, 2)))
    array([[1., 2., 1.]])
    """
    return input_gradient(
        CONV1D, input_size, weight, grad_output,
        (stride, padding, dilation, groups, padding_mode, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv1d_weight(
    input: Any, weight_size: Sequence[int], grad_output: Any,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """`conv2d_weight` with one spatial axis: `weight_size` is (C_out, C_in / groups, S).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv1d_weight(np.arange(3.0).reshape(1, 3), (1, 1, 2), np.ones((1, 2)))
    array([[[1., 3.]]])
    """
    return weight_gradient(
        CONV1D, input, weight_size, grad_output,
        (stride, padding, dilation, groups, padding_mode, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv1d_bias(
    grad_output: Any, *, data_format: str = "channels_first", algorithm: str = "auto", backend: str | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """`conv2d_bias` with one spatial axis: `grad_output` is (N, C_out, Q) or (C_out, Q).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv1d_bias(np.ones((5, 2, 4)))
    array([20., 20.])
    """
    return bias_gradient(grad_output, 1, data_format, algorithm, backend, out)


def conv1d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", data_format: str = "channels_first",
    output_mask: Sequence[bool] = (True, True, True), algorithm: str = "auto", backend: str | None = None,
) -> Gradients:  # fmt: skip
    """`conv2d_backward` with one spatial axis.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> [g.shape for g in grad.conv1d_backward(np.ones((1, 1, 3)), np.ones((1, 1, 4)), np.ones((1, 1, 2)))]
    [(1, 1, 4), (1, 1, 2), (1,)]
    """
    return all_gradients(
        CONV1D, grad_output, input, weight, output_mask,
        (stride, padding, dilation, groups, padding_mode, data_format), algorithm, backend,
    )  # fmt: skip


def conv_transpose1d_input(
    input_size: Sequence[int], weight: Any, grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """`conv_transpose2d_input` with one spatial axis: `input_size` is (N, C_in, W) or (C_in, W).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv_transpose1d_input((1, 2), np.ones((1, 1, 2)), np.ones((1, 4)), stride=2)
    array([[2., 2.]])
    """
    return input_gradient(
        CONV_TRANSPOSE1D, input_size, weight, grad_output,
        (stride, padding, output_padding, groups, dilation, output_size, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv_transpose1d_weight(
    input: Any, weight_size: Sequence[int], grad_output: Any,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """`conv_transpose2d_weight` with one spatial axis: `weight_size` is (C_in, C_out / groups, S).

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv_transpose1d_weight(np.ones((1, 2)), (1, 1, 2), np.arange(3.0).reshape(1, 3))
    array([[[1., 3.]]])
    """
    return weight_gradient(
        CONV_TRANSPOSE1D, input, weight_size, grad_output,
        (stride, padding, output_padding, groups, dilation, output_size, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv_transpose1d_bias(
    grad_output: Any, *, data_format: str = "channels_first", algorithm: str = "auto", backend: str | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """`conv_transpose2d_bias` with one spatial axis: as `conv1d_bias`.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv_transpose1d_bias(np.ones((2, 3)))
    array([3., 3.])
    """
    return bias_gradient(grad_output, 1, data_format, algorithm, backend, out)


def conv_transpose1d_backward(
    grad_output: Any, input: Any, weight: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, data_format: str = "channels_first",
    output_mask: Sequence[bool] = (True, True, True), algorithm: str = "auto", backend: str | None = None,
) -> Gradients:  # fmt: skip
    """`conv_transpose2d_backward` with one spatial axis.

    >>> import numpy as np
    >>> from fastconv import grad
    >>> [g.shape for g in grad.conv_transpose1d_backward(np.ones((1, 1, 5)), np.ones((1, 1, 4)), np.ones((1, 1, 2)))]
    [(1, 1, 4), (1, 1, 2), (1,)]
    """
    return all_gradients(
        CONV_TRANSPOSE1D, grad_output, input, weight, output_mask,
        (stride, padding, output_padding, groups, dilation, output_size, data_format), algorithm, backend,
    )  # fmt: skip
