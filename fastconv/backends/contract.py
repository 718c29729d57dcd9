"""The contract of an engine. There are two kinds; neither knows stride, dilation or padding.

A **window engine** is three passes over plain arrays. Above it, geometry has become *windows*: a view

    windows[n, g, c, r, s, p, q]  =  the source pixel that output pixel (p, q) reads at tap (r, s)

of image n, group g and channel c within the group. It is a strided view of one block of a zero-padded map. Its elements
share memory, so it is read and never written. Blocks are so small that a copy of the windows takes a few MiB, whatever
the problem's size. Every pass adds to `out`, which holds the bias, zeros or the sums of earlier blocks. Arrays have one
native floating, integer or complex dtype, are aligned, and have any strides.

A **tile engine** is a set of passes over register tiles. Above it, geometry has become integers, a `Plan`: extents,
strides, tables of offsets, and the blocking. The plan settles every block size and every order of additions, so that on
one processor all tile engines with one instruction set give the same bits.

An engine may also have an attribute `float_mode`, a `FloatMode`. With it, the engine promises that all threads of a
pass compute in the floating-point mode of the calling thread. An engine without it, or with None, is called in the
default mode, as the mode of its threads is unknown.

Another package brings an engine as an object with the attributes of either kind. Its loader is registered with
`fastconv.register_backend` or named by an entry point of the group `fastconv.backends`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np

from fastconv.kernels import arguments
from fastconv.problem.arrays import Array


@runtime_checkable
class Engine(Protocol):
    """The contract of a window engine. `g` group, `k` output channel and `c` input channel within the group."""

    def unsupported(self, dtype: np.dtype[Any]) -> str | None:
        """Why this engine cannot compute in `dtype`; None if it can. float32 and float64 must be supported."""

    def correlate(self, windows: Array, weight: Array, out: Array) -> None:
        """out[n, g, k, p, q] += sum over c, r, s of weight[g, k, c, r, s] * windows[n, g, c, r, s, p, q]"""

    def correlate_weight(self, windows: Array, small: Array, out: Array) -> None:
        """out[g, k, c, r, s] += sum over n, p, q of small[n, g, k, p, q] * windows[n, g, c, r, s, p, q]"""

    def sum_pixels(self, grid: Array, out: Array) -> None:
        """out[c] += sum over n, h, w of grid[n, c, h, w]"""


class Layout(NamedTuple):
    """The register tiles of a tile engine on this machine.

    lanes             elements of a vector register
    full, few, one    pixel lanes: (rows, vectors) of the tiles of many rows, few rows and one
    dots              weight gradient with pixel lanes: (results, taps)
    bands             depthwise, long rows of taps: pixels of the two tiles, the longer first
    span, taps        channel lanes: pixels of a tile at most, and for the weight gradient taps at most
    pipes             multiply-adds of a whole register that start in one cycle
    halves            channel lanes: most results for which half a vector is used; 0: never
    pairs             channel lanes: fewest results for which two vectors are used; 0: never
    run               weight gradient with channel lanes: most neighbouring taps that share loaded pixels
    """

    lanes: int
    full: tuple[int, int]
    few: tuple[int, int]
    one: tuple[int, int]
    dots: tuple[int, int]
    bands: tuple[int, int]
    span: int
    taps: int
    pipes: int
    halves: int
    pairs: int
    run: int

    @property
    def tiles(self) -> tuple[tuple[int, int], ...]:
        """The tiles with pixel lanes, in the order of `RegisterTile.kind`."""
        return self.full, self.few, self.one

    def beside(self, results: int) -> int:
        """Vectors of results in a tile with channel lanes, of `results` results, at most."""
        return 2 if self.pairs and results >= self.pairs else 1


@functools.cache
def dtype_of(structure: type) -> np.dtype[Any]:
    """The NumPy dtype of a structure of `kernels.arguments`, whose fields are 64-bit integers or structures."""
    kinds = arguments.fields(structure)
    return np.dtype([(name, np.int64 if kind is int else dtype_of(kind)) for name, kind in kinds.items()])


class Plan(NamedTuple):
    """A pass with its arguments; several rows of arguments write different elements and run in any order or at once.

    name        the pass, one of those that `TileEngine.prepared` lists
    itemsize    bytes of an element, 4 or 8
    vector      int64, a row for each structure of the pass's arguments, see `kernels.arguments`
    tables      int64: the tables, whose starts are fields of these structures
    items       work items of all rows
    workspace   elements of workspace for each thread
    skips_padding   taps that read padding are left out, which is right for finite numbers only
    fills_gaps      pixels between the computed ones are set to the bias
    panels          how the weight is packed that the pass takes, a `planner.panels.Panels`; None: it is not packed
    """

    name: str
    itemsize: int
    vector: Array
    tables: Array
    items: int
    workspace: int
    skips_padding: bool = False
    fills_gaps: bool = False
    panels: Any = None


@runtime_checkable
class TileEngine(Protocol):
    """The contract of a tile engine."""

    def unsupported(self, dtype: np.dtype[Any]) -> str | None:
        """Why this engine cannot compute in `dtype`; None for float32 and float64."""

    def layout(self, itemsize: int) -> Layout:
        """The register tiles of this machine for elements of `itemsize` bytes."""

    def prepared(self, plan: Plan, threads: int) -> "Run":
        """The pass on at most `threads` threads, as a function of arrays, of which the last is written.

        Maps have the strides that the plan says; the other arrays are in C order. All but the bias have four axes:

        pixel_lanes, channel_lanes, depthwise_channelwise, depthwise_in_place, depthwise_rowwise,
        depthwise_rowwise_transposed
                                                      source, weight, bias (None for zeros), out
        weight_grad_tap_lanes, weight_grad_channel_lanes, weight_grad_pixel_lanes, depthwise_channelwise_weight_grad,
        depthwise_in_place_weight_grad, depthwise_rowwise_weight_grad
                                                      source, small map, None, out

        bias_grad                                     map, the same, None, out (1, C, 1, 1) or partial sums of it

        If the engine has an attribute `finishes` that is true, a pass that writes a map is a `FinishingRun`.

        Raises `BackendUnavailableError`, before anything is computed, if the engine turns out unable to run. `auto`
        takes the next engine then, in this call and in all later ones.
        """


AnyEngine: TypeAlias = Engine | TileEngine
#: A pass, or a whole contraction, as a function of arrays: source, second factor, bias or None, and what is written.
Run: TypeAlias = Callable[[Array, Array, Array | None, Array], None]


class FinishingRun(Protocol):
    """A `Run` with an epilogue: it adds `residual`, of the shape and memory order of `out`, to the sums, and applies
    the activation of a number in `kernels.abi`, whose parameters are `slopes`, one for each channel of `out`."""

    def __call__(
        self, first: Array, second: Array, bias: Array | None, out: Array, residual: Array | None = None,
        slopes: Array | None = None, activation: int = 0, /,
    ) -> None:  # fmt: skip
        """Compute and finish."""


class FloatMode(NamedTuple):
    """The floating-point mode of a thread: its rounding, and whether it flushes denormal numbers to zero.

    The mode is the bits of the processor's control register that say so; 0 is the default.

    switch  switch(kept, added): sets this thread's mode to (mode & kept) | added; returns the mode before
    flush   the bits that flush denormal operands and results
    """

    switch: Callable[[int, int], int]
    flush: int


def is_tiled(engine: AnyEngine) -> TypeGuard[TileEngine]:
    """Whether an engine is a tile engine."""
    return hasattr(engine, "prepared")


def finishes(engine: AnyEngine) -> TypeGuard[TileEngine]:
    """Whether the passes of an engine are `FinishingRun`s."""
    return is_tiled(engine) and getattr(engine, "finishes", False)


def on_instruction_set(engine: AnyEngine, name: str | None) -> AnyEngine:
    """The engine object on the instruction set `name`, None for the best; `engine` itself if it has only one.

    An engine that does not have the set raises `ArgumentError` when it plans or computes.
    """
    on: Callable[[str | None], AnyEngine] | None = getattr(engine, "on", None)
    return engine if on is None else on(name)


def base_of(engine: AnyEngine) -> AnyEngine:
    """The engine object from which `on_instruction_set` made `engine`."""
    return getattr(engine, "base", engine)


def float_mode(engine: AnyEngine) -> FloatMode | None:
    """The `FloatMode` of an engine; None for an engine that does not promise one."""
    return getattr(engine, "float_mode", None)


#: The attributes that a loaded engine of either kind must have; loading checks them.
PASSES = ("unsupported", "correlate", "correlate_weight", "sum_pixels")
TILE_PASSES = ("unsupported", "layout", "prepared")
