"""The demo: the whole command, and that what it claims is so."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
import time

import numpy as np
import pytest

import fastconv as fc
from fastconv import cli
from fastconv.cli.demo import photographs, picture, training
from fastconv.cli.demo.network import ReLU, SuperResolution
from fastconv.cli.demo.photographs import Sample
from fastconv.dispatch.backends import backend_reasons

datasets = pytest.importorskip("sklearn.datasets")
image = pytest.importorskip("PIL.Image")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

NAMES = ("china.jpg", "flower.jpg")
STEPS = 30


@pytest.fixture(scope="module")
def pictures():
    return photographs.load()


def printed_psnr(text):
    """What the command printed: {name: (bicubic, ours, gain)}."""
    rows = re.findall(r"^  (\S+) +(-?\d+\.\d+) +(-?\d+\.\d+) +([+-]\d+\.\d+)$", text, re.MULTILINE)
    return {name: tuple(map(float, figures)) for name, *figures in rows}


def decibels(picture, truth):
    return 10 * np.log10(1 / np.mean((np.clip(picture.astype(float), 0, 1) - truth) ** 2))


def test_the_whole_command(tmp_path, capsys, pictures):
    output = tmp_path / "demo.png"
    status = cli.main(["demo", "--steps", str(STEPS), "--seconds", "1000", "--output", str(output)])
    text, bar = capsys.readouterr()
    assert re.search(rf"^{STEPS} of {STEPS} steps in ", text, re.MULTILINE)
    assert f"{STEPS}/{STEPS}" in bar
    assert re.search(r"loss \d\.\d+, held-out PSNR \d+\.\d+ dB", bar)

    figures = printed_psnr(text)
    assert figures.keys() == {*NAMES, "mean"}
    ours, bicubic = map(float, re.search(r"^Ours .* bicubic: (.+) dB against (.+) dB\.$", text, re.MULTILINE).groups())
    assert (bicubic, ours) == figures["mean"][:2]
    assert ("Ours beats bicubic" in text) == (status == 0) == (ours > bicubic)
    for theirs, own, gain in figures.values():
        assert gain == pytest.approx(own - theirs, abs=0.011)
    for column in range(2):
        assert figures["mean"][column] == pytest.approx(np.mean([figures[name][column] for name in NAMES]), abs=0.011)

    # bicubic once more, from the photographs and by Pillow; ours, by training once more
    network, made, _ = training.train(pictures, STEPS, 1000)
    assert made == STEPS
    for name, each in zip(NAMES, pictures, strict=True):
        truth = datasets.load_sample_image(name)[:426, 240:400].astype(np.float32) / 255
        planes = [image.fromarray(plane) for plane in truth.transpose(2, 0, 1)]
        small = [np.asarray(plane.resize((80, 213), image.Resampling.BICUBIC)) for plane in planes]
        low = [image.fromarray(np.round(np.clip(plane, 0, 1) * 255) / 255) for plane in small]
        large = np.stack([np.asarray(plane.resize((160, 426), image.Resampling.BICUBIC)) for plane in low], axis=-1)
        assert figures[name][0] == pytest.approx(decibels(large, truth), abs=0.006)
        enlarged = network(each.held_out.low, each.held_out.bicubic)
        assert figures[name][1] == pytest.approx(decibels(enlarged.transpose(1, 2, 0), truth), abs=0.02)

    for name, reason in backend_reasons().items():
        told = re.search(rf"^  {name} +(.+)$", text, re.MULTILINE).group(1)
        assert told == f"no: {reason}" if reason else 0 < float(told) < 60

    with image.open(output) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 1000
        assert drawn.height > 600
        assert len(drawn.convert("RGB").getcolors(2**24)) > 1000
    check_second_act(text, tmp_path / "demo-torch.png")


def check_second_act(text, output):
    """What the command printed of PyTorch, and its picture; one line where PyTorch is missing."""
    if importlib.util.find_spec("torch") is None:
        assert 'pip install "fastconv[torch]"' in re.search("^No comparison with PyTorch: .*$", text, re.MULTILINE)[0]
        return
    row = re.search(
        r"^PyTorch (\S+) s, converted (\S+) s: ratio (\S+), of the median turn (\S+); final losses (\S+) and (\S+)$",
        text, re.MULTILINE,
    )  # fmt: skip
    theirs, ours, ratio, median, loss, other = map(float, row.groups())
    assert ratio == pytest.approx(theirs / ours, rel=0.1)
    assert median > 0
    assert loss == pytest.approx(other, rel=0.01)
    assert f"{STEPS - 10} steps are timed; the first turn, with compilation, is not" in text
    assert "The losses agree within noise" in text
    with image.open(output) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 1000


def test_the_second_act_trains_one_network_twice(pictures, monkeypatch):
    """From the demo's own weights, on its batches: the losses are those of `fastconv.nn`. One of two is converted."""
    torch = pytest.importorskip("torch")
    from fastconv.cli.demo import pytorch
    from fastconv.torch import compute

    calls, forward = [], compute.forward
    monkeypatch.setattr(compute, "forward", lambda *given: calls.append(1) or forward(*given))
    before = torch.get_num_threads()
    fc.set_num_threads(1)
    found = pytorch.compare(pictures, 25, 1000)
    assert torch.get_num_threads() == before
    assert (found.threads, found.timed, [len(times) for times in found.blocks]) == (1, 15, [2, 2])
    assert found.seconds == tuple(map(sum, found.blocks))
    generator = np.random.default_rng(training.SEED)
    network = SuperResolution(rng=np.random.default_rng(training.SEED))
    optimizer = training.Adam(network.parameters())
    samples = [sample for each in pictures for sample in each.training]
    losses = []
    for number in range(25):
        batch = photographs.random_crops(samples, training.BATCH, training.EXTENT, generator)
        rate = training.RATE * (number + 1) / training.WARM_UP * (1 - number / 25)
        losses.append(training.step(network, optimizer, batch, rate))
    for each in found.losses:
        assert each == pytest.approx(losses, rel=1e-2)
    assert len(found.bicubic) == 25
    assert found.bicubic[0] == pytest.approx(losses[0])
    assert found.final == tuple(np.mean(each[-20:]) for each in found.losses)
    assert found.difference < 1e-2 < found.noise
    assert len(calls) == 25 * 5  # layers


