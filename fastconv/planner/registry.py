"""The registry: a row for each kernel, and `choose`, the only function that chooses among them.

A new kernel is a row of `KERNELS`. `choose` takes the cheapest of the applicable kernels with the lowest rank, among
those of one arithmetic. `candidates` lists all kernels with the reasons, for `explain`.

The arithmetic decides the bits of a result. So it is chosen by what does not depend on the machine, the number of
threads, the other images of a batch or the strides: the nominal cost of two images on one thread
(`Request.of_two_images`).
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastconv.backends.contract import AnyEngine, Run
from fastconv.kernels.abi import FOURIER
from fastconv.planner import (
    channel_lanes,
    conversion,
    depthwise_channelwise,
    depthwise_rowwise,
    fft,
    fft_tiles,
    fft_weight_grad,
    finite,
    im2col,
    interleaved_phases,
    matmul,
    overlap_add,
    pixel_lanes,
    steps,
    weight_grad_channel_lanes,
    weight_grad_pixel_lanes,
    weight_grad_tap_lanes,
    window_costs,
    winograd,
    winograd_weight_grad,
)
from fastconv.planner.request import Contraction, Proposal, Request
from fastconv.planner.steps import MakeCount, PanelRun
from fastconv.planner.transformed_tiles import TransformedTiles
from fastconv.problem.arrays import Array
from fastconv.problem.errors import ArgumentError
from fastconv.problem.geometry import Geometry
from fastconv.problem.memory_order import C_ORDER, MemoryOrders

#: Ranks: kernels that are made for a special kind of problem come before the general ones wherever they apply, as the
#: costs of different ranks cannot be compared.
PRODUCT, DEPTHWISE, GENERAL = 0, 1, 2

#: What a direct kernel takes at most, about, of the least that its multiply-adds could take.
_WORST_OF_DIRECT = 2.0

MAPS: tuple[Contraction, ...] = ("small", "large")
WEIGHT: tuple[Contraction, ...] = ("weight",)


class Kernel(NamedTuple):
    """A row of the registry: a way to compute contractions.

    name       as `explain` shows it
    makes      the contractions that it can make
    applies    the reason, a short sentence, why it cannot compute a request of such a contraction; None if it can
    propose    how it would compute a request that it applies to, and the cost; quick, as it makes no plan yet
    rank       only the kernels of the lowest rank that apply are compared by cost
    tiled      True: for tile engines; False: for window engines
    algorithm  the algorithm that it is part of, as a person names it
    variant    kernels of an algorithm with the same variant give the same bits of a map
    prepare    the contraction as a function of arrays (first, second, bias, out)
    panel_run  the contraction for a constant, finite weight; None if there is no such run
    workspace  bytes that it takes beyond input and output, at most, for finite numbers
    strided    the maps that it reads and writes whatever their strides; others are converted to C order (`conversion`)
    """

    name: str
    makes: tuple[Contraction, ...]
    applies: Callable[[Request], str | None]
    propose: Callable[[Request], Proposal]
    rank: int = GENERAL
    tiled: bool = True
    algorithm: str = "direct"
    variant: str = ""
    prepare: Callable[[Any, Request, Proposal, MakeCount], Run] = steps.run_plans
    workspace: Callable[[Request, Proposal], int] = steps.workspace_of_plans
    panel_run: Callable[[AnyEngine, Request, Proposal], PanelRun | None] = steps.panel_run
    strided: tuple[str, ...] = ()

    @property
    def arithmetic(self) -> str:
        """The name of what decides the bits of its maps."""
        return f"{self.algorithm} {self.variant}".rstrip()

    def choice(self, request: Request) -> "Choice":
        """How it computes a request that it applies to."""
        roles = conversion.converted(request, self.strided)
        own = request.in_c_order(roles)
        return Choice(self, own, conversion.with_cost(self.propose(own), own, roles), roles)


class Choice(NamedTuple):
    """The kernel that computes a request, and how; `converted` are the maps that are converted to C order for it."""

    kernel: Kernel
    request: Request
    proposal: Proposal
    converted: tuple[str, ...] = ()

    def prepared(self, engine: AnyEngine) -> Run:
        """The contraction as a function of arrays (first, second, bias, out) that writes `out`:

        small     large (N, C, H, W), weight (K, C/G, R, S), bias (K,) or None: their convolution
        large     small (N, K, P, Q), weight (K, C/G, R, S), bias (C,) or None: their transposed convolution
        weight    large (N, C, H, W), small (N, K, P, Q), None: their correlation

        For a tile engine, maps have the request's strides and other arrays are in C order. No array shares memory
        with `out`.
        """
        run = self.kernel.prepare(engine, self.request, self.proposal, _make_count)
        converting: Run = conversion.converting(run, self.request, self.converted)
        return converting

    def with_panels(self, engine: AnyEngine) -> PanelRun | None:
        """The same for a constant and finite weight; None where there is no such run."""
        run = self.kernel.panel_run(engine, self.request, self.proposal)
        return run and run.within(lambda run: conversion.converting(run, self.request, self.converted))

    def workspace(self) -> int:
        """The most bytes that it takes beyond its input and output, for finite numbers.

        A second factor that is not finite may take the bytes of all three arrays in addition.
        """
        own = self.kernel.workspace(self.request, self.proposal)
        return own + conversion.workspace(self.request, self.converted)


class Candidate(NamedTuple):
    """A kernel that makes the contraction of a request.

    algorithm     the algorithm that it is part of
    passed_over   why it is not chosen; None for the chosen one
    microseconds  the predicted time; None for a kernel that does not apply
    """

    name: str
    algorithm: str
    passed_over: str | None
    microseconds: float | None


def _always(request: Request) -> None:
    """The `applies` of a kernel that takes every request."""


def _product(request: Request) -> Proposal:
    """How `matmul` computes a request: as the kernel that is chosen for the other convolution."""
    other = request.as_product(matmul.other_convolution(request.geometry), matmul.OTHER_TARGET[request.target])
    return choose(other, "direct").proposal


def _no_panels(engine: AnyEngine, request: Request, proposal: Proposal) -> None:
    """The `panel_run` of a kernel whose pass takes the weight as its source."""


def _in_tiles(name: str, algorithm: str, tiles: TransformedTiles) -> Kernel:
    """A kernel that transforms tiles."""
    return Kernel(
        f"{name}_{tiles.size}", MAPS, tiles.applies, tiles.propose, algorithm=algorithm,
        variant=f"of size {tiles.size}", prepare=tiles.prepare, workspace=tiles.workspace, panel_run=tiles.panel_run,
        strided=MAPS,
    )  # fmt: skip


#: Every kernel by its name; of kernels with equal costs the first one is taken.
KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("matmul", (*MAPS, *WEIGHT), matmul.applies, _product, PRODUCT, prepare=steps.run_product,
               panel_run=_no_panels),
        Kernel("depthwise_rowwise", MAPS, depthwise_rowwise.applies, depthwise_rowwise.propose, DEPTHWISE),
        Kernel("depthwise_channelwise", MAPS, depthwise_channelwise.applies, depthwise_channelwise.propose, DEPTHWISE,
               strided=MAPS),
        Kernel("pixel_lanes", MAPS, pixel_lanes.applies, pixel_lanes.propose, strided=MAPS),
        Kernel("channel_lanes", MAPS, channel_lanes.applies, channel_lanes.propose, strided=MAPS),
        Kernel("interleaved_phases", ("large",), interleaved_phases.applies, interleaved_phases.propose,
               strided=("small",)),
        Kernel("weight_grad_depthwise_rowwise", WEIGHT, depthwise_rowwise.applies_to_weight,
               depthwise_rowwise.propose_weight, DEPTHWISE),
        Kernel("weight_grad_depthwise_channelwise", WEIGHT, depthwise_channelwise.applies_to_weight,
               depthwise_channelwise.propose_weight, DEPTHWISE, strided=MAPS),
        Kernel("weight_grad_pixel_lanes", WEIGHT, weight_grad_pixel_lanes.applies, weight_grad_pixel_lanes.propose,
               strided=("large",)),
        Kernel("weight_grad_tap_lanes", WEIGHT, weight_grad_tap_lanes.applies, weight_grad_tap_lanes.propose,
               strided=MAPS),
        Kernel("weight_grad_channel_lanes", WEIGHT, weight_grad_channel_lanes.applies,
               weight_grad_channel_lanes.propose, strided=MAPS),
        *(_in_tiles("winograd_size", "winograd", winograd.Tiles(size)) for size in winograd.SIZES),
        Kernel("winograd_weight_grad", WEIGHT, winograd_weight_grad.applies, winograd_weight_grad.propose,
               algorithm="winograd", strided=MAPS),
        *(_in_tiles("fft_tiles", "fft", fft_tiles.SpectralTiles(length)) for length in FOURIER),
        Kernel("fft_weight_grad", WEIGHT, fft_weight_grad.applies, fft_weight_grad.propose, algorithm="fft",
               variant="of tiles", strided=MAPS),
        Kernel("im2col", (*MAPS, *WEIGHT), _always, im2col.propose, tiled=False,
               prepare=im2col.prepare, workspace=im2col.workspace, strided=MAPS),
        Kernel("overlap_add", ("large",), _always, overlap_add.propose, tiled=False,
               prepare=overlap_add.prepare, workspace=overlap_add.workspace, strided=MAPS),
        Kernel("fft", (*MAPS, *WEIGHT), fft.applies, fft.propose, algorithm="fft",
               prepare=fft.prepare, workspace=fft.workspace, strided=MAPS),
        Kernel("fft_windows", (*MAPS, *WEIGHT), fft.applies, fft.propose, tiled=False, algorithm="fft",
               prepare=fft.prepare, workspace=fft.workspace, strided=MAPS),
    )
}  # fmt: skip

_only: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("only", default=())


@contextlib.contextmanager
def only(*names: str) -> Iterator[None]:
    """A context in which the kernels `names` are chosen wherever one of them applies, whatever the others cost.

    Calls that were planned before keep their kernels.
    """
    for name in names:
        KERNELS[name]  # raises unless it is there
    token = _only.set(names)
    try:
        yield
    finally:
        _only.reset(token)


def choose(request: Request, algorithm: str | None = None, origin: str = "") -> Choice:
    """The kernel that computes a request: of those that apply, are part of the algorithm if one is named, and have the
    arithmetic that is cheapest, the cheapest one of the lowest rank. Raises `ArgumentError` with the reasons if none
    applies; `origin` says there who named the algorithm.
    """
    verdicts = _verdicts(request, algorithm)
    able = [kernel for kernel, reason in verdicts if reason is None]
    if not able:
        own = [verdict for verdict in verdicts if algorithm == verdict[0].algorithm]
        why = "; ".join(f"{kernel.name}: {reason}" for kernel, reason in own) or _no_kernel(request)
        raise ArgumentError(f"{origin or f'algorithm={algorithm!r}'} does not apply: {why}")
    rank = min(kernel.rank for kernel in able)
    choices = [kernel.choice(request) for kernel in able if kernel.rank == rank]
    return min(choices, key=lambda choice: choice.proposal[:2])


def candidates(request: Request, algorithm: str | None = None) -> list[Candidate]:
    """Every kernel that makes the contraction on this kind of engine, in the order of preference: the one that `choose`
    takes, then those that apply, then those that do not."""
    chosen = choose(request, algorithm)
    able, unable = [], []
    for kernel, reason in _verdicts(request, algorithm):
        if kernel.applies(request) is not None:
            unable.append(Candidate(kernel.name, kernel.algorithm, reason, None))
            continue
        proposal = chosen.proposal if kernel is chosen.kernel else kernel.choice(request).proposal
        why = reason or _passed_over(kernel, proposal, chosen)
        found = Candidate(kernel.name, kernel.algorithm, why, _microseconds(request, proposal))
        able.append((kernel is not chosen.kernel, reason is not None, kernel.rank, *proposal[:2], found))
    return [*(candidate for *_, candidate in sorted(able)), *unable]


def _passed_over(kernel: Kernel, proposal: Proposal, chosen: Choice) -> str | None:
    """Why a kernel that applies is not the one that runs."""
    if kernel is chosen.kernel:
        return None
    if kernel.rank > chosen.kernel.rank:
        return f"{chosen.kernel.name} is made for problems of this kind"
    if proposal.excess > chosen.proposal.excess:
        return f"its threads would use {proposal.excess:,} bytes more workspace than they should"
    if math.isinf(proposal.cost):
        return "its sums take more workspace than a thread has"
    return f"{chosen.kernel.name} is predicted to be quicker"


def _verdicts(request: Request, algorithm: str | None) -> list[tuple[Kernel, str | None]]:
    """The kernels that make the contraction on this kind of engine, each with why it does not apply, or None."""
    tiled = request.layout is not None
    verdicts = [
        (kernel, kernel.applies(request))
        if algorithm is None or algorithm == kernel.algorithm
        else (kernel, f"it is part of {kernel.algorithm}, and algorithm={algorithm!r} was named")
        for kernel in KERNELS.values()
        if kernel.tiled is tiled and request.target in kernel.makes
    ]
    named = _only.get()
    if any(kernel.name in named and reason is None for kernel, reason in verdicts):
        return [
            (kernel, reason if reason or kernel.name in named else f"only {' and '.join(named)} may run")
            for kernel, reason in verdicts
        ]
    arithmetic = _arithmetic(request, [kernel for kernel, reason in verdicts if reason is None])
    return [
        (kernel, reason if reason or kernel.arithmetic == arithmetic else f"{arithmetic} is predicted to be quicker")
        for kernel, reason in verdicts
    ]


def _arithmetic(request: Request, able: list[Kernel]) -> str | None:
    """The cheapest arithmetic of the kernels that apply, for two images on one thread; None if there is no kernel."""
    found = {kernel.arithmetic for kernel in able}
    if len(found) < 2:
        return found.pop() if found else None
    images = request.of_two_images()
    least = images.least_cost
    costs = dict.fromkeys(found, math.inf)
    for kernel in able:
        if kernel.algorithm != "direct":
            costs[kernel.arithmetic] = min(costs[kernel.arithmetic], kernel.choice(images).proposal.cost)
    best = min(costs.values())
    # planning the direct kernels takes longer than to see that they win or cannot win
    if "direct" in found and best >= _WORST_OF_DIRECT * least:
        return "direct"
    if "direct" in found and best >= least:
        costs["direct"] = choose(images, "direct").proposal.cost
    return min(costs, key=lambda name: costs[name])


def _no_kernel(request: Request) -> str:
    kind = "tile engines" if request.layout else "window engines"
    return f"it has no kernel that makes the {request.target} map on {kind}".replace("weight map", "weight's gradient")


def _microseconds(request: Request, proposal: Proposal) -> float:
    """The predicted time of computing a request as its proposal says."""
    if request.layout is None:
        return proposal.cost / 1000 + request.geometry.flops / window_costs.WINDOW_COSTS.flops
    return 1e6 * request.model.seconds(proposal.cost) / proposal.sharing


def _make_count(engine: AnyEngine, request: Request) -> finite.Count:
    """The function with which `planner.finite` counts links: the contraction of one image of ones, with one channel in
    each group, with a factor of as many channels."""
    geometry, target = request.geometry, request.target

    def count(factor: Array) -> Array:
        dtype, g = factor.dtype, geometry.groups
        of_one = (
            geometry._replace(batch=1, small_channels=g)
            if target == "large"
            else geometry._replace(batch=1, large_channels=g)
        )
        same = Request.of(engine, of_one, target, dtype.itemsize, request.threads)
        run: Run = geometry.remembered(
            ("count", engine, target, dtype, request.threads), lambda: choose(same, "direct").prepared(engine)
        )
        out = np.empty(getattr(of_one, f"{target}_shape"), dtype)
        ones = np.ones(of_one.small_shape if target == "large" else of_one.large_shape, dtype)
        run(ones, factor, None, out)
        return out

    return count


class Algorithm(NamedTuple):
    """The kernels of one algorithm, or all kernels if the name is None. `origin` says who named it, for errors."""

    name: str | None
    origin: str = ""

    def kernels(self) -> list[str]:
        """The names of its kernels."""
        return [kernel.name for kernel in KERNELS.values() if self.name in (None, kernel.algorithm)]

    def prepared(
        self, engine: AnyEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int,
        orders: MemoryOrders = C_ORDER,
    ) -> Run:  # fmt: skip
        """The contraction that makes `target`, see `Choice.prepared`."""
        return self._choice(Request.of(engine, geometry, target, itemsize, threads, orders)).prepared(engine)

    def with_panels(
        self, engine: AnyEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int,
        orders: MemoryOrders = C_ORDER,
    ) -> PanelRun | None:  # fmt: skip
        """The contraction with a constant and finite weight, see `Choice.with_panels`."""
        request = Request.of(engine, geometry, target, itemsize, threads, orders)
        return self._choice(request._replace(packs_weight=True)).with_panels(engine)

    def workspace(
        self, engine: AnyEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int,
        orders: MemoryOrders = C_ORDER,
    ) -> int:  # fmt: skip
        """The most bytes that it takes, see `Choice.workspace`."""
        return self._choice(Request.of(engine, geometry, target, itemsize, threads, orders)).workspace()

    def candidates(
        self, engine: AnyEngine, geometry: Geometry, target: Contraction, itemsize: int, threads: int,
        orders: MemoryOrders = C_ORDER,
    ) -> list[Candidate]:  # fmt: skip
        """Its kernels and the others, see `candidates`."""
        return candidates(Request.of(engine, geometry, target, itemsize, threads, orders), self.name)

    def _choice(self, request: Request) -> Choice:
        return choose(request, self.name, self.origin)
