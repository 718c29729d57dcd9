"""The primitives that drivers call: vector operations and micro-kernels. Each engine has its own of the same name.

These are declarations, which are never called. The Numba engine replaces them by LLVM intrinsics
(`fastconv/backends/numba`), and the printed C code calls the functions of `_cython/*.h`. A vector has LANES elements.
Lengths and strides count elements; addresses are in bytes and need not be aligned.
"""

from __future__ import annotations

from typing import NewType

#: An address of elements, and one of 64-bit integers. Both are integers, in bytes, so that drivers can add to them.
Address = int
Entries = int
#: An element of the arrays: float32 or float64.
Element = NewType("Element", float)

#: Elements of a vector register, and bytes of an element. The values of these constants are the engine's.
LANES = SIZE = 0
#: Results and taps of the register tile of `dots`.
DOTS_RESULTS = DOTS_TAPS = 0
#: Most pixels of a register tile of `span`.
MAX_SPAN = 0
#: Rows and vectors of the register tile of many rows.
FULL_ROWS = FULL_VECTORS = 0
#: Most taps of a register tile of `sum_taps`.
MAX_TAPS = 0
#: Pixels of the two register tiles of `band`.
BAND_LONG = BAND_SHORT = 0
#: Rows and columns of the register tile of `rectangle`, and columns of the one of one row.
TALL_ROWS = TALL_COLS = LONG_COLS = 0


def floor_div(a: int, b: int) -> int:
    """`a // b` for any a and b > 0."""
    raise NotImplementedError


def ceil_div(a: int, b: int) -> int:
    """`-(-a // b)` for a >= 0 and b > 0."""
    raise NotImplementedError


def entry(tables: Entries, index: int) -> int:
    """Entry `index` of a table of integers."""
    raise NotImplementedError


def load(source: Address) -> Element:
    """Load an element."""
    raise NotImplementedError


def store(value: Element, target: Address) -> None:
    """Store an element."""
    raise NotImplementedError


def splat(value: Element, target: Address) -> None:
    """Store a vector with one value in all lanes."""
    raise NotImplementedError


def clear(target: Address) -> None:
    """Store a vector of zeros."""
    raise NotImplementedError


def move(target: Address, source: Address) -> None:
    """Copy a vector."""
    raise NotImplementedError


def move_lanes(target: Address, source: Address, count: int) -> None:
    """Copy the first `count` lanes of a vector, at least one and at most LANES."""
    raise NotImplementedError


def transpose(source: Address, ld_source: int, valid: int, target: Address, ld_target: int, count: int) -> None:
    """Transpose LANES x LANES elements, of which `valid` rows exist; the first `count` columns are written."""
    raise NotImplementedError


def scatter(source: Address, ld_source: int, valid: int, target: Address, offsets: Entries, count: int) -> None:
    """As `transpose`, but column i is written to offset offsets[i]."""
    raise NotImplementedError


def load_runs(
    run: int, source: Address, starts: Entries, offsets: Entries, valid: int, target: Address, count: int
) -> None:
    """Fill `count` vectors from runs of `run` elements, a power of two,

        target[i, lane] = source[starts[i] + offsets[lane]]

    for the first `valid` lanes, a multiple of `run`; the others are 0. Of `offsets` only that of the first lane of each
    run is read.
    """
    raise NotImplementedError


def store_runs(run: int, source: Address, offsets: Entries, valid: int, target: Address, step: int, count: int) -> None:
    """Write `count` vectors in runs likewise: target[i * step + offsets[lane]] = source[i, lane]."""
    raise NotImplementedError


def store_alternate(source: Address, target: Address, count: int) -> None:
    """Write `count` elements with a stride of 2, target[2 * i] = source[i]; the elements between are not accessed."""
    raise NotImplementedError


def prefetch_to_write(target: Address) -> None:
    """Prefetch a cache line that will be written; the address need not exist."""
    raise NotImplementedError


def prefetch_lines(source: Address, count: int) -> None:
    """Prefetch `count` consecutive cache lines into the second-level cache; the addresses need not exist."""
    raise NotImplementedError


