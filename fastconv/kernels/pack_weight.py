"""Pack the weight: for each channel and tap a vector with a lane for each result."""

from typing import NamedTuple

from fastconv.kernels.arguments import Weight
from fastconv.kernels.lanes import to_lanes
from fastconv.kernels.primitives import LANES, SIZE, Address, Entries, entry, load_runs, move


class LanePacking(NamedTuple):
    """Which results are the lanes of vectors, in the packed weight, in sums and in the output.

    taps    taps of a channel in the packed weight
    biases  elements of the bias of a group
    run     0: the lanes are a group's results in order. Otherwise they are the results of several equivalent phases
            (interleaved phases), and runs of `run` lanes are neighbours in the weight and in the output
    weight_table, out_table, bias_table    with `run`, for each lane: its offset in the weight, output and bias
    taps_table    with `run`, for each tap of a channel: its offset in the weight
    """

    taps: int
    biases: int
    run: int
    weight_table: int
    out_table: int
    bias_table: int
    taps_table: int


def offset_of_result(packing: LanePacking, strides: Weight, tables: Entries, k: int) -> int:
    """The offset in a group's weight of result k, in the order of the lanes."""
    return entry(tables, packing.weight_table + k) if packing.run else k * strides.result


def pack_weight(
    packing: LanePacking, strides: Weight, tables: Entries, weight: Address, end: Address, g: int, k: int, valid: int,
    c: int, channels: int, panel: Address,
) -> None:  # fmt: skip
    """Pack the weight of group g for a vector of results, from k on, and `channels` channels, from c on.

    Lanes beyond `valid` are undefined. Nothing at `end` or beyond is read.
    """
    source = weight + (g * strides.group + c * strides.channel) * SIZE
    if packing.run:
        starts, offsets = tables + packing.taps_table * 8, tables + (packing.weight_table + k) * 8
        for _ in range(channels):
            load_runs(packing.run, source, starts, offsets, valid, panel, packing.taps)
            source += strides.channel * SIZE
            panel += packing.taps * LANES * SIZE
        return
    source += k * strides.result * SIZE
    if strides.channel == packing.taps:  # the taps of a result's channels follow each other
        to_lanes(source, strides.result, valid, 1, 0, panel, 0, channels * packing.taps, end)
        return
    for _ in range(channels):
        if strides.result == 1 and source + LANES * SIZE <= end:
            move(panel, source)
        else:
            to_lanes(source, strides.result, valid, 1, 0, panel, 0, packing.taps, end)
        source += strides.channel * SIZE
        panel += packing.taps * LANES * SIZE
