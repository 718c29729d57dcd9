"""Side by side through whole networks: contenders take turns, and in each call the network again and again.

First each contender's results are compared with the first one's: the network's result, or the loss and the gradient of
every parameter. One whose results differ is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fastconv.cli.bench.child import Prepared
from fastconv.cli.bench.models import Case
from fastconv.cli.bench.rounds import Compared, compare_results
from fastconv.cli.bench.worker import ContenderError, Worker
from fastconv.problem.arrays import Array

#: The largest error of a result, as a part of the largest number of eager's result. Winograd's errors pass through many
#: layers; and in a training step a rounding error may turn a rectifier on or off.
BOUNDS = {"inference": 1e-3, "training": 1e-2}
#: A gradient that is zero but for rounding, as that of a constant that a batch norm removes, is compared with this part
#: of the largest number of all.
_NEGLIGIBLE = 1e-3


@dataclass
class Timing(Compared):
    """What was measured of a network.

    times     seconds of a call, or of a training step, in each round, by contender
    prepared  seconds that it took to build the network and to call it until all was compiled
    errors    the largest error of a result, as a part of the largest number, by contender
    """

    case: Case
    threads: int
    times: dict[str, list[float]] = field(default_factory=dict)
    prepared: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
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

    def difference(first: Mapping[str, Array], other: Mapping[str, Array]) -> str | None:
        name, error, how = farthest(first, other)
        timing.errors[computed[-1]] = error
        allowed = BOUNDS[timing.case.kind]
        return None if error <= allowed else f"{name} {how}, where {allowed:g} is allowed"

    computed: list[str] = []
    return compare_results(timing, workers, compute, difference)


def farthest(first: Mapping[str, Array], other: Mapping[str, Array]) -> tuple[str, float, str]:
    """The result that differs most: its name, its error, and that in words."""
    largest = {name: float(np.abs(array).max(initial=0)) for name, array in first.items()}
    least = _NEGLIGIBLE * max(largest.values()) if len(first) > 1 else 0.0
    found = []
    for name, array in first.items():
        if name not in other:
            return name, np.inf, "is missing"
        got = other[name]
        if got.shape != array.shape or got.dtype != array.dtype:
            return name, np.inf, f"is {got.dtype} {got.shape} instead of {array.dtype} {array.shape}"
        if not np.isfinite(array).all() or not np.isfinite(got).all():
            return name, np.inf, "is not finite"
        error = float(np.abs(got - array).max(initial=0)) / (max(largest[name], least) or 1.0)
        found.append((error, name))
    error, name = max(found)
    return name, error, f"is off by {error:.2g} of the largest number"


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
