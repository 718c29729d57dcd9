"""The pictures: every row's ratio with its range over the rounds, and the share of the peak; or a summary by class."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fastconv.cli.bench import model_report
from fastconv.cli.bench.model_rounds import Timing
from fastconv.cli.bench.pipeline_report import sum_ratio
from fastconv.cli.bench.pipeline_rounds import Whole
from fastconv.cli.bench.problems import CLASSES, PASSES
from fastconv.cli.bench.report import class_mean
from fastconv.cli.bench.rounds import Row
from fastconv.problem.extras import require

#: What a line of the picture shows: problem, threads, dtype, and whether the data were cold or hot.
_Line: TypeAlias = tuple[str, int, str, str]

#: Colours that colour-blind readers can tell apart (M. Okabe, K. Ito), one for each pass.
_COLOURS = dict(zip(PASSES, ("#0072b2", "#d55e00", "#009e73"), strict=True))
#: The passes in the legend of the summary, which is read without the tables.
_TITLES = dict(zip(PASSES, ("forward", "gradient of the input", "gradient of the weight"), strict=True))


def write(
    path: Path,
    rows: Sequence[Row],
    ours: str,
    against: Sequence[str],
    peaks: Mapping[tuple[int, str], float | None],
) -> None:
    """Write a PNG with a panel of ratios for each contender, and one of the achieved share of peak."""
    figures = require("matplotlib.figure", "bench", "--plot")
    lines = _lines(rows)
    figure = figures.Figure(figsize=(5 + 4.5 * (len(against) + 1), 2.2 + 0.2 * len(lines)), layout="constrained")
    panels = figure.subplots(1, len(against) + 1, sharey=True, squeeze=False)[0]
    for axes, theirs in zip(panels, against, strict=False):
        _ratios(axes, rows, lines, ours, theirs)
    _shares(panels[-1], rows, lines, ours, peaks)
    panels[0].set_yticks(range(len(lines)), [text for text, _ in lines.values()], fontsize=7, family="monospace")
    panels[0].set_ylim(len(lines) - 0.5, -0.5)
    for axes in panels:
        axes.grid(axis="y", color="#eeeeee", zorder=0)
        for position, (_, is_first) in enumerate(lines.values()):
            if is_first and position:
                axes.axhline(position - 0.5, color="#999999", linewidth=0.8)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(PASSES), frameon=False)
    figure.savefig(path, format="png", dpi=110)


def write_summary(path: Path, rows: Sequence[Row], ours: str, against: Sequence[str]) -> None:
    """Write a PNG with a panel for each contender: by class and pass a bar, the geometric mean of the ratios, and a dot
    for each layer. If data were both cold and hot, these are of the cold rows, and a diamond is the mean of the hot
    ones."""
    figures = require("matplotlib.figure", "bench", "--summary")
    classes = [name for name in CLASSES if any(row.problem.kind == name for row in rows)]
    figure = figures.Figure(figsize=(2.6 + 3.9 * len(against), 1.6 + 0.36 * len(classes)), layout="constrained")
    panels = figure.subplots(1, len(against), sharey=True, squeeze=False)[0]
    state, *others = sorted({row.state for row in rows}) or ["hot"]
    for axes, theirs in zip(panels, against, strict=True):
        _means(axes, [row for row in rows if row.state == state], classes, ours, theirs)
        if others:
            _diamonds(axes, [row for row in rows if row.state != state], classes, ours, theirs)
        axes.set_title(f"against {theirs}, {state} data\nright of 1 fastconv ({ours}) is faster", fontsize=9)
    panels[0].set_yticks(range(len(classes)), classes)
    panels[0].set_ylim(max(1, len(classes)) - 0.5, -0.5)
    # one contender may have passes that another has not
    legend = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if legend:
        figure.legend(list(legend.values()), list(legend), loc="outside upper center", ncols=len(legend), frameon=False)
    figure.savefig(path, format="png", dpi=110)


def write_pipelines(path: Path, wholes: Sequence[Whole], ours: str, against: Sequence[str]) -> None:
    """Write a PNG with a bar for each pipeline and contender: its time for all layers over ours."""
    several = len({whole.threads for whole in wholes}) > 1
    labels = [f"{whole.pipeline.name}{f', {whole.threads}x' * several}" for whole in wholes]
    ratios = {theirs: [sum_ratio(whole.rows, ours, theirs) for whole in wholes] for theirs in against}
    title = f"all layers of a pipeline: right of 1 fastconv ({ours}) is faster"
    _write_bars(path, labels, ratios, title, "the contender's time / ours")


def write_models(path: Path, timings: Sequence[Timing], names: Sequence[str]) -> None:
    """Write a PNG with a bar for each network and contender: eager's time over the contender's."""
    several = len({timing.threads for timing in timings}) > 1
    labels = [f"{timing.case}{f', {timing.threads}x' * several}" for timing in timings]
    ratios = {
        name: [model_report.ratio(timing, name, [model_report.REFERENCE]) for timing in timings]
        for name in names
        if name != model_report.REFERENCE
    }
    _write_bars(path, labels, ratios, "right of 1 faster than eager", "eager's time / the contender's")


def _write_bars(
    path: Path, labels: Sequence[str], ratios: Mapping[str, Sequence[float | None]], title: str, axis: str
) -> None:
    """A bar for each label and contender, beginning at 1; none where there is no ratio."""
    figures = require("matplotlib.figure", "bench", "--summary")
    figure = figures.Figure(figsize=(7, 1.6 + 0.25 * len(labels) * len(ratios)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(1, len(ratios))
    for number, (name, of_name) in enumerate(ratios.items()):
        found = {line: ratio for line, ratio in enumerate(of_name) if ratio}
        middles = [line + height * (number - (len(ratios) - 1) / 2) for line in found]
        axes.barh(middles, [ratio - 1 for ratio in found.values()], height=height, left=1, label=name, zorder=2)
    _scale(axes, axis)
    axes.grid(axis="x", color="#dddddd", zorder=0)
    axes.set_title(title, fontsize=9)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    axes.legend(frameon=False)
    figure.savefig(path, format="png", dpi=110)


def _by_class(
    rows: Sequence[Row], classes: Sequence[str], ours: str, theirs: str, which: str
) -> tuple[list[float], list[float]]:
    """Where the classes' bars of a pass lie, and the geometric means of the ratios, without classes that have none."""
    found = {
        line + _shift(which): mean
        for line, name in enumerate(classes)
        if (mean := class_mean([row for row in rows if row.problem.kind == name], ours, theirs, which))
    }
    return list(found), list(found.values())


