"""Measures the constants of the cost model on this machine: `python -m fastconv warmup --measure`.

Everything to be timed takes turns on one thread until the time is up, and the best time of each counts: another program
on the machine slows a turn of all of them, and the best of many turns is repeatable where a mean is not.

multiply_adds            multiply-adds of a vector that a thread does in a second
pad_vector, copy_vector  scaled by how long a vector takes from the second- and the last-level cache
the kernels' scales      measured over predicted time of each kernel on a handful of small layers, in the geometric mean

Only kernels that make maps are measured; `cost_model` says why.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastconv.backends import instruction_set
from fastconv.backends.contract import Layout, TileEngine
from fastconv.planner import cost_model, measured_costs, registry
from fastconv.planner.cost_model import MEASURED, CostModel
from fastconv.planner.measured_costs import Measured
from fastconv.planner.request import Proposal, Request
from fastconv.problem.cache_sizes import cache_sizes
from fastconv.problem.geometry import Geometry

#: Seconds for each dtype, and turns of everything at least.
SECONDS, TURNS = 10.0, 5
#: How often all kernels are measured; these measurements must agree.
_REPEATS = 3
DTYPES = ("float32", "float64")
#: The cost of reading a vector from a cache, the mean of second and last level, on the machine of the nominal
#: constants, in multiply-adds.
_NOMINAL_READ = 3.5
#: Rounds of multiply-adds of a turn, and bytes that are read.
_ROUNDS, _READ = 100_000, 2**23
#: The largest factor between kernels' scales, and between all of them and the nominal ones: more is a disturbance.
_MOST_DIFFERENCE, _MOST_SCALE = 1.5, 2.0
#: The fraction of the time that other choices must save on these layers, in the mean: if it is less, the loss on other
#: layers (more images, several phases) may be larger.
_GAIN = 0.05
#: The fractions of the difference between kernels that are tried, as exponents.
_EXPONENTS = (0.0, 1.0, 0.75, 0.5, 0.25)

#: The layers: extents (C, H, W), results, taps, stride and groups. Sums of some are long, of others short; some fill
#: vectors with pixels, others with results.
_LAYERS = (
    (256, 56, 56, 64, 1, 1, 1), (128, 38, 38, 256, 1, 1, 1), (64, 56, 56, 256, 1, 1, 1), (512, 28, 28, 128, 1, 1, 1),
    (64, 14, 14, 64, 1, 1, 1), (32, 112, 112, 16, 1, 1, 1), (96, 56, 56, 24, 1, 1, 1), (24, 56, 56, 144, 1, 1, 1),
    (144, 28, 28, 32, 1, 1, 1), (32, 28, 28, 192, 1, 1, 1), (384, 14, 14, 64, 1, 1, 1), (96, 14, 14, 576, 1, 1, 1),
    (960, 7, 7, 160, 1, 1, 1), (160, 7, 7, 960, 1, 1, 1),
    (64, 56, 56, 64, 3, 1, 1), (128, 28, 28, 128, 3, 1, 1), (256, 14, 14, 64, 3, 1, 1), (64, 56, 56, 128, 3, 2, 1),
    (16, 64, 64, 16, 5, 1, 1), (3, 112, 112, 32, 3, 1, 1),
    (96, 56, 56, 96, 3, 1, 96), (192, 28, 28, 192, 3, 1, 192), (96, 56, 56, 96, 3, 2, 96), (96, 28, 28, 96, 5, 1, 96),
    (192, 14, 14, 192, 3, 1, 192),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Contender:
    """Something to be timed: a kernel on a layer, with the name of its scale and its predicted cost; or a rate.

    layer   the layer's number; only kernels on the same layer are compared
    """

    layer: str
    scale: str
    cost: float
    run: Callable[[], Any]


def _kernels(geometry: Geometry, layout: Layout, itemsize: int) -> dict[str, Proposal]:
    """How each kernel would compute a forward layer on one thread, by the name of the kernel's scale."""
    request = Request(geometry, "small", layout, itemsize, 1)
    where = "_in_place" if geometry.axes[0].taps == 1 else "_padded"
    names = {"depthwise_rowwise": "", "depthwise_channelwise": ""}
    if geometry.groups == 1:
        names = {"pixel_lanes": where, "channel_lanes": where}
    return {name + where: registry.KERNELS[name].propose(request) for name, where in names.items()}