def test_the_second_act_ends_with_its_time(pictures):
    pytest.importorskip("torch")
    from fastconv.cli.demo import pytorch

    found = pytorch.compare(pictures, 10**6, 1e-9)
    assert [len(losses) for losses in found.losses] == [20, 20]


def test_losses_that_differ_are_told():
    from fastconv.cli.demo import pytorch

    found = pytorch.Comparison(
        [1.0] * 40, ([1.0, 1.1] * 20, [1.0, 1.5] * 20), ([2.0, 2.0, 5.0], [1.0, 1.0, 1.0]), 30, 1
    )
    assert str(found).splitlines() == [
        "PyTorch 9.00 s, converted 3.00 s: ratio 3.00, of the median turn 2.00; final losses 1.05000 and 1.25000",
        "The losses differ by more than noise: by 36.36% in the worst step; from batch to batch they change by 9%.",
    ]


def test_without_pytorch_the_second_act_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *_: (SuperResolution(rng=0), 1, 0.0))
    monkeypatch.setitem(sys.modules, "torch", None)
    cli.main(["demo", "--output", str(tmp_path / "demo.png")])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "PyTorch" in line)
    assert line.startswith("No comparison with PyTorch: ")
    assert line.endswith('pip install "fastconv[torch]"')
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]


def test_not_beating_bicubic_is_said_and_is_status_1(tmp_path, capsys, monkeypatch):
    worse = SuperResolution(rng=0)
    worse.parameters()[-1][...] = 0.1  # everything a little too bright
    monkeypatch.setattr(training, "train", lambda *_: (worse, 1, 0.0))
    assert cli.main(["demo", "--steps", "1", "--output", str(tmp_path / "demo.png")]) == 1
    text = capsys.readouterr().out
    bicubic, ours, _ = printed_psnr(text)["mean"]
    assert ours < bicubic
    assert f"Ours does not beat bicubic: {ours:.2f} dB against {bicubic:.2f} dB." in text


