"""Direct convolution with a lane of the vectors for each result: how it is cut, as a plan.

The weight of a block of channels is transposed, so that a tap's weights of as many results as a register has lanes are
a vector; the source's pixels are read one at a time, from a field or from where they are, and no length of a row leaves
lanes empty. The phases of a transposed convolution are one plan: they read one field, use one transposed weight, and
their sums lie as they are written.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv.backends.contract import Layout, Plan
from fastconv.kernels.abi import Place as P
from fastconv.planner import blocking
from fastconv.planner.blocking import Cut, even
from fastconv.planner.phase_group import PhaseGroup
from fastconv.planner.plan_builder import Maps, Tables, are_aliases, field_of, fills, plan_of, weight_offsets
from fastconv.planner.request import Request, Way
from fastconv.planner.tap_ranges import TapRanges, cost_of_looking
from fastconv.problem.arrays import Array
from fastconv.problem.geometry import Geometry
from fastconv.problem.polyphase import are_side_by_side
from fastconv.problem.subpixel import Phase

#: Taps that are summed at a time: what is read of the field stays in the first-level cache.
_TAPS = 144
#: Bytes, at most, of a block of the weight, transposed for a vector of results; a single channel may take more.
_PANEL = 2**17

#: The cost of transposing a vector of sums, of one of the weight, which has to be read first, and of storing one's
#: elements apart, in multiply-adds of a vector.
_TRANSPOSING, _TRANSPOSING_WEIGHT, _SCATTERING = 6.0, 10.0, 4.0
#: Phases, at most, of a plan: as many times are its sums larger than what it reads.
_PHASES = 16


def applies(request: Request) -> str | None:
    """Why it cannot compute a map: it must be one phase, or several that read near each other and write each pixel
    once."""
    number = request.phase_count
    if number == 1:
        return None
    if not 0 < number <= _PHASES:
        return f"there are {number or 'no'} phases"
    return None if are_side_by_side(request.phases) else "its phases do not read pixels near each other"


class Correlation:
    """Phases that read the large map and write the small one, or the other way round, and their plan.

    results   lanes that are wanted: a group's results, `merged` times
    kernel    taps of a channel that the transposed weight has: all of them, or where phases are merged those of one
    met       the taps that are multiplied: those on the padding are left out where that pays
    """

    def __init__(
        self, geometry: Geometry, phases: Sequence[Phase], to_large: bool, layout: Layout, itemsize: int,
        merged: int = 1,
    ) -> None:  # fmt: skip
        self.phases, self.layout, self.itemsize = phases, layout, itemsize
        self.kernel_width = geometry.axes[1].taps
        self.maps = maps = Maps(geometry, to_large)
        self.results = maps.results * merged
        self.kernel = maps.kernel if merged == 1 else phases[0].rows.taps * phases[0].cols.taps
        self.group = group = PhaseGroup(phases, maps.out, blocking.strip_rows(phases, layout.lanes))
        self.copies = not all(maps.is_inside(phase) for phase in phases)
        self.taps = [phase.rows.taps * phase.cols.taps for phase in phases]
        most = _PANEL // itemsize // (self.kernel * layout.lanes)
        if self.copies:
            line = group.planes * (1 + group.halo[0]) * (min(group.extents[1], 64 * layout.lanes) + group.halo[1])
            most = min(most, blocking.FIELD // itemsize // line)
        self.block_c = even(max(1, min(_TAPS // max(self.taps), most)), maps.channels)
        self.tap_ranges = [TapRanges.everywhere(phase) for phase in phases]
        # a row is summed in the same spans by each piece, and in more than one call
        self.clips = self.copies and group.halo[1] > 0 and group.extents[1] <= 64 * layout.lanes
        if self.clips:
            inside = [TapRanges.inside(phase, maps.source, layout.span) for phase in phases]
            self.clips = self._saved(inside) > cost_of_looking(maps.weight_size, maps.out_size)
            self.tap_ranges = inside if self.clips else self.tap_ranges

    def _saved(self, inside: Sequence[TapRanges]) -> float:
        """The multiply-adds that there are less if only those taps are multiplied."""
        maps = self.maps
        pixels = sum(
            phase.rows.outputs * phase.cols.outputs * taps * (1 - met.kept)
            for phase, taps, met in zip(self.phases, self.taps, inside, strict=True)
        )
        return maps.batch * maps.groups * maps.channels * self.results * pixels

    def cut(self, threads: int) -> Cut:
        """The cheapest way to cut it."""
        maps, group = self.maps, self.group
        extents = maps.batch, maps.groups, maps.channels, self.results, *group.extents
        is_line = group.is_one and (group.halo[1] == 0 if self.copies else group.extents[1] == maps.source[1])
        described = tuple(
            (taps * met.kept, phase.cols.outputs)
            for taps, met, phase in zip(self.taps, self.tap_ranges, self.phases, strict=True)
        )
        shares = self.layout.run > 1 and all(
            phase.cols.taps > 1 and phase.cols.dilation == phase.cols.stride for phase in self.phases
        )
        packing, placing = self.costs()
        return blocking.best(
            True, self.layout, self.itemsize, extents, described, group.out_stride, group.halo, group.planes,
            self.block_c, self.copies, is_line, shares, packing, placing, threads,
        )  # fmt: skip

    def costs(self) -> tuple[float, float]:
        """What it costs to transpose the weight of as many results as there are lanes, and to place their sums."""
        maps, lanes = self.maps, self.layout.lanes
        # the taps of a result's channels lie together, or those of a channel's results
        run, runs = maps.kernel, maps.channels
        if maps.weight[P.WEIGHT_CHANNEL] == maps.kernel:
            run, runs = maps.kernel * maps.channels, 1
        packed = runs if maps.weight[P.WEIGHT_RESULT] == 1 else runs * -(-run // lanes) * lanes
        scatters = self.group.is_one and self.phases[0].cols.out_stride > 1
        return packed * _TRANSPOSING_WEIGHT, _TRANSPOSING + scatters * _SCATTERING

    def in_panel(self, phase: Phase) -> Array:
        """Which row of a channel's transposed weight each tap of a phase is."""
        return weight_offsets(phase, self.kernel_width)

    def lanes(self, tables: Tables, cut: Cut) -> dict[P, int]:
        """What a plan says of its lanes: where they are results as they come, they fill what lies between them."""
        return fills(self.phases, cut.cols)

    def plan(self, cut: Cut) -> Plan:
        """Its plan, cut so."""
        maps, group, lanes, block_c = self.maps, self.group, self.layout.lanes, self.block_c
        field = field_of(block_c, cut.rows + group.halo[0], cut.cols + group.halo[1], self.itemsize)
        channels = np.arange(block_c)[:, None]
        tables, described = Tables(), []
        for phase, met in zip(self.phases, self.tap_ranges, strict=True):
            in_field, step = maps.offsets(phase), maps.source[0] * maps.source[1]
            if self.copies:
                in_field, step = group.offsets(phase, field), field[P.FIELD_CHANNEL]
            # a transposed weight has all taps of a channel, each in a row of lanes
            in_panel = (channels * self.kernel + self.in_panel(phase)) * lanes
            pairs = np.stack([in_panel, channels * step + in_field], 2)
            pairs = pairs.reshape(block_c, phase.rows.taps, phase.cols.taps, 2)
            described += [*group.described(phase), met.add_to(tables, pairs)]
        i, j = group.extents
        strips = -(-maps.batch // cut.images) * maps.groups * -(-i // cut.rows) * -(-j // cut.cols)
        integers = {
            P.ITEMS: strips * -(-self.results // cut.results),
            **maps.integers,
            **group.integers(tables, described),
            **self.lanes(tables, cut),
            P.COPIES: self.copies, P.CLIPS: self.clips, P.ALIASES: are_aliases(maps.out, self.itemsize),
            P.ASKS: maps.exceed_caches(self.itemsize),
            **field,
            P.BLOCK_IMAGES: cut.images, P.BLOCK_ROWS: cut.rows, P.BLOCK_COLS: cut.cols, P.BLOCK_CHANNELS: block_c,
            P.BLOCK_RESULTS: cut.results,
            P.HALVES: self.layout.halves, P.PAIRS: self.layout.pairs, P.NEXT_PANEL: block_c * self.kernel * lanes,
        }  # fmt: skip
        # squares of lanes go beyond what they hold
        square, pixels, beside = lanes * lanes, cut.sums // cut.results, self.layout.beside(cut.results)
        parts = {
            P.START: beside * lanes,
            P.SUMS: cut.sums + square,
            P.PANEL: beside * integers[P.NEXT_PANEL],
            P.EXTRA: lanes * (pixels + 2 * lanes),
            P.FIELD: self.copies * cut.images * group.planes * field[P.FIELD_PLANE] + 2 * lanes,
        }
        return plan_of("correlate_results", self.itemsize, tables, integers, parts)

    def way(self, threads: int) -> Way:
        """The way to compute them."""
        cut = self.cut(threads)
        return Way(cut.excess, cut.cost, lambda: [self.plan(cut)])


def way(request: Request) -> Way:
    """How it computes a map."""
    geometry, layout = request.geometry, request.tiles
    one = Correlation(geometry, request.phases, request.to_large, layout, request.itemsize)
    return one.way(request.threads)
