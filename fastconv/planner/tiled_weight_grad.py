"""What kernels of weight gradients in transformed tiles have in common: those of Winograd's convolution and of spectra.

The small map is cut into tiles. The tiles and the blocking decide in which order numbers are added, so they depend on
nominal costs alone.
"""

from typing import NamedTuple

from fastconv.backends.contract import Plan
from fastconv.planner.blocking import even_block
from fastconv.planner.map_parts import ITEMSIZE
from fastconv.planner.plan_builder import Maps
from fastconv.planner.request import Proposal, Request


class Blocking(NamedTuple):
    """Images, tile rows and tile columns of a strip; channels and results of a work item; partial sums."""

    images: int
    down: int
    across: int
    channels: int
    results: int
    splits: int


def applies(request: Request) -> str | None:
    """Why no kernel in tiles computes a weight gradient."""
    if request.itemsize != ITEMSIZE:
        return "it computes in float32 only"
    if any(axis.stride > 1 for axis in request.geometry.axes):
        return "the stride is not 1"
    if any(axis.dilation > 1 for axis in request.geometry.axes):
        return "the dilation is not 1"
    return None


class Gradient:
    """A weight gradient whose tiles have `outputs` pixels of the small map on each axis.

    A subclass sets `blocking`, its cheapest one, and `cost`, what that costs on one thread.
    """

    cost: float
    blocking: Blocking

    def __init__(self, request: Request, outputs: tuple[int, int]) -> None:
        self.maps, self.layout, self.model = Maps(request), request.tiles, request.model
        self.axes, (height, width) = request.geometry.axes, outputs
        self.down, self.across = -(-self.axes[0].small // height), -(-self.axes[1].small // width)

    def plan(self) -> Plan:
        """Its plan."""
        raise NotImplementedError

    def strip_of(self, tiles: int) -> tuple[int, int, int]:
        """Images, tile rows and tile columns of strips of about so many tiles."""
        across = even_block(tiles, self.across)
        down = even_block(max(1, tiles // across), self.down)
        if (down, across) != (self.down, self.across):
            return 1, down, across
        return even_block(max(1, tiles // (down * across)), self.maps.batch), down, across

    def strips(self, images: int, down: int, across: int) -> int:
        """The number of such strips."""
        return -(-self.maps.batch // images) * -(-self.down // down) * -(-self.across // across)

    def items(self, channels: int, results: int) -> int:
        """Blocks of channels and results of all groups."""
        maps = self.maps
        return maps.groups * -(-maps.channels // channels) * -(-maps.results // results)

    def proposal(self, threads: int) -> Proposal:
        """What the planner compares."""
        *_, channels, results, splits = self.blocking
        sharing = min(threads, self.items(channels, results) * splits)
        return Proposal(0, self.cost, lambda: [self.plan()], splits, sharing)