def _shift(which: str) -> float:
    """How far below the middle of its class the bar of a pass lies."""
    return 0.26 * (PASSES.index(which) - 1)


def _diamonds(axes: Any, rows: Sequence[Row], classes: Sequence[str], ours: str, theirs: str) -> None:
    """The means of hot data."""
    style = {"color": "white", "markeredgecolor": "black", "markersize": 5, "zorder": 4}
    label: str | None = "hot data"
    for which in PASSES:
        heights, means = _by_class(rows, classes, ours, theirs, which)
        if means:
            axes.plot(means, heights, "D", label=label, **style)
            label = None  # one entry in the legend is enough


def _means(axes: Any, rows: Sequence[Row], classes: Sequence[str], ours: str, theirs: str) -> None:
    """The panel of one contender: bars start at 1, where both take as long."""
    for which in PASSES:
        style = {"color": _COLOURS[which], "alpha": 0.75, "label": _TITLES[which]}
        compared = [row for row in rows if row.which == which and row.ratios(ours, theirs)]
        if not compared:
            continue
        heights, means = _by_class(rows, classes, ours, theirs, which)
        axes.barh(heights, [mean - 1 for mean in means], height=0.24, left=1, zorder=2, **style)
        heights = [classes.index(row.problem.kind) + _shift(which) for row in compared]
        medians = [statistics.median(row.ratios(ours, theirs)) for row in compared]
        axes.plot(medians, heights, "o", color="black", markersize=2.5, zorder=3)
    _scale(axes, f"{theirs}'s time / ours")
    axes.grid(axis="x", color="#dddddd", zorder=0)


