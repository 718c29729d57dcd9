"""The benchmark through whole networks: all contenders take part, and a wrong result or gradient is told."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pathlib
import re

import numpy as np
import pytest

import fastconv as fc
from fastconv.cli import main
from fastconv.cli.bench import child, model_contenders, model_report, model_rounds, models, plot, report, worker
from fastconv.cli.bench.model_contenders import WAYS
from fastconv.cli.bench.model_rounds import Timing
from fastconv.cli.bench.models import Case
from fastconv.cli.bench.worker import ContenderError

torch = pytest.importorskip("torch")
pytest.importorskip("cpuinfo")
pytest.importorskip("tqdm")
ROOT = pathlib.Path(__file__).parent.parent

#: Where there is one of ours, its ways are tested too.
IS_BRIDGED = importlib.util.find_spec("fastconv.torch") is not None
RUNNING = [name for name, reason in model_contenders.names().items() if not reason]
RUNNING = [name for name in RUNNING if IS_BRIDGED or not WAYS[name].is_ours]
#: It has a batch norm after a convolution with a bias, whose gradient is zero but for rounding.
TINY = """
from torch import nn

INFERENCE, TRAINING = (2, 3, 8, 8), (4, 3, 8, 8)
HAS_CLASSES = True


def build():
    convolutions = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 5, 2, stride=2)
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(5, 4))
"""


@pytest.fixture(autouse=True)
def torch_is_left_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    if IS_BRIDGED:
        importlib.import_module("fastconv.torch").uninstall()


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A small network in place of those of the files."""
    (tmp_path / "tiny.py").write_text(TINY)
    monkeypatch.setattr(models, "model_files", lambda: {"tiny": tmp_path / "tiny.py"})
    monkeypatch.delitem(models.sys.modules, "fastconv.models.tiny", raising=False)
    yield "tiny"
    models.sys.modules.pop("fastconv.models.tiny", None)


def test_the_numbers_are_the_same_every_time_and_none_is_trivial(tiny):
    first, again = (models.network(Case(tiny, "training")) for _ in range(2))
    assert torch.equal(first.input, again.input)
    assert torch.equal(first.target, again.target)
    for name, tensor in first.module.state_dict().items():
        assert torch.equal(tensor, again.module.state_dict()[name])
        if tensor.is_floating_point():
            assert tensor.std() > 0.01
            assert tensor.abs().max() < 5
    assert first.module[5].p == 0
    assert first.module[1].momentum == 0.1


def test_maps_of_norms_keep_their_size_at_inference(tiny):
    """The statistics are near those of the batch."""
    module, x, _ = models.network(Case(tiny, "inference"))
    normed = module[:2](x)
    assert 0.5 < normed.std() < 2
    assert normed.mean().abs() < 0.5


class LocalWorker:
    """A contender in this process."""

    def __init__(self, name, threads, dtype, *_):
        self.name, self._child = name, child.Child(name, dtype, threads, 0)

    def network(self, case):
        with raised_as_contenders_error():
            return self._child.network(case)

    def calls(self, case, seconds):
        with raised_as_contenders_error():
            return self._child.calls(case, seconds)

    def close(self):
        pass


@contextlib.contextmanager
def raised_as_contenders_error():
    try:
        yield
    except RuntimeError as error:
        raise ContenderError(str(error)) from None


SLOW = {"compile", "openvino"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in RUNNING
        for kind in WAYS[name].kinds
    ],
)
def test_every_contender_computes_what_eager_does(name, kind, tiny):
    timing = Timing(Case(tiny, kind), 1)
    workers = [LocalWorker(one, 1, "float32") for one in ("eager", name)]
    assert model_rounds.prepare(timing, workers) == workers, (timing.failed, timing.declined, timing.differs)
    model_rounds.measure(timing, workers, 2, 0.001, lambda: None)
    assert len(timing.times[name]) == 2 * (1 + (name == "eager"))
    assert min(timing.times[name]) > 0
    groups = {"inference": ["result"], "training": ["loss", "gradient", "smooth gradient"]}[kind]
    if name != "eager":
        assert list(timing.errors[name]) == groups
        assert all(error <= model_rounds.BOUNDS[group].allowed for group, error in timing.errors[name].items())
    assert not {**timing.failed, **timing.differs, **timing.declined}


