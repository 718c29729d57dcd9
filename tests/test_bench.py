"""The benchmark's own checks, none of which looks at a clock: what is timed is right, everything runs end to end."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import pathlib
import platform
import subprocess
import sys
import time

import numpy as np
import pytest
from fake_contenders import SESSIONS, FakeWorker, Recording

import fastconv as fc
from fastconv.cli import main
from fastconv.cli.bench import (
    child,
    contenders,
    machine,
    memory,
    plot,
    problems,
    report,
    rounds,
    startup,
)
from fastconv.cli.bench.worker import ContenderError, Worker
from fastconv.dispatch.backends import backend_reasons

pytest.importorskip("cpuinfo")
pytest.importorskip("tqdm")
ROOT = pathlib.Path(__file__).parent.parent
FILES = problems.shape_files()
CONTENDERS = [name for name, reason in contenders.reasons().items() if reason is None]
LAYER = "conv2d 1,8,8,8 8,8,3,3 padding=1"


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_written_as_it_is_read(name):
    found = problems.read(name)
    assert found
    for problem in found:
        assert problems.parse(str(problem), "again") == [problem]


def test_the_files_are_those_of_the_folder():
    assert sorted(FILES) == sorted(path.stem for path in (ROOT / "bench" / "shapes").glob("*.txt"))
    text = (ROOT / "bench" / "README.md").read_text()
    for name in FILES:
        assert f"`{name}`" in text, f"bench/README.md does not tell of {name}"


def test_every_class_has_problems():
    kinds = {problem.kind for name in FILES for problem in problems.read(name)}
    assert kinds == set(problems.CLASSES)
    assert {problem.kind for problem in problems.read("quick")} == kinds


SMALL = sorted(
    {problem.reduced() for name in FILES for problem in problems.read(name)},
    key=str,
)


@pytest.mark.parametrize("which", problems.PASSES)
@pytest.mark.parametrize("name", CONTENDERS)
def test_every_problem_through_every_contender(name, which):
    """At reduced size, each result against the NumPy engine's in float64."""
    compared = 0
    for problem in SMALL:
        try:
            result = contenders.as_array(contenders.build(name, problem, which, "float32", 1)())
        except contenders.Declined:
            continue
        x, w, dy = (array.astype(np.float64) for array in problem.arrays("float32"))
        parameters = {**dict(problem.parameters), "backend": "numpy"}
        if which == "forward":
            expected = getattr(fc, problem.operation)(x, w, **parameters)
        else:
            sizes = (x.shape, w, dy) if which == "input" else (x, w.shape, dy)
            expected = getattr(fc.grad, f"{problem.operation}_{which}")(*sizes, **parameters)
        assert result.dtype == np.float32
        assert rounds.difference(expected.astype(np.float32), result, problem) is None, problem
        compared += 1
    if name in SESSIONS and which != "forward":
        assert compared == 0
    else:
        assert compared == len(SMALL)


