"""The command line, as a person calls it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import fastconv as fc
from fastconv.cli import COMMANDS, main
from fastconv.dispatch import backends
from fastconv.dispatch.algorithms import ALGORITHMS
from fastconv.dispatch.backends import backend_reasons
from fastconv.kernels.drivers import FLOAT32_ONLY, PASSES
from fastconv.problem.extras import require


def test_info_names_every_engine_and_why_not(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    for name, reason in backend_reasons().items():
        assert f"{name:<14} {'runs' if reason is None else f'no: {reason}'}" in printed
    for name in ALGORITHMS:
        assert name in printed
    assert fc.__version__ in printed
    assert np.__version__ in printed
    assert sys.version.split()[0] in printed


def test_warmup(capsys):
    """Everything is compiled, or taken from disk; info counts it."""
    pytest.importorskip("tqdm")
    assert main(["warmup"]) == 0
    printed = capsys.readouterr().out
    reasons = backend_reasons()
    for name, reason in reasons.items():
        assert f"{name}: passed over, {reason}" in printed if reason else f"{name}: " in printed
    if reasons["numba"] is None:
        functions = 2 * len(PASSES) - len(FLOAT32_ONLY) + 5
        assert f"numba: {functions} functions are ready after" in printed
        main(["info"])
        assert re.search(rf"numba +.*numba-.*, {functions} functions, \d+\.\d MiB", capsys.readouterr().out)


def test_info_without_the_compiled_part(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastconv._machine", None)
    assert main(["info"]) == 0
    assert "compiler       no: import of fastconv._machine halted" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name, reason in backend_reasons().items() if reason is None])
def test_instruction_sets_are_the_processors(name):
    """Of those that an engine finds, each is one that NumPy found too."""
    if not hasattr(backends.loaded(name), "instruction_sets"):
        return
    numpys = " ".join(
        np.show_config("dicts")["SIMD Extensions"].get("found", [])
        + np.show_config("dicts")["SIMD Extensions"]["baseline"]
    ).lower()
    marks = {"avx512": ("avx512", "x86_v4"), "avx2": ("avx2", "x86_v3"), "neon": ("neon", "asimd"), "baseline": ("",)}
    for found in backends.loaded(name).instruction_sets():
        assert any(mark in numpys for mark in marks[found]), (found, numpys)


def test_explain(capsys):
    assert main(["explain", "conv2d", "1,64,56,56", "64,64,3,3", "--padding", "same", "--stride", "2"]) == 0
    expected = fc.explain("conv2d", (1, 64, 56, 56), (64, 64, 3, 3), padding="same", stride=2)
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "conv3d", "1,1,2,2", "1,1,1,1"], "operation='conv3d'"),
        (["explain", "conv2d", "1,1,2,2", "1,2,1,1"], "input_shape has 1 channels"),
        (["explain", "conv2d", "1,1,2,2", "1,1,1,1", "--backend", "nunpy"], "did you mean 'numpy'"),
        (["explain", "conv2d", "1,1,2,2", "1,1,1,1", "--output-size", "3,3"], "output_size"),
        (["explain", "conv2d", "", "1,1,1,1"], "input_shape"),
        (["explain", "conv2d", "{[]: 1}", "1,1,1,1"], "input_shape"),
        (["explain", "conv2d", "(" * 5000, "1,1,1,1"], "input_shape"),
        (["explain", "conv2d", "9" * 6000, "1,1,1,1"], "input_shape"),
        (["explain", "conv2d", "1,1,2,2", "1if"], "weight_shape"),
        (["explain", "conv2d", "1,1,2,2", "a\nb\udcff"], r"'a\nb\udcff'"),
        (["explain", "conv2d", "1,1,2,2", "1,1,1,1", f"--padding={'-' * 20000}1"], "padding"),
        (["explain", "conv2d", "1,1,2,2", "1,1,1,1", "--padding", "None"], "padding"),
        (["explain", "conv2d", "1,1,2,2", "1,1,1,1", "--dtype", "1_0,4"], "dtype"),
        (["explain", "conv2d", "1,1,2,2", "1,1,1,1", "--dtype", "9" * 6000], "dtype"),
        (["explain", "conv2d", "1,1,2,2", "1,1,1,1", "--backend", "a\nb" * 5000], "backend"),
        (["explain", "a" * 5000, "1,1,2,2", "1,1,1,1"], "operation"),
        (["bench", "--threads", "²"], "--threads"),
        (["bench", "--threads", "9" * 5000], "--threads"),
        (["bench", "--dtype", "1_0,4"], "--dtype"),
        (["demo", "--output", "a" * 5000], "demo"),
    ],
)
def test_an_error_is_a_line_on_standard_error(capsys, arguments, message):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err[:-1].isprintable()


def test_help_names_every_command():
    result = subprocess.run([sys.executable, "-m", "fastconv", "--help"], capture_output=True, text=True, check=True)
    for name, summary in COMMANDS.items():
        assert name in result.stdout
        assert summary.split(",")[0] in result.stdout


def test_wrong_usage_is_status_2():
    with pytest.raises(SystemExit) as exit_:
        main(["nonsense"])
    assert exit_.value.code == 2


def test_a_missing_extra_says_which_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(fc.MissingExtraError, match=r'conv2d_matrix needs scipy.*pip install "fastconv\[scipy\]"'):
        fc.conv2d_matrix(np.ones((1, 1, 2, 2)), (3, 3))
    assert require("json", "none", "a test") is sys.modules["json"]


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is another error there")
@pytest.mark.parametrize("options", [[], ["-u"]])
def test_a_reader_that_ends_early_is_no_error(options):
    """As in `python -m fastconv info | true`, with and without Python's buffer: nothing is said of it."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, *options, "-m", "fastconv", "info"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


