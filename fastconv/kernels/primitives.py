"""The primitives that drivers are written in: each engine brings its own of the same name and meaning.

These are declarations, which are never called: the Numba engine puts LLVM intrinsics in their place
(`fastconv/backends/numba`), the printed C code calls the functions of `_cython/*.h`. A vector is as many elements as a
register has lanes. Lengths and strides count elements; addresses are in bytes and need not be aligned.

A primitive that returns a structure of `arguments` reads a row of a table: `name_at(tables, start, number)` is row
`number` of the table of such rows that starts at entry `start` of the tables. Engines need no code for these.
"""

from __future__ import annotations

from typing import NewType

from fastconv.kernels.arguments import TapGroup

#: An address of elements, of integers, in bytes; as an integer, so that a driver may add to it.
Address = int
Entries = int
#: A number of the problem: float32 or float64.
Element = NewType("Element", float)

#: Elements of a vector register, and bytes of an element. Each engine has its own numbers here.
LANES = SIZE = 0
#: Results and taps of the register tile of `dots`.
DOTS_RESULTS = DOTS_TAPS = 0
#: Rows and vectors of the full register tile of `multiply_vectors`.
FULL_ROWS = FULL_VECTORS = 0
#: Taps of a register tile of `sum_taps`, at most.
MOST_TAPS = 0


def floor_div(a: int, b: int) -> int:
    """`a // b` for any a and b > 0."""
    raise NotImplementedError


def ceil_div(a: int, b: int) -> int:
    """`-(-a // b)` for a >= 0 and b > 0."""
    raise NotImplementedError


def entry(tables: Entries, index: int) -> int:
    """The integer number `index` of a table."""
    raise NotImplementedError


def load(source: Address) -> Element:
    """One element."""
    raise NotImplementedError


def store(value: Element, target: Address) -> None:
    """One element."""
    raise NotImplementedError


def splat(value: Element, target: Address) -> None:
    """A vector of one value."""
    raise NotImplementedError


def clear(target: Address) -> None:
    """A vector of zeros."""
    raise NotImplementedError


def move(target: Address, source: Address) -> None:
    """Copy a vector."""
    raise NotImplementedError


def weave(target: Address, source: Address) -> None:
    """The elements of a vector become the even elements of two."""
    raise NotImplementedError


def weave_odd(target: Address, source: Address) -> None:
    """The elements of a vector become the odd elements of two."""
    raise NotImplementedError


def transpose(source: Address, ld_source: int, valid: int, target: Address, ld_target: int, count: int) -> None:
    """Transpose LANES x LANES elements, of which `valid` rows exist; the first `count` columns are written."""
    raise NotImplementedError


def scatter(source: Address, ld_source: int, valid: int, target: Address, places: Entries, count: int) -> None:
    """The same, where column i is written to offset places[i]."""
    raise NotImplementedError


def prefetch_to_write(target: Address) -> None:
    """Ask for a cache line that will be written, whether it exists or not."""
    raise NotImplementedError


def pad_rows(
    source: Address, ld_source: int, target: Address, plane: int, ld_target: int, rows: int, last: int, w: int,
    width: int, ahead: int,
) -> None:  # fmt: skip
    """Copy rows of a map into rows of a padded tile, zero-padded.

    A row starts at column w of a map of `width` columns, which may be outside. It gets `last` elements, a multiple of
    LANES, and one vector more; only its first and last vector may reach the padding. The memory `ahead` of what is read
    is prefetched: short rows are no stream that a processor would foresee.
    """
    raise NotImplementedError


def pad_rows_of_2(
    source: Address, ld_source: int, target: Address, plane: int, ld_target: int, rows: int, last: int, w: int,
    width: int, ahead: int,
) -> None:  # fmt: skip
    """The same where only every second element is copied."""
    raise NotImplementedError


def pad_2_rows(
    source: Address, ld_source: int, target: Address, plane: int, ld_target: int, rows: int, last: int, w: int,
    width: int, ahead: int,
) -> None:  # fmt: skip
    """The same where elements go to two planes in turn, which lie `plane` apart."""
    raise NotImplementedError


