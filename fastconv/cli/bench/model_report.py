"""What was measured of whole networks as a table, and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from fastconv.cli.bench.model_contenders import WAYS, names_of
from fastconv.cli.bench.model_rounds import BOUNDS, Timing

#: The contender whose results and times the others' are compared with.
REFERENCE = "eager"
_NAME, _LEAST_WIDTH = 15, 9


def peers(names: Sequence[str]) -> list[str]:
    """The contenders that are not ours, without eager."""
    return [name for name in names if not WAYS[name].is_ours and name != REFERENCE]


def table(timings: Sequence[Timing], names: Sequence[str]) -> str:
    """A line for each network, for each kind and number of threads; below the geometric means and the least ratios."""
    groups: dict[tuple[str, int], list[Timing]] = {}
    for timing in timings:
        groups.setdefault((timing.case.kind, timing.threads), []).append(timing)
    return "\n\n".join("\n".join(_table(same, names)) for same in groups.values())


def _table(timings: Sequence[Timing], names: Sequence[str]) -> Iterator[str]:
    kind, threads = timings[0].case.kind, timings[0].threads
    names = names_of(kind, names)
    ours = [name for name in names if WAYS[name].is_ours]
    others = peers(names)
    against = [[REFERENCE]] * (REFERENCE in names) + [others] * (kind == "inference" and bool(others))
    titles = ["eager / ours" if group == [REFERENCE] else "best other / ours" for group in against]
    call = "a call" if kind == "inference" else "a training step"
    ratios = ", and the others' time over ours" if ours else ""
    yield f"{kind}, float32, {threads} thread{'s' if threads > 1 else ''}: ms of {call}{ratios}"
    widths = [max(len(name) + 2, _LEAST_WIDTH) for name in names]
    width = max([_LEAST_WIDTH, *(len(name) + 2 for name in ours), *(-(-20 // len(ours)) for _ in ours)])
    heads = [f"{title:>{width * len(ours)}}" for title in titles if ours]
    yield f"{'':<{_NAME}}{'ms':>{sum(widths)}}{''.join(heads)}".rstrip()
    cells = "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    yield f"{'':<{_NAME}}{cells}{''.join(f'{name:>{width}}' for name in ours) * len(heads)}"
    columns: list[list[float]] = [[] for _ in range(len(against) * len(ours))]
    for timing in timings:
        found = [ratio(timing, name, group) for group in against for name in ours]
        for number, value in enumerate(found):
            columns[number] += [value] if value else []
        times = [_cell(_milliseconds(timing, name), width) for name, width in zip(names, widths, strict=True)]
        yield f"{timing.case.name:<{_NAME}}{''.join(times)}{''.join(_cell(value, width) for value in found)}"
    if any(columns):
        for title, summarised in (("geometric mean", statistics.geometric_mean), ("least", min)):
            last = "".join(_cell(summarised(column) if column else None, width) for column in columns)
            yield f"{title:<{_NAME}}{' ' * sum(widths)}{last}"
    yield "seconds until all was built, exported and compiled:"
    for timing in timings:
        times = [_cell(timing.prepared.get(name), width, 1) for name, width in zip(names, widths, strict=True)]
        yield f"{timing.case.name:<{_NAME}}{''.join(times)}"


def ratio(timing: Timing, ours: str, others: Sequence[str]) -> float | None:
    """The time of the fastest of the others over ours; None if there is none or ours was not timed."""
    our_seconds = timing.seconds(ours)
    found = [seconds for name in others if (seconds := timing.seconds(name))]
    return min(found) / our_seconds if found and our_seconds else None


def errors(timings: Sequence[Timing]) -> list[str]:
    """A line for each group of results: the largest error of each contender."""
    worst: dict[str, dict[str, float]] = {}
    for timing in timings:
        for name, by_group in timing.errors.items():
            for group, error in by_group.items():
                of_group = worst.setdefault(group, {})
                of_group[name] = max(error, of_group.get(name, 0.0))
    return [
        f"largest difference from {REFERENCE}, {group}, as a part of {BOUNDS[group].measure}: "
        + ", ".join(f"{name} {error:.1g}" for name, error in of_group.items())
        for group, of_group in worst.items()
    ]


def _milliseconds(timing: Timing, name: str) -> float | None:
    seconds = timing.seconds(name)
    return None if seconds is None else 1e3 * seconds


def _cell(value: float | None, width: int, digits: int = 2) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{digits}f}"


def as_json(timing: Timing) -> dict[str, Any]:
    """Everything measured of a network, in the form that bench/result.schema.json describes."""
    return {
        "name": timing.case.name,
        "kind": timing.case.kind,
        "threads": timing.threads,
        "seconds": timing.times,
        "preparation": timing.prepared,
        "errors": {
            name: {group: error if error < float("inf") else None for group, error in by_group.items()}
            for name, by_group in timing.errors.items()
        },
        "declined": timing.declined,
        "failed": timing.failed,
        "differs": timing.differs,
    }