def test_a_wrong_result_is_found():
    (problem,) = problems.parse(LAYER, "a test")
    result = contenders.build("numpy", problem, "forward", "float32", 1)()
    assert rounds.difference(result, result, problem) is None
    wrong = result.copy()
    wrong[0, 3, 4, 5] += 1e-3
    assert "off by 0.001" in rounds.difference(result, wrong, problem)
    wrong[0, 3, 4, 5] = np.nan
    assert rounds.difference(result, wrong, problem) is not None
    assert "instead of float32" in rounds.difference(result, result[:, :3], problem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv3d 1,1,2,2 1,1,1,1", "line 1: operation 'conv3d'.*conv2d"),
        ("conv2d 1,1,2,2", "operation, shape of input, shape of weight"),
        ("\nconv2d 1,1,2,2 1,1,1,x", r"line 2: '1,1,1,x' must be a number"),
        ("conv2d N,1,2,2 1,1,1,1", "must come before"),
        ("conv2d 1,1,2,2 1,1,1,1 strid=2", "did you mean 'stride'"),
        ("conv2d 1,1,2,2 1,2,1,1", "line 1: input has 1 channels"),
        ("conv2d 0,1,2,2 1,1,1,1", "line 1: '0,1,2,2' must be a shape"),
        ("conv2d -1,1,2,2 1,1,1,1", "line 1: '-1,1,2,2' must be a shape"),
        ("conv2d 1,1,2,2 1,1,1,1 output_size=2,2", "output_size=2,2' must be name=value: expected one of 'dilation'"),
        ("conv2d 1,1,2,2 1,1,1,1 stride=" + "9" * 5000, r"line 1: '9{99}\.\.\. must be a number"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(text, message):
    with pytest.raises(fc.ArgumentError, match=message):
        problems.parse(text, "a file")


def test_batches():
    found = problems.parse("N = 1 8  # two\nconv1d N,2,9 4,2,3 stride=2", "a file")
    assert [problem.input_shape for problem in found] == [(1, 2, 9), (8, 2, 9)]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """What `bench --quick` leaves and prints for two small layers, against the NumPy engine and who else is there."""
    folder = tmp_path_factory.mktemp("bench")
    words = ["bench", "--quick", "--problem", LAYER, "--problem", "conv_transpose2d 1,4,6,6 4,4,2,2 stride=2",
             "--json", str(folder / "out.json"), "--plot", str(folder / "out.png"),
             "--summary", str(folder / "summary.png")]  # fmt: skip
    status = main(words)
    return status, json.loads((folder / "out.json").read_text()), [folder / "out.png", folder / "summary.png"]


def test_quick_mode_end_to_end(quick):
    status, written, pictures = quick
    assert status == 0
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(written, json.loads((ROOT / "bench" / "result.schema.json").read_text()))
    assert len(written["rows"]) == 2 * len(problems.PASSES)
    competing = {written["ours"], *written["settings"]["against"]}
    assert competing == set(CONTENDERS)
    for row in written["rows"]:
        assert row["seconds"].keys() | row["declined"].keys() == competing
        assert min((len(times) for times in row["seconds"].values()), default=7) >= written["settings"]["rounds"]
    for picture in pictures:
        with pytest.importorskip("PIL.Image").open(picture) as image:
            assert image.width > 500
            assert image.height > 200


def rows_of(ratios, footprint=0):
    """Rows as if measured: of each problem, how many times longer they took than we did in each of two rounds."""
    return [
        rounds.Row(
            problem,
            "forward",
            1,
            "float32",
            footprint,
            times={"ours": [1.0, 2.0], "theirs": [ratio * 1.0, ratio * 2.0]},
        )
        for problem, ratio in ratios.items()
    ]


def test_the_table_is_geometric_means_with_the_least_row_named():
    small, large = problems.parse("conv2d 1,64,56,56 64,64,3,3\nconv2d 8,64,56,56 64,64,3,3", "a test")
    printed = report.table(rows_of({small: 0.5, large: 8.0}), "ours", "theirs")
    (line,) = [line for line in printed.splitlines() if line.startswith("3x3 stride 1")]
    assert line.split()[3:8] == ["2", "2.00", "0.50", "-", "-"]
    assert line.endswith(f"0.50 forward: {small}")


def test_low_means_and_rows_are_counted_and_named():
    """The least first."""
    lines = "conv2d 1,64,56,56 64,64,3,3", "conv2d 8,64,56,56 64,64,3,3", "conv2d 1,64,56,56 64,64,1,1"
    dense, batch, pointwise = (problems.parse(line, "a test")[0] for line in lines)
    printed = report.table(rows_of({dense: 0.9, batch: 0.5, pointwise: 1.25}), "ours", "theirs").splitlines()
    assert printed[-6:] == [
        "all passes 0.83; least mean of a class and pass 0.67 (3x3 stride 1, forward)",
        "1 of 2 means below 1.2",
        "    0.67 3x3 stride 1, forward",
        "2 of 3 rows below 0.95",
        f"    0.50 forward: {batch}",
        f"    0.90 forward: {dense}",
    ]
    printed = report.table(rows_of({dense: 1.2, batch: 1.3}), "ours", "theirs").splitlines()
    assert printed[-2:] == ["0 of 1 means below 1.2", "0 of 2 rows below 0.95"]
    (slow,) = rows_of({dense: 0.5})
    slow.times = {"ours": [1.0, 2.0], "theirs": [1.0, 0.5]}
    assert report.table([slow], "ours", "theirs").endswith(f"0.50 forward: {dense}, all rounds disturbed")


def test_cold_and_hot_rows_stand_in_tables_of_their_own(tmp_path):
    """And in one picture."""
    (problem,) = problems.parse("conv2d 1,64,56,56 64,64,3,3", "a test")
    rows = rows_of({problem: 2.0}) + rows_of({problem: 4.0}, footprint=2**20)
    printed = report.table(rows, "ours", "theirs")
    assert [line.split(",")[3] for line in printed.splitlines() if "time / ours" in line] == [
        " cold: geometric mean and least row",
        " hot: geometric mean and least row",
    ]
    means = [line.split()[3:6] for line in printed.splitlines() if line.startswith("3x3 stride 1")]
    assert means == [["1", "4.00", "4.00"], ["1", "2.00", "2.00"]]
    listed = report.listing(rows, "ours", ["theirs"])
    assert "1 thread, cold" in listed
    assert "1 thread, hot" in listed
    sizes = []
    for name, chosen in (("one.png", rows[:1]), ("both.png", rows)):
        plot.write_summary(tmp_path / name, chosen, "ours", ["theirs"])
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] != sizes[1]


def test_cold_data_are_read_at_the_rate_of_all_copies():
    (problem,) = problems.parse("conv2d 1,2,5,5 4,2,3,3 padding=1", "a test")
    size = 4 * (50 + 72 + 100)
    rates = {size: size, 100 * size: size / 10}
    hot, cold = (rounds.Row(problem, "forward", 1, "float32", footprint) for footprint in (0, 100 * size))
    assert hot.least(1e9, rates) == pytest.approx(1)
    assert cold.least(1e9, rates) == pytest.approx(10)


def test_the_least_time_is_of_multiply_adds_or_of_bytes():
    """Taps on the padding are not counted; bytes are those of the three arrays, at the rate of arrays as large."""
    (problem,) = problems.parse("conv2d 1,2,5,5 4,2,3,3 padding=1", "a test")
    assert problems.multiply_adds(problem.geometry) == 2 * 4 * 13 * 13
    (strided,) = problems.parse("conv_transpose2d 2,6,4,4 6,1,3,3 stride=2 padding=1 groups=3", "a test")
    assert problems.multiply_adds(strided.geometry) == 2 * 3 * 2 * 1 * 10 * 10
    row = rounds.Row(problem, "forward", 2, "float32", times={"theirs": [6.0, 6.0, 6.0]})
    size = 4 * (50 + 72 + 100)
    flops = 2 * 2 * 4 * 13 * 13
    assert row.least(flops / 3, {size // 2: size, size * 2: size}) == pytest.approx(3)
    assert row.least(flops, {size // 2: size / 3, size: size / 2, size * 2: size}) == pytest.approx(2)
    printed = report.limits([row], "theirs", {(2, "float32"): flops / 3}, {2: {size: size}})
    assert printed.splitlines()[-1].split()[-4:] == ["1", "2.00", "-", "-"]
    assert report.limits([row], "theirs", {(2, "float32"): None}, {2: {}}) == ""


def test_the_listing_shows_median_and_range():
    (problem,) = problems.parse(LAYER, "a test")
    times = {"ours": [1.0, 1.0, 1.0], "theirs": [1.9, 2.1, 2.0]}
    row = rounds.Row(problem, "input", 2, "float32", times=times)
    line = report.listing([row], "ours", ["theirs", "nobody"]).splitlines()[1]
    assert line.split()[:4] == ["1000.000", "2.00", "[1.90,", "2.10]"]
    assert line.endswith(f"input    {LAYER}, 2 threads, hot")


@pytest.fixture
def worker():
    worker = Worker("numpy", 1, "float32")
    yield worker
    worker.close()


def test_a_stopped_worker_uses_no_processor(worker):
    """Between its turns nothing of it runs: its clock of processor time stands still."""
    status = pathlib.Path(f"/proc/{worker._process.pid}/stat")
    if not status.exists():
        pytest.skip("this system does not tell another process's state")
    (problem,) = problems.parse(LAYER, "a test")
    assert worker.prepare(problem, "forward").result.shape == (1, 8, 8, 8)
    assert worker.turn(problem, "forward", 0.01) > 0
    deadline = time.monotonic() + 10  # the signal arrives when the system has a moment
    while (state := status.read_text().rpartition(")")[2].split()[0]) != "T" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state == "T"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_a_result_takes_the_memory_of_an_earlier_one(worker):
    """Else the system would be asked for each page anew in some calls, and in others not."""
    (problem,) = problems.parse("conv2d 1,1,1000,1000 4,1,1,1", "a test")
    pages = np.prod(worker.prepare(problem, "forward").result.shape) * 4 // 4096
    faults = []
    for _ in range(2):
        worker.turn(problem, "forward", 0.02)
        stat = pathlib.Path(f"/proc/{worker._process.pid}/stat").read_text()
        faults.append(int(stat.rpartition(")")[2].split()[7]))
    assert faults[1] - faults[0] < pages / 4  # at least four calls


def test_a_worker_that_dies_is_told_of_and_starts_again(worker):
    (problem,) = problems.parse(LAYER, "a test")
    worker.prepare(problem, "forward")
    worker._process.kill()
    worker._process.join()
    with pytest.raises(ContenderError, match="died, exit status -9"):
        worker.turn(problem, "forward", 0.01)
    assert worker.turn(problem, "forward", 0.01) > 0


def test_a_worker_that_died_between_batches_is_no_error(worker):
    worker._process.kill()
    worker._process.join()
    (row,) = measured([worker], ["forward"], 1)
    assert row.times["numpy"]


def test_a_contender_that_fails_loses_its_row_alone(monkeypatch):
    class Failing(FakeWorker):
        def prepare(self, problem, which):
            raise ContenderError("no memory")

    monkeypatch.setattr(rounds, "_MORE", 0)
    workers = [FakeWorker("a", [1.0]), Failing("b", [])]
    (row,) = measured(workers, ["forward"], 1)
    assert row.times == {"a": [1.0]}
    assert row.failed == {"b": "no memory"}
    assert report.problems_found([row]) == [f"FAILED   b on forward of {LAYER}: no memory"]


@pytest.mark.parametrize("which", problems.PASSES)
@pytest.mark.parametrize("name", CONTENDERS)
def test_output_size_is_everybodys(name, which):
    line = "conv_transpose2d 1,4,8,8 4,8,3,3 stride=2 padding=1 output_size=16,15"
    (problem,) = problems.parse(line, "a test")
    expected = contenders.build("numpy", problem, which, "float32", 1)()
    try:
        result = contenders.as_array(contenders.build(name, problem, which, "float32", 1)())
    except contenders.Declined:
        assert name in SESSIONS
        return
    assert rounds.difference(expected, result, problem) is None


def test_an_interrupt_reports_what_was_measured(capsys, monkeypatch):
    """In the second round: one pass has had two, the other one, and a last problem none."""
    real = rounds._Match.play

    def interrupted(match, seconds):
        if match.row.which == "weight" and match.row.times:
            raise KeyboardInterrupt
        real(match, seconds)

    monkeypatch.setattr(rounds._Match, "play", interrupted)
    monkeypatch.setattr(rounds, "_BATCH", 2**14)
    words = ["bench", "--quick", "--problem", LAYER, "--problem", "conv1d 1,1,5000 1,1,3", "--against", "numpy"]
    assert main([*words, "--passes", "forward,weight"]) == 130
    printed = capsys.readouterr().out
    assert f"forward  {LAYER}" in printed
    assert f"weight   {LAYER}" in printed
    assert "conv1d" not in printed


def test_batches_of_rows_fit_in_memory(monkeypatch):
    small, large = problems.parse("conv1d 1,1,100 1,1,1\nconv1d 1,1,1000 1,1,1", "a test")
    monkeypatch.setattr(rounds, "_BATCH", 4 * 2 * 2 * 250)
    cases = [(small, "forward"), (small, "weight"), (small, "input"), (large, "forward"), (small, "forward")]
    assert list(rounds.parted(cases, "float32")) == [cases[:2], cases[2:3], cases[3:4], cases[4:]]


def test_arrays_lie_alike_in_every_process():
    (problem,) = problems.parse(LAYER, "a test")
    for dtype in ("float32", "float64"):
        arrays = problem.arrays(dtype)
        assert [array.ctypes.data % 64 for array in arrays] == [16, 16, 16]
        assert all(array.flags.c_contiguous and array.dtype == dtype for array in arrays)


def row_of(**times):
    (problem,) = problems.parse(LAYER, "a test")
    return rounds.Row(problem, "forward", 1, "float32", times=times)


def test_ratios_are_formed_round_by_round():
    row = row_of(a=[1.0, 1.1, 1.05], b=[2.1, 2.2, 2.0])
    assert row.ratios("a", "b") == [2.1, 2.2 / 1.1, 2.0 / 1.05]
    assert row.ratios("a", "nobody") == []


def test_disturbed_rounds_do_not_count_where_there_are_others():
    """Of the two that are compared: in the third round it is c that is slow, in the last there is nobody who is not."""
    row = row_of(a=[1.0, 1.0, 1.0, 9.0], b=[4.0, 2.0, 2.0, 9.0], c=[3.0, 3.0, 5.0, 9.0])
    assert row.ratios("a", "b") == [2.0, 2.0]
    assert row.ratios("a", "c") == [3.0, 3.0]
    assert (row.seconds("a"), row.seconds("b"), row.seconds("c")) == (1.0, 2.0, 3.0)
    assert row.undisturbed("a", "b", "c") == [False, True, False, False]
    alone = row_of(a=[1.0, 2.0], b=[6.0, 3.0])
    assert alone.ratios("a", "b") == [3.0]
    (line,) = report.disturbances([row, alone])
    assert "5 of 6 rounds" in line
    assert "in 1 rows" in line


def test_json_on_standard_output_and_a_choice_of_passes(capsys):
    assert (
        main(["bench", "--quick", "--problem", LAYER, "--against", "numpy", "--passes", "weight", "--json", "-"]) == 0
    )
    written = json.loads(capsys.readouterr().out)
    assert [row["pass"] for row in written["rows"]] == ["weight"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "tensorflow"], "--against tensorflow"),
        (["--passes", "backward"], "--passes backward"),
        (["--shapes", "resnet5"], "did you mean 'resnet50'"),
        (["--problem", "conv2d 1,1"], "--problem 'conv2d 1,1', line 1"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--threads", "two"], "--threads"),
        (["--dtype", "int32"], "--dtype"),
        (["--plot", "/nowhere/at/all.png"], "--plot /nowhere/at/all.png cannot be written"),
        (["--summary", "out.png", "--backend", "numpy", "--against", "numpy"], "--summary compares with contenders"),
        (["--json", "."], "--json . cannot be written"),
        (["--json", "-", "--memory"], "--json goes with times"),
        (["--cold", "--memory"], "--cold goes with times"),
        (["--cold", "0"], "--cold must be a number of MB"),
        (["--cold", "much"], "--cold must be a number of MB"),
        (["--hot"], "--hot goes with --cold"),
        (["--pipeline", "resnet5"], "did you mean 'resnet50'"),
        (["--pipeline", "alexnet"], "expected one of 'convnext_tiny', 'dcgan', 'efficientnetb0', 'mobilenetv2'"),
        (["--pipeline", "dcgan", "--cold"], "--cold goes with single layers"),
        (["--pipeline", "dcgan", "--passes", "weight"], "--passes goes with single layers"),
        (["--pipeline", "dcgan", "--startup"], "--pipeline goes with times"),
        (["--problem", ""], "has no problem in it"),
        (["--backend", "nunpy"], "did you mean 'numpy'"),
    ],
)
def test_wrong_options_are_told_before_any_work(capsys, words, message):
    assert main(["bench", *words]) == 1
    assert message in capsys.readouterr().err


def test_a_wrong_option_leaves_no_file_behind(tmp_path, capsys):
    target = tmp_path / "out.png"
    assert main(["bench", "--plot", str(target), "--against", "nobody"]) == 1
    assert "--against nobody" in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize("name", [name for name, reason in backend_reasons().items() if reason])
def test_a_contender_that_cannot_run_is_an_error(capsys, name):
    assert main(["bench", "--against", name]) == 1
    assert f"--against {name} cannot run here" in capsys.readouterr().err


def test_the_machine_is_measured():
    """By a compiled kernel, whose operations and bytes are counted; without it, nothing is guessed."""
    compiled = pytest.importorskip("fastconv._machine", exc_type=ImportError)
    assert compiled.multiply_adds(4, 1000) == 2 * compiled.multiply_adds(8, 1000) > 0
    assert machine.fma_peak("float32", 2) > 1e6
    b, c = np.arange(100.0), np.ones(100)
    a = np.zeros(100)
    assert compiled.triad(a, b, c) == 3 * a.nbytes
    np.testing.assert_array_equal(a, b + 3)
    assert compiled.read(np.arange(192.0), 5) == (5 * 192 * 8, 5 * 191 * 96)
    with pytest.raises(ValueError, match="multiple of 64"):
        compiled.read(b, 1)
    assert machine.memory_bandwidth(2) > 1e6
    rates = machine.bandwidths(2)
    assert len(rates) > 5
    assert min(rates.values()) > 1e6


def test_without_the_compiled_part_nothing_is_guessed(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastconv._machine", None)
    assert machine.fma_peak("float32", 1) is None
    assert machine.memory_bandwidth(1) is None
    assert machine.bandwidths(1) == {}


def test_of_rates_measured_twice_the_higher_count():
    """Not a whole measurement: each of its rates may have been disturbed."""
    one, other = machine.Rates(5.0, 1.0, {1: 3.0, 2: 1.0}), machine.Rates(4.0, 2.0, {1: 2.0, 2: 4.0})
    assert one.or_higher(other) == machine.Rates(5.0, 2.0, {1: 3.0, 2: 4.0})
    nothing = machine.Rates(None, None, {})
    assert nothing.or_higher(nothing) == nothing


def test_more_threads_than_a_small_array_has_parts(monkeypatch):
    pytest.importorskip("fastconv._machine", exc_type=ImportError)
    monkeypatch.setattr(machine, "_FOOTPRINTS", machine._FOOTPRINTS[:4])
    rates = machine.bandwidths(100)
    assert rates
    assert min(rates) > 2**15


def test_a_pair_knows_how_far_processors_are_apart(monkeypatch):
    """By a number in memory that two threads count up by turns."""
    compiled = pytest.importorskip("fastconv._machine", exc_type=ImportError)
    numbers = np.zeros(1, np.longlong)
    assert compiled.take_turns(numbers, 0, 1)
    assert not compiled.take_turns(numbers, 0, 1)  # nobody answers
    with contextlib.closing(machine.Pair()) as pair:
        if (taken := pair.seconds()) is None:
            pytest.skip("one processor, or threads cannot be bound")
        assert 1e-9 < taken < 1e-3
        measured = iter([3e-7, 2e-7, 9e-8, 1e-7])
        monkeypatch.setattr(pair, "_measured", lambda _: next(measured))
        pair._least = math.inf
        assert pair.seconds() == 2e-7
        assert pair.is_near(3e-7)
        assert pair.seconds() == 9e-8
        assert not pair.is_near(2e-7)
        assert pair.is_near(None)


def test_rows_measured_far_apart_get_more_rounds(monkeypatch):
    """The second round's processors are apart; more come when they are near again."""

    class FakePair(machine.Pair):
        def __init__(self):
            self._least, self._trips = 1.0, iter([1.0, 9.0, 9.0, 1.0, 1.0, 1.0, 1.0])

        def seconds(self):
            return next(self._trips)

    monkeypatch.setattr(rounds, "_MORE", 1e9)
    monkeypatch.setattr(rounds, "_PAUSE", 0)
    (problem,) = problems.parse(LAYER, "a test")
    batch = rounds.Batch([FakeWorker("a", [1.0] * 4)], 2, "float32", FakePair())
    batch.prepare(problem, "forward")
    batch.measure(2, 0.01, lambda row: None)
    (row,) = batch.measured()
    assert row.trips == [1.0, 9.0, 1.0, 1.0]


def measured(workers, passes, number):
    """Rows of `LAYER` after so many rounds."""
    (problem,) = problems.parse(LAYER, "a test")
    batch = rounds.Batch(workers, 1, "float32")
    for which in passes:
        batch.prepare(problem, which)
    batch.measure(number, 0.01, lambda row: None)
    return batch.measured()


@pytest.mark.parametrize("more", [1e9, 0])
def test_rows_with_few_undisturbed_rounds_get_more(monkeypatch, more):
    """After all others, until they have three or until time is over; the one with the fewest first."""
    monkeypatch.setattr(rounds, "_MORE", more)
    # two rounds of both rows, then more: of the first row, of both, of the second
    times = [1.0, 1.0, 9.0, 1.0, *[1.0, 1.0], 1.0]
    workers = [FakeWorker("a", times), FakeWorker("b", times)]
    rows = measured(workers, ["forward", "weight"], 2)
    assert [row.times["a"] for row in rows] == (
        [[1.0, 9.0, 1.0, 1.0], [1.0, 1.0, 1.0]] if more else [[1.0, 9.0], [1.0, 1.0]]
    )


@pytest.mark.skipif(not memory.is_supported(), reason="this system does not tell a process's high-water mark")
def test_memory_finds_what_a_call_takes():
    """A call that allocates 400 MB and lets them go, beside a result of 80 MB."""

    def call():
        np.ones(50_000_000)
        return np.ones(10_000_000)

    assert 300e6 < memory.peak_of(call) < 450e6
    (problem,) = problems.parse("conv2d 2,4,10,10 8,4,3,3", "a test")
    assert memory.im2col_bytes(problem, 4) == 4 * 2 * (4 * 9) * 64


@pytest.mark.slow  # each contender starts in a process of its own
@pytest.mark.skipif(not memory.is_supported(), reason="this system does not tell a process's high-water mark")
def test_memory_end_to_end(capsys):
    assert main(["bench", "--memory", "--problem", LAYER, "--passes", "forward"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in CONTENDERS)
    assert "im2col" in printed
    assert f"forward  {LAYER}" in printed


@pytest.mark.slow  # it compiles with an empty cache
def test_startup_end_to_end(capsys, monkeypatch):
    monkeypatch.setattr(startup, "_REPEATS", 1)
    assert main(["bench", "--startup", "--against", "numpy"]) == 0
    printed = capsys.readouterr().out
    assert "first call, cold" in printed
    assert "numpy" in printed
    assert startup.installed_bytes("fastconv")["numpy"] > 1e6


def test_the_pytest_benchmark_suite(tmp_path):
    """Grouped by problem and pass, contenders compared, and all that a figure depends on in extra_info."""
    pytest.importorskip("pytest_benchmark")
    (tmp_path / "one.txt").write_text(LAYER)
    command = [sys.executable, "-m", "pytest", "bench", "--shapes", str(tmp_path / "one.txt"), "--benchmark-only", "-q",
               "--benchmark-max-time=0.01", "--benchmark-min-rounds=1", f"--benchmark-json={tmp_path / 'out.json'}",
               "-p", "no:cacheprovider"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    assert {entry["group"] for entry in found} == {f"{which} {LAYER}" for which in problems.PASSES}
    assert {entry["extra_info"]["contender"] for entry in found} == set(CONTENDERS)
    for entry in found:
        known = {"GFLOP/s", "threads", "processor", "versions", "peak"} | (
            {"share of peak"} if entry["extra_info"]["peak"] else set()
        )
        assert known <= entry["extra_info"].keys()
        assert ("workspace bytes" in entry["extra_info"]) == (entry["extra_info"]["contender"] in backend_reasons())


COPIED = problems.parse(
    "conv2d 1,8,8,8 8,8,3,3 padding=1\nconv_transpose2d 2,4,6,6 4,6,2,2 stride=2\nconv1d 1,2,50 3,2,3", "a test"
)


@pytest.mark.parametrize("which", problems.PASSES)
@pytest.mark.parametrize("problem", COPIED, ids=str)
def test_copies_of_what_a_pass_reads_take_the_bytes_asked_for(problem, which):
    """No byte of them is another copy's, and each holds the numbers of the first."""
    library = Recording()
    calls = contenders.rotation(library, problem, which, "float64", 50_000)
    for call in calls:
        call()
    arrays = [array for read in library.read for array in read]
    assert sum(array.nbytes for array in arrays) >= 50_000
    spans = sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for read in library.read:
        for index, array in zip(contenders.READS[which], read, strict=True):
            np.testing.assert_array_equal(array, problem.arrays("float64")[index])


def test_every_contender_has_as_many_copies():
    """Also of an array that is larger than all copies are to be together."""
    problem = COPIED[0]
    expected = contenders.copies(problem, "forward", "float32", 20_000)
    assert expected == 5
    for name in CONTENDERS:
        assert (
            len(contenders.rotation(contenders.contender(name, 1), problem, "forward", "float32", 20_000)) == expected
        )
    assert contenders.copies(problem, "forward", "float32", 100) == 2
    assert contenders.copies(problem, "forward", "float32", 0) == 1


def test_a_contender_has_at_most_so_many_sessions():
    """And then goes round them with all inputs."""
    library = Recording(sessions=3)
    calls = contenders.rotation(library, COPIED[0], "forward", "float32", 40_000)
    assert len(library.read) == 2 * library.made  # each is called twice, to be ready
    library.read.clear()
    for call in calls:
        call()
    assert library.made == 3
    assert len({id(x) for x, _ in library.read}) == len(calls) == 10
    weights = [id(weight) for _, weight in library.read]
    assert all(one != other for one, other in itertools.pairwise(weights))


@pytest.mark.parametrize("cold", [0, 20_000])
def test_a_cold_call_reads_other_arrays_than_the_one_before(monkeypatch, cold):
    """In a turn, and from one turn to the next; a hot one reads the same."""
    library = Recording()
    monkeypatch.setattr(contenders, "contender", lambda name, threads, channels_last: library)
    monkeypatch.setattr(child, "_bind_threads", lambda threads: None)
    one = child.Child("any", "float32", 1, cold)
    one.prepare(COPIED[0], "forward")
    assert one.turn(COPIED[0], "forward", 1e-5) > 0
    assert one.turn(COPIED[0], "forward", 1e-5) > 0
    assert len(library.read) > 8
    for before, after in zip(library.read, library.read[1:], strict=False):
        for first, second in zip(before, after, strict=True):
            assert (first is second) == (not cold)


def test_a_cold_result_lives_until_the_next_one_is_there():
    """So that it is not written where the one before was; a hot one is dropped at once."""
    living = []

    class Result:
        count = 0

        def __init__(self):
            Result.count += 1
            living.append(Result.count)

        def __del__(self):
            Result.count -= 1

    for is_cold, most in ((False, 1), (True, 2)):
        living.clear()
        child._seconds(iter([Result] * 10_000), 0, 4, is_cold)
        assert living == [1, most, most, most]


def test_cold_end_to_end(capsys):
    """With the other options."""
    line = "conv2d 1,64,32,32 64,64,1,1"
    words = ["bench", "--quick", "--cold", "2", "--hot", "--problem", line, "--against", "numpy", "--threads", "1"]
    assert main([*words, "--passes", "forward", "--dtype", "float64", "--json", "-"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["settings"]["cold"] == [2 * 2**20, 0]
    assert [row["footprint"] for row in written["rows"]] == [2 * 2**20, 0]
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(written, json.loads((ROOT / "bench" / "result.schema.json").read_text()))
