"""The measured rows as text: a list, tables by class, and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastconv.cli.bench.problems import CLASSES, PASSES
from fastconv.cli.bench.rounds import Compared, Row

#: The version of the JSON schema.
SCHEMA = 2
#: Means of a class and pass, and rows, below these ratios are named under the table.
_LOW_MEAN, _LOW_ROW = 1.2, 0.95


def table(rows: Sequence[Row], ours: str, theirs: str) -> str:
    """Their time over ours by class and pass: the geometric mean and the least row; larger is better.

    There is a table for each number of threads and dtype, of cold and of hot data.
    """
    compared = [row for row in rows if row.ratios(ours, theirs)]
    return "\n\n".join("\n".join(_table(same, ours, theirs)) for same in _grouped(compared))


def _grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows by number of threads, dtype, and whether the data were cold."""
    keys = sorted({_key(row) for row in rows})
    return [[row for row in rows if _key(row) == key] for key in keys]


def _key(row: Row) -> tuple[int, str, str]:
    return row.threads, row.dtype, row.state


def _table(rows: Sequence[Row], ours: str, theirs: str) -> Iterator[str]:
    threads, dtype, state = _key(rows[0])
    plural = "s" if threads > 1 else ""
    yield (
        f"{theirs}'s time / ours ({ours}), {dtype}, {threads} thread{plural}, {state}: geometric mean and least row, "
        "above 1 we are faster"
    )
    yield f"{'class':<34} {'rows':>4}  " + "".join(f"{which:>9} {'least':>6}" for which in PASSES) + "   least row"
    means: dict[str, float] = {}
    for name in (*CLASSES, None):
        compared = [row for row in rows if name is None or row.problem.kind == name]
        if not compared:
            continue
        cells = ""
        for which in PASSES:
            ratios = [_ratio(row, ours, theirs) for row in compared if row.which == which]
            if not ratios:
                cells += f"{'-':>9} {'-':>6}"
                continue
            mean = statistics.geometric_mean(ratios)
            cells += f"{mean:>9.2f} {min(ratios):>6.2f}"
            if name is not None:
                means[f"{name}, {which}"] = mean
        worst = min(compared, key=lambda row: _ratio(row, ours, theirs))
        counted = len({row.problem for row in compared})
        yield f"{name or 'all':<34} {counted:>4}  {cells}   {_shown(worst, ours, theirs)}"
    yield from _low(rows, means, ours, theirs)


def _low(rows: Sequence[Row], means: Mapping[str, float], ours: str, theirs: str) -> Iterator[str]:
    """The least mean of a class and pass, and the means and rows that are low."""
    everything = statistics.geometric_mean(_ratio(row, ours, theirs) for row in rows)
    least = min(means, key=lambda name: means[name])
    yield f"all passes {everything:.2f}; least mean of a class and pass {means[least]:.2f} ({least})"
    low_means = {name: mean for name, mean in means.items() if mean < _LOW_MEAN}
    yield f"{len(low_means)} of {len(means)} means below {_LOW_MEAN}"
    yield from (f"    {mean:.2f} {name}" for name, mean in sorted(low_means.items(), key=lambda item: item[1]))
    low_rows = [row for row in rows if _ratio(row, ours, theirs) < _LOW_ROW]
    yield f"{len(low_rows)} of {len(rows)} rows below {_LOW_ROW}"
    for row in sorted(low_rows, key=lambda row: _ratio(row, ours, theirs)):
        yield f"    {_shown(row, ours, theirs)}"


def _shown(row: Row, ours: str, theirs: str) -> str:
    doubt = "" if any(row.undisturbed(ours, theirs)) else ", all rounds disturbed"
    return f"{_ratio(row, ours, theirs):.2f} {row.which}: {row.problem}{doubt}"


def _ratio(row: Row, ours: str, theirs: str) -> float:
    """The median of their time over ours, of a row for which both were timed."""
    return statistics.median(row.ratios(ours, theirs))


def limits(
    rows: Sequence[Row], theirs: str, peaks: Mapping[tuple[int, str], float | None],
    bandwidths: Mapping[int, Mapping[int, float]],
) -> str:  # fmt: skip
    """What `table` would show if every row took the least time that the measured machine allows, see `Row.least`."""
    lines = []
    for chosen in _grouped([row for row in rows if theirs in row.times]):
        threads, dtype, state = _key(chosen[0])
        peak = peaks[threads, dtype]
        if not peak or not bandwidths[threads]:
            continue
        lines.append(
            f"at most, {dtype}, threads: {threads}, {state}: {theirs}'s time / the least, by multiply-adds or by bytes"
        )
        lines.append(f"{'class':<34} {'rows':>4}  " + "".join(f"{which:>9}" for which in PASSES))
        for name in CLASSES:
            members = [row for row in chosen if row.problem.kind == name]
            if not members:
                continue
            cells = []
            for which in PASSES:
                of_pass = [row for row in members if row.which == which]
                found = [_seconds(row, theirs) / row.least(peak, bandwidths[threads]) for row in of_pass]
                cells.append(f"{statistics.geometric_mean(found):>9.2f}" if found else f"{'-':>9}")
            lines.append(f"{name:<34} {len({row.problem for row in members}):>4}  {''.join(cells)}")
        lines.append("")
    return "\n".join(lines).rstrip()


