"""The benchmark's pipelines: each is its network, each layer reads what the one before wrote, and all take part."""

from __future__ import annotations

import json
import math
import pathlib

import numpy as np
import pytest
from fake_contenders import SESSIONS, FakeWorker, Recording

import fastconv as fc
from fastconv.cli import main
from fastconv.cli.bench import (
    chain,
    contenders,
    pipeline_report,
    pipeline_rounds,
    pipelines,
    plot,
    problems,
    report,
    rounds,
)
from fastconv.cli.bench.child import Prepared
from fastconv.cli.bench.engines import Engine
from fastconv.cli.bench.worker import ContenderError

pytest.importorskip("cpuinfo")
pytest.importorskip("tqdm")
ROOT = pathlib.Path(__file__).parent.parent
CONTENDERS = [name for name, reason in contenders.reasons().items() if reason is None]

#: Convolutions, and multiply-adds in 1e9 with taps on the padding, which papers and libraries count too.
KNOWN = {
    "resnet50": (53, 4.09),
    "mobilenetv2": (52, 0.30),
    "efficientnetb0": (81, 0.385),
    "convnext_tiny": (58, 4.45),
    "unet": (23, 48.1),
    "dcgan": (5, 0.41),
}
#: Parameters without biases, in 1e6.
PARAMETERS = {"resnet50": 23.45, "mobilenetv2": 2.19, "convnext_tiny": 27.7, "unet": 31.0, "dcgan": 12.65}


def test_the_pipelines_are_those_of_the_folder():
    assert sorted(pipelines.pipeline_files()) == sorted(
        path.stem for path in (ROOT / "bench" / "pipelines").glob("*.txt")
    )
    assert set(pipelines.pipeline_files()) == set(KNOWN)
    text = (ROOT / "bench" / "README.md").read_text()
    for name in KNOWN:
        assert f"`{name}`" in text


@pytest.mark.parametrize("name", KNOWN)
def test_a_pipeline_is_its_network(name):
    layers = pipelines.read(name).layers
    known, multiply_adds = KNOWN[name]
    assert len(layers) == known
    assert sum(layer.problem.geometry.flops for layer in layers) / 2e9 == pytest.approx(multiply_adds, rel=0.01)
    if name in PARAMETERS:
        weights = sum(math.prod(layer.problem.weight_shape) for layer in layers)
        assert weights / 1e6 == pytest.approx(PARAMETERS[name], rel=0.01)


@pytest.mark.parametrize("name", KNOWN)
def test_each_layer_reads_what_is_there(name):
    """The result of a layer before it, or a map that pooling or concatenation makes."""
    pipeline = pipelines.read(name)
    maps = dict(pipeline.given)
    for layer in pipeline.layers:
        assert layer.problem.input_shape == maps[layer.source]
        assert layer.target not in maps
        maps[layer.target] = layer.problem.geometry.output_shape
    known = {problem for problem in problems.read(name) if problem.input_shape[0] == 1}
    if name in {"resnet50", "mobilenetv2", "unet"}:  # files that hold every convolution of their network
        assert {layer.problem for layer in pipeline.layers} == known


def test_maps_of_convnext_lie_channels_last():
    assert [layer.channels_last for layer in pipelines.read("convnext_tiny").layers] == [False] + 57 * [True]
    assert not any(
        layer.channels_last for name in KNOWN if name != "convnext_tiny" for layer in pipelines.read(name).layers
    )


STEM = "conv2d 1,3,8,8 4,3,3,3 padding=1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no layer in it"),
        (STEM + "conv2d 1,5,8,8 4,5,3,3", r"line 2: .* must read the map before it, which is \(1, 4, 8, 8\)"),
        (STEM + "pool 1,5,4,4", r"line 2: pool cannot make \(1, 5, 4, 4\) from \(1, 4, 8, 8\)"),
        (STEM + "pool 1,4,8,8", "line 2: pool cannot make"),
        (STEM + "pool 1,4,4,9", "line 2: pool cannot make"),
        (STEM + "concat 1,4,8,8", "line 2: concat cannot make"),
        (STEM + "concat 1,8,8", "line 2: concat cannot make"),
        (STEM + "back 2", "line 2: back '2' must be a number from 1 to 1"),
        ("pool 1,4,8,8", "line 1: .* must be a layer, or pool SHAPE, concat SHAPE or back NUMBER after one"),
        (STEM + "upsample 1,4,16,16", "line 2: operation 'upsample'"),
        (STEM + "conv2d 1,4,8,8 4,4,1,1 channels_first", "line 2: 'channels_first' must be name=value"),
    ],
)
def test_a_wrong_pipeline_is_told_with_its_line(text, message):
    with pytest.raises(fc.ArgumentError, match=message):
        pipelines.parse(text, "a file")


