"""How close `auto` comes to the best algorithm: python bench/choices.py --shapes quick --threads 1

For each layer of the shape files and each pass, every arithmetic of the registry that applies (`Kernel.arithmetic`: an
algorithm, or one of its tile sizes) runs in turns on the same arrays, float32 and warm. `auto` takes one of them, so it
is not timed apart. With `--each kernel` every kernel that applies is one of them, also those within an algorithm.

Prints the share of the rows where `auto` is within 5% of the best, the worst row, and a table of the rows that are more
than 5% off. A row that is off is measured again for longer before it is reported. Times are lower quartiles; on one
thread they are CPU time, so that other processes disturb them little. Rows where only one arithmetic applies are
counted, but not timed; nor is what is predicted to take 5 times as long as what `auto` takes.

The predicted times are those by which `auto` chooses: of two images (of a weight gradient: the batch) on one thread of
the processor that the constants of the cost model describe. The arithmetic must not depend on the batch, the number of
threads or the machine, as it decides the bits of a result. So a row of one image or of many, or of several threads, may
be off although the prediction is right.

    python bench/choices.py --shapes all --threads 2 --backend cython     a few minutes
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
from fastconv.backends.contract import AnyEngine, Run, is_tiled
from fastconv.cli.bench.problems import PASSES, Problem, placed, read, shape_files
from fastconv.dispatch import backends
from fastconv.dispatch.preparation import threads_for
from fastconv.planner import registry
from fastconv.planner.registry import Kernel
from fastconv.planner.request import Contraction, Request
from fastconv.problem.arrays import Array

#: The share by which `auto` may be off without being reported.
TOLERANCE = 0.05
#: Turns of a row, at least; how much longer a row that is off is measured; and how many times as long as the quickest
#: a contender's first turn takes if it is left out of the others.
TURNS, LONGER, HOPELESS = 5, 4, 2.5
#: How many times as long as `auto`'s choice a contender is predicted to take if it is not timed at all.
FAR = 5
#: Seconds that a sample takes at least: quick calls are repeated.
SAMPLE = 5e-4

#: What competes in a row, by its name: kernels of the registry, of which the registry takes the cheapest.
Contenders = dict[str, list[Kernel]]


class Row(NamedTuple):
    """A pass of a layer: what `auto` takes, and the seconds and the predicted microseconds of each contender."""

    layer: str
    which: str
    auto: str
    seconds: dict[str, float]
    predicted: dict[str, float]

    @property
    def best(self) -> str:
        """The contender that takes least."""
        return min(self.seconds, key=lambda name: self.seconds[name])

    @property
    def off(self) -> float:
        """By which share `auto` takes longer than the best."""
        return self.seconds[self.auto] / self.seconds[self.best] - 1

    def __str__(self) -> str:
        cells = [self.layer, self.which, self.auto, self.best, f"{self.off:.0%}"]
        cells += [f"{self.predicted[name]:,.0f} -> {1e6 * self.seconds[name]:,.0f}" for name in (self.auto, self.best)]
        return f"| {' | '.join(cells)} |"


TITLES = ("layer", "pass", "auto", "best", "off", "auto: predicted -> measured us", "best: predicted -> measured us")


def arrays_of(problem: Problem, target: Contraction) -> list[Array]:
    """The arrays that a contraction reads, in the order of its arguments, and the one that it writes."""
    x, w, dy = problem.arrays("float32")
    lifted = problem.geometry.lifted()
    found = {**lifted.maps(input=x, output=dy), "weight": w}
    roles = [role for role in ("large", "small", "weight") if role != target]
    shapes = {role: getattr(lifted, f"{role}_shape") for role in (*roles, target)}
    return [*(found[role].reshape(shapes[role]) for role in roles), placed(shapes[target], "float32")]


def contenders(request: Request, each: str) -> Contenders:
    """The kernels that apply, by the attribute `each`: their arithmetic or their name."""
    found: Contenders = {}
    for kernel in registry.KERNELS.values():
        is_able = kernel.tiled is (request.layout is not None) and request.target in kernel.makes
        if is_able and kernel.applies(request) is None:
            found.setdefault(getattr(kernel, each), []).append(kernel)
    return found


def predicted(request: Request, kernels: Iterable[Kernel]) -> float:
    """The microseconds by which the registry compares these kernels with others."""
    with registry.only(*(kernel.name for kernel in kernels)):
        compared = request.of_two_images() if request.layout else request
        return registry.candidates(compared)[0].microseconds or 0.0


def in_turns(runs: dict[str, Callable[[], Any]], clock: Callable[[], float], seconds: float) -> dict[str, float]:
    """The lower quartile of the seconds of each of `runs`, which take turns for `seconds`; those that cannot be the
    quickest have one turn."""

    def sample(run: Callable[[], Any], calls: int) -> float:
        start = clock()
        for _ in range(calls):
            run()
        return (clock() - start) / calls

    for run in runs.values():
        run()
    times = {name: [sample(run, 1)] for name, run in runs.items()}
    least = min(first for (first,) in times.values())
    able = {name: run for name, run in runs.items() if times[name][0] < HOPELESS * least}
    calls = max(1, round(SAMPLE / max(least, 1e-7)))
    start = time.perf_counter()
    while len(able) > 1 and (len(times[next(iter(able))]) <= TURNS or time.perf_counter() - start < seconds):
        for name, run in able.items():
            times[name].append(sample(run, calls))
    return {name: min(each) if len(each) < 3 else statistics.quantiles(each[1:])[0] for name, each in times.items()}


def measured(problem: Problem, which: str, engine: AnyEngine, each: str, seconds: float) -> Row | None:
    """A row; None if there is no choice."""
    geometry = problem.geometry
    target: Contraction = {
        "forward": "large" if geometry.is_transposed else "small",
        "input": "small" if geometry.is_transposed else "large",
        "weight": "weight",
    }[which]  # type: ignore[assignment]
    lifted, threads = geometry.lifted(), threads_for(geometry.lifted())
    request = Request.of(engine, lifted, target, 4, threads)
    competing = contenders(request, each)
    if len(competing) < 2:
        return None
    auto = getattr(registry.choose(request).kernel, each)
    first, second, out = arrays_of(problem, target)

    def call(run: Run) -> Callable[[], None]:
        return lambda: run(first, second, None, out)

    guesses = {name: predicted(request, kernels) for name, kernels in competing.items()}
    runs = {}
    for name, kernels in competing.items():
        if guesses[name] > FAR * guesses[auto]:
            continue
        with registry.only(*(kernel.name for kernel in kernels)):
            runs[name] = call(registry.choose(request).prepared(engine))
    clock = time.thread_time if threads == 1 and is_tiled(engine) else time.perf_counter
    row = Row(str(problem), which, auto, in_turns(runs, clock, seconds), guesses)
    if row.off > TOLERANCE:
        row = row._replace(
            seconds=in_turns({name: runs[name] for name in (row.auto, row.best)}, clock, LONGER * seconds)
        )
    return row


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How close `auto` comes to the best algorithm.")
    parser.add_argument("--shapes", default="quick", help="names of shape files with commas between, or all")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    parser.add_argument("--backend", help="the engine (default: the one that a call gets)")
    parser.add_argument("--threads", type=int, help="the number of threads (default: the one that a call gets)")
    parser.add_argument("--each", choices=("arithmetic", "kernel"), default="arithmetic", help="what competes")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a row, about")
    parser.add_argument("--verbose", action="store_true", help="every row as it is measured")
    options = parser.parse_args(arguments)
    names = list(shape_files()) if options.shapes == "all" else options.shapes.split(",")
    problems = list(dict.fromkeys(problem for name in names for problem in read(name)))
    engine = backends.pick(options.backend, np.dtype("f"))
    each = "name" if options.each == "kernel" else "arithmetic"
    rows = []
    if options.threads:
        fc.set_num_threads(options.threads)
    for problem, which in itertools.product(problems, options.passes):
        row = measured(problem, which, engine, each, options.seconds)
        rows.append(row)
        if row and options.verbose:
            print(row, flush=True)
    report(rows)


def report(rows: list[Row | None]) -> None:
    """Print the shares, the worst row, and the table of the rows that are off."""
    timed = sorted((row for row in rows if row), key=lambda row: -row.off)
    off = [row for row in timed if row.off > TOLERANCE]
    print(f"{len(rows)} rows, {len(timed)} with a choice")
    if not timed:
        return
    print(f"within {TOLERANCE:.0%} of the best: {1 - len(off) / len(timed):.1%} of those with a choice, "
          f"{1 - len(off) / len(rows):.1%} of all")  # fmt: skip
    print(f"the worst: {timed[0].off:.0%} off, {timed[0].layer} ({timed[0].which})")
    if off:
        print(f"\n| {' | '.join(TITLES)} |\n{'|---' * len(TITLES)}|", *off, sep="\n")


if __name__ == "__main__":
    main()
