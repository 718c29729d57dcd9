"""Pack the source: copy a strip of it into a padded tile, in which each tap is a constant offset."""

from fastconv.kernels.arguments import PaddedTile, Source
from fastconv.kernels.copying import copy_row, write_zeros
from fastconv.kernels.pack_pixels import copy_pixels, pack_pixels
from fastconv.kernels.primitives import (
    LANES,
    SIZE,
    Address,
    Entries,
    ceil_div,
    entry,
    floor_div,
    load,
    pad_2_rows,
    pad_4_rows,
    pad_rows,
    pad_rows_of_2,
    store,
)

#: How far ahead to prefetch, in bytes: as far as it takes memory to deliver in time.
AHEAD = 16384


def pack_source(
    source: Source, tile: PaddedTile, tables: Entries, at: Address, to: Address, n: int, images: int, channel: int,
    channels: int, i0: int, rows: int, j0: int, cols: int,
) -> None:  # fmt: skip
    """Fill the padded tile with `images` images from n on, and for each image and plane with `channels` channels.

    `channel` is the offset of the first channel in the source. The strip starts at row i0 and column j0 of every plane
    and needs `rows` x `cols` positions of it. Up to a vector may be written beyond the end of a row. The next row
    overwrites it, and the tile has space for it after its last row.
    """
    planes = tile.planes_h * tile.planes_w
    ld_source = tile.stride_h * source.row
    ahead = ceil_div(AHEAD // SIZE, max(1, source.channel)) * source.channel
    last = (cols - 1) // LANES * LANES
    limit = at + source.size * SIZE
    number = 0
    while number < images * planes:
        a, b = number % planes // tile.planes_w, number % tile.planes_w
        # the source position where the plane starts, and its rows and columns inside the source
        h = entry(tables, tile.origins_h_table + a) + i0 * tile.stride_h
        w = entry(tables, tile.origins_w_table + b) + j0 * tile.stride_w
        top, first = min(rows, max(0, -floor_div(h, tile.stride_h))), min(cols, max(0, -floor_div(w, tile.stride_w)))
        bottom = max(top, min(rows, floor_div(source.height - 1 - h, tile.stride_h) + 1))
        end = max(first, min(cols, floor_div(source.width - 1 - w, tile.stride_w) + 1))
        if first == end:
            bottom = top
        # the planes of all residues of the column modulo the stride are packed together
        has_all = first < end and b + tile.stride_w <= tile.planes_w
        if has_all:
            origin = tile.origins_w_table + b
            has_all = entry(tables, origin + tile.stride_w - 1) == entry(tables, origin) + tile.stride_w - 1
        is_usual = tile.stride_w <= 2 or (tile.stride_w == 4 and has_all)
        is_usual = is_usual and source.col == 1 and first <= LANES and end + (tile.stride_w == 1) > last
        made = tile.stride_w if is_usual and has_all else 1
        start = (n + number // planes) * source.image + channel
        line = at + (start + (h + top * tile.stride_h) * source.row + w * source.col) * SIZE
        plane, inside, below = to + number * tile.plane * SIZE, bottom - top, rows - bottom
        if tile.channel == 1:
            copy_pixels(source, tile, line, plane, channels, top, inside, below, first, end, cols)
        elif source.col != 1:
            pack_pixels(source, tile, line, plane, channels, top, inside, below, first, end, cols, limit)
        elif not is_usual:
            for c in range(channels):
                read, written = line + c * source.channel * SIZE, plane + c * tile.channel * SIZE
                write_zeros(written, top * tile.cols)
                written += top * tile.cols * SIZE
                for _ in range(inside):
                    write_zeros(written, first)
                    if tile.stride_w == 1:
                        copy_row(written + first * SIZE, read + first * SIZE, end - first, 0)
                    else:
                        for v in range(first, end):
                            store(load(read + v * tile.stride_w * SIZE), written + v * SIZE)
                    write_zeros(written + end * SIZE, cols - end)
                    read += ld_source * SIZE
                    written += tile.cols * SIZE
                write_zeros(written, below * tile.cols)
        elif tile.stride_w == 1:
            pad_rows(line, ld_source, source.channel, plane, tile.plane, tile.cols, tile.channel, channels, top, inside,
                     below, last, w, source.width, ahead)  # fmt: skip
        elif made == 1:
            pad_rows_of_2(line, ld_source, source.channel, plane, tile.plane, tile.cols, tile.channel, channels, top,
                          inside, below, last, w, source.width, ahead)  # fmt: skip
        elif made == 2:
            pad_2_rows(line, ld_source, source.channel, plane, tile.plane, tile.cols, tile.channel, channels, top,
                       inside, below, last, w, source.width, ahead)  # fmt: skip
        else:
            pad_4_rows(line, ld_source, source.channel, plane, tile.plane, tile.cols, tile.channel, channels, top,
                       inside, below, last, w, source.width, ahead)  # fmt: skip
        number += made