SHORT = """
conv2d 1,3,12,12 4,3,3,3 padding=1
pool 1,4,6,6
conv2d 1,4,6,6 6,4,1,1 channels_last
conv2d 1,6,6,6 6,1,3,3 padding=1 groups=6 channels_last
back 2
conv_transpose2d 1,4,6,6 4,5,2,2 stride=2
concat 1,9,12,12
conv2d 1,9,12,12 2,9,3,3
"""


def test_a_pipeline_is_read_with_its_maps():
    pipeline = pipelines.parse(SHORT, "short")
    assert pipeline.given == ((0, (1, 3, 12, 12)), (2, (1, 4, 6, 6)), (6, (1, 9, 12, 12)))
    assert [(layer.source, layer.target) for layer in pipeline.layers] == [(0, 1), (2, 3), (3, 4), (2, 5), (6, 7)]
    assert pipeline.last_uses() == {1: 0, 3: 2, 4: 2, 5: 3, 7: 4}
    assert pipeline.footprint("float32") == 4 * (432 + 144 + 216 + 144 + 1296 + 108 + 24 + 54 + 80 + 162)


def test_results_flow_through_a_pipeline(monkeypatch):
    """Each layer reads the very array that the layer before returned, or a copy that lies channels-last."""
    calls = []

    class Flowing(Recording):
        def new_map(self, shape, dtype, channels_last=False):
            return Engine("numpy", 1).new_map(shape, dtype, channels_last)

        def forward(self, problem, weight, bias=None):
            call = Engine("numpy", 1).forward(problem, weight)

            def noted(x):
                calls.append((x, call(x)))
                return calls[-1][1]

            return noted

    chained = chain.Chain(Flowing(), pipelines.parse(SHORT, "short"), "float32")
    times, faults = chained.run()
    assert len(times) == len(calls) == 5
    assert faults is None or faults >= 0
    _, (second_in, second), (third_in, third), (fourth_in, _), (fifth_in, _) = calls
    for given, lying in ((third_in, second), (second_in, fourth_in)):
        assert np.moveaxis(given, 1, -1).flags.c_contiguous
        np.testing.assert_array_equal(given, lying)
    assert fourth_in.flags.c_contiguous
    assert not any(np.shares_memory(fifth_in, result) for _, result in calls)
    assert 0.1 < np.std(third) < 10
    straight = pipelines.parse(STEM + "conv2d 1,4,8,8 4,4,1,1", "straight")
    calls.clear()
    chain.Chain(Flowing(), straight, "float32").run()
    assert calls[1][0] is calls[0][1]


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_goes_through_a_pipeline(name):
    """Each layer has the NumPy engine's result, and takes some time."""
    pipeline = pipelines.parse(SHORT, "short")
    library, reference = (contenders.contender(one, 1) for one in (name, "numpy"))
    for layer in pipeline.layers:
        expected, result = (chain.layer_result(one, layer, "float32") for one in (reference, library))
        assert rounds.difference(expected, result, layer.problem) is None
    passes = chain.Chain(library, pipeline, "float32").passes(0.001)
    assert len(passes.layers) == 5
    assert min(passes.layers) > 0


def test_torch_and_our_engines_get_maps_that_lie_channels_last():
    for name in CONTENDERS:
        library = contenders.contender(name, 1)
        lying = library.as_map(library.new_map((2, 3, 4, 5), "float32", True))
        assert lying.shape == (2, 3, 4, 5)
        assert np.moveaxis(lying, 1, -1).flags.c_contiguous == (name not in SESSIONS)