#: Values that no variable of ours can have, in every way that a value can be hard to print.
ODD = "/\u00e9\n\x1b\udcff" + "x" * 5000


@pytest.mark.parametrize("name", ["BACKEND", "ALGORITHM", "CACHE_DIR", "ISA", "NUM_THREADS", "FLUSH_DENORMAL"])
def test_odd_variables(monkeypatch, capsys, name):
    """The report shows them; the other commands, and those who use them, say which is wrong in one line."""
    monkeypatch.setenv(f"FASTCONV_{name}", ODD)
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert f"FASTCONV_{name}" in printed
    assert all(line.isprintable() for line in printed.splitlines())
    if main(["explain", "conv2d", "1,1,2,2", "1,1,1,1"]):
        error = capsys.readouterr().err
        assert f"FASTCONV_{name}" in error
        assert len(error) < 1000
        assert error[:-1].isprintable()


def test_what_cannot_be_encoded_is_printed_with_backslashes(monkeypatch):
    monkeypatch.setenv("FASTCONV_CACHE_DIR", "/\u00e9\udcff")
    for encoding, shown in (("ascii", r"\xe9\udcff"), ("utf-8", "\u00e9\\udcff")):
        output = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", output)
        assert main(["info"]) == 0
        assert f"FASTCONV_CACHE_DIR '/{shown}'" in output.buffer.getvalue().decode(encoding)
        assert output.errors == "strict"


def test_without_a_standard_output(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["info"]) == 1
    assert capsys.readouterr().err == "fastconv info: standard output is closed\n"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (OSError(28, "No space left on device", "a\nb"), 1, "No space left on device: 'a\\nb'\n"),
        (fc.UsageError("two\nlines"), 1, "fastconv explain: two\\nlines\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_command_raises(monkeypatch, capsys, error, status, said):
    def run(options):
        print("begun")
        raise error

    monkeypatch.setattr("fastconv.cli.explain.run", run)
    assert main(["explain", "conv2d", "1,1,2,2", "1,1,1,1"]) == status
    captured = capsys.readouterr()
    assert captured.out == "begun\n"
    assert captured.err.endswith(said)
    assert captured.err.count("\n") == bool(said)


def shell(redirections, *words, **variables):
    """`python -m fastconv` with what a shell writes behind a command: status and standard error."""
    command = ["sh", "-c", f'exec "$0" -m fastconv "$@" {redirections}', sys.executable, *words]
    environment = os.environ | variables
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    return done.returncode, done.stderr


EXPLAIN = ("explain", "conv2d", "1,1,2,2", "1,1,1,1", "--backend", "numpy")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix closes the streams")
@pytest.mark.parametrize("words", [("info",), EXPLAIN, ("--help",)], ids=lambda words: words[0])
def test_a_closed_output_is_told_of(words):
    status, said = shell(">&-", *words)
    assert (status, said.count("\n")) == (1, 1)
    assert "standard output is closed" in said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [EXPLAIN, ("explain", "--help")], ids=lambda words: words[-1])
def test_a_full_output_is_told_of(words, unbuffered):
    status, said = shell(">/dev/full", *words, PYTHONUNBUFFERED=unbuffered)
    assert (status, said.count("\n")) == (1, 1)
    assert "No space left on device" in said


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix closes the streams")
def test_other_streams_that_are_closed():
    """Messages go nowhere then; a file that is opened does not take the place of a stream."""
    assert shell("2>&-", *EXPLAIN) == (0, "")
    assert shell("2>&- <&-", "explain", "conv3d", "1", "1") == (1, "")
    assert shell("<&- >&- 2>&-", *EXPLAIN) == (1, "")
