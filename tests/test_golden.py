"""Layers of bench/shapes are computed as bench/golden.json records: which passes, how much workspace, which bits."""

from __future__ import annotations

import importlib.util
import pathlib
import sys

import pytest

from fastconv.dispatch.backends import backend_reasons

GOLDEN = pathlib.Path(__file__).parent.parent / "bench" / "golden.py"
pytestmark = pytest.mark.skipif(
    not GOLDEN.exists() or backend_reasons()["cython"] is not None, reason="needs the sources and the compiled engine"
)


def compare(monkeypatch, *options: str) -> int:
    """The exit status of `python bench/golden.py compare`."""
    pytest.importorskip("tqdm")
    spec = importlib.util.spec_from_file_location("golden", GOLDEN)
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    monkeypatch.setattr(sys, "argv", ["golden.py", "compare", *options])
    return golden.main()


def test_small_layers_are_computed_as_recorded(monkeypatch, capsys):
    assert compare(monkeypatch, "--shapes", "tiny") == 0, capsys.readouterr().out


@pytest.mark.slow
def test_every_layer_is_computed_as_recorded(monkeypatch, capsys):
    """A change that is meant to choose or to sum otherwise writes the record anew: python bench/golden.py record."""
    assert compare(monkeypatch) == 0, capsys.readouterr().out
