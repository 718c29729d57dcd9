"""The tables of register tiles, from which both compiled engines are generated.

setup.py prints a C header of these names and numbers without importing NumPy, so nothing is imported here.
"""

#: Kinds of micro-kernels with a lane for each result: for one vector of results, for half a vector, for two vectors.
ONE_VECTOR, HALF_VECTOR, TWO_VECTORS = 0, 1, 2

#: How the pixels of a strip become one axis (`pixel_order` of `drivers.pixel_lanes.PixelLanes`).
#: FLAT: all positions of the source's or padded tile's rows, those to the right of the outputs included.
#: PACKED: only the outputs' positions, which are packed into a panel.
#: BY_ROWS: each row separately, rounded up to whole vectors.
FLAT, PACKED, BY_ROWS = 0, 1, 2

#: Numbers of the micro-kernels `multiply`. 1 to 3: the tile of many rows with so many vectors. Then the tiles of few
#: rows and of one row. PREFETCHING is added to the number of a whole tile for the version that prefetches.
FEW_ROWS_TILE, ONE_ROW_TILE, PREFETCHING = 4, 5, 5

#: Bytes from one thread's counter of work items to the next: a cache line, as different threads write them.
COUNTER = 64
#: Bytes of a cache line on the processors that there is code for; it only sets how far ahead drivers prefetch.
CACHE_LINE = 64

#: Numbers of the activations that the epilogue applies; SLOPES is leaky ReLU with a slope for each channel.
NO_ACTIVATION, RELU, RELU6, HARDSWISH, SLOPES = 0, 1, 2, 3, 4

#: (rows, vectors) of the micro-kernels `multiply`: the tiles of many rows, of few and of one. The key is the number of
#: vector registers, and whether a multiply-add is one instruction. 24 accumulators, or 12 with 16 registers, hide the
#: latency of a multiply-add. They are the most that leave registers for the operands, and for a product where it is not
#: fused with the addition. A tile of one row is bound by its loads, so its width hardly matters; it is a
#: power of two, which divides the width of many maps. `bench/tiles.py` measures others.
TILES = {
    (32, True): ((8, 3), (4, 6), (1, 16)),
    (16, True): ((6, 2), (3, 4), (1, 8)),
    (16, False): ((6, 2), (3, 3), (1, 8)),
}

#: (results, taps) of the micro-kernel `dots`, by the same key. Each result and each tap needs a vector that is loaded,
#: and an address in a register.
DOTS = {(32, True): (4, 6), (16, True): (4, 3), (16, False): (4, 2)}

#: Pixels of the micro-kernels `along`, the longest first, by the same key. There is also one of 3 x 3 pixels, for the
#: weight gradient of 3 x 3 kernels.
ALONG = {(32, True): (14, 7, 5, 3, 1), (16, True): (12, 7, 5, 3, 1), (16, False): (12, 7, 5, 3, 1)}

#: Pixels of the micro-kernels `band`, the longer first, by the same key: as many sums and as many pixels of the source
#: are in registers.
BANDS = {(32, True): (14, 7), (16, True): (7, 4), (16, False): (7, 4)}

#: (rows, columns) of the register tiles `rectangle`, by the same key: the one of several rows, and that of one row. The
#: sums and the weights of a row of taps are in registers.
RECTANGLES = {(32, True): ((2, 7), (1, 14)), (16, True): ((2, 4), (1, 8)), (16, False): ((2, 4), (1, 8))}

#: The rows of taps that have a micro-kernel `rectangle`: (taps, stride). Rows and their stride may be any.
TAP_ROWS = ((1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (7, 1), (2, 2), (3, 2), (4, 2), (5, 2))

#: The square kernels that have a micro-kernel `sum_window`, (size, stride), and pixels of its register tile, by the
#: same key as `RECTANGLES`. The sums of all taps and the pixels of the small map are in registers.
WINDOWS = ((2, 2), (3, 1), (3, 2), (4, 2), (5, 1), (5, 2))
WINDOW_PIXELS = {(32, True): (7, 4), (16, True): (4, 2), (16, False): (4, 2)}

#: Most pixels of the micro-kernels `span`, by the same key: there is one for each number up to this.
SPAN = {(32, True): 14, (16, True): 12, (16, False): 12}

#: Most taps of the micro-kernels `sum_taps`, by the same key: each needs a sum and an address in registers.
TAPS = {(32, True): 10, (16, True): 10, (16, False): 10}

#: Bytes of a register for which `span` and `sum_taps` exist for half vectors too: some processors issue operations on
#: 64 bytes as two halves, and save one when half a vector is enough.
HALVED = 64
#: Fewest registers for which `span` and `sum_taps` exist for two vectors of results too, which load each pixel once for
#: both, and `sum_taps` for runs of up to RUN neighbouring taps, which share the pixels that are loaded.
PAIRED, RUN = 32, 3

#: Most vectors of the micro-kernel `sum_rows`, enough to hide the latency of an addition; and rows of a block of the
#: bias gradient. Blocks are added pairwise, and are short because the rounding error grows with their length.
SUM_VECTORS, BLOCK_ROWS = 8, 16

#: The square kernels that have a depthwise micro-kernel with vectors along the rows of a map: (size, stride) for
#: convolution, (size, pad modulo 2) for transposed convolution, whose stride is 2, and (size, stride) for the weight
#: gradient.
ROW_KERNELS = ((2, 2), (3, 1), (3, 2), (4, 2), (5, 1), (5, 2), (7, 1))
ROW_KERNELS_TRANSPOSED = ((2, 0), (3, 0), (3, 1), (4, 1), (5, 0))
ROW_KERNELS_WEIGHT_GRAD = ((2, 2), (3, 1), (3, 2), (4, 2), (5, 1))

#: The convolutions F(m, r) of Winograd that have micro-kernels: (m, r) on each axis, outputs of a tile and taps.
WINOGRAD = (
    ((4, 3), (4, 3)), ((2, 5), (2, 5)), ((1, 1), (4, 3)), ((4, 3), (1, 1)), ((5, 2), (5, 2)), ((5, 2), (4, 3)),
    ((4, 3), (5, 2)), ((3, 4), (3, 4)), ((1, 1), (3, 4)), ((3, 4), (1, 1)), ((4, 2), (4, 2)), ((2, 3), (2, 3)),
)  # fmt: skip

#: Lengths of the Fourier transforms that have micro-kernels, see `fourier`.
FOURIER = (16, 32, 48)

#: Most tiles of the micro-kernels `complex_span`, by the same key as `SPAN`: each has two sums.
COMPLEX_SPAN = {(32, True): 12, (16, True): 5, (16, False): 5}


def signature() -> str:
    """These numbers in one line. A module compiled ahead of time keeps the line, and is out of date if it differs."""
    return (
        f"{FLAT} {PACKED} {BY_ROWS} {COUNTER}; {FEW_ROWS_TILE} {ONE_ROW_TILE} {PREFETCHING}; "
        f"{NO_ACTIVATION} {RELU} {RELU6} {HARDSWISH} {SLOPES}; {TILES}; {DOTS}; {ALONG}; "
        f"{BANDS}; {SPAN}; {TAPS}; {HALVED} {PAIRED} {RUN} {SUM_VECTORS}; {ROW_KERNELS}; "
        f"{ROW_KERNELS_TRANSPOSED}; {ROW_KERNELS_WEIGHT_GRAD}; {RECTANGLES}; {TAP_ROWS}; {WINDOWS}; {WINDOW_PIXELS}; "
        f"{WINOGRAD}; {FOURIER}; {COMPLEX_SPAN}"
    )
