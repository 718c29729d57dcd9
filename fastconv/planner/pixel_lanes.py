"""The kernel pixel lanes, a vector lane for each pixel: its blocking, cost and plans.

A work item is a strip of output rows of some images, times some results. Its source, a block of channels at a time, is
copied into a padded tile, in which each tap is a constant offset (`planner.polyphase`), or is read in place if that
holds there already. Where it pays, the pixels of a register tile are packed into a panel: a row for each tap, without
the halo columns between two rows of the padded tile. The weight is read in its own layout.

Workspace is a padded tile, a panel and the strip's sums for each thread, whatever the problem's size.

A transposed convolution has several phases, which are grouped in three ways:

- *Equivalent* phases (`problem.subpixel`) read the source at the same positions with as many taps, so one
  `_PhasePlanner` finds the blocking for all of them, and its plan is only shifted: where the outputs start, and which
  taps of the kernel they use.
- Phases that *share a padded tile* (`PhaseGroup`): a thread fills the tile for the first of them, and reads it for the
  others too. They need the same work items, and a tile of all channels; it pays with few results.
- *Plans of one group* (`joined_plans`): a thread does a work item of each of them in turn, so that the same thread
  writes neighbouring pixels. Phases that share a padded tile are always such a group, but not the other way round.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from fastconv.backends.contract import Plan
from fastconv.kernels.arguments import Block
from fastconv.kernels.drivers.pixel_lanes import PixelLanes, RegisterTile
from fastconv.planner.blocking import Blocking, cheapest_blocking, even_block, strip_rows
from fastconv.planner.phase_group import PhaseGroup
from fastconv.planner.plan_builder import (
    Maps,
    Tables,
    channel_taps,
    joined_plans,
    move_tables,
    padded_tile,
    plan_of,
    plane_offsets,
    rows_of,
    weight_offsets,
)
from fastconv.planner.request import MANY_PHASES, MOST_PHASES, Proposal, Request
from fastconv.problem.arrays import Array
from fastconv.problem.polyphase import Planes, are_side_by_side
from fastconv.problem.subpixel import EquivalentPhases, Phase, distinct


class _PhasePlanner:
    """One phase of a contraction that writes a map: its blocking and its plan.

    `group`: phases that share a padded tile of all channels; this is its phase `number`. The first one's plan fills it.
    """

    def __init__(self, request: Request, phase: Phase, group: PhaseGroup | None = None, number: int = 0) -> None:
        layout, itemsize, model = request.tiles, request.itemsize, request.model
        self.phase, self.layout, self.itemsize, self.number = phase, layout, itemsize, number
        self.shared, self.first = (len(group.phases), group.phases[0]) if group else (1, phase)
        self.kernel_width = request.geometry.axes[1].taps
        self.maps = Maps(request)
        self.groups = 1 if group else self.maps.groups_beside(layout.full[0], model, itemsize)
        model = self.model = model.of_each(self.groups)
        rows, cols = phase.rows, phase.cols
        self.taps = rows.taps * cols.taps
        self.in_planes, self.across_planes = (
            group.planes_of(phase)
            if group
            else (Planes.of(rows, strip_rows([phase], layout.lanes, model)), Planes.of(cols))
        )
        self.planes = len(self.in_planes.origins) * len(self.across_planes.origins)
        self.halo = self.in_planes.halo, self.across_planes.halo
        self.is_padded = group is not None or not self.maps.is_inside(phase)
        most = c = self.maps.channels
        if self.is_padded:
            longest = min(cols.outputs, model.row_parts[-1] * layout.lanes)
            axis_map = self.planes * (1 + self.halo[0]) * (longest + self.halo[1])
            most = model.padded_tile_bytes // itemsize // axis_map
        self._copying = model.transpose_source if self.maps.is_transposed else model.copy_vector
        self.block_c = c if group else even_block(max(1, min(model.panel_taps // self.taps, most)), c)

    def can_share(self, blocking: Blocking) -> bool:
        """Whether the group's phases have the same work items with this blocking, and a tile of all channels fits."""
        one, taps = self.first, self.maps.channels * self.taps
        axis_maps = (self.phase.rows, one.rows, blocking.rows), (self.phase.cols, one.cols, blocking.cols)
        same_items = all(
            -(-axis_map.outputs // block) == -(-other.outputs // block) for axis_map, other, block in axis_maps
        )
        return same_items and taps <= 4 * self.model.panel_taps and not blocking.excess

    def blocking(self, threads: int, taps: int = 0) -> Blocking:
        """Its cheapest blocking; with `taps`, as if it had so many taps."""
        maps, rows, cols = self.maps, self.phase.rows, self.phase.cols
        extents = maps.batch, maps.groups, maps.channels, maps.results, rows.outputs, cols.outputs
        is_whole = not self.is_padded and self.taps == 1 and cols.outputs == maps.source_order.row
        # the taps that a phase takes from the weight are not neighbours there
        taps = taps or self.taps
        fetching = self.model.read_weight * min(16, maps.taps / taps)
        is_summed_there = cols.out_stride == maps.out_order.col == 1 and maps.channels <= 2 * self.block_c
        return cheapest_blocking(
            False, self.layout, self.itemsize, extents, taps, self.halo, self.planes, self.block_c,
            self.is_padded, self.shared, is_whole, is_summed_there, fetching, self._copying, threads, self.model,
        )  # fmt: skip

    def moved_plan(self, plan: Plan, phase: Phase, number: int) -> Plan:
        """Its plan changed into that of the equivalent phase `phase`."""
        if phase is self.phase:
            return plan
        (row, col), one = (phase.rows, phase.cols), self.phase
        moved = (row.first_tap - one.rows.first_tap) * self.kernel_width + col.first_tap - one.cols.first_tap
        start = self.maps.out_strides(row.out_start, col.out_start, (1, 1)).start
        other = self._moved(plan, np.array([start]), np.array([moved]))
        rows_of(PixelLanes, other.vector)["padded"] = self.padded(number)
        return other

    def plan_of_all(self, plan: Plan, equivalent: EquivalentPhases) -> Plan:
        """Its plan repeated for all equivalent phases, as one plan."""
        rows, cols = equivalent.rows, equivalent.cols
        order = self.maps.out_order
        starts = rows.out_starts[:, None] * order.row + cols.out_starts * order.col
        moved = (
            (rows.first_taps - rows.first_taps[0])[:, None] * self.kernel_width + cols.first_taps - cols.first_taps[0]
        )
        return self._moved(plan, starts.ravel(), moved.ravel())

    def _moved(self, plan: Plan, starts: Array, moved: Array) -> Plan:
        """Its plan repeated for several phases: `starts` are their first outputs, `moved` is added to their taps."""
        vector, tables = np.repeat(plan.vector, len(starts), 0), np.repeat(plan.tables[None], len(starts), 0)
        rows = rows_of(PixelLanes, vector)
        for table in (int(rows[name][0]) for name in ("taps_table", "panel_taps_table")):
            tables[:, table : table + 2 * self.block_c * self.taps : 2] += moved[:, None]
        rows["out"]["start"] = starts
        move_tables(rows, PixelLanes, np.arange(len(starts)) * len(plan.tables))
        return plan._replace(vector=vector, tables=tables.ravel(), items=len(starts) * plan.items)

    def padded(self, number: int) -> int:
        """The argument `padded` of phase `number`: of the phases that share a padded tile, the first one fills it."""
        return self.is_padded * (1 + (self.shared > 1 and number > 0))

    def plan(self, blocking: Blocking, is_only: bool) -> Plan:
        """Its plan with this blocking; `is_only`: there is no other phase."""
        maps, rows, cols, lanes, block_c = self.maps, self.phase.rows, self.phase.cols, self.layout.lanes, self.block_c
        i, j = rows.outputs, cols.outputs
        register_tile = RegisterTile(blocking.register_tile, *self.layout.tiles[blocking.register_tile])
        # behind each row of a panel there is space for a vector
        panel_row = (register_tile.vectors + 1) * lanes
        groups = self.groups if blocking.results >= maps.results else 1
        strips = -(-maps.batch // blocking.images) * -(-i // blocking.rows) * -(-j // blocking.cols)

        tables = Tables()
        # a padded tile has the channels of all groups, unless channels are divided into blocks
        extents = (
            block_c * (groups if block_c == maps.channels else 1),
            blocking.rows + self.halo[0],
            blocking.cols + self.halo[1],
        )
        tile = padded_tile(tables, self.in_planes, self.across_planes, *extents, self.itemsize, maps.is_transposed)
        in_weight = weight_offsets(self.phase, self.kernel_width)
        if self.is_padded:
            in_source, step = plane_offsets(self.in_planes, self.across_planes, tile.plane, tile.cols), tile.channel
        else:
            in_source, step = maps.offsets(self.phase), maps.source_order.channel
        of_weight = maps.weight_strides.channel, in_weight
        in_panel = np.arange(self.taps) * panel_row
        fills = is_only and maps.fills_gaps([self.phase], blocking.cols)
        arguments = PixelLanes(
            items=strips * -(-maps.groups // groups) * -(-maps.results // blocking.results),
            group=1,
            workspace=0,
            extents=maps.extents(i, j),
            source=maps.source_strides,
            weight=maps.weight_strides,
            out=maps.out_strides(rows.out_start, cols.out_start, (rows.out_stride, cols.out_stride), fills),
            tile=tile,
            block=Block(blocking.images, blocking.rows, blocking.cols, block_c, blocking.results, groups),
            register_tile=register_tile,
            taps=self.taps,
            padded=self.padded(self.number),
            prefetch=maps.source_bytes(self.itemsize) > self.model.level2_source_bytes,
            pixel_order=blocking.pixel_order,
            taps_table=tables.add(channel_taps(block_c, of_weight, (step, in_source))),
            panel_taps_table=tables.add(channel_taps(block_c, of_weight, (self.taps * panel_row, in_panel))),
            tile_at=0,
            starts_at=0,
            sums_at=0,
            panel_at=0,
        )
        parts = {
            # first in the workspace, so that it has the same address for all phases that share it
            "tile_at": self.is_padded * blocking.images * self.planes * arguments.tile.plane + panel_row + lanes,
            "starts_at": blocking.results * lanes,
            "sums_at": groups * blocking.sums,
            "panel_at": max(block_c * self.taps * panel_row + 2 * lanes, maps.has_channels_last * lanes * lanes),
        }
        return plan_of("pixel_lanes", self.itemsize, tables, arguments, parts, fills_gaps=fills)


#: A planner, one of the equivalent phases that it plans, and this phase's number in its group.
_PhaseEntry: TypeAlias = tuple[_PhasePlanner, Phase, int]
#: Planners by the kinds of their axis maps, which equivalent phases share.
_ByKind: TypeAlias = dict[tuple[tuple[int, ...], tuple[int, ...]], _PhasePlanner]


def applies(request: Request) -> str | None:
    """Why it cannot compute a map: too many phases, each of which has tables of its own."""
    number = request.phase_count
    return f"each of {number} phases would have tables" if number > MOST_PHASES else None


def propose(request: Request) -> Proposal:
    """How it computes a map."""
    if request.phase_count == 1:
        one = _PhasePlanner(request, request.phases[0])
        blocking = one.blocking(request.threads)
        return Proposal(blocking.excess, blocking.cost, lambda: [one.plan(blocking, True)])
    if request.phase_count > MANY_PHASES:
        return propose_many_phases(request)
    return _propose_each_phase(request)


def _propose_each_phase(request: Request) -> Proposal:
    """How it computes phases with tables for each. Register tiles span rows, so no taps on the padding are skipped."""
    model, threads = request.model, request.threads
    # phases that write the same rows follow each other; the first, which fills a shared padded tile, has most outputs
    phases = sorted(request.phases, key=lambda phase: (-phase.rows.outputs, phase.rows.out_start, -phase.cols.outputs))
    entries = _each(phases, lambda _, phase: _PhasePlanner(request, phase), {})
    blocking_of = functools.cache(lambda planner: planner.blocking(threads))
    found = [blocking_of(planner) for planner, _, _ in entries]
    proposal = _proposal(entries, found, sum(blocking.cost for blocking in found), model.few_phases)
    has_few = Maps(request).results <= model.sharing_results
    if len(phases) < 2 or not has_few or not are_side_by_side(phases):
        return proposal
    entries, found, cost = [], [], 0.0
    known: _ByKind = {}
    for group in _groups(phases, model.few_phases):
        sharing = _each(group, functools.partial(_sharing, request, group), known)
        equivalent = dict.fromkeys(planner for planner, _, _ in sharing)
        blocking = sharing[0][0].blocking(threads, max(planner.taps for planner in equivalent))
        if not all(planner.can_share(blocking) for planner in equivalent):
            return proposal
        entries += sharing
        found += [blocking] * len(group)
        cost += sum(blocking_of(planner).cost for planner, _, _ in sharing)
    return min(proposal, _proposal(entries, found, cost, model.few_phases), key=lambda proposal: proposal[:2])


def propose_many_phases(request: Request) -> Proposal:
    """How it computes many phases of the large map: equivalent phases share one blocking."""
    groups = request.equivalent
    planners = [_PhasePlanner(request, equivalent.first) for equivalent in groups]
    found = [planner.blocking(request.threads) for planner in planners]

    def plans() -> list[Plan]:
        each = [
            planner.plan_of_all(planner.plan(blocking, False), equivalent)
            for planner, blocking, equivalent in zip(planners, found, groups, strict=True)
        ]
        # phases that write the same rows follow each other
        first_outputs = np.concatenate(
            [list(itertools.product(equivalent.rows.out_starts, equivalent.cols.out_starts)) for equivalent in groups]
        )
        group_size = len(np.unique(first_outputs[:, 1]))
        return [joined_plans(PixelLanes, each, group_size, np.lexsort(first_outputs.T[::-1]))]

    return Proposal(
        sum(blocking.excess * len(equivalent) for blocking, equivalent in zip(found, groups, strict=True)),
        sum(blocking.cost * len(equivalent) for blocking, equivalent in zip(found, groups, strict=True)),
        plans,
    )


def _sharing(request: Request, group: Sequence[Phase], number: int, phase: Phase) -> _PhasePlanner:
    phase_group = PhaseGroup(group, Maps(request).out)
    return _PhasePlanner(request, phase, phase_group, number)


def _each(phases: Sequence[Phase], make: Callable[[int, Phase], _PhasePlanner], known: _ByKind) -> list[_PhaseEntry]:
    """The planner of each phase: `make` makes one for all equivalent phases; `known` has those made before."""
    kinds = {id(axis_map): axis_map.kind for axis_map in itertools.chain(*distinct(phases))}
    entries = []
    for number, phase in enumerate(phases):
        kind = kinds[id(phase.rows)], kinds[id(phase.cols)]
        if kind not in known:
            known[kind] = make(number, phase)
        entries.append((known[kind], phase, number))
    return entries


def _groups(phases: Sequence[Phase], few_phases: int) -> list[list[Phase]]:
    """Groups of phases, of which a thread does a work item each in turn: all phases if they are at most `few_phases`,
    else those that write the same rows.

    Threads that wrote the same or neighbouring rows would wait for each other's cache lines.
    """
    if len(phases) <= few_phases:
        return [list(phases)]
    return [list(group) for _, group in itertools.groupby(phases, key=lambda phase: phase.rows)]


def _proposal(entries: Sequence[_PhaseEntry], found: Sequence[Blocking], cost: float, few_phases: int) -> Proposal:
    """How it computes these phases, with the blockings `found`."""
    phases = [phase for _, phase, _ in entries]

    def plans() -> list[Plan]:
        blockings = dict(zip((planner for planner, _, _ in entries), found, strict=True))
        first = {planner: planner.plan(blocking, len(phases) == 1) for planner, blocking in blockings.items()}
        made = [planner.moved_plan(first[planner], phase, number) for planner, phase, number in entries]
        if len(made) < 2:
            return made
        return [joined_plans(PixelLanes, made, len(_groups(phases, few_phases)[0]))]

    return Proposal(sum(blocking.excess for blocking in found), cost, plans)