def pad_rows(
    source: Address, ld_source: int, source_channel: int, target: Address, plane: int, ld_target: int,
    target_channel: int, channels: int, top: int, rows: int, bottom: int, last: int, w: int, width: int, ahead: int,
) -> None:  # fmt: skip
    """Copy `rows` rows of each channel into a plane of a padded tile, between `top` and `bottom` rows of zeros.

    A row starts at column w of a map of `width` columns; w may be outside the map. Its length is `last`, a multiple of
    LANES, plus one vector. Only its first and last vector may reach the padding. The memory `ahead` elements further is
    prefetched, because hardware prefetchers do not follow short rows.
    """
    raise NotImplementedError


def pad_rows_of_2(
    source: Address, ld_source: int, source_channel: int, target: Address, plane: int, ld_target: int,
    target_channel: int, channels: int, top: int, rows: int, bottom: int, last: int, w: int, width: int, ahead: int,
) -> None:  # fmt: skip
    """As `pad_rows`, but only every second element of a row is copied."""
    raise NotImplementedError


def pad_2_rows(
    source: Address, ld_source: int, source_channel: int, target: Address, plane: int, ld_target: int,
    target_channel: int, channels: int, top: int, rows: int, bottom: int, last: int, w: int, width: int, ahead: int,
) -> None:  # fmt: skip
    """As `pad_rows`, but elements go to two planes in turn; `plane` is the stride from one to the next."""
    raise NotImplementedError


def pad_4_rows(
    source: Address, ld_source: int, source_channel: int, target: Address, plane: int, ld_target: int,
    target_channel: int, channels: int, top: int, rows: int, bottom: int, last: int, w: int, width: int, ahead: int,
) -> None:  # fmt: skip
    """As `pad_2_rows` with four planes."""
    raise NotImplementedError


def span(
    kind: int, width: int, a: Address, next_a: int, b: Address, ld_b: int, offsets: Entries, count: int, start: Address,
    next_start: int, step: int, sums: Address, next_sums: int, ld_sums: int, prefetch: int, ahead: int,
    fetched: Address, fetches: Entries, fetch_count: int,
) -> None:  # fmt: skip
    """A register tile of `width` neighbouring pixels, at most MAX_SPAN, with a lane for each result,

        sums[j * ld_sums] = start[j * step] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + j * ld_b]

    over `count` taps, where each element of `a`, `start` and `sums` is a vector, and that of `b` is a number. `kind` is
    `abi.ONE_VECTOR`, `HALF_VECTOR`, which computes the first half of the lanes only, or `TWO_VECTORS`, where a second
    vector of results shares the pixels that are loaded; `next_...` is its distance from the first vector. With
    `prefetch`, the pixels that the next tiles read are prefetched; with `ahead`, the elements so far behind those that
    are read of `a`. At each of the first `fetch_count` taps t the cache line at fetched + fetches[t] is prefetched, so
    that memory is read while sums are made. That address may lie outside the array.
    """
    raise NotImplementedError


def multiply(
    number: int, a: Address, ld_a: int, valid: int, b: Address, taps: Entries, count: int, start: Address,
    ld_start: int, step: int, sums: Address, ld_sums: int,
) -> None:  # fmt: skip
    """A register tile of some rows of `a` times some vectors of `b`, summed over `count` taps,

        sums[m * ld_sums + v] = start[m * ld_start + v] + sum over t of a[m * ld_a + taps[t].weight]
                                                                        * b[taps[t].source + v]

    where `step` is the stride from one vector of `start` to the next, and `start` may be `sums`. The first `valid` rows
    of `a` exist, at least one; the tile's further rows repeat the last. `a` is read one element at a time, so it need
    not be packed.

    `number` chooses the tile: the number of vectors for the tile of many rows, `abi.FEW_ROWS_TILE` or
    `abi.ONE_ROW_TILE`. With `abi.PREFETCHING` added, a whole tile of several rows prefetches what the next tile reads,
    because `b` has more streams than hardware prefetchers track.
    """
    raise NotImplementedError


def dots(
    a: Address, ld_a: int, pitch_a: int, valid: int, b: Address, pitch_b: int, offsets: Entries, taps: int, runs: int,
    run: int, is_start: int, sums: Address, ld_sums: int,
) -> None:  # fmt: skip
    """A register tile of DOTS_RESULTS results times DOTS_TAPS taps, summed over `runs` runs of `run` pixels,

        sums[m * ld_sums + v] (+)= sum over r, p of a[m * ld_a + r * pitch_a + p]
                                                    * b[offsets[2 * v + 1] + r * pitch_b + p]

    where each element of `sums` is a vector, each lane of which sums every LANES-th pixel of a run. The first `valid`
    results and `taps` taps exist, at least one; the tile's further ones repeat the last. With `is_start`, sums begin at
    0.
    """
    raise NotImplementedError


