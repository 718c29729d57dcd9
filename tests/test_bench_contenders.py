"""The benchmark's contenders called in other ways: through plans, with bias and relu, and on channels-last maps."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from fake_contenders import SESSIONS

import fastconv as fc
from fastconv.cli import main
from fastconv.cli.bench import chain, contenders, engines, pipelines, problems, rounds
from fastconv.cli.bench.interface import Declined, Setup
from fastconv.dispatch.backends import backend_reasons

pytest.importorskip("cpuinfo")
pytest.importorskip("tqdm")
ROOT = pathlib.Path(__file__).parent.parent
LIBRARIES = [name for name in contenders.OTHERS if contenders.reasons()[name] is None]
ENGINES = [name for name, reason in backend_reasons().items() if reason is None]
PROBLEMS = problems.parse(
    "\n".join(
        [
            "conv2d 2,6,9,8 4,6,3,3 padding=1",
            "conv2d 1,6,9,8 9,2,3,2 stride=2,1 padding=2,1 groups=3",
            "conv2d 1,5,9,9 5,1,3,3 padding=1 groups=5 dilation=2",
            "conv_transpose2d 2,4,5,6 4,3,3,3 stride=2 padding=1 output_padding=1",
            "conv_transpose2d 1,4,5,6 4,2,2,2 stride=2 groups=2",
            "conv1d 2,4,30 6,4,3 stride=2",
            "conv_transpose1d 1,4,9 4,2,4 stride=2 padding=1",
        ]
    ),
    "a test",
)


def expected(problem, which, fused):
    """The result of the NumPy engine in float64, by the public functions."""
    x, w, dy = (array.astype(np.float64) for array in problem.arrays("float32"))
    parameters = {**dict(problem.parameters), "backend": "numpy"}
    if which != "forward":
        sizes = (x.shape, w, dy) if which == "input" else (x, w.shape, dy)
        return getattr(fc.grad, f"{problem.operation}_{which}")(*sizes, **parameters)
    bias = problem.bias("float32").astype(np.float64) if fused else None
    result = getattr(fc, problem.operation)(x, w, bias, **parameters)
    return np.maximum(result, 0) if fused else result


def check(name, setup, passes=("forward",)):
    """Compare every result of a contender that it has; returns how many."""
    library = contenders.contender(name, 1, setup.channels_last)
    compared = 0
    for problem in PROBLEMS:
        for which in passes:
            try:
                calls = contenders.rotation(library, problem, which, "float32", 1, fused=setup.fused)
            except Declined:
                continue
            for call in calls:
                result = contenders.result(library, which, call())
                known = expected(problem, which, setup.fused).astype(np.float32)
                assert rounds.difference(known, result, problem) is None, (problem, which)
            compared += 1
    return compared


@pytest.mark.parametrize("name", [*ENGINES, *(engine + contenders.PLAN for engine in ENGINES), *LIBRARIES])
def test_bias_and_relu(name):
    assert check(name, Setup(fused=True)) == len(PROBLEMS)


@pytest.mark.parametrize("engine", ENGINES)
def test_plans(engine):
    """They have the forward pass."""
    assert check(engine + contenders.PLAN, Setup(), problems.PASSES) == len(PROBLEMS)


@pytest.mark.parametrize("way", ["", contenders.FIRST])
@pytest.mark.parametrize("engine", ENGINES)
def test_our_engines_on_channels_last_maps(engine, way):
    """Whose results are channels last, too; but for a contender whose channels are first all the same."""
    assert check(engine + way, Setup(channels_last=True), problems.PASSES) == len(PROBLEMS) * len(problems.PASSES)
    assert check(engine + contenders.PLAN + way, Setup(True, True)) == len(PROBLEMS)
    library = contenders.contender(engine + way, 1, True)
    (call,) = contenders.rotation(library, PROBLEMS[0], "forward", "float32", 0)
    (given,), result = call.args, call()
    for shape, array in ((PROBLEMS[0].input_shape, given), (PROBLEMS[0].geometry.output_shape, result)):
        assert array.flags.c_contiguous
        assert array.shape == (shape if way else (shape[0], *shape[2:], shape[1]))


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_on_channels_last_maps(name):
    """PyTorch has them with two spatial axes: maps and weights are of that memory format."""
    compared = check(name, Setup(channels_last=True), problems.PASSES)
    if name in SESSIONS:
        assert compared == 0
        return
    flat = [problem for problem in PROBLEMS if "2d" in problem.operation]
    assert compared == len(flat) * len(problems.PASSES)
    library = contenders.contender(name, 1, True)
    for array in (
        library.as_map(library.new_map((2, 3, 4, 5), "float32")),
        library.new_weight((4, 3, 2, 2), "float32"),
    ):
        assert np.moveaxis(np.asarray(array), 1, -1).flags.c_contiguous


@pytest.mark.parametrize("name", ["openvino", "ncnn"])
def test_libraries_that_compute_no_float64(name):
    pytest.importorskip(name)
    with pytest.raises(Declined, match="float64 in float32"):
        contenders.build(name, PROBLEMS[0], "forward", "float64", 1)


def test_ncnn_reads_its_own_results():
    """Whose channels start at multiples of 16 bytes, so that there is a gap behind a map of 49 pixels."""
    pytest.importorskip("ncnn")
    first, second = problems.parse("conv2d 1,8,7,7 8,8,3,3 padding=1\nconv2d 1,8,7,7 8,8,1,1", "a test")
    library = contenders.contender("ncnn", 1)
    x, w, _ = first.arrays("float32")
    between = library.forward(first, w)(x)
    assert not between.flags.c_contiguous
    _, w, _ = second.arrays("float32")
    result = library.forward(second, w)(between)
    assert rounds.difference(fc.conv2d(np.ascontiguousarray(between), w), result, second) is None


@pytest.mark.parametrize("suffix", ["", contenders.PLAN, contenders.FIRST, contenders.PLAN + contenders.FIRST])
def test_an_engine_whose_name_has_hyphens(suffix):
    library = contenders.contender("x-planner-first-class" + suffix, 1, channels_last=True)
    given = library._parameters(PROBLEMS[0])
    assert given["backend"] == "x-planner-first-class"
    assert given["data_format"] == ("channels_first" if contenders.FIRST in suffix else "channels_last")
    assert isinstance(library, engines.Plan) is (contenders.PLAN in suffix)


def test_engines_are_called_as_ours_unless_others_are_named():
    assert set(contenders.usual("numpy")) == {*ENGINES, *LIBRARIES}
    assert set(contenders.usual("numpy-plan")) == {*(engine + "-plan" for engine in ENGINES), *LIBRARIES}
    assert not any("-first" in name for name in contenders.names(channels_last=False))
    assert {"numpy-plan", "numpy-first", "numpy-plan-first"} <= set(contenders.names(channels_last=True))


@pytest.mark.parametrize("name", contenders.OTHERS)
def test_a_package_that_is_missing_is_told_with_its_command(monkeypatch, capsys, name):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    assert main(["bench", "--against", name]) == 1
    told = capsys.readouterr().err
    assert f"--against {name} cannot run here" in told
    assert 'is not installed; install it with: pip install "fastconv[' in told


PIPELINE = """
conv2d 1,3,12,12 4,3,3,3 padding=1
pool 1,4,6,6
conv2d 1,4,6,6 6,4,1,1 channels_last
conv2d 1,6,6,6 6,1,3,3 padding=1 groups=6 channels_last
"""


@pytest.mark.parametrize("name", [*ENGINES, *(engine + contenders.PLAN for engine in ENGINES), *LIBRARIES])
def test_a_pipeline_in_every_setup(name):
    """Its results are the reference's; where all maps are channels last each layer reads the one before's as it is."""
    pipeline = pipelines.parse(PIPELINE, "short")
    for setup in (Setup(fused=True), Setup(channels_last=True), Setup(True, True)):
        library = contenders.contender(name, 1, setup.channels_last)
        reference = contenders.contender("numpy", 1)
        try:
            for layer in pipeline.layers:
                known = chain.layer_result(reference, layer, "float32", setup._replace(channels_last=False))
                result = chain.layer_result(library, layer, "float32", setup)
                assert rounds.difference(known, result, layer.problem) is None
            times, _ = chain.Chain(library, pipeline, "float32", setup).run()
        except Declined:
            assert name in SESSIONS
            assert setup.channels_last
            continue
        assert len(times) == 3


def test_end_to_end(capsys):
    """A plan of channels-last maps against the same engine's function, and against its plan of channels-first maps."""
    words = ["bench", "--quick", "--plan", "--fused", "--data-format", "channels_last", "--backend", "numpy"]
    lines = ["--problem", "conv2d 1,8,8,8 8,8,3,3 padding=1", "--threads", "1"]
    assert main([*words, *lines, "--against", "numpy,numpy-plan-first", "--json", "-"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["ours"] == "numpy-plan"
    (row,) = written["rows"]
    assert row["pass"] == "forward"
    assert row["seconds"].keys() == {"numpy-plan", "numpy", "numpy-plan-first"}
    assert (written["settings"]["fused"], written["settings"]["data format"]) == (True, "channels_last")
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(written, json.loads((ROOT / "bench" / "result.schema.json").read_text()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan", "--passes", "weight"], "--plan goes with the forward pass, not with --passes weight"),
        (["--fused", "--passes", "forward,input"], "--fused goes with the forward pass"),
        (["--plan", "--memory"], "--plan goes with times"),
        (["--fused", "--startup"], "--fused goes with times"),
        (["--data-format", "channels_last", "--memory"], "--data-format goes with times"),
        (["--data-format", "channels_lost"], "--data-format channels_lost: expected one of"),
        (["--against", "numpy-first"], "--against numpy-first"),
        (["--against", "numpy-plain"], "did you mean 'numpy-plan'"),
    ],
)
def test_wrong_options_are_told_before_any_work(capsys, words, message):
    assert main(["bench", *words]) == 1
    assert message in capsys.readouterr().err