def listing(rows: Sequence[Row], ours: str, against: Sequence[str]) -> str:
    """Every row: our time, and each contender's time over ours, as the median and [range] over the rounds."""
    lines = [f"{'ms':>9}  " + "".join(f"{theirs + ' / ours':<24}" for theirs in against) + "pass     layer"]
    for row in sorted(rows, key=lambda row: list(CLASSES).index(row.problem.kind)):
        seconds = row.seconds(ours)
        cells = []
        for theirs in against:
            ratios = row.ratios(ours, theirs)
            cells.append(
                f"{statistics.median(ratios):6.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else "     -"
            )
        time = f"{1e3 * seconds:9.3f}" if seconds is not None else f"{'-':>9}"
        threads = f"{row.threads} threads" if row.threads > 1 else "1 thread"
        lines.append(
            f"{time}  {''.join(f'{cell:<24}' for cell in cells)}{row.which:<8} {row.problem}, {threads}, {row.state}"
        )
    return "\n".join(lines)


def achieved(rows: Sequence[Row], ours: str, peaks: Mapping[tuple[int, str], float | None]) -> str:
    """Our GFLOP/s by class and pass, as geometric means, and the best share of the measured peak.

    `peaks` are FLOP/s by (threads, dtype); None where they could not be measured.
    """
    lines = []
    for chosen in _grouped([row for row in rows if ours in row.times]):
        threads, dtype, state = _key(chosen[0])
        peak = peaks[threads, dtype]
        of_peak = f"peak {peak / 1e9:.0f}" if peak else "peak not measured: it needs the compiled part"
        lines.append(f"GFLOP/s of {ours}, {dtype}, threads: {threads}, {state}, {of_peak}")
        lines.append(f"{'class':<34} {'rows':>4}  " + "".join(f"{which:>9}" for which in PASSES) + "   best of peak")
        for name in CLASSES:
            members = [row for row in chosen if row.problem.kind == name]
            if not members:
                continue
            rates = {which: [_rate(row, ours) for row in members if row.which == which] for which in PASSES}
            means = {which: statistics.geometric_mean(found) / 1e9 for which, found in rates.items() if found}
            cells = [f"{means[which]:>9.1f}" if which in means else f"{'-':>9}" for which in PASSES]
            best = f"{max(max(found) for found in rates.values() if found) / peak:>14.0%}" if peak else ""
            lines.append(f"{name:<34} {len({row.problem for row in members}):>4}  {''.join(cells)} {best}")
        lines.append("")
    return "\n".join(lines).rstrip()


def _rate(row: Row, name: str) -> float:
    """FLOP/s by the definition's count."""
    return row.flops / _seconds(row, name)


def _seconds(row: Row, name: str) -> float:
    """The seconds of a contender that has been timed."""
    seconds = row.seconds(name)
    assert seconds
    return seconds


def class_mean(rows: Iterable[Row], ours: str, theirs: str, which: str) -> float | None:
    """The geometric mean of the rows' median ratios; None if there is no row."""
    ratios = [_ratio(row, ours, theirs) for row in rows if row.which == which and row.ratios(ours, theirs)]
    return statistics.geometric_mean(ratios) if ratios else None


def problems_found(rows: Iterable[Compared]) -> list[str]:
    """A line for each result that differs and each failure, and one for each reason why a contender has no call."""
    lines = [
        f"DIFFERS  {name} and the first contender on {row.title}: {how}"
        for row in rows
        for name, how in row.differs.items()
    ]
    lines += [f"FAILED   {name} on {row.title}: {how}" for row in rows for name, how in row.failed.items()]
    reasons: dict[tuple[str, str], int] = {}
    for row in rows:
        for name, reason in row.declined.items():
            reasons[name, reason] = reasons.get((name, reason), 0) + 1
    return lines + [f"no call  {name}, {count} rows: {reason}" for (name, reason), count in reasons.items()]


def disturbances(rows: Iterable[Row]) -> list[str]:
    """A line on the rounds in which a contender was slower than it can be, and one on how far apart processors were."""
    lines = []
    rounds = [row.undisturbed(*row.times) for row in rows]
    if disturbed := sum(passed.count(False) for passed in rounds):
        alone = sum(bool(passed) and not any(passed) for passed in rounds)
        lines.append(
            f"disturbed  {disturbed} of {sum(map(len, rounds))} rounds, a contender being slower than it can be: "
            f"in {alone} rows each contender's own other rounds count"
        )
    if trips := [1e6 * trip for row in rows for trip in row.trips]:
        lines.append(
            f"apart  {statistics.median(trips):.2f} us for a cache line from one processor to another and back, "
            f"from {min(trips):.2f} to {max(trips):.2f}"
        )
    return lines


def as_json(rows: Sequence[Row], ours: str, settings: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """Everything measured, in the form that bench/result.schema.json describes."""
    return {
        "schema": SCHEMA,
        "ours": ours,
        "settings": settings,
        "machine": machine,
        "rows": [
            {
                "problem": str(row.problem),
                "class": row.problem.kind,
                "pass": row.which,
                "threads": row.threads,
                "dtype": row.dtype,
                "footprint": row.footprint,
                "flops": row.flops,
                "seconds": row.times,
                "round trips": row.trips,
                "declined": row.declined,
                "failed": row.failed,
                "differs": row.differs,
            }
            for row in rows
        ],
    }