def total(sums: Address, square: Address, target: Address, count: int) -> None:
    """The sum over the lanes of each of `count` vectors, at most LANES; `square` is workspace for LANES vectors."""
    raise NotImplementedError


def sum_taps(
    kind: int, run: int, runs: int, a: Address, next_a: int, image_a: int, b: Address, image_b: int, offsets: Entries,
    images: int, pixels: Entries, count: int, start: Address, step: int, sums: Address, next_sums: int,
) -> None:  # fmt: skip
    """A register tile of run * runs taps, at most MAX_TAPS, times a vector of results; `kind` is as for `span`,

        sums[offsets[2 * t]] = start[step * offsets[2 * t]] + sum over n, p of
            a[n * image_a + pixels[2 * p]] * b[n * image_b + pixels[2 * p + 1] + offsets[2 * t + 1]]

    with 0 <= n < images, 0 <= p < count. Elements of a, sums and start are vectors; those of b are numbers. `next_a`
    and `next_sums` are the distances of a second vector of results from the first. The taps of a run are neighbours: of
    two pixels that are neighbours too, each number that they read is loaded once for both.
    """
    raise NotImplementedError


def sum_rows(source: Address, ld: int, rows: int, count: int, is_start: int, target: Address) -> None:
    """Sums of columns,

        target[v] (+)= sum over r of source[r * ld + v]

    with 0 <= r < rows and 0 <= v < count, 1 <= count <= SUM_VECTORS * LANES. Whole vectors of the target are written;
    those of the source are read no further than `count`. With `is_start`, sums begin at 0.
    """
    raise NotImplementedError


def gather(source: Address, offsets: Entries, target: Address, ld_target: int, count: int) -> None:
    """Row i of the target is element i of each of LANES rows, which start at source + offsets[2 * lane + 1].

    LANES elements of each are read; 1 <= count <= LANES rows are written.
    """
    raise NotImplementedError


def bias_at(bias: Address, number: int) -> Element:
    """Element `number` of the bias; zero if the address is 0, which means no bias."""
    raise NotImplementedError


def transform_input(number: int, source: Address, row: int, target: Address, ld_target: int) -> None:
    """Transform a tile of pixels by the matrices of both axes for row `number` of `abi.WINOGRAD`, see `toom_cook`.

    Each pixel is a vector. `row` is the stride between rows of pixels, `ld_target` that between elements of the result.
    """
    raise NotImplementedError


def transform_weight(number: int, source: Address, taps: Entries, target: Address, ld_target: int) -> None:
    """Transform the taps of a kernel likewise; tap t, row by row, is the vector at source + taps[t]."""
    raise NotImplementedError


def transform_output(
    number: int, source: Address, ld_source: int, start: Address, target: Address, row: int, col: int, rows: int,
    cols: int,
) -> None:  # fmt: skip
    """Transform the products of a tile into its sums likewise, plus the vector at `start`.
    `row` and `col` are the strides of the target, of which the first `rows` rows and `cols` columns exist.
    """
    raise NotImplementedError


def finish_rows(
    activation: int, slopes: Address, slope_step: int, sums: Address, residual: Address, rows: int, ld: int, cols: int,
    step: int,
) -> None:  # fmt: skip
    """Finish `rows` x `cols` sums in place,

        sums[i * ld + j * step] = f(sums[i * ld + j * step] + residual[i * ld + j * step])

    where nothing is added if `residual` is 0, and f is the activation of this number, see `abi`: the same operations in
    the same order as in `dispatch.finish`. If it has a parameter, that of column j is slopes[j * slope_step], where
    slope_step is 0 or 1.
    """
    raise NotImplementedError


def along(
    width: int, a: Address, b: Address, offsets: Entries, count: int, start: Address, start_step: int, sums: Address,
    step: int,
) -> None:  # fmt: skip
    """A register tile of `width` pixels of a row, one of the widths that `along_width` gives,

        sums[j * step] = start[j * start_step] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + j * LANES]

    with 0 <= t < count, 0 <= j < width, where each element is a vector with a lane for each channel.
    """
    raise NotImplementedError


def along_width(pixels: int) -> int:
    """The widest register tile of `along` for so many pixels, at least one."""
    raise NotImplementedError


