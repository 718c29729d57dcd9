"""`fastconv bench`: is it faster for my layers on my machine?

    problems     the grammar of shape files, classes, arrays
    contenders   our engines, PyTorch, ONNX Runtime: a function to call for each pass
    worker       a contender in its own process
    rounds       the processes take turns; results compared, ratios formed within a round
    machine      measures multiply-adds and bytes a second, and how far apart two processors are
    report, plot the tables, the JSON, the pictures
    memory       --memory: the peak of extra memory of a call
    startup      --startup: import, first call, installed size

The modules beside this one are imported when the command runs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.dispatch import backends, threads
from fastconv.problem import parameters
from fastconv.problem.arrays import check_numbers
from fastconv.problem.errors import ArgumentError, BackendUnavailableError, DTypeError, UsageError, one_of
from fastconv.problem.extras import require

if TYPE_CHECKING:
    from fastconv.cli.bench.problems import Problem
    from fastconv.cli.bench.rounds import Batch, Row
    from fastconv.cli.bench.worker import Worker

#: Rounds, and seconds of a contender's turn in each: usual, and with --quick.
_ROUNDS, _TURN = 9, 0.05
_QUICK_ROUNDS, _QUICK_TURN = 7, 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which problems, against whom, how."""
    parser.add_argument(
        "--shapes", action="append", metavar="FILE|NAME", help="a shape file, the name of one that comes with "
        "fastconv, or all; may be repeated (default: all, with --quick: quick)",
    )  # fmt: skip
    parser.add_argument("--problem", action="append", metavar="LINE", help="one problem, written as in a shape file")
    parser.add_argument("--against", metavar="NAMES", help="such as torch,onnxruntime,numpy (default: all that can)")
    parser.add_argument("--backend", metavar="NAME", help="the engine of ours that competes (default: auto's choice)")
    parser.add_argument("--passes", metavar="NAMES", help="some of forward,input,weight (default: all)")
    parser.add_argument("--threads", metavar="NUMBERS", help="for example 1,2 (default: as for any call)")
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="float32 or float64 (default: float32)")
    parser.add_argument("--memory", action="store_true", help="measure the peak of extra memory of each call instead")
    parser.add_argument("--startup", action="store_true", help="measure import, first call and installed size instead")
    parser.add_argument("--quick", action="store_true", help="a layer or two of each class, in about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured; - for standard output")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="write a picture of every row's ratio")
    parser.add_argument("--summary", type=Path, metavar="FILE.png", help="write a picture of the mean ratio by class")


def run(options: argparse.Namespace) -> int:
    """Measure and report: 0, 1 if a contender failed or its result differed, 130 if it was interrupted."""
    from fastconv.cli.bench import problems

    files = (("--json", options.json), ("--plot", options.plot), ("--summary", options.summary))
    for option, path in files:
        if path is not None and (options.memory or options.startup):
            raise ArgumentError(f"{option} goes with times, not with --memory or --startup")
    dtype = check_numbers("--dtype", options.dtype)
    if dtype.name not in ("float32", "float64"):
        raise DTypeError(f"--dtype must be float32 or float64, not {dtype}")
    ours = backends.choose(options.backend, dtype)[0]
    against = _against(options.against, ours)
    if options.summary and not against:
        raise ArgumentError("--summary compares with contenders, and there is none")
    passes = _listed("--passes", options.passes, problems.PASSES)
    counts = _counts(options.threads)
    chosen = _problems(options)
    for package in ("tqdm", "cpuinfo", *(("matplotlib.figure",) if options.plot or options.summary else ())):
        require(package, "bench", "the benchmark")
    for option, path in files:
        if path is not None and str(path) != "-":  # checked last, as this creates the file
            try:
                path.open("a").close()
            except OSError as error:
                raise ArgumentError(f"{option} {path} cannot be written: {error.strerror}") from None
    if options.startup:
        return _startup([ours, *against])
    if options.memory:
        return _memory(chosen, passes, [ours, *against], dtype, counts[0])
    return _times(options, chosen, passes, ours, against, counts, dtype)


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
    options: argparse.Namespace, chosen: Sequence[Problem], passes: Sequence[str], ours: str, against: Sequence[str],
    counts: Sequence[int], dtype: np.dtype[Any],
) -> int:  # fmt: skip
    from fastconv.cli.bench import machine, report

    start = time.monotonic()
    first = {count: machine.Rates.measured(dtype.name, count) for count in counts}
    rounds, turn = (_QUICK_ROUNDS, _QUICK_TURN) if options.quick else (_ROUNDS, _TURN)
    batches: list[Batch] = []
    try:
        _take_rounds(batches, [ours, *against], counts, list(itertools.product(chosen, passes)), dtype, rounds, turn)
        is_complete = True
    except KeyboardInterrupt:  # report what was measured until then
        is_complete = False
    rows = [row for batch in batches for row in batch.measured()]
    # a neighbour may have been busy during one measurement: the higher rate is nearer the machine's own
    rates = {count: one.or_higher(machine.Rates.measured(dtype.name, count)) for count, one in first.items()}
    peaks = {(count, dtype.name): of_count.peak for count, of_count in rates.items()}
    bandwidths = {count: of_count.bandwidths for count, of_count in rates.items()}
    settings = {
        "against": list(against), "passes": list(passes), "threads": list(counts), "dtype": dtype.name,
        "rounds": rounds, "seconds a turn": turn, "quick": options.quick,
    }  # fmt: skip
    described = machine.description() | {
        "peak": {str(count): peak for (count, _), peak in peaks.items()},
        "bandwidth": {str(count): of_count.bandwidth for count, of_count in rates.items()},
        "bandwidths": {
            str(count): {str(size): rate for size, rate in found.items()} for count, found in bandwidths.items()
        },
    }
    if str(options.json) == "-":
        print(json.dumps(report.as_json(rows, ours, settings, described), indent=1))
    else:
        print(f"{described['processor']}, {described['versions']}\n")
        print(report.listing(rows, ours, against) + "\n")
        for theirs in against:
            if table := report.table(rows, ours, theirs):
                print(table + "\n")
            if table := report.limits(rows, theirs, peaks, bandwidths):
                print(table + "\n")
        print(report.achieved(rows, ours, peaks))
        for line in report.problems_found(rows):
            print(line)
        print(f"\n{len(rows)} rows, {rounds} rounds each, in {time.monotonic() - start:.0f} s")
        if options.json:
            options.json.write_text(json.dumps(report.as_json(rows, ours, settings, described), indent=1) + "\n")
    if options.plot or options.summary:
        from fastconv.cli.bench import plot

        if options.plot:
            plot.write(options.plot, rows, ours, against, peaks)
            print(f"picture: {options.plot}", file=sys.stderr)
        if options.summary:
            plot.write_summary(options.summary, rows, ours, against)
            print(f"picture: {options.summary}", file=sys.stderr)
    if not is_complete:
        return 130
    return 1 if any(row.differs or row.failed for row in rows) else 0