class Scaled(torch.nn.Module):
    """A network of which one number differs."""

    def __init__(self, module, of_result=1.0, of_gradient=1.0):
        super().__init__()
        self.module, self.factor = module, of_result
        self.module[0].weight.register_hook(lambda gradient: gradient * of_gradient)

    def forward(self, x):
        return self.factor * self.module(x)

    def named_parameters(self, *arguments, **options):
        return self.module.named_parameters(*arguments, **options)


@pytest.mark.parametrize(
    ("kind", "factors", "message"),
    [
        ("inference", {"of_result": 1.0001}, None),
        ("inference", {"of_result": 1.01}, "the result is off by 0.01 of the largest number, where 0.001 is allowed"),
        ("inference", {"of_result": np.nan}, "the result is not finite"),
        ("training", {"of_gradient": 1.001}, None),
        (
            "training",
            {"of_gradient": 1.05},
            "the gradient of 0.weight, with smooth functions, is off by 0.05 of the larg",
        ),
        (
            "training",
            {"of_gradient": 0.0},
            "the gradient of 0.weight is off by 1 of the norm, where 0.3 is allowed; the g",
        ),
        ("training", {"of_result": 1.5}, "the gradient of "),
    ],
)
def test_a_wrong_result_or_gradient_is_told_and_not_timed(kind, factors, message, tiny, monkeypatch):
    way = WAYS["convert"]._replace(wrap=lambda module, kind: Scaled(module, **factors))
    monkeypatch.setitem(WAYS, "convert", way)
    timing = Timing(Case(tiny, kind), 1)
    workers = [LocalWorker(name, 1, "float32") for name in ("eager", "convert")]
    able = model_rounds.prepare(timing, workers)
    if message is None:
        assert able == workers
        assert not timing.differs
        assert 0 < max(timing.errors["convert"].values()) < 0.01
        return
    assert able == workers[:1]
    assert message in timing.differs["convert"]
    (line,) = report.problems_found([timing])
    assert line.startswith(f"DIFFERS  convert and the first contender on {kind} of tiny: the ")
    model_rounds.measure(timing, able, 1, 0.001, lambda: None)
    assert set(timing.times) == {"eager"}


def test_a_result_of_another_form_is_told():
    first = {"a": np.ones((), np.float32), "b": np.ones(3, np.float32)}
    assert model_rounds.farthest("gradient", first, first)[0] == 0
    for other, how in (
        ({"a": np.ones((), np.float32)}, "b is missing"),
        (first | {"b": np.ones(4, np.float32)}, "b is float32 (4,) instead of float32 (3,)"),
        (first | {"b": np.ones(3)}, "b is float64 (3,) instead of float32 (3,)"),
        (first | {"b": np.full(3, np.nan, np.float32)}, "b is not finite"),
    ):
        assert model_rounds.farthest("gradient", first, other) == (np.inf, how)


def test_gradients_are_compared_by_norms():
    first = {"large": np.full(100, 2.0), "none": np.full(1, 1e-9)}
    other = {"large": np.where(np.arange(100), 2.0, 3.0), "none": np.full(1, -1e-9)}
    assert model_rounds.farthest("gradient", first, other)[0] == pytest.approx(0.05)
    assert model_rounds.farthest("smooth gradient", first, other)[0] == pytest.approx(0.5)
    assert model_rounds.farthest("gradient", first, first | {"none": np.full(1, 1.0)})[0] == pytest.approx(50)


def test_rectifiers_become_smooth(tiny):
    definition = models.network(Case(tiny, "training"))
    smooth = models.smoothed(definition)
    assert isinstance(definition.module[2], torch.nn.ReLU)
    assert isinstance(smooth.module[2], torch.nn.Softplus)
    assert models.smoothed(smooth) is None
    pooled = models.smoothed(models.network(Case("tiny", "training"))._replace(module=torch.nn.Sequential(POOL)))
    x = torch.randn(1, 2, 9, 9)
    assert pooled.module(x).shape == POOL(x).shape


