"""Convolution and transposed convolution of NumPy arrays, in one and two dimensions.

Names, order and defaults of the positional arguments are those of `torch.nn.functional`; those after `*` are
fastconv's own. `fastconv.problem.geometry` defines the shapes and indices. V. Dumoulin, F. Visin, A guide to
convolution arithmetic for deep learning, 2016, arXiv:1603.07285, explains the arithmetic with pictures.
"""

from __future__ import annotations

from typing import Any

from fastconv.dispatch.call import contract, find_call
from fastconv.problem.arrays import Array, as_array, check_shape, common_dtype
from fastconv.problem.operations import CONV1D, CONV2D, CONV_TRANSPOSE1D, CONV_TRANSPOSE2D, Operation


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """The 2-D convolution (cross-correlation) of images with a bank of kernels.

    output[n, k, p, q] = bias[k] + sum over c, r, s of weight[k, c, r, s] * input[n, c, h, w], where
    h = p * stride - padding + r * dilation, likewise w, and c runs over the channels of k's group.

    Arguments
        input         (N, C_in, H, W), or (C_in, H, W) unbatched: anything that NumPy or DLPack reads as an array
        weight        (C_out, C_in / groups, R, S)
        bias          (C_out,), or None
        stride        pixels from one position of the kernel to the next: an integer, or (height, width)
        padding       pixels around the input: an integer, (height, width), ((top, bottom), (left, right)), 'valid'
                      for none, 'same' for an output of ceil(input / stride) with the odd pixel at the end, or
                      'same_lower' with it at the start
        dilation      pixels from one tap of the kernel to the next: an integer, or (height, width)
        groups        C_in and C_out are split into this many groups, which are convolved separately
        padding_mode  what the padding contains: 'zeros', 'reflect', 'replicate' or 'circular'
        data_format   'channels_first', or 'channels_last' for an input (N, H, W, C_in) and an output (N, P, Q, C_out);
                      the weight's layout stays
        algorithm     'auto' or the name of an algorithm, see `explain`
        backend       the name of a backend, see `available_backends`; None for the one that is set
        out           an array of the result's shape and dtype, with any strides, that is written and returned

    Returns the output, (N, C_out, P, Q), or (C_out, P, Q) for an unbatched input, with dtype `numpy.result_type` of the
    arguments. float16 is computed in float32 and rounded once.

    Raises `ShapeError`, `ArgumentError`, `DTypeError` or `BackendUnavailableError`, before any work.

    >>> import numpy as np
    >>> import fastconv as fc
    >>> fc.conv2d(np.arange(9.0).reshape(1, 3, 3), np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))
    array([[[27., 37.],
            [57., 67.]]])
    """
    return forward(
        CONV2D, input, weight, bias,
        (stride, padding, dilation, groups, padding_mode, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """The 2-D transposed convolution: the adjoint of `conv2d` with the same weight, stride, padding and dilation.

    output[n, c, h, w] = bias[c] + sum over k, r, s, p, q of weight[k, c, r, s] * input[n, k, p, q], where
    h = p * stride - padding + r * dilation, likewise w, and k runs over the channels of c's group.

    Arguments as for `conv2d`, except
        input           (N, C_in, H, W), or (C_in, H, W) unbatched
        weight          (C_in, C_out / groups, R, S)
        padding         pixels removed around the output, in any form that `conv2d` takes; 'same' and 'same_lower'
                        give an output of input * stride
        output_padding  pixels added at the end of the output: an integer, or (height, width), less than the stride or
                        the dilation
        output_size     (height, width) of the output; it determines `output_padding`

    Returns the output, (N, C_out, (H - 1) * stride - 2 * padding + dilation * (R - 1) + output_padding + 1, ...).

    Raises as `conv2d`, and `ShapeError` for an unreachable `output_size`; the message lists the reachable ones.

    >>> import numpy as np
    >>> import fastconv as fc
    >>> fc.conv_transpose2d(np.arange(4.0).reshape(1, 2, 2), np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[ 0.,  0.,  1.],
            [ 0.,  4.,  6.],
            [ 4., 12.,  9.]]])
    """
    return forward(
        CONV_TRANSPOSE2D, input, weight, bias,
        (stride, padding, output_padding, groups, dilation, output_size, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    *, padding_mode: str = "zeros", data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """The 1-D convolution: `conv2d` with one spatial axis.

    `input` is (N, C_in, W) or (C_in, W), `weight` (C_out, C_in / groups, S); `padding` may be an integer, (width,),
    ((left, right),) or a name; with channels last, `input` is (N, W, C_in). Everything else, errors included, is as for
    `conv2d`.

    >>> import fastconv as fc
    >>> fc.conv1d([[1.0, 2.0, 3.0, 4.0]], [[[1.0, 0.0, -1.0]]])
    array([[-2., -2.]])
    """
    return forward(
        CONV1D, input, weight, bias,
        (stride, padding, dilation, groups, padding_mode, data_format), algorithm, backend, out,
    )  # fmt: skip


def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
    *, output_size: Any = None, data_format: str = "channels_first", algorithm: str = "auto",
    backend: str | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """The 1-D transposed convolution: `conv_transpose2d` with one spatial axis.

    `input` is (N, C_in, W) or (C_in, W), `weight` (C_in, C_out / groups, S). Everything else, errors included, is as
    for `conv_transpose2d`.

    >>> import fastconv as fc
    >>> fc.conv_transpose1d([[1.0, 2.0]], [[[1.0, 10.0]]], stride=2)
    array([[ 1., 10.,  2., 20.]])
    """
    return forward(
        CONV_TRANSPOSE1D, input, weight, bias,
        (stride, padding, output_padding, groups, dilation, output_size, data_format), algorithm, backend, out,
    )  # fmt: skip


def forward(
    operation: Operation, input: Any, weight: Any, bias: Any, parameters: tuple[Any, ...],
    algorithm: str, backend: str | None, out: Array | None,
) -> Array:  # fmt: skip
    """The output of any of the four operations."""
    input, weight = as_array("input", input), as_array("weight", weight)
    if bias is not None:
        bias = as_array("bias", bias)
    key, call = find_call(operation, input, weight, bias, parameters, algorithm, backend, out)
    if call is not None:
        return call(input, weight, bias, out)
    geometry = operation.geometry(input.shape, weight.shape, *parameters)
    if bias is not None:
        check_shape("bias", bias, (geometry.output_channels,), "one number for each output channel")
    dtype = common_dtype(input=input, weight=weight, bias=bias)
    return contract(
        geometry, **geometry.maps(input=input), weight=weight, bias=bias,
        dtype=dtype, algorithm=algorithm, backend=backend, out=out, key=key,
    )  # fmt: skip