def _take_rounds(
    batches: list[Batch], names: Sequence[str], counts: Sequence[int], cases: Sequence[tuple[Problem, str]],
    dtype: np.dtype[Any], rounds: int, seconds: float,
) -> None:  # fmt: skip
    """Measure batch after batch, with a progress bar. Each is added to `batches` first, so that an interruption leaves
    its rounds."""
    from fastconv.cli.bench.machine import Pair
    from fastconv.cli.bench.rounds import Batch, parted

    total = len(counts) * len(cases) * rounds
    with require("tqdm", "bench", "the benchmark").tqdm(total=total, unit="round", leave=False) as bar:

        def show(row: Row) -> None:
            bar.set_postfix_str(f"{row.which} {row.problem}"[:70])
            bar.update()

        for count in counts:
            with contextlib.closing(Pair()) as pair, _workers(names, count, dtype.name) as workers:
                for part in parted(cases, dtype.name):
                    batches.append(Batch(workers, count, dtype.name, pair if count > 1 else None))
                    for problem, which in part:
                        batches[-1].prepare(problem, which)
                    batches[-1].measure(rounds, seconds, show)


def _words(name: str, text: str | None) -> list[str]:
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if text is not None and not words:
        raise ArgumentError(f"{name} must be names or numbers with commas between, not {parameters.shown(text)}")
    return words


def _counts(text: str | None) -> list[int]:
    """The numbers of threads of the option, or the one that a call would get."""
    words = _words("--threads", text)
    numbers = [number for word in words if (number := parameters.count(word)) is not None]
    if len(numbers) < len(words):
        raise ArgumentError(f"--threads must be numbers with commas between, not {parameters.shown(text)}")
    counts = [parameters.integer("--threads", number, 1) for number in numbers]
    return list(dict.fromkeys(counts)) or [threads.get_num_threads()]


def _listed(name: str, text: str | None, valid: Sequence[str]) -> list[str]:
    """The words of an option, each one of `valid`; all of them if the option is not given."""
    words = _words(name, text)
    for word in words:
        if word not in valid:
            raise ArgumentError(f"{name} {parameters.written(word)}: {one_of(word, valid)}")
    return list(dict.fromkeys(words)) or list(valid)


def _against(text: str | None, ours: str) -> list[str]:
    """The contenders of ours: those named, which must be able to run, or all that can."""
    from fastconv.cli.bench import contenders

    reasons = contenders.reasons()
    if text is None:
        return [name for name, reason in reasons.items() if reason is None and name != ours]
    named = _listed("--against", text, list(reasons))
    for name in named:
        if reason := reasons[name]:
            raise BackendUnavailableError(f"--against {name} cannot run here: {reason}")
    return [name for name in named if name != ours]


def _problems(options: argparse.Namespace) -> list[Problem]:
    """The problems asked for, each once."""
    from fastconv.cli.bench import problems

    chosen: list[Problem] = []
    for line in options.problem or ():
        chosen += problems.parse(line, f"--problem {parameters.shown(line)}")
    for name in options.shapes or ([] if chosen else ["quick" if options.quick else "all"]):
        for file in problems.shape_files() if name == "all" else [name]:
            chosen += problems.read(file)
    return list(dict.fromkeys(chosen))


@contextlib.contextmanager
def _workers(names: Sequence[str], count: int, dtype: str) -> Iterator[list[Worker]]:
    """A process for each contender; they end with the context."""
    from fastconv.cli.bench.worker import Worker

    workers: list[Worker] = []
    try:
        workers += [Worker(name, count, dtype) for name in names]
        yield workers
    finally:
        for worker in workers:
            worker.close()
