"""What was measured of a pipeline as a table, and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from fastconv.cli.bench.pipeline_rounds import Whole
from fastconv.cli.bench.problems import CLASSES
from fastconv.cli.bench.rounds import Row

#: The widths of the columns of times and of ratios.
_TIME, _RATIO = 13, 21


def table(whole: Whole, ours: str, against: Sequence[str]) -> str:
    """The milliseconds of a pass by contender: each class with its layers, equal layers together, and all layers; then
    the page faults."""
    return "\n".join(_lines(whole, ours, against))


def _lines(whole: Whole, ours: str, against: Sequence[str]) -> Iterator[str]:
    names = [ours, *against]
    plural = "s" if whole.threads > 1 else ""
    yield (
        f"{whole.pipeline.name}, {whole.dtype}, {whole.threads} thread{plural}: ms of a pass, each layer reading what "
        f"the one before wrote, and their time / ours ({ours}): above 1 we are faster"
    )
    yield "".join([*(f"{name:>{_TIME}}" for name in names), *(f"{theirs + ' / ours':>{_RATIO}}" for theirs in against)])
    for kind in CLASSES:
        of_kind = [row for row in whole.rows if row.problem.kind == kind]
        if of_kind:
            yield f"{_cells(of_kind, ours, against)}  {kind}, {_counted(of_kind)}"
        for problem in dict.fromkeys(row.problem for row in of_kind):
            equal = [row for row in of_kind if row.problem == problem]
            several = f"{len(equal)} of " if len(equal) > 1 else ""
            yield f"{_cells(equal, ours, against)}     {several}{problem}"
    yield f"{_cells(whole.rows, ours, against)}  all, {_counted(whole.rows)}"
    if whole.faults:
        faults = [_cell(statistics.median(whole.faults[name]) if name in whole.faults else None, 0) for name in names]
        yield "".join(faults) + " " * _RATIO * len(against) + "  page faults of a pass"


def _counted(rows: Sequence[Row]) -> str:
    return f"{len(rows)} layer{'s' if len(rows) > 1 else ''}"


def _cells(rows: Sequence[Row], ours: str, against: Sequence[str]) -> str:
    """The milliseconds of the rows together, and the others' time over ours."""
    of_ours, *of_theirs = (_sum(rows, name) for name in (ours, *against))
    times = [_cell(seconds and 1e3 * seconds, 3) for seconds in (of_ours, *of_theirs)]
    return "".join(times + [_cell(theirs and of_ours and theirs / of_ours, 2, _RATIO) for theirs in of_theirs])


def _sum(rows: Sequence[Row], name: str) -> float | None:
    """The seconds of the rows together; None if the contender was not timed."""
    times = [seconds for row in rows if (seconds := row.seconds(name)) is not None]
    return sum(times) if len(times) == len(rows) else None


def _cell(value: float | None, digits: int, width: int = _TIME) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{digits}f}"


def as_json(whole: Whole) -> dict[str, Any]:
    """The pipeline's order and page faults; its layers are rows like any others."""
    layers = [f"{layer.problem}{' channels_last' * layer.channels_last}" for layer in whole.pipeline.layers]
    return {"name": whole.pipeline.name, "threads": whole.threads, "layers": layers, "page faults": whole.faults}