POOL = torch.nn.MaxPool2d(3, stride=2, padding=1)


def test_a_contender_that_fails_has_no_more_turns(tiny, monkeypatch):
    calls = iter(range(100))

    def failing(module, kind):
        def run(x):
            if next(calls) > 6:
                raise RuntimeError("no memory")
            return module(x)

        return run

    monkeypatch.setitem(WAYS, "convert", WAYS["convert"]._replace(wrap=failing))
    timing = Timing(Case(tiny, "inference"), 1)
    workers = [LocalWorker(name, 1, "float32") for name in ("eager", "convert")]
    model_rounds.measure(timing, model_rounds.prepare(timing, workers), 3, 0.0, lambda: None)
    assert timing.failed == {"convert": "no memory"}
    assert {name: len(times) for name, times in timing.times.items()} == {"eager": 3}


def timing_of(name, kind="inference", threads=1, **seconds):
    """A network as if measured."""
    return Timing(Case(name, kind), threads, {one: [taken, taken] for one, taken in seconds.items()})


def test_the_table_has_a_line_for_each_network_and_their_means():
    names = ["eager", "compile", "onnxruntime", "convert", "install"]
    timings = [
        timing_of("resnet50", eager=8.0, compile=4.0, onnxruntime=1.0, convert=2.0, install=4.0),
        timing_of("unet", eager=1.0, compile=0.5, convert=1.0),
        timing_of("unet", "training", eager=3.0, compile=2.0, convert=1.0, install=1.5),
    ]
    timings[0].prepared["compile"] = 12.34
    inference, training = (part.splitlines() for part in model_report.table(timings, names).split("\n\n"))
    assert inference[1].split("  ")[-1] == " best other / ours"
    assert inference[2].split() == [*names, *2 * ["convert", "install"]]
    cells = [line.split() for line in inference]
    assert cells[3][:6] == ["resnet50", "8000.00", "4000.00", "1000.00", "2000.00", "4000.00"]
    assert cells[3][6:] == ["4.00", "2.00", "0.50", "0.25"]
    assert cells[4] == ["unet", "1000.00", "500.00", "-", "1000.00", "-", "1.00", "-", "0.50", "-"]
    assert cells[5] == ["geometric", "mean", "2.00", "2.00", "0.50", "0.25"]
    assert cells[6] == ["least", "1.00", "2.00", "0.50", "0.25"]
    assert cells[8] == ["resnet50", "-", "12.3", "-", "-", "-"]
    assert len({len(line) for line in inference[2:7]}) == 1
    assert training[3].split() == ["unet", "3000.00", "2000.00", "1000.00", "1500.00", "3.00", "2.00"]
    assert "best other" not in "\n".join(training)


def test_the_table_of_others_alone_has_no_ratios():
    lines = model_report.table([timing_of("unet", threads=2, eager=2.0, compile=1.0)], ["eager", "compile"]).split("\n")
    assert lines[0].endswith("2 threads: ms of a call")
    assert lines[3].split() == ["unet", "2000.00", "1000.00"]
    assert lines[4].startswith("seconds until")