def contenders(engine: TileEngine, layout: Layout, dtype: str) -> list[Contender]:
    """Each kernel on each layer, with the blocking of the cost model in force; sorted by kernel, so that all find their
    arrays equally cold at the first run."""
    rng, itemsize = np.random.default_rng(0), np.dtype(dtype).itemsize
    found = []
    for number, (c, h, w, k, taps, stride, groups) in enumerate(_LAYERS):
        shapes = (1, c, h, w), (k, c // groups, taps, taps)
        geometry = Geometry.conv(*shapes, spatial=2, stride=stride, padding=taps // 2, groups=groups).lifted()
        source, weight = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
        out = np.empty(geometry.small_shape, dtype)
        for name, proposal in _kernels(geometry, layout, itemsize).items():
            runs = [engine.prepared(plan, 1) for plan in proposal.plans()]
            found.append(
                Contender(str(number), name, proposal.cost, functools.partial(_run, runs, source, weight, out))
            )
    return sorted(found, key=lambda contender: contender.scale)


def _run(runs: Sequence[Callable[..., None]], *arrays: Any) -> None:
    source, weight, out = arrays
    for run in runs:
        run(source, weight, None, out)


def rates(engine: Any, layout: Layout, itemsize: int) -> list[Contender]:
    """Multiply-adds of a vector, and reading one from a near and a far cache; empty if the compiled module has no such
    loops for the layout. Their cost is the number of vectors."""
    try:
        machine = importlib.import_module("fastconv._machine")
    except ImportError:
        return []
    sets = engine.instruction_sets() if hasattr(engine, "instruction_sets") else ()
    operations = machine.multiply_adds(itemsize, 1)
    if not (sets and operations and layout.lanes * itemsize == instruction_set.ALL[sets[0]].bytes):
        return []
    found = [
        Contender(
            "", "multiply_adds", operations * _ROUNDS / 2 / layout.lanes,
            functools.partial(machine.multiply_adds, itemsize, _ROUNDS),
        )
    ]  # fmt: skip
    caches = cache_sizes()
    for name, size in (("near", caches.level2 // 2), ("far", min(4 * caches.level2, caches.last // 2))):
        array = np.ones(size // 512 * 64)
        times = max(1, _READ // array.nbytes)
        vectors = times * array.nbytes / itemsize / layout.lanes
        found.append(Contender("", name, vectors, functools.partial(machine.read, array, times)))
    return found


class Clock:
    """Tells the time, and how long a contender takes."""

    def now(self) -> float:
        """Seconds since any moment."""
        return time.perf_counter()

    def seconds(self, contender: Contender) -> tuple[float, float]:
        """Seconds of two runs: the first after other contenders ran, the second with its arrays in the caches."""
        start = time.perf_counter()
        contender.run()
        between = time.perf_counter()
        contender.run()
        return between - start, time.perf_counter() - between


def best_times(
    found: Sequence[Contender], clock: Clock, advance: Callable[[float], Any], seconds: float
) -> list[float]:
    """The seconds of each contender, which take turns for `seconds`; `advance` is called with the seconds of each turn.

    They are the geometric mean of the best first and the best second run of a turn: in a network arrays come from
    memory or the last-level cache, in a loop over one layer they are in the second-level one.
    """
    best = [(math.inf, math.inf)] * len(found)
    turns, start, before = 0, clock.now(), clock.now()
    while turns < TURNS or before - start < seconds:
        for number, contender in enumerate(found):
            first, second = clock.seconds(contender)
            best[number] = min(best[number][0], first), min(best[number][1], second)
        turns, now = turns + 1, clock.now()
        advance(min(now - before, max(0.0, seconds - (before - start))))
        before = now
    return [math.sqrt(first * second) for first, second in best]


class _Timed(NamedTuple):
    """A kernel on a layer."""

    cost: float
    seconds: float


#: The kernels of a layer, by the name of their scale.
_Layer: TypeAlias = dict[str, _Timed]


def fitted(model: CostModel, found: Sequence[Contender], times: Sequence[Sequence[float]]) -> dict[str, float]:
    """The kernels' scales by their names: measured over predicted time, in the mean of the layers.

    Kernels that compete for the same layers get different scales only if that saves `_GAIN` in each of the measurements
    `times`. For the error of a prediction may vary more from layer to layer, or by chance, than from kernel to kernel.
    """
    best = [min(each) for each in zip(*times, strict=True)]
    layers, parts = _layers(found, best), [_layers(found, each) for each in times]
    scales: dict[str, float] = {}
    for names in dict.fromkeys(map(tuple, layers.values())):
        competing = [number for number, layer in layers.items() if tuple(layer) == names]
        mean = {
            name: statistics.geometric_mean(
                layers[number][name].seconds / model.seconds(layers[number][name].cost) for number in competing
            )
            for name in names
        }
        common = statistics.geometric_mean(mean.values())
        common_scale = _clamped(common, _MOST_SCALE)
        relative = {name: _clamped(scale / common, _MOST_DIFFERENCE) for name, scale in mean.items()}
        equal_scales, *candidates = [
            {name: common_scale * scale**exponent for name, scale in relative.items()} for exponent in _EXPONENTS
        ]

        def gain(
            scales: dict[str, float], equal_scales: dict[str, float] = equal_scales, numbers: Sequence[str] = competing
        ) -> float:
            each = ([part[number] for number in numbers] for part in parts)
            return min(_loss(layers, equal_scales) - _loss(layers, scales) for layers in each)

        best_scales = max(candidates, key=gain)
        scales |= best_scales if gain(best_scales) > _GAIN else equal_scales
    return scales


def _layers(found: Sequence[Contender], times: Sequence[float]) -> dict[str, _Layer]:
    layers: dict[str, _Layer] = {}
    for contender, seconds in zip(found, times, strict=True):
        layers.setdefault(contender.layer, {})[contender.scale] = _Timed(contender.cost, seconds)
    return layers


def _clamped(ratio: float, most: float) -> float:
    return min(max(ratio, 1 / most), most)


def _loss(layers: Sequence[_Layer], scales: dict[str, float]) -> float:
    """How much longer the kernels chosen with these scales take than the quickest ones: a fraction, in the mean of the
    layers."""
    taken = (layer[min(layer, key=lambda name: scales[name] * layer[name].cost)].seconds for layer in layers)
    least = (min(timed.seconds for timed in layer.values()) for layer in layers)
    return statistics.fmean(seconds / best for seconds, best in zip(taken, least, strict=True)) - 1


def constants_for(
    engine: TileEngine, dtype: str, clock: Clock, advance: Callable[[float], Any], seconds: float
) -> tuple[Layout, dict[str, float]]:
    """The constants for one dtype by their names, and the layout that they are for."""
    itemsize = np.dtype(dtype).itemsize
    layout = engine.layout(itemsize)
    model = cost_model.nominal(layout).for_caches(cache_sizes())
    of_machine, constants = rates(engine, layout, itemsize), dict[str, float]()
    if of_machine:
        taken = best_times(of_machine, clock, advance, seconds / 4)
        rate, near, far = (one.cost / best for one, best in zip(of_machine, taken, strict=True))
        read = _clamped((rate / near + rate / far) / 2 / _NOMINAL_READ, _MOST_SCALE)
        constants = {name: getattr(model, name) * read for name in ("pad_vector", "copy_vector")}
        constants["multiply_adds"] = rate
    model = model.replaced(**constants)
    with cost_model.use(lambda _: model):
        kernels = contenders(engine, layout, dtype)
    left = (seconds - bool(of_machine) * seconds / 4) / _REPEATS
    times = [best_times(kernels, clock, advance, left) for _ in range(_REPEATS)]
    if not of_machine:  # the rate of the best kernel
        rate = max(kernel.cost / min(each) for kernel, *each in zip(kernels, *times, strict=True))
        model, constants = model.replaced(multiply_adds=rate), {"multiply_adds": rate}
    return layout, constants | fitted(model, kernels, times)


def measure(
    engine: TileEngine, name: str, advance: Callable[[float], Any], clock: Clock | None = None, seconds: float = SECONDS
) -> Measured:
    """The constants of this machine, from the kernels of the engine `name`: about `seconds` for each of `DTYPES`."""
    found = {}
    for dtype in DTYPES:
        layout, constants = constants_for(engine, dtype, clock or Clock(), advance, seconds)
        found[measured_costs.key(layout)] = {
            constant: float(f"{min(max(value, MEASURED[constant][0]), MEASURED[constant][1]):.4g}")
            for constant, value in constants.items()
        }
    now = datetime.datetime.now().astimezone().isoformat(" ", "minutes")
    return Measured(measured_costs.VERSION, measured_costs.processor(), now, name, found)
