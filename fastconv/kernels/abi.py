"""The integers that a tile engine's passes take: one vector of them a pass, each with its place and meaning.

Strides and offsets count elements. A *field* is a zero-padded copy of a strip of the source, split into planes
(`problem.polyphase`); `TAPS` is where, in the vector of tables, a pair of integers for each tap (c, a, b) starts: its
offset in the weight and in the field.

What the compiled engines share stands here and is written down once: the C headers of this file's names and numbers are
made from it when the package is built, so it imports nothing but `enum`.
"""

from __future__ import annotations

from enum import IntEnum, auto


class _Places(IntEnum):
    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[int]) -> int:
        return count


class Place(_Places):
    """What every plan starts with."""

    ITEMS = auto()  # pieces of work, each done by one thread
    GROUP = auto()  # plans that write among each other's elements, which one thread should do together
    WORKSPACE = auto()  # elements of a thread's workspace
    IMAGES = auto()
    GROUPS = auto()
    CHANNELS = auto()  # of a group, read from the source
    RESULTS = auto()  # of a group, written (or, for a weight's gradient, of the small map)
    ROWS = auto()  # of outputs
    COLS = auto()
    TAPS_A = auto()
    TAPS_B = auto()
    SOURCE_SIZE = auto()  # elements of the whole source
    SMALL_SIZE = auto()  # and of the small map, for a weight's gradient
    SOURCE_IMAGE = auto()  # strides
    SOURCE_GROUP = auto()
    SOURCE_CHANNEL = auto()
    SOURCE_HEIGHT = auto()
    SOURCE_WIDTH = auto()
    WEIGHT_GROUP = auto()  # strides of the weight; of the small map for a weight's gradient
    WEIGHT_RESULT = auto()
    WEIGHT_CHANNEL = auto()  # of the weight; of an image in the small map
    OUT_START = auto()
    OUT_IMAGE = auto()  # strides; of a partial sum for a weight's gradient
    OUT_GROUP = auto()
    OUT_RESULT = auto()
    OUT_ROW = auto()
    OUT_COL = auto()
    ALIASES = auto()  # 1: the same pixels of many results are in few sets of a cache
    ASKS = auto()  # 1: memory brings the maps, as they are larger than caches: what is read soon is asked for
    # 1: every second pixel of a row is written, those between by the next plan, on the same thread; 2: they are there
    WEAVES = auto()
    FILLS = auto()  # 1: pixels from a row of outputs to the next that nobody writes are set to the bias
    COPIES = auto()  # 1: read the source through a field, 0: as it is
    TILE = auto()  # which of `SLIDES` and the like
    PLANES_H = auto()
    PLANES_W = auto()
    HOP_H = auto()
    HOP_W = auto()
    STEP_H = auto()  # pixels that are read, from those of one output to those of the next, where no plane sees to that
    STEP_W = auto()
    FIELD_PLANE = auto()  # elements of a plane (a, b) of a strip's field: all channels of it
    FIELD_CHANNEL = auto()  # of a channel in it
    FIELD_ROWS = auto()
    FIELD_COLS = auto()
    BLOCK_IMAGES = auto()  # of a piece of work
    BLOCK_ROWS = auto()
    BLOCK_COLS = auto()
    BLOCK_CHANNELS = auto()
    BLOCK_RESULTS = auto()
    HALVES = auto()  # results, at most, that the micro-kernels for half a vector of them take
    PAIRS = auto()  # results, at least, that those for two vectors take; 0: those are not used
    NEXT_PANEL = auto()  # elements from a panel of a vector of results to that of the next
    BLOCK_PIXELS = auto()
    SPLITS = auto()  # partial sums of a weight's gradient
    CLIPS = auto()  # 1: taps that fall on the padding are left out
    PHASES = auto()  # problems that read one field and write among each other's pixels
    # for each: rows, columns, first row and column written; where a table starts of TAPS and how many a channel has,
    # for all of it or, with CLIPS, each span of each row; depthwise, instead: TAPS, their number, CLIP_ROWS, as `BAND`
    PHASE_TABLE = auto()
    BUNDLES = auto()  # of taps of a weight's gradient
    # for each: where TAPS starts, how many a channel has; rows and columns of outputs that they meet, from and to;
    # where a table starts of a panel's pixels, offsets in the panel and in what is read, and the first column in it;
    # of how many neighbours its runs are
    BUNDLE_TABLE = auto()
    APART_H = auto()  # rows of the strip's sums from one of a phase to the next
    APART_W = auto()
    SUMS_ROWS = auto()  # written by all phases
    SUMS_COLS = auto()
    MERGES = auto()  # not 0: results of all phases are lanes, so many of them side by side; MULTIPLE are one phase's
    LANE_TABLE = auto()  # for each: offsets in the weight, the output and the bias
    TAP_TABLE = auto()  # for each tap (a, b): its offset in the weight
    GAPS = auto()  # 1: some are written by none
    START = auto()  # where, in a thread's workspace, vectors are that sums start from
    TURNS = auto()  # 1: the kernel's taps are taken from the last to the first
    MULTIPLE = auto()  # results for each channel of a depthwise source
    ORIGINS_H = auto()  # where, in the tables, the planes' origins start
    ORIGINS_W = auto()
    INSIDE_W = auto()  # for each plane of columns of a depthwise field: the first inside, behind the last
    # how the source's rows lie in a depthwise field: all of them as one layer, or those of each plane
    LAYERS = auto()
    # for each: the first row, from one to the next, their number in a whole strip; where a table starts of the place of
    # each of their pixels
    LAYER_TABLE = auto()
    TAPS = auto()
    PANEL_TAPS = auto()
    CLIP_ROWS = auto()
    BAND = auto()  # taps of a row, if they meet neighbours, or 0; the source columns inside: the first, behind the last
    FIELD = auto()  # where, in a thread's workspace, each part starts
    PANEL = auto()
    SUMS = auto()
    EXTRA = auto()


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

#: Small kernels of depthwise convolution, (rows and columns, stride), that have a micro-kernel going down a plane;
#: those of its transposed twin, (rows and columns, padding modulo 2), whose stride is 2; and those of the weight's
#: gradient, again with their stride.
SLIDES = ((2, 2), (3, 1), (3, 2), (4, 2), (5, 1), (5, 2), (7, 1))
SPREADS = ((2, 0), (3, 0), (3, 1), (4, 1), (5, 0))
MEETINGS = ((2, 2), (3, 1), (3, 2), (4, 2), (5, 1))


def signature() -> str:
    """All of it in one line: an engine compiled ahead holds that of its time, and is out of date if it differs."""
    return (
        f"{' '.join(place.name for place in Place)}; {FLAT} {PACKED} {BY_ROWS} {COUNTER}; "
        f"{FEW_ROWS_TILE} {ONE_ROW_TILE} {PREFETCHING}; {TILES}; {DOTS}; {ALONG}; "
        f"{BANDS}; {SPAN}; {TAPS}; {HALVED} {PAIRED} {RUN}; {SLIDES}; {SPREADS}; {MEETINGS}"
    )
