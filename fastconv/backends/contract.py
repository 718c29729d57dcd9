"""What an engine is. There are two kinds; both know no stride, no dilation, no padding and no "same".

A **window engine** is three passes over plain arrays. Above it, geometry has become *windows*: a view

    windows[n, g, c, r, s, p, q]  =  the source pixel that tap (r, s) meets at output pixel (p, q)

of image n, group g and channel c within the group. It is a strided view of one block of a zero-padded map, so its
elements share memory: it is read, never written. Blocks come in a size that a copy of the windows, `columns`, takes a
few MiB, whatever the problem's size. Every pass adds to `out`, which already holds the bias or zeros, so that a sum may
arrive in several blocks. Arrays have one native floating, integer or complex dtype, are aligned, and have any strides.

A **tile engine** is eleven passes over tiles that fill the vector registers. Above it, geometry has become integers, a
`Plan`: extents, strides, tables of offsets, and how the work is cut. Every block size and every order of additions is
settled there, so that on one processor all tile engines with one instruction set give the same bits.

An engine may have an attribute `float_mode` besides, a `FloatMode`, by which it promises that all threads of a pass
compute in the floating-point mode of the thread that calls it. One without it, or whose attribute is None, is called in
the default mode, as nobody knows which mode its threads have.

A package brings its own engine by an object with the attributes of either, returned by a loader that is registered with
`fastconv.register_backend` or named by an entry point of the group `fastconv.backends`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
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
    """What a tile engine's machine has.

    lanes             elements of a vector register
    full, few, one    (rows, vectors) of its tiles, whose vectors are pixels
    dots              (results, taps) of the tile of a weight's gradient whose vectors are pixels
    bands             pixels of those for long rows of depthwise taps, the longer first
    span, taps        pixels, and taps of a weight's gradient, at most, of the tiles whose vectors are results
    pipes             multiply-adds of a whole register that are started at once
    halves            results, at most, that those for half a vector of them take; 0: those are not used
    pairs             results, at least, that those for two vectors take; 0: those are not used, as with `halves`
    run               neighbouring taps, at most, that share what is read in those of a weight's gradient
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
        """Those whose vectors are pixels, in the order of `RegisterTile.kind`."""
        return self.full, self.few, self.one

    def beside(self, results: int) -> int:
        """Vectors of so many results, at most, in a tile."""
        return 2 if self.pairs and results >= self.pairs else 1


@functools.cache
def dtype_of(structure: type) -> np.dtype[Any]:
    """The NumPy dtype of a structure of `kernels.arguments`, whose fields are 64-bit integers or structures again."""
    kinds = arguments.fields(structure)
    return np.dtype([(name, np.int64 if kind is int else dtype_of(kind)) for name, kind in kinds.items()])


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of a pass, or of several that write different elements and may be run in any order or at once.

    name        the pass, one of those that `TileEngine.prepared` lists
    itemsize    bytes of an element, 4 or 8
    vector      int64, (runs, integers): for each run the structure of the pass's arguments, see `kernels.arguments`
    tables      int64: the tables that the vectors say the starts of
    items       pieces of work of all
    workspace   elements of workspace for each thread
    skips_padding   taps that fall on the padding are left out, which is right for finite numbers
    fills_gaps      pixels between those that it computes are set to the bias
    """

    name: str
    itemsize: int
    vector: Array
    tables: Array
    items: int
    workspace: int
    skips_padding: bool = False
    fills_gaps: bool = False


@runtime_checkable
class TileEngine(Protocol):
    """The contract of a tile engine."""

    def unsupported(self, dtype: np.dtype[Any]) -> str | None:
        """Why this engine cannot compute in `dtype`; None for float32 and float64."""

    def layout(self, itemsize: int) -> Layout:
        """The tiles of this machine for elements of `itemsize` bytes."""

    def prepared(self, plan: Plan, threads: int) -> Callable[[Array, Array, Array | None, Array], None]:
        """The pass on at most `threads` threads, as a function of arrays in C order, the last of which is written,
        all with four axes but for the bias:

        pixel_lanes, channel_lanes, depthwise_channelwise, depthwise_rowwise, depthwise_rowwise_transposed
                                                      source, weight, bias (None for zeros), out
        weight_grad_tap_lanes, weight_grad_channel_lanes, weight_grad_pixel_lanes, depthwise_channelwise_weight_grad,
        depthwise_rowwise_weight_grad
                                                      source, small map, None, out

        bias_grad                                     map, the same, None, out (1, C, 1, 1) or partial sums of it

        Raises `BackendUnavailableError`, before anything is computed, if it turns out that it cannot run: `auto` takes
        the next engine then, in this call and in all later ones.
        """


AnyEngine: TypeAlias = Engine | TileEngine
#: A pass, or a whole contraction, as a function of arrays: source, second factor, bias or None, and what is written.
Run: TypeAlias = Callable[[Array, Array, Array | None, Array], None]


class FloatMode(NamedTuple):
    """The floating-point mode of a thread: how it rounds, and whether it takes denormal numbers for zeros.

    It is those bits of the processor's control register; 0 is the default.

    switch  switch(kept, added): of its mode this thread keeps the bits `kept` and gets those `added`; returns the mode
            before
    flush   the bits that make zeros of denormal operands and results
    """

    switch: Callable[[int, int], int]
    flush: int


def is_tiled(engine: AnyEngine) -> TypeGuard[TileEngine]:
    """Which of the two kinds an engine is."""
    return hasattr(engine, "prepared")


def on_instruction_set(engine: AnyEngine, name: str | None) -> AnyEngine:
    """`engine` on the instruction set `name`, None for its best one; itself if it has no choice.

    Raises `ArgumentError` when it is to plan or compute, if it does not have it.
    """
    on: Callable[[str | None], AnyEngine] | None = getattr(engine, "on", None)
    return engine if on is None else on(name)


def base_of(engine: AnyEngine) -> AnyEngine:
    """The engine that `on_instruction_set` was given to get `engine`."""
    return getattr(engine, "base", engine)


def float_mode(engine: AnyEngine) -> FloatMode | None:
    """How to set the mode in which all threads of an engine's passes compute; None for one that does not promise it."""
    return getattr(engine, "float_mode", None)


#: The names of the attributes that a loaded engine of either kind is checked to have.
PASSES = ("unsupported", "correlate", "correlate_weight", "sum_pixels")
TILE_PASSES = ("unsupported", "layout", "prepared")
