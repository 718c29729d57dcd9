"""Maps as sums of convolutions of stride and dilation 1, which is what kernels in transformed tiles compute: those of
Winograd's convolution and of spectra."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastconv.kernels.drivers.winograd import Plane
from fastconv.planner.plan_builder import Maps
from fastconv.planner.request import Request
from fastconv.problem.arrays import Array
from fastconv.problem.subpixel import AxisMap

#: Bytes of an element: these kernels compute float32 only.
ITEMSIZE = 4


class AxisPart(NamedTuple):
    """An axis of outputs that are a convolution of stride and dilation 1 of planes of the source.

    outputs, out_start, out_stride   as of an axis map
    step     source positions from one position of a plane to the next
    taps     taps of a plane
    planes   for each plane its first position in the source, its extent, the padding before it and the kernel's taps
    """

    outputs: int
    out_start: int
    out_stride: int
    step: int
    taps: int
    planes: tuple[tuple[int, int, int, tuple[int, ...]], ...]


@functools.lru_cache(512)
def axis_parts(axis_map: AxisMap, extent: int) -> list[AxisPart]:
    """The parts of an axis map of a source of this extent, whose stride divides its taps, or which has a dilation.

    With a stride there is a plane for each residue of the taps modulo the stride, and their sums are added. With a
    dilation there is a part for each residue of the outputs modulo the dilation.
    """
    stride, dilation, taps = axis_map.stride, axis_map.dilation, axis_map.kernel_taps.tolist()
    step = max(stride, dilation)

    def plane(first: int, of: Sequence[int]) -> tuple[int, int, int, tuple[int, ...]]:
        """The plane of the positions `first`, `first` + step, ... of the padded source."""
        before, start = divmod(first - axis_map.pad, step)
        return start, max(0, -(-(extent - start) // step)), -before, tuple(of)

    if dilation == 1:
        planes = tuple(plane(first, taps[first::stride]) for first in range(stride))
        return [AxisPart(axis_map.outputs, axis_map.out_start, axis_map.out_stride, step, len(taps) // stride, planes)]
    return [
        AxisPart(
            -(-(axis_map.outputs - first) // dilation), axis_map.out_start + first * axis_map.out_stride,
            axis_map.out_stride * dilation, step, len(taps), (plane(first, taps),),
        )
        for first in range(min(dilation, axis_map.outputs))
    ]  # fmt: skip


class Part(NamedTuple):
    """Outputs that are a convolution of stride and dilation 1 of planes of the source, on both axes."""

    rows: AxisPart
    cols: AxisPart


def parts_of(request: Request) -> list[Part]:
    """The parts of all phases of a map."""
    height, width = Maps(request).source
    return [
        Part(rows, cols)
        for phase in request.phases
        for rows in axis_parts(phase.rows, height)
        for cols in axis_parts(phase.cols, width)
    ]


def planes_of(part: Part, maps: Maps) -> list[Plane]:
    """The planes of the source that a part reads."""
    order = maps.source_order
    return [
        Plane(row * order.row + col * order.col, height, width, pad_h, pad_w)
        for row, height, pad_h, _ in part.rows.planes
        for col, width, pad_w, _ in part.cols.planes
    ]


def taps_of(part: Part, request: Request, lanes: int) -> Array:
    """For each tap of a part, plane by plane, its offset in the packed weight."""
    kernel_width = request.geometry.axes[1].taps
    return np.array([
        (np.array(rows)[:, None] * kernel_width + np.array(cols)).ravel() * lanes
        for *_, rows in part.rows.planes
        for *_, cols in part.cols.planes
    ])  # fmt: skip
