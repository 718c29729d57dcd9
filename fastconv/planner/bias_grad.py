"""The bias gradient: its blocking, the same for any number of threads, and its plan."""

from __future__ import annotations

import functools
from collections.abc import Callable

from fastconv.backends.contract import AnyEngine, Layout, Plan, TileEngine, is_tiled
from fastconv.kernels.abi import BLOCK_ROWS, SUM_VECTORS
from fastconv.kernels.drivers.bias_grad import BiasGrad
from fastconv.planner.plan_builder import Tables, plan_of
from fastconv.planner.steps import with_partial_sums
from fastconv.problem.arrays import Array

#: Work items, at most, and the elements that one has at least.
_MOST_ITEMS, _LEAST = 32, 2**17
#: Elements that one thread sums in the time that a second one takes to start: fewer are summed by one.
SERIAL = 2**20
#: Rows of a map, at most, of which each is summed over the images: within so short a map a block would have few rows.
_FEW_ROWS = 2


def prepared(
    engine: AnyEngine, shape: tuple[int, int, int, int], itemsize: int, threads: int
) -> Callable[[Array, Array], None]:
    """A function of arrays (grid, out): `grid` has `shape` (N, C, H, W), `out` (C,) gets its sums over N, H and W."""
    if is_tiled(engine) and 0 not in shape:
        return _prepared(engine, shape, itemsize, threads)  # type: ignore[arg-type]

    def run(grid: Array, out: Array) -> None:
        out[...] = 0
        if grid.size:
            engine.sum_pixels(grid, out)  # type: ignore[union-attr]

    return run


@functools.lru_cache(maxsize=256)
def _prepared(
    engine: TileEngine, shape: tuple[int, int, int, int], itemsize: int, threads: int
) -> Callable[[Array, Array], None]:
    plan, splits = planned(shape, engine.layout(itemsize), itemsize)
    sums = with_partial_sums(engine.prepared(plan, threads), splits)
    channels = shape[1]

    def run(grid: Array, out: Array) -> None:
        sums(grid, grid, None, out.reshape(1, channels, 1, 1))

    return run


def planned(shape: tuple[int, int, int, int], layout: Layout, itemsize: int) -> tuple[Plan, int]:
    """The plan, and the number of partial sums."""
    images, channels, height, width = shape
    pixels, columns = height * width, SUM_VECTORS * layout.lanes
    along = pixels > _FEW_ROWS * columns
    blocks = images * -(-pixels // (BLOCK_ROWS * columns)) if along else -(-images // BLOCK_ROWS)
    items = max(1, min(_MOST_ITEMS, images * channels * pixels // _LEAST))
    # An item reads whole columns of several channels at once where maps are small. Blocks are shared where there are
    # fewer channels than that.
    parts = min(items, channels, max(1, channels * pixels // columns))
    block_channels = -(-channels // parts)
    parts = -(-channels // block_channels)
    splits = min(blocks, items // parts)
    arguments = BiasGrad(
        items=parts * splits, group=1, workspace=0, images=images, channels=channels, pixels=pixels,
        block_channels=block_channels, splits=splits, along=along, blocks=blocks, blocks_at=0, sums_at=0,
        square_at=0,
    )  # fmt: skip
    left = layout.lanes if pixels > layout.lanes else pixels
    parts_of_workspace = {
        "blocks_at": ((-(-blocks // splits)).bit_length() + 1) * columns,
        "sums_at": block_channels * left + columns + layout.lanes,
        "square_at": layout.lanes * layout.lanes,
    }
    return plan_of("bias_grad", itemsize, Tables(), arguments, parts_of_workspace), splits
