"""`fastconv demo`: trains a small super-resolution network on two photographs and compares it with bicubic.

Where PyTorch is installed, a second act trains the same network there, by PyTorch's convolutions and by ours.

    photographs   load them, hold a part out, scale them down; random crops; PSNR
    network       the layers, forward and backward
    training      Adam, a training step, the loop, and the time of a step
    picture       low resolution, bicubic, ours and truth side by side
    pytorch       the second act

The modules beside this one are imported when the command runs; they need the extra `demo`.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastconv.dispatch import backends
from fastconv.problem import parameters
from fastconv.problem.errors import ArgumentError, MissingExtraError
from fastconv.problem.extras import require

if TYPE_CHECKING:
    from fastconv.cli.demo.network import SuperResolution
    from fastconv.cli.demo.photographs import Photograph

_PACKAGES = ("sklearn.datasets", "PIL.Image", "matplotlib.figure", "tqdm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long to train, on which engine, and where the picture goes."""
    parser.add_argument("--steps", type=int, default=1500, help="training steps at most (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=40, help="training time at most (default: %(default)s)")
    parser.add_argument("--backend", metavar="NAME", help="the engine to train on (default: as for any call)")
    parser.add_argument(
        "--output", type=Path, default=Path("fastconv-demo.png"),
        help="the picture to write; that of PyTorch's act is beside it, with -torch in its name (default: %(default)s)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Train, compare, time the engines and write the picture: 0 if ours beats bicubic on the held-out parts, else 1.

    Raises before any work: `ArgumentError` for an invalid option, `MissingExtraError`, `BackendUnavailableError`.
    """
    start = time.monotonic()
    parameters.integer("--steps", options.steps, 1)
    if not options.seconds > 0:
        raise ArgumentError(f"--seconds must be a positive number, not {options.seconds}")
    output = options.output
    _check_output(output)
    second_output = output.with_name(f"{output.stem}-torch{output.suffix}")
    _check_output(second_output)
    for package in _PACKAGES:
        require(package, "demo", "the demo")
    from fastconv.cli.demo import photographs, picture, training

    with backends.use_backend(options.backend or backends.get_backend()):
        pictures = photographs.load()
        names = " and ".join(each.name for each in pictures)
        print(f"Training on {names} with the engine {_engine()}; the middle quarter of each is held out.", flush=True)
        network, steps, seconds = training.train(pictures, options.steps, options.seconds)
        print(f"{steps} of {options.steps} steps in {seconds:.1f} s.\n")
        is_better = _compare(network, pictures)
        _time_engines(pictures)
        picture.write(output, network, pictures)
        print(f"The picture is {output}.\n")
        _second_act(pictures, options, second_output)
    print(f"All in all {time.monotonic() - start:.1f} s.")
    return 0 if is_better else 1


def _check_output(output: Path) -> None:
    """Raise `ArgumentError` if the file cannot be written, before training rather than after."""
    folder = output.parent
    if not folder.is_dir():
        raise ArgumentError(f"--output {output}: there is no folder {folder}")
    if output.is_dir():
        raise ArgumentError(f"--output {output} is a folder, and should be the name of a file")
    if not os.access(output if output.exists() else folder, os.W_OK):
        raise ArgumentError(f"--output {output} cannot be written: no permission")


def _engine() -> str:
    """The name of the engine that calls on float32 get here."""
    return backends.choose(None, np.dtype(np.float32))[0]


def _compare(network: SuperResolution, pictures: list[Photograph]) -> bool:
    """Print the PSNR on the held-out parts, and return whether our mean is above bicubic's."""
    from fastconv.cli.demo.photographs import psnr

    figures = {}
    for picture in pictures:
        part = picture.held_out
        figures[picture.name] = psnr(part.bicubic, part.truth), psnr(network(part.low, part.bicubic), part.truth)
    bicubic, ours = np.mean(list(figures.values()), axis=0)

    print("PSNR in dB on the held-out parts (red, green and blue together, every pixel)")
    print(f"  {'':<12} bicubic    ours    gain")
    for name, (theirs, own) in (figures | {"mean": (bicubic, ours)}).items():
        print(f"  {name:<12} {theirs:7.2f} {own:7.2f} {own - theirs:+7.2f}")
    verdict = "beats" if ours > bicubic else "does not beat"
    print(f"Ours {verdict} bicubic: {ours:.2f} dB against {bicubic:.2f} dB.\n")
    return bool(ours > bicubic)


def _time_engines(pictures: list[Photograph]) -> None:
    """Print the seconds of a training step with each engine, or why it cannot run here."""
    from fastconv.cli.demo.training import BATCH, EXTENT, seconds_a_step

    print(f"Seconds a training step on {BATCH} crops of {EXTENT} x {EXTENT} (median)")
    for name, reason in backends.backend_reasons().items():
        print(f"  {name:<12} " + (f"{seconds_a_step(name, pictures):.4f}" if reason is None else f"no: {reason}"))
    print()


def _second_act(pictures: list[Photograph], options: argparse.Namespace, output: Path) -> None:
    """Train in PyTorch twice, print the comparison and draw it; if PyTorch is missing, say that."""
    from fastconv.cli.demo import pytorch

    try:
        pytorch.library()
    except MissingExtraError as error:
        print(f"No comparison with PyTorch: {error}")
        return
    print(f"The same training in PyTorch, as it is and converted, in turns of {pytorch.BLOCK} steps", flush=True)
    comparison = pytorch.compare(pictures, options.steps, options.seconds)
    print(f"Threads {comparison.threads}; {comparison.timed} steps are timed; the first turn, with compilation, is not")
    print(comparison)
    pytorch.draw(output, comparison)
    print(f"The picture is {output}.")