def _scale(axes: Any, label: str) -> None:
    """A logarithmic axis of ratios, with a line at 1."""
    ticker = require("matplotlib.ticker", "bench", "the picture")
    axes.axvline(1, color="black", linewidth=1, zorder=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())  # else minor labels overlap the major ones
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(label)


def _line(row: Row) -> _Line:
    return str(row.problem), row.threads, row.dtype, row.state


def _lines(rows: Sequence[Row]) -> dict[_Line, tuple[str, bool]]:
    """The lines of the picture by problem, threads, dtype and state, in the order of the classes: a label, and whether
    the line is the first of its class, whose name it then shows."""
    order = list(CLASSES)
    found = dict.fromkeys((order.index(row.problem.kind), _line(row)) for row in rows)
    keys = sorted(found, key=lambda key: (key[0], key[1][1:]))
    several = len({line[1:] for _, line in keys}) > 1
    lines = {}
    heading = None
    for index, line in keys:
        is_first = index != heading
        heading = index
        problem, threads, dtype, state = line
        label = f"{problem}, {threads}x {dtype} {state}" if several else problem
        lines[line] = (f"{order[index].upper()}   {label}" if is_first else label, is_first)
    return lines


def _place(row: Row, lines: Mapping[_Line, Any]) -> float:
    """The vertical position of a row's dot: its line, with each pass a little below the one before."""
    return list(lines).index(_line(row)) + 0.22 * (PASSES.index(row.which) - 1)


def _ratios(axes: Any, rows: Sequence[Row], lines: Mapping[_Line, Any], ours: str, theirs: str) -> None:
    for which in PASSES:
        found = [(row, row.ratios(ours, theirs)) for row in rows if row.which == which]
        shown = [(statistics.median(ratios), min(ratios), max(ratios), row) for row, ratios in found if ratios]
        if not shown:
            continue
        middles, lows, highs, members = zip(*shown, strict=True)
        heights = [_place(row, lines) for row in members]
        axes.hlines(heights, lows, highs, color=_COLOURS[which], linewidth=1, alpha=0.6, zorder=2)
        axes.plot(middles, heights, "o", color=_COLOURS[which], markersize=4, zorder=3)
    _scale(axes, f"{theirs}'s time / ours")
    axes.set_title(f"{ours} against {theirs}\nright of 1 we are faster", fontsize=10)


def _shares(
    axes: Any,
    rows: Sequence[Row],
    lines: Mapping[_Line, Any],
    ours: str,
    peaks: Mapping[tuple[int, str], float | None],
) -> None:
    """Share of the measured multiply-add peak; GFLOP/s where the peak could not be measured."""
    has_peak = all(peaks.values())
    for which in PASSES:
        members = [row for row in rows if row.which == which and ours in row.times]
        values = []
        for row in members:
            seconds = row.seconds(ours)
            assert seconds
            rate = row.flops / seconds
            peak = peaks[row.threads, row.dtype]
            values.append(100 * rate / peak if has_peak and peak else rate / 1e9)
        axes.plot(
            values, [_place(row, lines) for row in members], "o", color=_COLOURS[which], markersize=4, label=which
        )
    axes.set_xlim(left=0)
    axes.set_xlabel("% of peak" if has_peak else "GFLOP/s")
    axes.set_title(f"{ours}: achieved\n" + ("share of the measured peak" if has_peak else "rate"), fontsize=10)
