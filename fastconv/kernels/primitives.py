"""The primitives that drivers are written in: each engine brings its own of the same name and meaning.

These are declarations, which are never called: the Numba engine puts LLVM intrinsics in their place
(`fastconv/backends/numba`), the printed C code calls the functions of `_cython/*.h`. A vector is as many elements as a
register has lanes. Lengths and strides count elements; addresses are in bytes and need not be aligned.

A primitive that returns a structure of `arguments` reads a row of a table: `name_at(tables, start, number)` is row
`number` of the table of such rows that starts at entry `start` of the tables. Engines need no code for these.
"""

from __future__ import annotations

from typing import NewType

from fastconv.kernels.arguments import Tap

#: An address of elements, of integers, in bytes; as an integer, so that a driver may add to it.
Address = int
Entries = int
#: A number of the problem: float32 or float64.
Element = NewType("Element", float)

#: Elements of a vector register, and bytes of an element. Each engine has its own numbers here.
LANES = SIZE = 0
#: Results and taps of the register tile of `dots`.
DOTS_RESULTS = DOTS_TAPS = 0


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


def tap_at(tables: Entries, start: int, number: int) -> Tap:
    """A row of a table."""
    raise NotImplementedError


def multiply(
    number: int, a: Address, ld_a: int, valid: int, b: Address, taps: Entries, count: int, start: Address,
    ld_start: int, step: int, sums: Address, ld_sums: int,
) -> None:  # fmt: skip
    """A register tile of some rows of `a` times some vectors of `b`, summed over `count` taps,

        sums[m * ld_sums + v] = start[m * ld_start + v] + sum over t of a[m * ld_a + taps[t].weight]
                                                                        * b[taps[t].source + v]

    where vectors of `start` are `step` apart, and `start` may be `sums`. The first `valid` rows of `a` exist, at least
    one; the tile's further rows repeat the last. `a` is read one element at a time, so it need not be packed.

    `number` says which tile: that of many rows with so many vectors, `abi.FEW_ROWS_TILE` or `abi.ONE_ROW_TILE`; with
    `abi.PREFETCHING` added, of whole tiles of several rows, one that prefetches what the next tile reads: `b` has more
    runs then than a processor foresees.
    """
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