def along_square(
    a: Address, b: Address, row: int, offsets: Entries, count: int, sums: Address, ld_sums: int, step: int
) -> None:
    """As `along` for a register tile of 3 x 3 pixels, which adds to the sums; `row` and `ld_sums` are the strides from
    one of its rows to the next in b and in the sums."""
    raise NotImplementedError


def band(
    is_long: int, a: Address, b: Address, offsets: Entries, rows: int, taps: int, first: int, end: int, start: Address,
    start_step: int, sums: Address, step: int, valid: int,
) -> None:  # fmt: skip
    """A register tile of BAND_LONG or BAND_SHORT pixels of a row, for rows of neighbouring taps,

        sums[j * step] = start[j * start_step] + sum over i, t of a[offsets[2 * (i * taps + t)]]
                                                                * b[offsets[2 * i * taps + 1] + (j + t) * LANES]

    with 0 <= i < rows, 0 <= t < taps, where first <= j + t < end. A row of sums is a row of pixels times a band matrix,
    each of whose diagonals is one tap (a Toeplitz matrix). The first `valid` sums exist.
    """
    raise NotImplementedError


def rectangle(
    number: int, is_long: int, a: Address, b: Address, row: int, col: int, stride: int, taps: int, first_row: int,
    end_row: int, first_col: int, end_col: int, start: Address, out: Address, ld_out: int, step: int, rows: int,
    cols: int,
) -> None:  # fmt: skip
    """A register tile of TALL_ROWS x TALL_COLS pixels, or with `is_long` of 1 x LONG_COLS pixels,

        out[i * ld_out + j * step] = start + sum over r, s of a[r * S + s]
                                                            * b[(i * stride + r) * row + (j * T + s) * col]

    with 0 <= r < taps, 0 <= s < S, where (S, T) is row `number` of `abi.TAP_ROWS`, and each element is a vector with a
    lane for each channel. Rows first_row <= i * stride + r < end_row and columns first_col <= j * T + s < end_col are
    inside the source; the others are left out. The first `rows` x `cols` pixels are written. Each vector of the source
    is loaded once for all sums that it is added to.
    """
    raise NotImplementedError


def sum_window(
    number: int, a: Address, step: int, cols: int, b: Address, row: int, col: int, first_row: int, end_row: int,
    first_col: int, end_col: int, sums: Address,
) -> None:  # fmt: skip
    """Add a row of `cols` pixels of the small map to the weight gradient of a square kernel,

        sums[r * S + s] += sum over j of a[j * step] * b[r * row + (j * T + s) * col]

    with 0 <= r, s < S, where (S, T) is row `number` of `abi.WINDOWS`, and each element is a vector with a lane for each
    channel. Rows first_row <= r < end_row and columns first_col <= j * T + s < end_col are inside the source.
    """
    raise NotImplementedError


def row_kernel(
    number: int, start: Element, weight: Address, source: Address, height: int, width: int, ahead: int, h: int, w: int,
    out: Address, ld_out: int, rows: int, whole: int, cols: int,
) -> None:  # fmt: skip
    """A column of `rows` vectors of a depthwise correlation with kernel `number` of `abi.ROW_KERNELS`.

    (h, w) is the source position that the first output reads at its first tap; sums begin as `start`. Rows from `whole`
    on are written to `cols` elements only. Each row of the source is prefetched `ahead` rows before it is read.
    """
    raise NotImplementedError


def row_kernel_transposed(
    number: int, start: Element, weight: Address, source: Address, height: int, width: int, ahead: int, half_pad_h: int,
    half_pad_w: int, col: int, out: Address, out_width: int, first_row: int, end_row: int,
) -> None:  # fmt: skip
    """Two vectors of columns, from `col` on, of the rows first_row <= i < end_row of a depthwise transposed convolution
    of stride 2, with kernel `number` of `abi.ROW_KERNELS_TRANSPOSED`."""
    raise NotImplementedError


def row_kernel_weight_grad(
    number: int, source: Address, height: int, width: int, ahead: int, h: int, w: int, small: Address, ld_small: int,
    rows: int, cols: int, sums: Address,
) -> None:  # fmt: skip
    """Add a column of `rows` vectors of the small map, of which `cols` elements exist, to the weight gradient.

    `sums` has a vector for each tap of kernel `number` of `abi.ROW_KERNELS_WEIGHT_GRAD`. (h, w) is the source position
    that the first pixel reads at the first tap.
    """
    raise NotImplementedError
