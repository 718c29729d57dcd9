"""The table of register tiles that bench/tiles.py prints."""

from __future__ import annotations

import importlib.util
import pathlib
import sys

import pytest

TILES = pathlib.Path(__file__).parent.parent / "bench" / "tiles.py"


@pytest.mark.skipif(not TILES.exists(), reason="needs the sources")
def test_every_micro_kernel_is_measured(monkeypatch, capsys):
    for name in ("numba", "cpuinfo"):
        pytest.importorskip(name)
    spec = importlib.util.spec_from_file_location("tiles", TILES)
    tiles = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tiles", tiles)
    spec.loader.exec_module(tiles)
    monkeypatch.setattr(tiles, "shapes", lambda most, operands: [(1, 8)])
    monkeypatch.setattr(tiles, "TURN", 1)
    monkeypatch.setattr(tiles, "ROUNDS", 1)
    monkeypatch.setattr(sys, "argv", ["tiles.py"])
    tiles.main()
    rows = capsys.readouterr().out.splitlines()[4:]
    assert [row.split("`")[1] for row in rows] == ["dots", "multiply", "span", "sum_taps"]
