"""bench/accuracy.py: algorithms are found in the registry, and their errors are those that they have."""

from __future__ import annotations

import importlib.util
import math
import pathlib

import numpy as np
import pytest
from registry import empty_caches

from fastconv.backends.contract import is_tiled
from fastconv.dispatch import backends
from fastconv.planner import registry

SCRIPT = pathlib.Path(__file__).parent.parent / "bench" / "accuracy.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="needs the sources")


@pytest.fixture
def accuracy(monkeypatch):
    """The program, with a small layer and a smaller one."""
    empty_caches(monkeypatch)
    spec = importlib.util.spec_from_file_location("accuracy", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LAYERS", [module.Layer(taps, 32, 16, (9, 11)) for taps in ((3, 3), (5, 5))])
    return module


def table(accuracy, capsys, *arguments):
    """The rows by layer and algorithm, each the cells behind these two, and the lines below the table."""
    accuracy.main([*arguments])
    printed, *below = capsys.readouterr().out.strip().split("\n\n")
    title, rule, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines())
    assert {len(line) for line in lines} == {len(title), len(rule)}
    return {(layer, algorithm): cells for layer, algorithm, *cells in lines}, below


def fake(name, error, engine):
    """A kernel for maps and 3x3 taps that adds `error`, relative to the result, to what the direct one computes."""

    def applies(request):
        return None if request.geometry.axes[0].taps == 3 else "the kernel is not 3x3"

    def propose(request):
        return registry.choose(request, "direct").proposal

    def prepare(engine, request, proposal, make_count):
        run = registry.choose(request, "direct").prepared(engine)

        def fails(first, second, bias, out):
            run(first, second, bias, out)
            out *= 1 + error

        return fails

    return registry.Kernel(
        name, registry.MAPS, applies, propose, tiled=is_tiled(engine), algorithm="fake", variant=name, prepare=prepare
    )


def test_direct(accuracy, capsys):
    rows, below = table(accuracy, capsys, "--passes", "forward", "input", "weight")
    assert not any(line.startswith("direct declines") for line in below)
    for layer in accuracy.LAYERS:
        cells = rows[str(layer), "direct"]
        assert cells[1::3] == ["1.00"] * 3
        assert all(0 < float(cell) < 1e-6 for cell in cells[::3])
        assert all(0 < float(cell) < 1 for cell in cells[2::3])


def test_a_new_algorithm_has_rows_by_existing(accuracy, capsys, monkeypatch):
    """One for each of its arithmetics, of the passes that it has; what it declines is told below."""
    engine = backends.pick(None, np.dtype("f"))
    for name, error in (("coarse", 1e-3), ("coarser", 2e-3)):
        monkeypatch.setitem(registry.KERNELS, name, fake(name, error, engine))
    rows, below = table(accuracy, capsys, "--passes", "forward", "weight")
    square, larger = accuracy.LAYERS
    for name, error in (("coarse", "1.0e-03"), ("coarser", "2.0e-03")):
        cells = rows[str(square), f"fake {name}"]
        assert cells[0] == error
        assert float(cells[1]) == pytest.approx(float(error) / float(rows[str(square), "direct"][0]), rel=0.05)
        assert cells[3:] == ["-"] * 3
        assert (str(larger), f"fake {name}") not in rows
    assert f"fake coarse declines {larger} (forward): the kernel is not 3x3" in below
    no_pass = "it has no kernel for this pass on this engine"
    assert f"fake coarse declines {square} (weight); {larger} (weight): {no_pass}" in below


def test_figures_of_an_error_that_is_known(accuracy):
    """Of a single element."""
    layer = accuracy.LAYERS[0]
    engine, geometry, arrays = backends.pick(None, np.dtype("f")), layer.geometry, layer.arrays()
    truth = accuracy.Truth(engine, geometry, "small", arrays)
    exact = accuracy.contraction(engine, geometry, "small", {role: one.astype("d") for role, one in arrays.items()})
    assert truth.errors(exact) == (0, 0)
    window = arrays["large"][0, :, :3, :3].astype("d")  # what the taps of pixel (1, 1) read
    products = np.abs(window * arrays["weight"][0]).sum()
    off = exact.copy()
    off[0, 0, 1, 1] += 1e-5
    found = truth.errors(off)
    assert found.rms == pytest.approx(1e-5 / math.sqrt(np.sum(exact**2)))
    unit = 32 * 9 * 2.0**-24
    assert found.of_bound == pytest.approx(1e-5 / (unit / (1 - unit) * products), rel=1e-6)


def test_the_points_of_winograd_have_the_smallest_errors(capsys):
    spec = importlib.util.spec_from_file_location("points", SCRIPT.with_name("points.py"))
    points = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(points)
    points.main()
    errors: dict[str, list[float]] = {}
    for line in capsys.readouterr().out.splitlines()[2:]:
        size, _, error = (cell.strip() for cell in line.strip("|").split("|"))
        errors.setdefault(size, []).append(float(error))
    assert {size: min(of_size) == of_size[0] and len(of_size) > 1 for size, of_size in errors.items()} == {
        "6x6": True,
        "5x5": True,
    }


def test_pytorch_beside_it(accuracy, capsys):
    pytest.importorskip("torch")
    rows, _ = table(accuracy, capsys, "--pytorch", "--passes", "forward", "input", "weight")
    for layer in accuracy.LAYERS:
        assert all(float(cell) < 1e-6 for cell in rows[str(layer), "PyTorch"][::3])