@pytest.mark.slow
def test_a_full_run_beats_bicubic_within_its_time(tmp_path, capsys):
    start = time.monotonic()
    status = cli.main(["demo", "--output", str(tmp_path / "demo.png")])
    assert time.monotonic() - start < 140
    text = capsys.readouterr().out
    bicubic, ours, _ = printed_psnr(text)["mean"]
    assert (status, "Ours beats bicubic" in text) == (0, True)
    assert ours > bicubic + 0.5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--steps", "0"], "--steps must be at least 1"),
        (["--seconds", "0"], "--seconds must be a positive number"),
        (["--seconds", "nan"], "--seconds must be a positive number"),
        (["--output", "{folder}/none/demo.png"], "--output .*there is no folder"),
        (["--output", "{folder}"], "--output .*is a folder"),
        (["--backend", "nunpy"], "did you mean 'numpy'"),
    ],
)
def test_wrong_options_are_told_before_any_work(tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.setattr(photographs, "load", lambda: pytest.fail("work has begun"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", *(argument.format(folder=tmp_path) for argument in arguments)]) == 1
    assert re.search(told, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_permission_is_told_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(photographs, "load", lambda: pytest.fail("work has begun"))
    monkeypatch.setattr("os.access", lambda *_: False)
    assert cli.main(["demo", "--output", str(tmp_path / "demo.png")]) == 1
    assert re.search("--output .*permission", capsys.readouterr().err)


@pytest.mark.parametrize("package", ["sklearn.datasets", "PIL.Image", "matplotlib.figure", "tqdm"])
def test_a_missing_package_is_told_before_any_work(tmp_path, capsys, monkeypatch, package):
    monkeypatch.setattr(photographs, "load", lambda: pytest.fail("work has begun"))
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["demo", "--output", str(tmp_path / "demo.png")]) == 1
    error = capsys.readouterr().err
    assert package.partition(".")[0] in error
    assert 'pip install "fastconv[demo]"' in error


def test_the_command_loads_its_packages_only_when_it_runs():
    code = "import sys, fastconv.cli.demo; print({'sklearn', 'PIL', 'matplotlib', 'tqdm'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_parts_are_the_whole_picture_once():
    columns = np.broadcast_to(np.arange(641), (3, 5, 641))
    training_parts, held_out = photographs.split(columns)
    assert len(training_parts) == 2
    assert sorted(itertools.chain(held_out[0, 0], *(part[0, 0] for part in training_parts))) == list(range(641))
    assert held_out.shape[-1] == pytest.approx(641 / 4, abs=1)
    assert held_out.min() > training_parts[0].max()
    assert held_out.max() < training_parts[1].min()


def test_nothing_of_the_held_out_part_reaches_training(monkeypatch, pictures):
    """With other pixels there, the samples to train on are the same to the last bit, and those held out are not."""
    shipped = datasets.load_sample_images()
    shipped.images = [pixels.copy() for pixels in shipped.images]
    for pixels in shipped.images:
        pixels[:, 240:400] = 255 - pixels[:, 240:400]
    monkeypatch.setattr(datasets, "load_sample_images", lambda: shipped)
    for before, after in zip(pictures, photographs.load(), strict=True):
        assert not np.allclose(before.held_out.low, after.held_out.low, atol=0.1)
        for old, new in zip(before.training, after.training, strict=True):
            for array, other in zip(old, new, strict=True):
                np.testing.assert_array_equal(array, other)


def test_a_sample_is_even_and_its_low_resolution_holds_8_bits(pictures):
    part = pictures[0].held_out
    assert [array.shape for array in part] == [(3, 213, 80), (3, 426, 160), (3, 426, 160)]
    assert {array.dtype for array in part} == {np.dtype(np.float32)}
    np.testing.assert_allclose(part.low * 255, np.round(part.low * 255), atol=1e-4)
    assert 0 <= part.low.min() < part.low.max() <= 1


def test_crops_show_one_view_three_times():
    """On a smooth picture bicubic is close to the truth, however a crop is turned; on views that differ it is not."""
    h, w = np.mgrid[:40, :60] / 60
    smooth = photographs.sample(np.stack([h, w, (h + w) / 2]).astype(np.float32))
    batch = photographs.random_crops([smooth], 32, 8, np.random.default_rng(0))
    assert [array.shape for array in batch] == [(32, 3, 8, 8), (32, 3, 16, 16), (32, 3, 16, 16)]
    assert photographs.psnr(batch.bicubic, batch.truth) > 45
    assert photographs.psnr(np.repeat(np.repeat(batch.low, 2, axis=2), 2, axis=3), batch.truth) > 37
    assert photographs.psnr(np.roll(batch.bicubic, 1, axis=0), batch.truth) < 20
    assert len({crop.tobytes() for crop in batch.truth}) > 16


def test_psnr():
    truth = np.full((3, 2, 2), 0.5)
    assert photographs.psnr(truth + 0.1, truth) == pytest.approx(20)
    assert photographs.psnr(truth + 7, truth) == pytest.approx(10 * np.log10(4))


def test_the_picture_shows_where_bicubic_is_worst():
    truth = np.full((3, 200, 160), 0.5)
    truth[:, 70:80, 90:100] = 1
    part = Sample(truth[:, ::2, ::2], np.full_like(truth, 0.49), truth)
    top, left = picture.hardest_window(part)
    assert top <= 35 < 40 <= top + picture.WINDOW
    assert left <= 45 < 50 <= left + picture.WINDOW


def test_two_steps_of_adam_by_hand():
    """Gradients 1 and then -2: means 0.1, -0.11 over 0.1, 0.19; squares 0.001, 0.004999 over 0.001, 0.001999."""
    parameter = np.array([1.0])
    optimizer = training.Adam([parameter])
    optimizer.step([np.array([1.0])], 0.5)
    assert parameter[0] == pytest.approx(1 - 0.5 * 1 / (1 + 1e-8), rel=1e-12)
    optimizer.step([np.array([-2.0])], 0.5)
    move = (-0.11 / 0.19) / (np.sqrt(0.004999 / 0.001999) + 1e-8)
    assert parameter[0] == pytest.approx(0.5 - 0.5 * move + 0.5e-8, rel=1e-9)


def test_a_step_follows_the_gradient_of_its_loss():
    """The gradients that a step leaves are those of the mean squared error, by finite differences in float64."""
    rng = np.random.default_rng(1)
    network = SuperResolution(width=2, depth=1, dtype=np.float64, rng=rng)
    for parameter in network.parameters():
        parameter[...] = rng.uniform(-0.5, 0.5, parameter.shape)
    batch = Sample(rng.random((2, 3, 4, 5)), rng.random((2, 3, 8, 10)), rng.random((2, 3, 8, 10)))

    def loss():
        return np.mean((network(batch.low, batch.bicubic) - batch.truth) ** 2)

    expected = loss()
    assert training.step(network, training.Adam(network.parameters()), batch, rate=0) == pytest.approx(expected)
    gradients = network.gradients()
    assert len(gradients) == len(network.parameters()) == 6
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        assert np.abs(gradient).max() > 1e-4
        for place in np.ndindex(parameter.shape):
            middle, differences = parameter[place], []
            for parameter[place] in (middle + 1e-6, middle - 1e-6):
                differences.append(loss())
            parameter[place] = middle
            assert gradient[place] == pytest.approx((differences[0] - differences[1]) / 2e-6, abs=1e-8)


def test_relu_stops_what_is_not_positive():
    relu = ReLU()
    x = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(relu(x), [0, 0, 2])
    np.testing.assert_array_equal(relu.backward(np.array([5.0, 5.0, 5.0])), [0, 0, 5])


def test_training_starts_at_bicubic(pictures):
    part = pictures[1].held_out
    np.testing.assert_array_equal(SuperResolution(rng=0)(part.low, part.bicubic), part.bicubic)


def test_the_network_is_what_it_says():
    """Several convolutions, then a transposed one of stride 2, all of fastconv's."""
    *convolutions, last = SuperResolution(rng=0).layers
    assert [type(layer) for layer in convolutions] == [fc.nn.Conv2d] * 4
    assert (type(last), last.stride) == (fc.nn.ConvTranspose2d, (2, 2))


def test_training_stops_when_its_time_is_over(pictures):
    _, steps, seconds = training.train(pictures, 10**6, 0.3)
    assert 1 <= steps < 1000
    assert 0.3 <= seconds < 30


def test_training_lowers_the_loss_on_its_own_parts(pictures):
    network, _, _ = training.train(pictures, STEPS, 1000)
    for part in pictures[0].training:
        enlarged = network(part.low, part.bicubic)
        assert np.mean((enlarged - part.truth) ** 2) < np.mean((part.bicubic - part.truth) ** 2)