def test_the_picture_has_bars(tmp_path):
    pytest.importorskip("matplotlib")
    plot.write_models(tmp_path / "out.png", [timing_of("unet", eager=2.0, compile=1.0)], ["eager", "compile"])
    assert (tmp_path / "out.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "resnet5"], "--model resnet5: expected one of .*; did you mean 'resnet50'?"),
        (["--model", ","], "--model must be names"),
        (["--model", "unet", "--against", "eagre"], "--against eagre: .*; did you mean 'eager'?"),
        (["--model", "unet", "--against", "torch"], "--against torch: expected one of 'backend', 'compile'"),
        (["--model", "unet", "--training", "--against", "backend"], "--against backend goes with inference"),
        (["--model", "unet", "--pipeline", "unet"], "--pipeline goes with convolutions, not with --model"),
        (["--model", "unet", "--shapes", "unet"], "--shapes goes with convolutions"),
        (["--model", "unet", "--data-format", "channels_last"], "--data-format goes with convolutions"),
        (["--model", "unet", "--plot", "out.png"], "--plot goes with convolutions"),
        (["--model", "unet", "--dtype", "float64"], "--model computes in float32"),
        (["--model", "unet", "--memory"], "--model goes with times"),
        (["--training"], "--training goes with --model"),
        (["--inference", "--quick"], "--inference goes with --model"),
    ],
)
def test_wrong_options_are_told(words, message, capsys):
    assert main(["bench", *words]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_without_torch_the_command_to_install_it_is_told(monkeypatch, capsys):
    monkeypatch.setitem(models.sys.modules, "torch", None)
    assert main(["bench", "--model", "unet"]) == 1
    told = capsys.readouterr().err
    assert "--model needs torch" in told
    assert 'pip install "fastconv[torch]"' in told


def test_a_contender_that_is_not_installed_is_told(monkeypatch, tiny, capsys):
    way = WAYS["openvino"]._replace(packages=("no_such_package",))
    monkeypatch.setitem(WAYS, "openvino", way)
    assert "openvino" not in model_contenders_by_default(capsys)
    assert main(["bench", "--model", "tiny", "--against", "openvino"]) == 1
    assert "--against openvino cannot run here: no_such_package is not installed" in capsys.readouterr().err


def model_contenders_by_default(capsys):
    from fastconv.cli.bench import options

    found = options.ways(None, [])
    assert 'without openvino: no_such_package is not installed; install it with: pip install "fastconv[openvino]"' in (
        capsys.readouterr().err
    )
    return found


def test_models_end_to_end(capsys, monkeypatch, tmp_path, tiny):
    monkeypatch.setattr(worker, "Worker", LocalWorker)
    monkeypatch.setitem(WAYS, "convert", WAYS["convert"]._replace(wrap=lambda module, kind: module))
    words = ["bench", "--quick", "--model", "all", "--inference", "--training", "--threads", "1"]
    words += ["--against", "convert", "--summary", str(tmp_path / "out.png"), "--json", str(tmp_path / "out.json")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "inference, float32, 1 thread: ms of a call" in printed
    assert "training, float32, 1 thread: ms of a training step" in printed
    assert "largest difference from eager, result, as a part of the largest number: convert 0" in printed
    assert (tmp_path / "out.png").stat().st_size > 1000
    written = json.loads((tmp_path / "out.json").read_text())
    assert [(one["name"], one["kind"]) for one in written["models"]] == [("tiny", "inference"), ("tiny", "training")]
    assert written["settings"]["against"] == ["eager", "convert"]
    assert len(written["models"][0]["seconds"]["convert"]) == written["settings"]["rounds"]
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(written, json.loads((ROOT / "bench" / "result.schema.json").read_text()))


def test_a_wrong_contender_makes_the_command_fail(capsys, monkeypatch, tiny):
    monkeypatch.setattr(worker, "Worker", LocalWorker)
    way = WAYS["convert"]._replace(wrap=lambda module, kind: Scaled(module, of_result=2.0))
    monkeypatch.setitem(WAYS, "convert", way)
    assert main(["bench", "--quick", "--model", "tiny", "--threads", "1", "--against", "convert"]) == 1
    assert "DIFFERS  convert" in capsys.readouterr().out


def test_a_contender_in_a_process_of_its_own():
    case = Case("fsrcnn", "inference", "numpy", (1, 1, 16, 16))
    running = worker.Worker("eager", 1, "float32", keeps_memory=False)
    try:
        result, declined, seconds = running.network(case)
        assert declined is None
        assert seconds > 0
        assert result["result"]["the result"].shape == (1, 1, 32, 32)
        assert running.calls(case, 0.001) > 0
        with pytest.raises(ContenderError, match="ArgumentError"):
            running.network(Case("fsrcnn", "inference", "no such engine", (1, 1, 16, 16)))
    finally:
        running.close()
    assert fc.get_backend()
