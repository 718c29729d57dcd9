"""The tables of register tiles, from which both compiled engines are made.

The C header of these names and numbers is made when the package is built, so nothing is imported here.
"""

from __future__ import annotations

#: Kinds of micro-kernels with a lane for each result: for one vector of results, half a one, or two.
ONE_VECTOR, HALF_VECTOR, TWO_VECTORS = 0, 1, 2

#: How the pixels of a strip are one axis (`pixel_order` of `arguments.PixelLanes`): rows of the source or of a padded
#: tile one behind the other, with the columns between them; the same without those, as a panel is packed of them; each
#: row by itself, in whole vectors.
FLAT, PACKED, BY_ROWS = 0, 1, 2

#: The numbers of the micro-kernels `multiply`: 1 to 3 for the tile of many rows with so many vectors, these for the
#: tiles of few rows and of one; and what is added to that of a whole tile for one that prefetches.
FEW_ROWS_TILE, ONE_ROW_TILE, PREFETCHING = 4, 5, 5

#: Bytes from one thread's counter of pieces to the next: a cache line, as they are written by different threads.
COUNTER = 64

#: Rows and vectors of the micro-kernels for a matrix: of many rows, of few, of one; by the number of vector registers
#: and whether a multiply-add is one instruction. 24 accumulators, or 12 where there are 16 registers: enough to hide
#: the latency of a multiply-add, and the most that leave room for the operands, and for a product that waits to be
#: added. A tile of one row loads a vector for each multiply-add: fewer hide the latency too.
TILES = {
    (32, True): ((8, 3), (4, 6), (1, 12)),
    (16, True): ((6, 2), (3, 4), (1, 8)),
    (16, False): ((6, 2), (3, 3), (1, 8)),
}

#: Results and taps of the micro-kernel of the weight's gradient with a lane for each pixel, likewise: each of both is a
#: vector that is loaded, and an address in a register.
DOTS = {(32, True): (4, 6), (16, True): (4, 3), (16, False): (4, 2)}

#: Pixels of the micro-kernels of depthwise convolution, likewise: the rows (1, n), the longest first. One of 3 x 3 is
#: there besides, for the weight's gradient of the commonest kernel.
ALONG = {(32, True): (14, 7, 5, 3, 1), (16, True): (12, 7, 5, 3, 1), (16, False): (12, 7, 5, 3, 1)}

#: Pixels of the micro-kernels of depthwise convolution for long rows of taps, likewise, the longer first: as many of
#: the source wait in registers too.
BANDS = {(32, True): (14, 7), (16, True): (7, 4), (16, False): (7, 4)}

#: Pixels of a row, at most, of the micro-kernels with a lane for each result: there is one for each number up to this.
SPAN = {(32, True): 14, (16, True): 12, (16, False): 12}

#: Taps, at most, of the micro-kernels of the weight's gradient with a lane for each result, likewise: for each there is
#: an address in a register too.
TAPS = {(32, True): 10, (16, True): 10, (16, False): 10}

#: Bytes of a register for whose first half there are those of `SPAN` and `TAPS` as well: some processors work on one so
#: long in two steps, and on half of it in one.
HALVED = 64
#: Registers with which there are those of `SPAN` and `TAPS` for two vectors of results as well, which load half as
#: much, and for runs of neighbouring taps, of so many at most, which share what is read.
PAIRED, RUN = 32, 3

#: Vectors, at most, of a row that the bias gradient's micro-kernel sums at a time, enough to hide the latency of an
#: addition; and rows of a block, whose sums are added pairwise, few so that roundings stay few.
SUM_VECTORS, BLOCK_ROWS = 8, 16

#: Small kernels of depthwise convolution, (rows and columns, stride), that have a micro-kernel going down a plane;
#: those of its transposed twin, (rows and columns, padding modulo 2), whose stride is 2; and those of the weight's
#: gradient, again with their stride.
ROW_KERNELS = ((2, 2), (3, 1), (3, 2), (4, 2), (5, 1), (5, 2), (7, 1))
ROW_KERNELS_TRANSPOSED = ((2, 0), (3, 0), (3, 1), (4, 1), (5, 0))
ROW_KERNELS_WEIGHT_GRAD = ((2, 2), (3, 1), (3, 2), (4, 2), (5, 1))


def signature() -> str:
    """All of it in one line: an engine compiled ahead holds that of its time, and is out of date if it differs."""
    return (
        f"{FLAT} {PACKED} {BY_ROWS} {COUNTER}; {FEW_ROWS_TILE} {ONE_ROW_TILE} {PREFETCHING}; {TILES}; {DOTS}; {ALONG}; "
        f"{BANDS}; {SPAN}; {TAPS}; {HALVED} {PAIRED} {RUN} {SUM_VECTORS}; {ROW_KERNELS}; "
        f"{ROW_KERNELS_TRANSPOSED}; {ROW_KERNELS_WEIGHT_GRAD}"
    )