def test_a_contender_with_another_result_leaves_the_pipeline():
    class Layered(FakeWorker):
        def layer(self, layer):
            if self.name == "none":
                return Prepared(None, "no such call")
            return Prepared(np.full(layer.problem.geometry.output_shape, self.name == "wrong", np.float32), None)

        def passes(self, pipeline, seconds):
            return chain.Passes([next(self._times)] * len(pipeline.layers), 7.0)

    pipeline = pipelines.parse(STEM + "conv2d 1,4,8,8 4,4,1,1", "short")
    workers = [Layered("ours", [1.0] * 3), Layered("wrong", []), Layered("none", []), Layered("theirs", [2.0] * 3)]
    whole = pipeline_rounds.compared(pipeline, workers, 1, "float32")
    able = pipeline_rounds.able(whole, [worker.name for worker in workers])
    assert able == ["ours", "theirs"]
    pipeline_rounds.measure(whole, [worker for worker in workers if worker.name in able], 3, 0.1, lambda: None)
    assert len(report.problems_found(whole.rows)) == 3
    printed = pipeline_report.table(whole, "ours", ["wrong", "theirs"])
    assert printed.splitlines()[-2].split()[:5] == ["2000.000", "-", "4000.000", "-", "2.00"]
    assert printed.splitlines()[-2].endswith("all, 2 layers")
    assert printed.splitlines()[-1].split()[:4] == ["7", "-", "7", "page"]
    assert any(line.endswith("     conv2d 1,4,8,8 4,4,1,1") for line in printed.splitlines())


def whole_of(text, threads, **seconds):
    """A pipeline as if measured: the seconds of each contender in each layer."""
    pipeline = pipelines.parse(text, f"a{len(text)}")
    times = {name: [taken, taken] for name, taken in seconds.items()}
    rows = [rounds.Row(layer.problem, "forward", threads, "float32", 1, times) for layer in pipeline.layers]
    return pipeline_rounds.Whole(pipeline, threads, "float32", rows, {name: [3.0, 4.0, 9.0] for name in seconds})


def test_the_summary_has_a_line_for_each_pipeline_and_their_mean():
    two = STEM + "conv2d 1,4,8,8 4,4,1,1"
    wholes = [whole_of(STEM, 2, ours=1.0, theirs=2.0), whole_of(two, 2, ours=1.0, theirs=0.5)]
    lines = pipeline_report.summary([*wholes, whole_of(STEM, 1, ours=1.0)], "ours", ["theirs", "nobody"]).splitlines()
    assert "2 threads" in lines[0]
    cells = [line.split() for line in lines]
    assert cells[2][:5] == ["1000.000", "2000.000", "-", "2.00", "-"]
    assert cells[3][:5] == ["2000.000", "1000.000", "-", "0.50", "-"]
    assert cells[4] == ["1.00", "-", "mean"]
    assert cells[5] == ["0.50", "-", "least"]
    assert lines[6] == "ours takes 1.00 of theirs's time in the mean, at most 2.00"
    assert cells[7][:3] == ["4", "4", "-"]
    assert any("1 thread:" in line for line in lines[9:])


def test_the_picture_has_a_line_for_each_pipeline(tmp_path):
    heights = []
    for number in (1, 5):
        wholes = [whole_of(STEM, 2, ours=1.0, theirs=2.0 + one) for one in range(number)]
        plot.write_pipelines(tmp_path / "out.png", wholes, "ours", ["theirs", "nobody"])
        with pytest.importorskip("PIL.Image").open(tmp_path / "out.png") as image:
            heights.append(image.height)
    assert heights[0] < heights[1]


def test_a_contender_that_fails_in_a_pass_is_told():
    class Failing(FakeWorker):
        def passes(self, pipeline, seconds):
            raise ContenderError("no memory")

    pipeline = pipelines.parse(STEM, "short")
    whole = pipeline_rounds.Whole(
        pipeline, 1, "float32", [rounds.Row(pipeline.layers[0].problem, "forward", 1, "float32")]
    )
    pipeline_rounds.measure(whole, [Failing("a", [])], 3, 0.1, lambda: None)
    assert whole.rows[0].failed == {"a pass": "no memory"}


def test_pipeline_end_to_end(capsys, monkeypatch, tmp_path):
    (tmp_path / "short.txt").write_text(SHORT)
    monkeypatch.setattr(pipelines, "pipeline_files", lambda: {"short": tmp_path / "short.txt"})
    words = ["bench", "--quick", "--pipeline", "short", "--threads", "1", "--against", "numpy"]
    assert main([*words, "--summary", str(tmp_path / "out.png"), "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "all, 5 layers" in printed
    assert "short, 5 layers" in printed
    assert (tmp_path / "out.png").stat().st_size > 1000
    written = json.loads((tmp_path / "out.json").read_text())
    assert len(written["rows"]) == 5
    assert written["settings"]["pipelines"][0]["name"] == "short"
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(written, json.loads((ROOT / "bench" / "result.schema.json").read_text()))
