"""Side by side through whole networks: contenders take turns, and in each call the network again and again.

First each contender's results are compared with the first one's: the network's result, or the loss and the gradient of
every parameter. One whose results differ is not timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastconv.cli.bench.child import Prepared
from fastconv.cli.bench.model_contenders import Results
from fastconv.cli.bench.models import Case
from fastconv.cli.bench.rounds import Compared, compare_results
from fastconv.cli.bench.worker import ContenderError, Worker
from fastconv.problem.arrays import Array


class Bound(NamedTuple):
    """How a group of results is compared with eager's.

    order    of the norm: `math.inf` for the largest number, 2 for the root of the sum of squares
    allowed  the norm of the error as a part of the norm of eager's
    """

    order: float
    allowed: float

    @property
    def measure(self) -> str:
        """The norm in words."""
        return "the largest number" if self.order == math.inf else "the norm"


#: By group. Winograd's errors pass through many layers. In float32 eager itself has an error of 0.03 in a gradient of
#: ResNet-50, as rounding errors turn rectifiers on or off, so the network with smooth functions is compared too.
BOUNDS: Mapping[str, Bound] = {
    "result": Bound(math.inf, 1e-3),
    "loss": Bound(math.inf, 1e-3),
    "gradient": Bound(2, 0.3),
    "smooth gradient": Bound(math.inf, 1e-2),
}
#: A gradient that is zero but for rounding, as that of a constant that a batch norm removes, is compared with this part
#: of the largest norm of all.
_NEGLIGIBLE = 1e-3


@dataclass
class Timing(Compared):
    """What was measured of a network.

    times     seconds of a call, or of a training step, in each round, by contender
    prepared  seconds that it took to build the network and to call it until all was compiled
    errors    the largest error of each group of results, as a part of the norm, by contender and group
    """

    case: Case
    threads: int
    times: dict[str, list[float]] = field(default_factory=dict)
    prepared: dict[str, float] = field(default_factory=dict)
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    declined: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is in messages."""
        return str(self.case)


def prepare(timing: Timing, workers: Sequence[Worker]) -> list[Worker]:
    """Have each contender build the network; those that compute what the first one does."""

    def compute(worker: Worker) -> Prepared:
        answer = worker.network(timing.case)
        timing.prepared[worker.name] = answer.seconds
        if answer.declined is None:
            computed.append(worker.name)
        return answer

    def difference(first: Results, other: Results) -> str | None:
        found = {group: farthest(group, arrays, other.get(group, {})) for group, arrays in first.items()}
        timing.errors[computed[-1]] = {group: error for group, (error, _) in found.items()}
        wrong = [how for group, (error, how) in found.items() if error > BOUNDS[group].allowed]
        return "; ".join(wrong) or None

    computed: list[str] = []
    return compare_results(timing, workers, compute, difference)


def farthest(group: str, first: Mapping[str, Array], other: Mapping[str, Array]) -> tuple[float, str]:
    """The error of the result of a group that differs most, and that in words."""
    order, allowed = BOUNDS[group]
    norms = {name: _norm(array, order) for name, array in first.items()}
    least = _NEGLIGIBLE * max(norms.values())
    found = []
    for name, array in first.items():
        if name not in other:
            return math.inf, f"{name} is missing"
        got = other[name]
        if got.shape != array.shape or got.dtype != array.dtype:
            return math.inf, f"{name} is {got.dtype} {got.shape} instead of {array.dtype} {array.shape}"
        if not np.isfinite(array).all() or not np.isfinite(got).all():
            return math.inf, f"{name} is not finite"
        found.append((_norm(got - array, order) / (max(norms[name], least) or 1.0), name))
    error, name = max(found)
    smooth = ", with smooth functions," if group.startswith("smooth") else ""
    return error, f"{name}{smooth} is off by {error:.2g} of {BOUNDS[group].measure}, where {allowed:g} is allowed"


def _norm(array: Array, order: float) -> float:
    return float(np.linalg.norm(array.ravel().astype(np.float64), order))


def measure(timing: Timing, workers: Sequence[Worker], rounds: int, seconds: float, done: Callable[[], object]) -> None:
    """Measure `rounds` rounds, in turns of about `seconds`, and call `done` after each. A contender that fails has no
    more turns."""
    running = list(workers)
    for number in range(rounds):
        shift = number % max(1, len(running))  # each contender is first equally often
        for worker in [*running[shift:], *running[:shift]]:
            try:
                timing.times.setdefault(worker.name, []).append(worker.calls(timing.case, seconds))
            except ContenderError as error:
                timing.failed[worker.name] = str(error)
                timing.times.pop(worker.name)
                running.remove(worker)
        done()
