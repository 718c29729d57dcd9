"""Packing the weight, apart from the pass that uses it: each tap of each channel is a vector of results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from problems import Problem

from fastconv.kernels.arguments import Weight, integers
from fastconv.kernels.pack_weight import LanePacking, pack_weight
from fastconv.planner.channel_lanes import ResultsInOrder, planner_of
from fastconv.planner.interleaved_phases import ResultsOfPhases
from fastconv.planner.plan_builder import Maps, Tables
from fastconv.planner.request import Request
from fastconv.problem.subpixel import equivalent_phases, reading_large, writing_large

llvm = pytest.importorskip("fastconv.backends.numba.llvm")


@pytest.fixture(scope="module")
def pack():
    """`pack_weight` for float32, as the Numba engine compiles it."""
    numba, drivers = pytest.importorskip("numba"), pytest.importorskip("fastconv.backends.numba.drivers")
    packed = drivers.bound(pack_weight, 4)
    packing_at, strides_at = drivers.structure_at(LanePacking), drivers.structure_at(Weight)

    @numba.njit
    def compiled(packing, strides, tables, weight, g, k, valid, c, channels, panel):
        at = weight.ctypes.data
        packed(packing_at(packing.ctypes.data), strides_at(strides.ctypes.data), tables.ctypes.data, at,
               at + 4 * weight.size, g, k, valid, c, channels, panel.ctypes.data)  # fmt: skip

    def run(lanes: Any, maps: Maps, weight: Any, layout: Any) -> Any:
        """The packed weight of all groups, channels and results: (group, channel, tap, result)."""
        tables = Tables()
        tables.add([0])
        packing, strides = (np.array(integers(each)) for each in (lanes.packing(tables), maps.weight_strides))
        found = np.empty((maps.groups, maps.channels, lanes.taps, lanes.results), np.float32)
        for g in range(maps.groups):
            for c, channels in ((0, 1), (1, maps.channels - 1)):
                for k in range(0, lanes.results, layout.lanes):
                    valid = min(layout.lanes, lanes.results - k)
                    panel = np.full((channels, lanes.taps, layout.lanes), np.nan, np.float32)
                    compiled(packing, strides, tables.joined(), weight, g, k, valid, c, channels, panel)
                    found[g, c : c + channels, :, k : k + valid] = panel[:, :, :valid]
        return found

    return run


def case(problem: Problem) -> tuple[Any, Any, Any]:
    """Its geometry, a weight that has every number once, and this machine's layout."""
    geometry = problem.geometry.lifted()
    weight = np.arange(np.prod(geometry.weight_shape), dtype=np.float32).reshape(geometry.weight_shape)
    return geometry, weight, llvm.machine().layout(4)


@pytest.mark.parametrize("taps", [1, 2, 3])
@pytest.mark.parametrize("to_large", [False, True])
def test_results_in_order(pack, to_large, taps):
    geometry, weight, layout = case(Problem(False, 2, (1, 10, 7, 9), (42, 5, taps, taps), {"groups": 2}))
    phases = list(writing_large(geometry)) if to_large else [reading_large(geometry)]
    request = Request(geometry, "large" if to_large else "small", layout, 4, 1)
    maps = Maps(request)
    expected = weight.reshape(2, 21, 5, taps**2).transpose((0, 1, 3, 2) if to_large else (0, 2, 3, 1))
    lanes = ResultsInOrder(request, phases, maps)
    np.testing.assert_array_equal(pack(lanes, maps, weight, layout), expected)


@pytest.mark.parametrize(("stride", "taps"), [(2, 4), (3, 3), (5, 10)])
def test_results_of_phases(pack, stride, taps):
    """Each lane has the taps of its phase; a run that begins earlier has the same as the one before."""
    parameters = {"stride": stride, "groups": 2}
    geometry, weight, layout = case(Problem(True, 2, (1, 6, 5, 4), (6, 5, taps, taps), parameters))
    request = Request(geometry, "large", layout, 4, 1)
    maps = Maps(request)
    (alike,) = equivalent_phases(geometry)
    lanes = ResultsOfPhases(request, alike, maps)
    row_taps, col_taps = (
        of_axis.first_taps[:, None] + of_axis.first.tap_step * np.arange(of_axis.first.taps)
        for of_axis in (alike.rows, alike.cols)
    )
    col_taps = col_taps[lanes._cols]
    wanted = weight.reshape(2, 3, 5, taps, taps)[..., row_taps[:, :, None, None], col_taps]
    expected = wanted.transpose(0, 1, 4, 6, 2, 3, 5)  # group, channel, taps, result, row and column of the phase
    found = pack(lanes, maps, weight, layout)
    np.testing.assert_array_equal(found, expected.reshape(found.shape))


@pytest.mark.parametrize("to_large", [False, True])
@pytest.mark.parametrize("taps", [1, 3])
def test_every_line_that_is_packed_is_prefetched(taps, to_large):
    """Wherever in a cache line the weight begins."""
    geometry, weight, layout = case(Problem(False, 2, (1, 96, 7, 9), (128, 96, taps, taps), {}))
    request = Request(geometry, "large" if to_large else "small", layout, 4, 1)
    phases = list(writing_large(geometry)) if to_large else [reading_large(geometry)]
    planner = planner_of(request, phases, is_all=True)
    results = min(planner.lanes.results, layout.beside(planner.lanes.results) * layout.lanes)
    numbers = np.arange(weight.size).reshape(weight.shape)
    packed = numbers[: planner.block_c, :results] if to_large else numbers[:results, : planner.block_c]
    for start in range(16):
        assert set(((planner._fetches(1) + start) // 16).tolist()) == set(((packed + start) // 16).ravel().tolist())
