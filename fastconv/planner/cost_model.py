"""The cost model: every constant by which a kernel, its register tile and its block sizes are chosen.

The unit of cost is one multiply-add of a whole vector register; `CostModel.seconds` converts it to time.

Which constants may differ from machine to machine
--------------------------------------------------
The same call gives the same bits on every processor with the same instruction set, so a constant that follows the
machine must not decide in which order numbers are added.

- **Maps** (forward, and the gradient of the input): each number is one chain of additions in a fixed order, whatever
  the blocking and the kernel. So kernels that compute maps take `current`: sizes come from the caches that the
  system describes, and `python -m fastconv warmup --measure` fits `MEASURED` to the machine.
- **Weight gradients**: block sizes and the choice of a kernel decide which pixels are in each partial sum, and what is
  added in one lane. So these kernels take `nominal`, whose constants depend on the instruction set and the kind of
  processor alone. Nothing about them is read from the system or measured. The same goes for products of matrices, and
  for engines that multiply windows (`window_costs`).

Limits of what a kernel can do (such as the taps that have a micro-kernel) are not costs; they stand with the kernels.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastconv.backends.contract import Layout
from fastconv.planner import measured_costs
from fastconv.problem import parameters
from fastconv.problem.cache_sizes import CacheSizes, cache_sizes
from fastconv.problem.environment import COST_MODEL
from fastconv.problem.errors import ArgumentError, one_of

#: Bytes of a cache line, and distance of addresses that share a set of the first-level cache: the same in all
#: processors that fastconv runs on.
CACHE_LINE, SET_STRIDE = 64, 4096


class CostModel:
    """Constants of one kind of processor. Costs are in multiply-adds of a vector unless a comment says otherwise.

    Compared by identity, so that it is a cheap part of a cache's key. The constants of the class are the defaults.
    """

    # --- the machine ---
    #: Multiply-adds of a vector register that one thread does in a second.
    multiply_adds: float = 8e9
    #: Multiply-adds that must be independent to hide the latency of one, times those that start in a cycle.
    latency: float = 9.0

    # --- shares of the caches, in bytes ---
    #: A thread's padded tile: half of the second-level cache.
    padded_tile_bytes: int = 2**19
    #: A strip's sums: three quarters of it. They are read and written once for each block of channels, the tile often.
    sums_bytes: int = 3 * 2**18
    #: A block of the weight, transposed for a vector of results: an eighth of it.
    weight_panel_bytes: int = 2**17
    #: The rows of both maps that a row-wise depthwise kernel walks over several times: an eighth of it.
    depthwise_strip_bytes: int = 2**17
    #: Half of it: a source of more bytes is prefetched. In a network, where other layers were computed since it was
    #: written, it is in a slower cache, or in memory. In a loop on the same maps prefetching costs up to 4%.
    level2_source_bytes: int = 2**19

    # --- blocking of every kernel ---
    #: Work items of a small problem, about: enough for several threads. Not their number, which may change no bits.
    work_items: int = 8
    #: The cost of a work item besides its arithmetic.
    start_item: float = 3000
    #: Vectors of outputs of a strip, at most, unless one row is longer.
    strip_vectors: int = 96
    #: Lengths in vectors that are tried for parts of a row, if the row is longer than the last of them.
    row_parts: tuple[int, ...] = (24, 48, 64)
    #: Bytes of a pixel, about, that a work item reads or writes at once where channels are neighbours in memory.
    bytes_beside: int = 512
    #: Copying a vector of the source, which comes from memory, into a padded tile.
    pad_vector: float = 10.0
    #: The same if neighbouring pixels are not neighbours in memory, so that squares are transposed.
    transpose_source: float = 12.0
    #: Converting a vector of a map to C order, or back, which NumPy does on one thread, an element at a time.
    convert_vector: float = 150.0
    #: Checking whether a factor is finite: for each element, and for the call; in multiply-adds of one number.
    check_element: int = 16
    check_finite: int = 2**20

    # --- pixel lanes ---
    #: Measured time over predicted, where the source is read in place and through a padded tile.
    pixel_lanes_in_place: float = 1.0
    pixel_lanes_padded: float = 1.0
    #: A multiply-add in the register tiles of many rows, of few rows, and of one row, which waits for loads.
    tile_multiply_add: tuple[float, float, float] = (1.03, 1.03, 1.75)
    #: The same in a tile of one row that reads a padded tile.
    one_row_padded: float = 2.8
    #: The factor for a vector that is alone in its register tile, which waits for loads as well.
    single_pixel_vector: float = 1.6
    #: Taps that are summed at a time: more are read from the second-level cache, fewer load and store sums more often.
    panel_taps: int = 384
    #: Moving a vector of one tap into a panel.
    pack_vector: float = 6.0
    #: Copying a vector of the source into a padded tile that is read along its rows.
    copy_vector: float = 4.0
    #: Loading and storing a vector of sums, with its share of the call.
    load_sums: float = 5.0
    #: Copying a vector of sums to the output: if the other sums of its line were added there, and if all are copied.
    store_rest: float = 4.0
    store_sums: float = 7.0
    #: Reading an element of the weight for the first time.
    read_weight: float = 0.3
    #: Results, at most, of phases that share a padded tile: with more, copying costs little beside multiplying.
    sharing_results: int = 16
    #: Phases, at most, of which a thread does a work item each in turn, whichever rows they write.
    few_phases: int = 4

    # --- channel lanes ---
    #: Measured time over predicted, where the source is read in place and through a padded tile.
    channel_lanes_in_place: float = 1.0
    channel_lanes_padded: float = 1.0
    #: Taps that are summed at a time: what they read of the padded tile stays in the first-level cache.
    block_taps: int = 144
    #: A multiply-add of half a register on processors that issue 64-byte operations as two halves: more than 0.5, as
    #: the loads are not halved; and where neighbouring taps share their loads.
    half_vector: float = 0.62
    half_vector_sharing: float = 0.55
    #: A multiply-add in a tile with one vector of results, which waits for its loads; and where taps share them.
    single_result_vector: float = 1.25
    single_result_vector_sharing: float = 1.03
    #: Calling a micro-kernel for a span of pixels.
    call: float = 15
    #: A pixel of a span, besides its multiply-adds.
    call_pixel: float = 2
    #: Transposing a vector of sums; and one of the weight, which is read first.
    transpose_sums: float = 6.0
    transpose_weight: float = 10.0
    #: A weight of at least so many bytes is prefetched. That takes a table, which costs time to plan.
    prefetched_weight_bytes: int = 2**15
    #: Storing the elements of a vector one by one; and a vector of sums as it is.
    scatter: float = 4.0
    store_lanes: float = 2.0

    # --- interleaved phases: channel lanes whose lanes are the results of several phases ---
    #: Storing a run of neighbouring lanes, and gathering one from the weight.
    store_run: float = 1.0
    gather_run: float = 4.0
    #: The factor on the cost of several plans: each reads source and weight anew, and threads wait between them.
    several_plans: float = 2.0

    # --- depthwise, lanes along the channels ---
    #: Measured time over predicted.
    depthwise_channelwise: float = 1.0
    #: Vectors of channels of a work item, at most, where channels are neighbours: what is read and written of a pixel
    #: should be several cache lines.
    vectors_beside: int = 8
    #: Transposing a vector of the maps, and a multiply-add.
    transpose_map: float = 13.0
    depthwise_tap: float = 1.1
    #: Where maps are read and written in place: a multiply-add, an output, and the outputs of a strip, at least.
    in_place_tap: float = 1.2
    in_place_pixel: float = 7.0
    in_place_strip: int = 384
    #: A source of more bytes is prefetched.
    in_place_prefetch_bytes: int = 2**16
    #: Rows of a kernel from which on those on the padding are skipped; and taps of a row from which on they are
    #: multiplied as a band.
    skip_rows_from: int = 4
    band_from: int = 4
    #: Work items of an image from which on a work item takes several images, which share a transposed weight.
    several_images_from: int = 16

    # --- depthwise, lanes along the rows ---
    #: Measured time over predicted.
    depthwise_rowwise: float = 1.0
    #: Rows of a strip, at least: each strip begins with rows that complete no sum.
    fewest_rows: int = 16
    #: The least cost that a work item should have.
    rowwise_item: float = 6000
    #: A multiply-add with its shuffle, and one of a 5x5 kernel where a whole register is multiplied in one step.
    rowwise_tap: float = 1.35
    rowwise_tap_of_5x5: float = 1.7
    #: The shuffles of a row for each step of the stride beyond the first.
    rowwise_stride: float = 10

    # --- Winograd ---
    #: Transforming a vector of pixels, one of products back, and one of the weight: for each element of a tile.
    winograd_input: float = 5.5
    winograd_output: float = 6.0
    winograd_weight: float = 8.0
    #: A call, besides.
    winograd_start: float = 6000.0
    #: Reading a vector of the transformed weight in a work item, and writing one; and either of them, or reading one of
    #: the weight, besides, if the transformed weight exceeds `winograd_level3_bytes`. Each work item reads it anew.
    winograd_fetch: float = 1.0
    winograd_write: float = 2.0
    winograd_far: float = 15.0
    winograd_level3_bytes: int = 10 * 2**20
    #: Bytes of the transformed tiles and the products of a work item, at most, and tiles.
    winograd_bytes: int = 3 * 2**18
    winograd_tiles: int = 128
    #: For weight gradients: transforming a vector of the small map, for each element of a tile; and tiles of a strip.
    winograd_small: float = 6.0
    winograd_gradient_tiles: int = 56
    #: Channels of a work item of the weight's transform, at most.
    winograd_weight_channels: int = 64

    # --- products of matrices: taken from `nominal` alone, as they decide in which order numbers are added ---
    #: Vectors of a row from which on it pays to sum in lanes of pixels, which are added in the end.
    long_row: int = 32
    #: Images up to which a weight's gradient is quicker as a product.
    few_images: int = 4

    # --- weight gradients: taken from `nominal` alone, as they decide in which order numbers are added ---
    #: Numbers of blocks of channels, and of blocks of results, that are tried.
    block_counts: tuple[int, ...] = (8, 4, 2, 1)
    #: Pixels of an image below which several images are one strip.
    small_image: int = 256
    #: Multiply-adds from which on several partial sums pay; and elements of all partial sums, at most.
    split_from: int = 2**18
    partial_sums: int = 2**18
    #: Pixels of a chain of multiply-adds: sums over more are divided, so that the rounding error stays small.
    chain_pixels: int = 4096
    #: Pixels of a block behind which a chain may end, in depthwise kernels.
    chain_block: int = 1024
    #: Adding a vector of partial sums; and the whole step, besides.
    add_partial: float = 40.0
    add_partials: float = 3e4
    #: Copying a vector of the source into planes, with a stride above 2.
    copy_far_planes: float = 27.0

    # with a lane for each tap
    #: Pixels that are summed at a time.
    tap_lanes_pixels: int = 256
    #: Results of a work item, at least, if there are as many: each work item transposes its taps' pixels anew.
    fewest_results: int = 64
    #: Gathering a vector of a panel, or copying it; reading one of the source; loading and storing one of sums for each
    #: panel.
    gather: float = 6.0
    copy_lanes: float = 2.0
    tap_lanes_read: float = 10.0
    load_tap_sums: float = 10.0

    # with a lane for each result
    #: Pixels that are summed at a time.
    channel_lanes_pixels: int = 512
    #: Multiply-adds that should use each vector of a padded tile, for its copying to be worthwhile.
    worth_copying: int = 128
    #: Transposing a vector of a panel; reading one of the source in place, and into a padded tile.
    transpose_panel: float = 9.0
    channel_lanes_read: float = 2.0
    channel_lanes_copy: float = 5.0
    #: Loading and storing a vector of sums for each panel, and moving one to the output.
    load_result_sums: float = 2.0
    store_weight: float = 14.0
    #: The factor on a multiply-add if tap groups skip the padding.
    skipping_taps: float = 1.06

    # with a lane for each pixel
    #: Pixels that are summed at a time; and results of a work item, at most.
    pixel_lanes_pixels: int = 4096
    pixel_lanes_results: int = 64
    #: A vector of the source read in place, one copied into a padded tile, and one of the small map.
    pixel_lanes_read: float = 6.0
    pixel_lanes_copy: float = 8.0
    read_small: float = 6.0
    #: Loading and storing a vector of sums for each block of pixels, and adding its lanes in the end.
    load_pixel_sums: float = 3.0
    add_lanes: float = 250.0
    #: A multiply-add, as most loads cross a cache line; and if a small map of more results than a register tile has
    #: shares few sets of a cache.
    unaligned: float = 1.08
    aliased: float = 1.35

    # depthwise
    #: With lanes along the channels: transposing a vector of the maps, and a multiply-add.
    transpose_both: float = 20.0
    channelwise_weight_tap: float = 1.9
    #: The same in place: a multiply-add, a pixel, and the pixels of a partial sum, at least.
    in_place_weight_tap: float = 2.2
    in_place_weight_pixel: float = 8.0
    in_place_weight_strip: int = 1024
    #: With lanes along the rows: a multiply-add, the shuffles for each step of the stride beyond the first, a row.
    rowwise_weight_tap: float = 1.35
    rowwise_weight_stride: float = 17
    rowwise_weight_row: float = 2
    #: A column of vectors, besides its rows; and adding the lanes of a channel in the end.
    weight_column: float = 160
    add_channel: float = 100

    def __init__(self, **constants: Any) -> None:
        if unknown := constants.keys() - CostModel.__annotations__.keys():
            raise TypeError(f"the cost model has no constants {unknown}")
        vars(self).update(constants)

    def replaced(self, **constants: Any) -> "CostModel":
        """The same with other values of some constants."""
        return CostModel(**vars(self) | constants)

    def seconds(self, cost: float) -> float:
        """The time that one thread takes for this cost."""
        return cost / self.multiply_adds

    def of_each(self, parts: int) -> "CostModel":
        """The same with a part of the caches, for one of several groups of a work item."""
        return self if parts == 1 else _of_each(self, parts)

    def for_caches(self, caches: CacheSizes) -> "CostModel":
        """The same with the shares of these caches.

        A cache's size counts within bounds: a padded tile of a quarter of the usual size still fills its vectors, and
        one of more than four times that size gains nothing.
        """
        level2 = min(max(caches.level2, 2**18), 2**22)
        return self.replaced(
            padded_tile_bytes=level2 // 2,
            sums_bytes=3 * level2 // 4,
            weight_panel_bytes=level2 // 8,
            depthwise_strip_bytes=level2 // 8,
            level2_source_bytes=level2 // 2,
            winograd_bytes=min(3 * level2 // 4, 3 * 2**19),
        )


@functools.lru_cache(64)
def _of_each(model: CostModel, parts: int) -> CostModel:
    """Cached, as models are compared by identity."""
    return model.replaced(padded_tile_bytes=model.padded_tile_bytes // parts, sums_bytes=model.sums_bytes // parts)


#: By the multiply-adds of a whole register that start in a cycle (`Layout.pipes`). Processors that start two wait for
#: loads if a register tile has a single vector; those that issue 64-byte operations as two halves (Zen 4) need half as
#: many independent multiply-adds to hide the latency, and take twice as long for each.
BY_PIPES = {
    2: CostModel(),
    1: CostModel(
        multiply_adds=4e9, latency=4.5, one_row_padded=1.75, single_result_vector=1.0, single_result_vector_sharing=1.0
    ),
}

#: The constants that are measured, with the bounds outside of which a number is refused.
MEASURED = {
    "multiply_adds": (1e8, 1e11),
    "pad_vector": (5.0, 20.0),
    "copy_vector": (2.0, 8.0),
    "pixel_lanes_in_place": (0.33, 3.0),
    "pixel_lanes_padded": (0.33, 3.0),
    "channel_lanes_in_place": (0.33, 3.0),
    "channel_lanes_padded": (0.33, 3.0),
    "depthwise_channelwise": (0.33, 3.0),
    "depthwise_rowwise": (0.33, 3.0),
}


def nominal(layout: Layout) -> CostModel:
    """The constants that fastconv comes with, the same on every machine with this layout."""
    return BY_PIPES[1 if layout.pipes == 1 else 2]


def of_this_machine(layout: Layout) -> CostModel:
    """The constants for this machine: its caches, and what was measured unless `FASTCONV_COST_MODEL` is `default`."""
    return _of_this_machine(layout, ignores_measured())


@functools.cache
def _of_this_machine(layout: Layout, is_default: bool) -> CostModel:
    """The file is read once a process."""
    model = nominal(layout).for_caches(cache_sizes())
    measured = None if is_default else measured_costs.load(MEASURED)
    constants: Mapping[str, Any] = measured.constants.get(measured_costs.key(layout), {}) if measured else {}
    return model.replaced(**constants)


def ignores_measured() -> bool:
    """Whether measured constants are not to be used.

    Raises `ArgumentError` if `FASTCONV_COST_MODEL` is anything but `measured` or `default`.
    """
    name = COST_MODEL.value() or "measured"
    if name not in ("measured", "default"):
        raise ArgumentError(f"{COST_MODEL.name}={parameters.written(name)}: {one_of(name, ['measured', 'default'])}")
    return name == "default"


_choose: Callable[[Layout], CostModel] = of_this_machine


def current(layout: Layout) -> CostModel:
    """The constants in force, for kernels that compute maps."""
    return _choose(layout)


@contextlib.contextmanager
def use(choose: Callable[[Layout], CostModel]) -> Iterator[None]:
    """A context in which all threads make new plans by other constants; cached plans stay as they are."""
    global _choose
    before, _choose = _choose, choose
    try:
        yield
    finally:
        _choose = before
