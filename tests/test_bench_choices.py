"""bench/choices.py: it finds where `auto` is not the best, and reports that."""

from __future__ import annotations

import importlib.util
import math
import pathlib
import sys
import time

import pytest

from fastconv.planner import registry

SCRIPT = pathlib.Path(__file__).parent.parent / "bench" / "choices.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="needs the sources")


@pytest.fixture
def choices(monkeypatch):
    """The program, without the algorithms that fastconv has beside the direct one."""
    for name, kernel in list(registry.KERNELS.items()):
        if kernel.algorithm != "direct":
            monkeypatch.delitem(registry.KERNELS, name)
    spec = importlib.util.spec_from_file_location("choices", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "choices", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lines(choices, capsys, tmp_path):
    """A function that runs the program for shapes, and returns what it prints."""

    def printed(shapes, *arguments):
        path = tmp_path / "shapes.txt"
        path.write_text(shapes)
        choices.main(["--shapes", str(path), "--seconds", "0", "--backend", "cython", *arguments])
        return capsys.readouterr().out.splitlines()

    return printed


def slow(factor):
    """A kernel for one channel that does nothing for a while, at a predicted cost of so many times direct's."""

    def prepare(engine, request, proposal, make_count):
        return lambda *arrays: time.sleep(0.002)

    return registry.Kernel(
        "slow", ("small",), lambda request: None if request.geometry.large_channels == 1 else "channels",
        lambda request: registry.Proposal(0, factor * registry.choose(request, "direct").proposal.cost),
        algorithm="fake", prepare=prepare,
        workspace=lambda *_: 0,
    )  # fmt: skip


SHAPES = "conv2d 1,1,9,9 1,1,2,2\nconv2d 1,2,9,9 2,2,2,2\n"


def test_a_wrong_choice_is_reported(choices, lines, monkeypatch):
    monkeypatch.setitem(registry.KERNELS, "slow", slow(1e-3))
    monkeypatch.setattr(choices, "FAR", math.inf)
    monkeypatch.setattr(choices.time, "thread_time", time.perf_counter)  # to sleep takes no time of a processor
    title, share, worst, _, *table = lines(SHAPES, "--passes", "forward", "weight", "--threads", "1")
    assert title == "4 rows, 1 with a choice"
    assert share == "within 5% of the best: 0.0% of those with a choice, 75.0% of all"
    assert worst.endswith("off, conv2d 1,1,9,9 1,1,2,2 (forward)")
    header, _, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    assert tuple(header) == choices.TITLES
    assert row[:4] == ["conv2d 1,1,9,9 1,1,2,2", "forward", "fake", "direct"]
    assert int(row[4].rstrip("%")) > 100


def test_a_right_choice_is_not(lines, monkeypatch):
    monkeypatch.setitem(registry.KERNELS, "slow", slow(2))
    found = lines(SHAPES, "--passes", "forward", "--verbose")
    assert found[0].startswith("| conv2d 1,1,9,9 1,1,2,2 | forward | direct | direct | 0% |")
    assert found[1] == "2 rows, 1 with a choice"
    assert found[2] == "within 5% of the best: 100.0% of those with a choice, 100.0% of all"
    assert len(found) == 4


def test_each_kernel_competes(choices, lines):
    """Also those within an algorithm; whichever is quicker."""
    found = lines("conv2d 1,2,9,9 2,2,2,2\n", "--passes", "weight", "--each", "kernel", "--verbose")
    assert found[0].split(" | ")[2].startswith("weight_grad_")
    assert "1 rows, 1 with a choice" in found


def test_without_a_choice(lines):
    assert lines("conv2d 1,2,9,9 2,2,2,2\n") == ["3 rows, 0 with a choice"]
