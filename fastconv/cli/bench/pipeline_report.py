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
    yield _heading(ours, against)
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
        yield f"{_faults(whole, names)}{' ' * _RATIO * len(against)}  page faults of a pass"


def summary(wholes: Sequence[Whole], ours: str, against: Sequence[str]) -> str:
    """A line for each pipeline, and the geometric mean and the least of their time over ours; a table for each number
    of threads."""
    by_threads = {whole.threads: [one for one in wholes if one.threads == whole.threads] for whole in wholes}
    return "\n\n".join("\n".join(_summary(same, ours, against)) for same in by_threads.values())


def _summary(wholes: Sequence[Whole], ours: str, against: Sequence[str]) -> Iterator[str]:
    names = [ours, *against]
    plural = "s" if wholes[0].threads > 1 else ""
    yield (
        f"pipelines, {wholes[0].dtype}, {wholes[0].threads} thread{plural}: ms of a pass, the sum of its layers, and "
        f"their time / ours ({ours})"
    )
    yield _heading(ours, against)
    for whole in wholes:
        yield f"{_cells(whole.rows, ours, against)}  {whole.pipeline.name}, {_counted(whole.rows)}"
    ratios = {
        theirs: found
        for theirs in against
        if (found := [ratio for whole in wholes if (ratio := sum_ratio(whole.rows, ours, theirs))])
    }
    for title, summarised in (("mean", statistics.geometric_mean), ("least", min)):
        cells = (_cell(summarised(ratios[theirs]) if theirs in ratios else None, 2, _RATIO) for theirs in against)
        yield f"{' ' * _TIME * len(names)}{''.join(cells)}  {title}"
    for theirs, found in ratios.items():
        mean, most = 1 / statistics.geometric_mean(found), 1 / min(found)
        yield f"{ours} takes {mean:.2f} of {theirs}'s time in the mean, at most {most:.2f}"
    for whole in wholes:
        if whole.faults:
            yield f"{_faults(whole, names)}{' ' * _RATIO * len(against)}  page faults of a pass, {whole.pipeline.name}"


def _heading(ours: str, against: Sequence[str]) -> str:
    times = "".join(f"{name:>{_TIME}}" for name in (ours, *against))
    return times + "".join(f"{theirs + ' / ours':>{_RATIO}}" for theirs in against)


def _faults(whole: Whole, names: Sequence[str]) -> str:
    """The medians of the page faults of a pass."""
    medians = {name: statistics.median(counted) for name, counted in whole.faults.items()}
    return "".join(_cell(medians.get(name), 0) for name in names)


def _counted(rows: Sequence[Row]) -> str:
    return f"{len(rows)} layer{'s' if len(rows) > 1 else ''}"


def _cells(rows: Sequence[Row], ours: str, against: Sequence[str]) -> str:
    """The milliseconds of the rows together, and the others' time over ours."""
    sums = (_sum(rows, name) for name in (ours, *against))
    times = [_cell(seconds and 1e3 * seconds, 3) for seconds in sums]
    return "".join(times + [_cell(sum_ratio(rows, ours, theirs), 2, _RATIO) for theirs in against])


def sum_ratio(rows: Sequence[Row], ours: str, theirs: str) -> float | None:
    """Their time over ours, of the rows together; None if one of them was not timed."""
    of_ours, of_theirs = _sum(rows, ours), _sum(rows, theirs)
    return of_theirs / of_ours if of_ours and of_theirs else None


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
