"""The command line, as a person calls it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import fastconv as fc
from fastconv.choice import backends
from fastconv.choice.algorithms import ALGORITHMS
from fastconv.choice.backends import backend_reasons
from fastconv.cli import COMMANDS, main
from fastconv.ground.extras import require


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
        assert "numba: 25 functions are ready after" in printed
        main(["info"])
        assert re.search(r"numba +.*numba-.*, 25 functions, \d+\.\d MiB", capsys.readouterr().out)


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
    ],
)
def test_an_error_is_a_line_on_standard_error(capsys, arguments, message):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


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