def pad_4_rows(
    source: Address, ld_source: int, target: Address, plane: int, ld_target: int, rows: int, last: int, w: int,
    width: int, ahead: int,
) -> None:  # fmt: skip
    """The same with four planes."""
    raise NotImplementedError


def dots(
    a: Address, ld_a: int, pitch_a: int, valid: int, b: Address, pitch_b: int, offsets: Entries, taps: int, runs: int,
    run: int, is_start: int, sums: Address, ld_sums: int,
) -> None:  # fmt: skip
    """A register tile of DOTS_RESULTS results times DOTS_TAPS taps, summed over `runs` runs of `run` pixels,

        sums[m * ld_sums + v] (+)= sum over r, p of a[m * ld_a + r * pitch_a + p]
                                                    * b[offsets[2 * v + 1] + r * pitch_b + p]

    where each element of `sums` is a vector, each lane of which takes every LANES-th pixel of a run. The first `valid`
    results and `taps` taps exist, at least one; the tile's further ones repeat the last. `is_start`: sums begin at 0.
    """
    raise NotImplementedError


def total(sums: Address, square: Address, target: Address, count: int) -> None:
    """The sum over the lanes of each of `count` vectors, at most LANES; `square` has room for LANES vectors."""
    raise NotImplementedError


def multiply_vectors(
    vectors: int, a: Address, ld_a: int, valid: int, b: Address, offsets: Entries, count: int, start: Address,
    ld_start: int, step: int, sums: Address, ld_sums: int,
) -> None:  # fmt: skip
    """A register tile of FULL_ROWS rows times `vectors` vectors, 1 to FULL_VECTORS,

        sums[m * ld_sums + v] = start[m * ld_start + v] + sum over t of a[m * ld_a + offsets[2 * t]]
                                                                        * b[offsets[2 * t + 1] + v]

    with 0 <= t < count, 0 <= v < vectors * LANES; vectors of `start` are `step` apart. The first `valid` rows of a
    exist; further ones repeat the last. `start` may be `sums`.
    """
    raise NotImplementedError


def sum_taps(
    kind: int, run: int, runs: int, a: Address, next_a: int, image_a: int, b: Address, image_b: int, offsets: Entries,
    images: int, pixels: Entries, count: int, start: Address, step: int, sums: Address, next_sums: int,
) -> None:  # fmt: skip
    """A register tile of run * runs taps, at most MOST_TAPS, times a vector of results, or half a one or two (`kind`),

        sums[offsets[2 * t]] = start[step * offsets[2 * t]] + sum over n, p of
            a[n * image_a + pixels[2 * p]] * b[n * image_b + pixels[2 * p + 1] + offsets[2 * t + 1]]

    with 0 <= n < images, 0 <= p < count. Elements of a, sums and start are vectors, the second vector of results
    `next_a` and `next_sums` behind the first; those of b are numbers. The taps of a run are neighbours: of two
    pixels that are neighbours too, each number that they read is loaded once for both.
    """
    raise NotImplementedError


def sum_rows(source: Address, ld: int, rows: int, count: int, is_start: int, target: Address) -> None:
    """Sums of columns,

        target[v] (+)= sum over r of source[r * ld + v]

    with 0 <= r < rows and 0 <= v < count, 1 <= count <= SUM_VECTORS * LANES. Whole vectors of the target are written;
    those of the source are read no further than `count`. `is_start`: sums begin at 0.
    """
    raise NotImplementedError


def gather(source: Address, offsets: Entries, target: Address, ld_target: int, count: int) -> None:
    """Row i of the target is element i of each of LANES runs, which start at source + offsets[2 * lane + 1].

    LANES elements of each are read, 1 <= count <= LANES rows are written.
    """
    raise NotImplementedError


def tap_group_at(tables: Entries, start: int, number: int) -> TapGroup:
    """A row of a table."""
    raise NotImplementedError
