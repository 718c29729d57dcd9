"""`fastconv bench`: is it faster for my layers on my machine?

    arguments, options
                    the options; read and checked
    problems        the grammar of shape files, classes, arrays
    contenders      by name, a function to call for each pass, on one set of arrays or many
    interface, engines, libraries, ncnn
                    what is asked of a contender; our engines and plans; PyTorch, ONNX Runtime, OpenVINO; ncnn
    worker, child   a contender in its own process: the parent's end and the process itself
    rounds          the processes take turns; results compared, ratios formed within a round
    pipelines, chain, pipeline_rounds, pipeline_report
                    --pipeline: a network's layers in their order, a contender that goes through them, turns, the table
    models, model_contenders, model_rounds, model_report
                    --model: whole networks in PyTorch, the ways to run them, turns, the table
    machine         measures multiply-adds and bytes a second, and how far apart two processors are
    report, plot    the tables, the JSON, the pictures
    memory          --memory: the peak of extra memory of a call
    startup         --startup: import, first call, installed size

The modules beside this one are imported when the command runs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastconv.cli.bench.arguments import add_arguments as add_arguments
from fastconv.problem.arrays import check_numbers
from fastconv.problem.errors import ArgumentError, DTypeError, UsageError
from fastconv.problem.extras import require

if TYPE_CHECKING:
    from fastconv.cli.bench.interface import Setup
    from fastconv.cli.bench.machine import Rates
    from fastconv.cli.bench.model_rounds import Timing
    from fastconv.cli.bench.models import Case
    from fastconv.cli.bench.pipeline_rounds import Whole
    from fastconv.cli.bench.pipelines import Pipeline
    from fastconv.cli.bench.problems import Problem
    from fastconv.cli.bench.rounds import Batch, Compared, Row
    from fastconv.cli.bench.worker import Worker

#: Rounds, and seconds of a contender's turn in each: usual, and with --quick.
_ROUNDS, _TURN = 9, 0.05
_QUICK_ROUNDS, _QUICK_TURN = 7, 0.02
#: A turn through a pipeline takes so many times as long as one on a layer.
_PIPELINE_TURN = 6
#: Likewise with a whole network.
_MODEL_TURN = 8


class _Task(NamedTuple):
    """What is to be measured."""

    ours: str
    against: list[str]
    counts: list[int]
    dtype: np.dtype[Any]
    rounds: int
    seconds: float
    setup: Setup

    @property
    def names(self) -> list[str]:
        """All contenders, ours first."""
        return [self.ours, *self.against]


def run(arguments: argparse.Namespace) -> int:
    """Measure and report: 0, 1 if a contender failed or its result differed, 130 if it was interrupted."""
    from fastconv.cli.bench import options

    options.check_together(arguments)
    dtype = check_numbers("--dtype", arguments.dtype)
    if dtype.name not in ("float32", "float64"):
        raise DTypeError(f"--dtype must be float32 or float64, not {dtype}")
    setup = options.setup(arguments)
    ours = options.ours(arguments, dtype)
    cases = options.chosen_models(arguments)
    against = options.ways(arguments.against, cases) if cases else options.against(arguments.against, ours, setup)
    if arguments.summary and against in ([], ["eager"]):
        raise ArgumentError("--summary compares with contenders, and there is none")
    passes = options.passes(arguments)
    counts = options.counts(arguments.threads)
    colds = options.colds(arguments)
    pipelines = options.chosen_pipelines(arguments.pipeline)
    chosen = options.chosen_problems(arguments)
    needs_plot = arguments.plot or arguments.summary
    for package in ("tqdm", "cpuinfo", *(("matplotlib.figure",) if needs_plot else ())):
        require(package, "bench", "the benchmark")
    for option, path in (("--json", arguments.json), ("--plot", arguments.plot), ("--summary", arguments.summary)):
        if path is not None and str(path) != "-":  # checked last, as this creates the file
            try:
                path.open("a").close()
            except OSError as error:
                raise ArgumentError(f"{option} {path} cannot be written: {error.strerror}") from None
    if arguments.startup:
        return _startup([ours, *against])
    if arguments.memory:
        return _memory(chosen, passes, [ours, *against], dtype, counts[0])
    rounds, turn = (_QUICK_ROUNDS, _QUICK_TURN) if arguments.quick else (_ROUNDS, _TURN)
    if cases:
        return _models(arguments, cases, _Task(ours, against, counts, dtype, rounds, _MODEL_TURN * turn, setup))
    if pipelines:
        return _pipelines(
            arguments, pipelines, _Task(ours, against, counts, dtype, rounds, _PIPELINE_TURN * turn, setup)
        )
    return _times(arguments, chosen, passes, colds, _Task(ours, against, counts, dtype, rounds, turn, setup))


def _startup(names: Sequence[str]) -> int:
    from fastconv.cli.bench import startup

    print(startup.table([name for name in names if startup.is_known(name)]))
    return 0


def _memory(
    chosen: Sequence[Problem], passes: Sequence[str], names: Sequence[str], dtype: np.dtype[Any], count: int
) -> int:
    from fastconv.cli.bench import memory

    if not memory.is_supported():
        raise UsageError("--memory needs Linux, where a process can tell its high-water mark")
    cases = list(itertools.product(chosen, passes))
    measured = memory.measure(cases, names, dtype.name, count)
    bar = require("tqdm", "bench", "the benchmark").tqdm(measured, total=len(cases), unit="row", leave=False)
    print(memory.table(list(bar), names, dtype.itemsize))
    return 0


def _times(
    options: argparse.Namespace, chosen: Sequence[Problem], passes: Sequence[str], colds: Sequence[int], task: _Task
) -> int:
    from fastconv.cli.bench import plot, report

    start = time.monotonic()
    first = _rates(task)
    batches: list[Batch] = []
    try:
        _take_rounds(batches, list(itertools.product(chosen, passes)), colds, task)
        is_complete = True
    except KeyboardInterrupt:  # report what was measured until then
        is_complete = False
    rows = [row for batch in batches for row in batch.measured()]
    # a neighbour may have been busy during one measurement: the higher rate is nearer the machine's own
    rates = {count: first[count].or_higher(again) for count, again in _rates(task).items()}
    machine = _machine(rates)
    peaks = {(count, task.dtype.name): of_count.peak for count, of_count in rates.items()}
    bandwidths = {count: of_count.bandwidths for count, of_count in rates.items()}
    if str(options.json) != "-":
        print(_heading(machine, task))
        print(report.listing(rows, task.ours, task.against) + "\n")
        for theirs in task.against:
            if table := report.limits(rows, theirs, peaks, bandwidths):
                print(table + "\n")
        print(report.achieved(rows, task.ours, peaks) + "\n")
        for line in report.problems_found(rows) + report.disturbances(rows):
            print(line)
        for theirs in task.against:
            if table := report.table(rows, task.ours, theirs):
                print("\n" + table)
        print(f"\n{len(rows)} rows, {task.rounds} rounds each, in {time.monotonic() - start:.0f} s")
    settings = _settings(options, task) | {"passes": list(passes), "cold": list(colds)}
    _write_json(options, rows, task, settings, machine)
    _draw(options.plot, plot.write, rows, task.ours, task.against, peaks)
    _draw(options.summary, plot.write_summary, rows, task.ours, task.against)
    return _status(rows, is_complete)


def _pipelines(options: argparse.Namespace, pipelines: Sequence[Pipeline], task: _Task) -> int:
    from fastconv.cli.bench import pipeline_report, plot, report

    start = time.monotonic()
    first = _rates(task)
    wholes: list[Whole] = []
    try:
        _take_passes(wholes, pipelines, task)
        is_complete = True
    except KeyboardInterrupt:
        is_complete = False
    rows = [row for whole in wholes for row in whole.rows if row.times or row.failed]
    rates = {count: first[count].or_higher(again) for count, again in _rates(task).items()}
    machine = _machine(rates)
    if str(options.json) != "-":
        print(_heading(machine, task))
        for whole in wholes:
            print(pipeline_report.table(whole, task.ours, task.against) + "\n")
        for line in dict.fromkeys(report.problems_found(rows)):
            print(line)
        if table := pipeline_report.summary(wholes, task.ours, task.against):
            print("\n" + table)
        print(f"\n{len(wholes)} pipelines, {task.rounds} rounds each, in {time.monotonic() - start:.0f} s")
    settings = _settings(options, task) | {"passes": ["forward"], "cold": []}
    found = [pipeline_report.as_json(whole) for whole in wholes]
    peaks = {(count, task.dtype.name): of_count.peak for count, of_count in rates.items()}
    _write_json(options, rows, task, settings | {"pipelines": found}, machine)
    _draw(options.plot, plot.write, rows, task.ours, task.against, peaks)
    _draw(options.summary, plot.write_pipelines, wholes, task.ours, task.against)
    return _status(rows, is_complete)


def _models(options: argparse.Namespace, cases: Sequence[Case], task: _Task) -> int:
    from fastconv.cli.bench import model_report, plot, report

    start = time.monotonic()
    rates = _rates(task)
    timings: list[Timing] = []
    try:
        _take_calls(timings, cases, task)
        is_complete = True
    except KeyboardInterrupt:
        is_complete = False
    machine = _machine(rates)
    if str(options.json) != "-":
        print(f"{_heading(machine, task)}convert, install and backend: fastconv, on {task.ours}\n")
        print(model_report.table(timings, task.against) + "\n")
        for line in [*report.problems_found(timings), *model_report.errors(timings)]:
            print(line)
        print(f"\n{len(timings)} networks, {task.rounds} rounds each, in {time.monotonic() - start:.0f} s")
    found = [model_report.as_json(timing) for timing in timings]
    _write_json(options, [], task, _settings(options, task) | {"passes": [], "cold": []}, machine, models=found)
    _draw(options.summary, plot.write_models, timings, task.against)
    return _status(timings, is_complete)


def _rates(task: _Task) -> dict[int, Rates]:
    """What the machine does with each number of threads."""
    from fastconv.cli.bench.machine import Rates

    return {count: Rates.measured(task.dtype.name, count) for count in task.counts}


def _machine(rates: Mapping[int, Rates]) -> dict[str, Any]:
    """The machine and its rates, for the report."""
    from fastconv.cli.bench import machine

    return machine.description() | {
        "peak": {str(count): of_count.peak for count, of_count in rates.items()},
        "bandwidth": {str(count): of_count.bandwidth for count, of_count in rates.items()},
        "bandwidths": {
            str(count): {str(size): rate for size, rate in of_count.bandwidths.items()}
            for count, of_count in rates.items()
        },
    }


def _heading(machine: Mapping[str, Any], task: _Task) -> str:
    """What the report begins with."""
    setup = f"{task.setup}\n" if any(task.setup) else ""
    return f"{machine['processor']}, {machine['versions']}\n{setup}"


def _settings(options: argparse.Namespace, task: _Task) -> dict[str, Any]:
    return {
        "against": task.against, "threads": task.counts, "dtype": task.dtype.name,
        "rounds": task.rounds, "seconds a turn": task.seconds, "quick": options.quick,
        "fused": task.setup.fused, "data format": options.data_format or "channels_first",
    }  # fmt: skip


def _write_json(
    options: argparse.Namespace, rows: Sequence[Row], task: _Task, settings: dict[str, Any], machine: dict[str, Any],
    **more: Any,
) -> None:  # fmt: skip
    from fastconv.cli.bench import report

    if options.json:
        written = json.dumps(report.as_json(rows, task.ours, settings, machine) | more, indent=1)
        if str(options.json) == "-":
            print(written)
        else:
            options.json.write_text(written + "\n")


def _draw(path: Path | None, write: Callable[..., None], *data: Any) -> None:
    """Have a picture written, if it is asked for."""
    if path:
        write(path, *data)
        print(f"picture: {path}", file=sys.stderr)


def _status(rows: Sequence[Compared], is_complete: bool) -> int:
    if not is_complete:
        return 130
    return 1 if any(row.differs or row.failed for row in rows) else 0


def _take_rounds(batches: list[Batch], cases: Sequence[tuple[Problem, str]], colds: Sequence[int], task: _Task) -> None:
    """Measure batch after batch, with a progress bar. Each is added to `batches` first, so that an interruption leaves
    its rounds."""
    from fastconv.cli.bench.machine import Pair
    from fastconv.cli.bench.rounds import Batch, parted

    dtype = task.dtype.name
    total = len(task.counts) * len(colds) * len(cases) * task.rounds
    with require("tqdm", "bench", "the benchmark").tqdm(total=total, unit="round", leave=False) as bar:

        def show(row: Row) -> None:
            bar.set_postfix_str(f"{row.which} {row.problem}"[:70])
            bar.update()

        for count, cold in itertools.product(task.counts, colds):
            with contextlib.closing(Pair()) as pair, _workers(task, task.names, count, cold) as workers:
                for part in parted(cases, dtype, cold):
                    batches.append(Batch(workers, count, dtype, pair if count > 1 else None, cold))
                    for problem, which in part:
                        batches[-1].prepare(problem, which)
                    batches[-1].measure(task.rounds, task.seconds, show)


def _take_passes(wholes: list[Whole], pipelines: Sequence[Pipeline], task: _Task) -> None:
    """Measure pipeline after pipeline, with a progress bar."""
    from fastconv.cli.bench import pipeline_rounds

    dtype = task.dtype.name
    total = len(task.counts) * len(pipelines) * task.rounds
    with require("tqdm", "bench", "the benchmark").tqdm(total=total, unit="round", leave=False) as bar:
        for pipeline, count in itertools.product(pipelines, task.counts):
            bar.set_postfix_str(f"{pipeline.name}, threads: {count}")
            with _workers(task, task.names, count) as workers:
                wholes.append(pipeline_rounds.compared(pipeline, workers, count, dtype))
            able = pipeline_rounds.able(wholes[-1], task.names)
            with _workers(task, able, count, keeps_memory=False) as workers:
                pipeline_rounds.measure(wholes[-1], workers, task.rounds, task.seconds, bar.update)


def _take_calls(timings: list[Timing], cases: Sequence[Case], task: _Task) -> None:
    """Measure network after network, with a progress bar."""
    from fastconv.cli.bench import model_contenders, model_rounds

    total = len(task.counts) * len(cases) * task.rounds
    with require("tqdm", "bench", "the benchmark").tqdm(total=total, unit="round", leave=False) as bar:
        for count, case in itertools.product(task.counts, cases):
            bar.set_postfix_str(f"{case}, threads: {count}")
            timings.append(model_rounds.Timing(case, count))
            names = model_contenders.names_of(case.kind, task.against)
            with _workers(task, names, count, keeps_memory=False) as workers:
                able = model_rounds.prepare(timings[-1], workers)
                model_rounds.measure(timings[-1], able, task.rounds, task.seconds, bar.update)


@contextlib.contextmanager
def _workers(
    task: _Task, names: Sequence[str], count: int, cold: int = 0, keeps_memory: bool = True
) -> Iterator[list[Worker]]:
    """A process for each contender; they end with the context."""
    from fastconv.cli.bench.worker import Worker

    workers: list[Worker] = []
    try:
        workers += [Worker(name, count, task.dtype.name, cold, keeps_memory, task.setup) for name in names]
        yield workers
    finally:
        for worker in workers:
            worker.close()
