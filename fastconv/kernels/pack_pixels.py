"""Pack a plane of a source in which neighbouring columns are not neighbours in memory, as with channels last."""

from fastconv.kernels.arguments import PaddedTile, Source
from fastconv.kernels.copying import copy_row, write_zeros
from fastconv.kernels.primitives import LANES, SIZE, Address, load, store, transpose


def pack_pixels(
    source: Source, tile: PaddedTile, line: Address, plane: Address, channels: int, top: int, inside: int, below: int,
    first: int, end: int, cols: int, limit: Address,
) -> None:  # fmt: skip
    """Fill `channels` channels of a plane: `top` rows of zeros, `inside` rows of the source, `below` rows of zeros.

    Columns first <= v < end of a row of `cols` columns are inside the source; `line` is where column 0 of the first row
    inside would be. Where channels are neighbours, squares of LANES pixels and channels are transposed. Up to a vector
    may be written behind the rows of a channel, where the tile has space for it. Nothing at `limit` or beyond is read.
    """
    step, ld_source = tile.stride_w * source.col, tile.stride_h * source.row
    run, runs = end - first, inside
    if run == cols and ld_source == cols * step:  # the rows are one long row of the source and of the tile
        run, runs = inside * cols, 1
    if inside == 0:
        write_zeros_of_channels(plane, tile.channel, channels, (top + below) * tile.cols)
        return
    gap, read = cols - end + first, line + first * step * SIZE
    write_zeros_of_channels(plane, tile.channel, channels, top * tile.cols + first)
    plane += (top * tile.cols + first) * SIZE
    for i in range(runs):
        for v in range(0, run, LANES):
            pixels = min(LANES, run - v)
            beyond = (max(0, (pixels - 1) * step) + LANES) * SIZE
            for c in range(0, channels, LANES):
                count = min(LANES, channels - c)
                at = read + (c * source.channel + i * ld_source + v * step) * SIZE
                to = plane + (c * tile.channel + i * tile.cols + v) * SIZE
                if source.channel == 1 and at + beyond <= limit:
                    transpose(at, step, pixels, to, tile.channel, count)
                else:
                    for lane in range(count):
                        for pixel in range(pixels):
                            value = load(at + (lane * source.channel + pixel * step) * SIZE)
                            store(value, to + (lane * tile.channel + pixel) * SIZE)
        if gap and i + 1 < runs:  # the padding on the right, and that on the left of the next row
            write_zeros_of_channels(plane + (i * tile.cols + run) * SIZE, tile.channel, channels, gap)
    plane += ((inside - 1) * tile.cols + end - first) * SIZE
    write_zeros_of_channels(plane, tile.channel, channels, cols - end + below * tile.cols)


def copy_pixels(
    source: Source, tile: PaddedTile, line: Address, plane: Address, channels: int, top: int, inside: int, below: int,
    first: int, end: int, cols: int,
) -> None:  # fmt: skip
    """As `pack_pixels` for a plane that has the channels of a pixel side by side, as the source has them."""
    step, row = tile.stride_w * source.col, tile.cols * tile.pixel
    count, run = channels, 1
    if (
        step == channels and channels == tile.pixel
    ):  # the pixels of a row follow each other in the source and in the tile
        count, run = (end - first) * channels, max(1, end - first)
    write_zeros(plane, top * row)
    plane += top * row * SIZE
    for i in range(inside):
        read = line + i * tile.stride_h * source.row * SIZE
        write_zeros(plane, first * tile.pixel)
        for v in range(first, end, run):
            copy_row(plane + v * tile.pixel * SIZE, read + v * step * SIZE, count, 0)
        write_zeros(plane + end * tile.pixel * SIZE, (cols - end) * tile.pixel)
        plane += row * SIZE
    write_zeros(plane, below * row)


def write_zeros_of_channels(target: Address, channel: int, channels: int, count: int) -> None:
    """Write `count` zeros in each of `channels` channels, and up to a vector more."""
    if count > 0:
        for c in range(channels):
            write_zeros(target + c * channel * SIZE, count)
