"""Side by side through a pipeline: contenders take turns, and in each go through all its layers again and again.

First each layer's result is compared with the first contender's, on standard numbers, in other processes: those that
are timed find malloc as it comes, with nothing freed before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from fastconv.cli.bench.pipelines import Layer, Pipeline
from fastconv.cli.bench.problems import Problem
from fastconv.cli.bench.rounds import Row, compare_results
from fastconv.cli.bench.worker import ContenderError, Worker


@dataclass
class Whole:
    """What was measured of a pipeline.

    rows    what was measured of each layer, in their order
    faults  page faults of a pass in each round, by contender; empty where the system does not count them
    """

    pipeline: Pipeline
    threads: int
    dtype: str
    rows: list[Row]
    faults: dict[str, list[float]] = field(default_factory=dict)


def compared(pipeline: Pipeline, workers: Sequence[Worker], threads: int, dtype: str) -> Whole:
    """A row for each layer, in which those contenders are marked that have no such call, fail, or have another result
    than the first."""
    known: dict[tuple[Problem, bool], Row] = {}
    rows = []
    footprint = pipeline.footprint(dtype)
    for layer in pipeline.layers:
        key = layer.problem, layer.channels_last
        if key not in known:
            known[key] = _compared(layer, workers, threads, dtype)
        first = known[key]
        rows.append(replace(first, footprint=footprint, times={}, trips=[]))
    return Whole(pipeline, threads, dtype, rows)


def _compared(layer: Layer, workers: Sequence[Worker], threads: int, dtype: str) -> Row:
    row = Row(layer.problem, "forward", threads, dtype)
    compare_results(row, workers, lambda worker: worker.layer(layer), row.difference)
    return row


def able(whole: Whole, names: Sequence[str]) -> list[str]:
    """The contenders that compute every layer, to the first one's result."""
    missing = {name for row in whole.rows for name in (*row.declined, *row.failed, *row.differs)}
    return [name for name in names if name not in missing]


def measure(whole: Whole, workers: Sequence[Worker], rounds: int, seconds: float, done: Callable[[], object]) -> None:
    """Measure `rounds` rounds, in turns of about `seconds`, and call `done` after each. A contender that fails ends
    them."""
    for number in range(rounds):
        shift = number % max(1, len(workers))  # each contender is first equally often
        order = [*workers[shift:], *workers[:shift]]
        try:
            taken = {worker.name: worker.passes(whole.pipeline, seconds) for worker in order}
        except ContenderError as error:
            whole.rows[0].failed["a pass"] = str(error)
            return
        for name, passes in taken.items():
            if passes.faults is not None:
                whole.faults.setdefault(name, []).append(passes.faults)
            for row, layer in zip(whole.rows, passes.layers, strict=True):
                row.times.setdefault(name, []).append(layer)
        done()
