"""Convolution as a sparse matrix C: conv2d(x) == C @ x, and conv_transpose2d(y) == C.T @ y.

Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, 2016, arXiv:1603.07285, section 4.1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.problem import parameters
from fastconv.problem.arrays import as_array, cast, common_dtype, compute_dtype
from fastconv.problem.axes import Axis
from fastconv.problem.extras import require
from fastconv.problem.geometry import Geometry


def conv2d_matrix(
    weight: Any, input_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The sparse matrix C of a 2-D convolution over flattened (C, H, W) arrays.

    For x of shape (C_in, H, W): conv2d(x).ravel() == C @ x.ravel(). For y of the output's shape:
    conv_transpose2d(y).ravel() == C.T @ y.ravel(), with the same weight and parameters and the output's size (H, W).

    Arguments
        weight      (C_out, C_in / groups, R, S)
        input_size  (height, width) of the input
        stride, padding, dilation, groups   as for `conv2d`; the padding is of zeros

    Returns a `scipy.sparse.csr_array` of shape (C_out * P * Q, C_in * H * W), with the weight's dtype
    (float32 for float16, which scipy.sparse does not support).

    Raises as `conv2d`, and `MissingExtraError` without SciPy: `pip install "fastconv[scipy]"`.

    >>> import numpy as np
    >>> import fastconv as fc
    >>> fc.conv2d_matrix(np.array([[[[1, 2], [3, 4]]]]), (3, 3)).toarray()
    array([[1, 2, 0, 3, 4, 0, 0, 0, 0],
           [0, 1, 2, 0, 3, 4, 0, 0, 0],
           [0, 0, 0, 1, 2, 0, 3, 4, 0],
           [0, 0, 0, 0, 1, 2, 0, 3, 4]])
    """
    weight = as_array("weight", weight)
    weight = cast(weight, compute_dtype(common_dtype(weight=weight)))
    height, width = parameters.sizes("input_size", input_size, (2,), "(height, width)")
    groups = parameters.integer("groups", groups, 1)
    channels = max(1, weight.shape[1]) * groups if weight.ndim == 4 else 1  # a wrong weight raises below
    geometry = Geometry.conv(
        (channels, height, width), weight.shape, stride, padding, dilation, groups, names=("input_size", "weight")
    )
    sparse = require("scipy.sparse", "scipy", "conv2d_matrix")

    outputs, per_group = weight.shape[:2]
    rows, cols = (_links(axis) for axis in geometry.axes)
    # the axes of the entries: k, c within the group, linked pairs along the height, and along the width
    k = np.arange(outputs)[:, None, None, None]
    c = k // (outputs // groups) * per_group + np.arange(per_group)[:, None, None]
    (p, r, h), (q, s, w) = rows[:, :, None], cols
    row = np.ravel_multi_index(np.broadcast_arrays(k, p, q), geometry.small_shape)
    column = np.ravel_multi_index(np.broadcast_arrays(c, h, w), geometry.large_shape)
    entries = np.broadcast_arrays(weight[k, np.arange(per_group)[:, None, None], r, s], row, column)
    value, row, column = (entry.ravel() for entry in entries)
    shape = (math.prod(geometry.small_shape), math.prod(geometry.large_shape))
    return sparse.csr_array((value, (row, column)), shape=shape)


def _links(axis: Axis) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The linked positions of an axis as three rows (output, tap, input), without those outside the input."""
    small, tap = np.indices((axis.small, axis.taps)).reshape(2, -1)
    large = small * axis.stride - axis.pad_before + tap * axis.dilation
    return np.stack([small, tap, large])[:, (large >= 0) & (large < axis.large)]
