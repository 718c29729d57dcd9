"""The primitives that drivers are written in: each engine brings its own of the same name and meaning.

These are declarations, which are never called: the Numba engine puts LLVM intrinsics in their place
(`fastconv/backends/numba`), the printed C code calls the functions of `_cython/*.h`. A vector is as many elements as a
register has lanes. Lengths and strides count elements; addresses are in bytes and need not be aligned.

A primitive that returns a structure of `arguments` reads a row of a table: `name_at(tables, start, number)` is row
`number` of the table of such rows that starts at entry `start` of the tables. Engines need no code for these.
"""

from __future__ import annotations

from typing import NewType

from fastconv.kernels.arguments import PhaseEntry, SpanEntry

#: An address of elements, of integers, in bytes; as an integer, so that a driver may add to it.
Address = int
Entries = int
#: A number of the problem: float32 or float64.
Element = NewType("Element", float)

#: Elements of a vector register, and bytes of an element. Each engine has its own numbers here.
LANES = SIZE = 0
#: Results and taps of the register tile of `dots`.
DOTS_RESULTS = DOTS_TAPS = 0
#: Pixels, at most, of `span`.
LONGEST_SPAN = 0


def floor_div(a: int, b: int) -> int:
    """`a // b` for any a and b > 0."""
    raise NotImplementedError


def ceil_div(a: int, b: int) -> int:
    """`-(-a // b)` for a >= 0 and b > 0."""
    raise NotImplementedError


def entry(tables: Entries, index: int) -> int:
    """The integer number `index` of a table."""
    raise NotImplementedError


def phase_at(tables: Entries, start: int, number: int) -> PhaseEntry:
    """A phase of a plan."""
    raise NotImplementedError


def span_at(tables: Entries, start: int, number: int) -> SpanEntry:
    """The taps of a span of outputs."""
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


def load_runs(
    run: int, source: Address, starts: Entries, offsets: Entries, valid: int, target: Address, count: int
) -> None:
    """Fill `count` vectors from runs of `run` elements, a power of two,

        target[i, lane] = source[starts[i] + offsets[lane]]

    where the first `valid` lanes exist, a multiple of `run`, and the others are 0. Only the offset of a run's first
    lane is read.
    """
    raise NotImplementedError


def store_runs(run: int, source: Address, offsets: Entries, valid: int, target: Address, step: int, count: int) -> None:
    """Write `count` vectors in runs likewise: target[i * step + offsets[lane]] = source[i, lane]."""
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


def span(
    kind: int, width: int, a: Address, next_a: int, b: Address, offsets: Entries, count: int, start: Address,
    next_start: int, step: int, sums: Address, next_sums: int, ld_sums: int, prefetch: int,
) -> None:  # fmt: skip
    """A register tile of `width` neighbouring pixels, at most LONGEST_SPAN, with a lane for each result,

        sums[j * ld_sums] = start[j * step] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + j]

    over `count` taps, where each element of `a`, `start` and `sums` is a vector, and that of `b` is a number. `kind` is
    one of `lanes.ONE_VECTOR`, `HALF_VECTOR`, which computes the first half of the lanes only, and `TWO_VECTORS`, where
    a second vector of results shares what is read of `b`; its elements are `next_...` behind the first's. `prefetch`:
    ask for the pixels that the next tiles will read.
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
