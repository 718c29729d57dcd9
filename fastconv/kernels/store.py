"""Store: write finished sums of one result to the output, whatever its strides."""

from __future__ import annotations

from fastconv.kernels.arguments import Out
from fastconv.kernels.pack_source import copy_row, write_zeros
from fastconv.kernels.primitives import LANES, SIZE, Address, Element, load, splat, store, weave, weave_odd


def write_value(target: Address, value: Element, count: int) -> None:
    """Write `value` to `count` elements."""
    for i in range(0, count - LANES + 1, LANES):
        splat(value, target + i * SIZE)
    for i in range(count // LANES * LANES, count):
        store(value, target + i * SIZE)


def store_result(
    out: Out, all_rows: int, i0: int, gap: Element, sums: Address, pitch: int, target: Address, rows: int, cols: int,
    images: int, by_rows: int, done: int,
) -> None:  # fmt: skip
    """Write one result's pixels from row i0 of `all_rows` on; rows of sums are `pitch` apart.

    The first `done` pixels of a line were summed in the output: they are there already. `gap` is the value of pixels
    that nobody computes.

    This is the only way to the output. A driver calls it once for each result of a work item, behind the last block of
    channels, whether sums have to be moved or not. So an epilogue (an activation, a residual) belongs here: on its way
    for what is moved, in place for the `done` pixels.
    """
    for image in range(images):
        to, source = target + image * out.image * SIZE, sums + image * rows * pitch * SIZE
        if out.fill_gaps:
            end = out.result if i0 + rows == all_rows else (i0 + rows) * out.row
            write_value(to, gap, end - i0 * out.row)
        if out.col == 1 and pitch == cols and not by_rows and (out.row == cols or rows == 1):
            copy_row(to + done * SIZE, source + done * SIZE, rows * cols - done, 0)
        elif out.col == 1:
            for i in range(rows):
                copy_row(to + (i * out.row + done) * SIZE, source + (i * pitch + done) * SIZE, cols - done, 0)
        elif out.interleave and cols > LANES:
            # Nothing is touched before a row's first pixel of this plan or behind its last. What the next plan writes
            # between them is cleared first, as reading it from memory would take long.
            for i in range(rows):
                for j in range(0, cols - LANES, LANES):
                    pair = to + (i * out.row + 2 * j) * SIZE
                    if out.interleave == 1:
                        write_zeros(pair, 2 * LANES)
                    weave(pair, source + (i * pitch + j) * SIZE)
            # the rows' ends, once what they overlap has left the processor's store buffers
            for i in range(rows):
                pair = to + (i * out.row + 2 * (cols - LANES) - 1) * SIZE
                if out.interleave == 1:
                    write_zeros(pair, 2 * LANES)
                weave_odd(pair, source + (i * pitch + cols - LANES) * SIZE)
        else:
            for i in range(rows):
                for j in range(cols):
                    store(load(source + (i * pitch + j) * SIZE), to + (i * out.row + j * out.col) * SIZE)
