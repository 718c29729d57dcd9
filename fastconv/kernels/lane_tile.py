"""Pack the source for depthwise kernels into a padded tile of vectors with a lane for each channel."""

from typing import NamedTuple

from fastconv.kernels.arguments import Source
from fastconv.kernels.lanes import gather_lanes, scatter_pixels, to_lanes
from fastconv.kernels.primitives import LANES, SIZE, Address, Entries, ceil_div, clear, entry


class TapRange(NamedTuple):
    """Taps `first` <= t < `end` of a table."""

    first: int
    end: int


def tap_range_at(tables: Entries, start: int, number: int) -> TapRange:
    """Row `number` of the table that starts at entry `start`."""
    raise NotImplementedError


class LaneTile(NamedTuple):
    """A padded copy of a strip of the source with a lane for each channel, as planes (polyphase) of vectors.

    size                elements of the tile of a vector of channels, and of the space behind it
    rows, cols          extents of a plane
    planes_h, planes_w  number of planes on each axis
    stride_h            source rows from one row of a plane to the next
    origins_h_table     for each plane row the source row where it starts
    inside_table        for each plane column a `TapRange`: the tile's columns inside the source
    layers              number of `Layer`s, which are in `layers_table`
    skip_padding        1: rows of padding are never read, and need no zeros
    """

    size: int
    rows: int
    cols: int
    planes_h: int
    planes_w: int
    stride_h: int
    origins_h_table: int
    inside_table: int
    layers: int
    layers_table: int
    skip_padding: int


class Layer(NamedTuple):
    """Source rows that are packed into a `LaneTile`.

    origin         the first row of a strip that starts at row 0
    step           source rows from one to the next
    rows           how many, for a whole strip
    offsets_table  for each of their pixels its offset in the tile
    """

    origin: int
    step: int
    rows: int
    offsets_table: int


def layer_at(tables: Entries, start: int, number: int) -> Layer:
    """Row `number` of the table that starts at entry `start`."""
    raise NotImplementedError


def clear_padding(tile: LaneTile, tables: Entries, to: Address, source_height: int, i0: int, rows: int) -> None:
    """Write zeros to the padding of a tile's first `rows` rows, which start `i0` source rows below its origin."""
    for a in range(tile.planes_h):
        for u in range(rows):
            h = entry(tables, tile.origins_h_table + a) + i0 + u * tile.stride_h
            is_inside = h >= 0 and h < source_height
            if is_inside or not tile.skip_padding:
                for b in range(tile.planes_w):
                    inside = tap_range_at(tables, tile.inside_table, b)
                    row = to + ((a * tile.planes_w + b) * tile.rows + u) * tile.cols * LANES * SIZE
                    first, end = 0, 0
                    if is_inside:
                        first, end = inside.first, inside.end
                    for v in range(first):
                        clear(row + v * LANES * SIZE)
                    for v in range(end, tile.cols):
                        clear(row + v * LANES * SIZE)


def pack_lane_tile(
    source: Source, tile: LaneTile, tables: Entries, at: Address, to: Address, start: int, valid: int, multiple: int,
    skipped: int, i0: int, rows: int,
) -> None:  # fmt: skip
    """Write the source's pixels of `valid` lanes to a tile's first `rows` rows, see `lanes.to_lanes`.

    `start` is the offset of the first channel; the rows start `i0` source rows below the tile's origin. If there are
    more lanes than a vector has, each vector's tile follows that of the one before.
    """
    limit = at + source.size * SIZE
    for number in range(tile.layers):
        layer = layer_at(tables, tile.layers_table, number)
        origin, step = layer.origin + i0, layer.step
        rows_of_layer = layer.rows - (tile.rows - rows) * (tile.stride_h // step)
        first = ceil_div(max(0, -origin), step)
        end = min(rows_of_layer, ceil_div(max(0, source.height - origin), step))
        # adjacent rows are packed as one
        run = max(1, end - first) if step == 1 and source.row == source.width * source.col else 1
        for u in range(first, end, run):
            read = at + (start + (origin + u * step) * source.row) * SIZE
            offsets = tables + (layer.offsets_table + u * source.width) * 8
            count = run * source.width
            if source.channel == 1 and multiple == 1:
                scatter_pixels(read, source.col, valid, to, tile.size, offsets, count)
            else:
                for k in range(0, valid, LANES):
                    vector, lanes = read + k * source.channel * SIZE, min(LANES, valid - k)
                    tile_of = to + k // LANES * tile.size * SIZE
                    if source.col == 1:
                        to_lanes(vector, source.channel, lanes, multiple, skipped, tile_of, offsets, count, limit)
                    else:
                        gather_lanes(vector, source.channel, source.col, lanes, multiple, skipped, tile_of, offsets,
                                     count)  # fmt: skip
