"""The second act: the same training in PyTorch, by its own convolutions and by those of `fastconv.torch.convert`.

Both networks begin with the same weights and get the same batches and the same optimizer. They take turns in blocks of
steps, so that whatever else the machine does disturbs both. The first block of each, which may compile, is not timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastconv import nn
from fastconv.cli.demo.network import SuperResolution
from fastconv.cli.demo.photographs import Photograph, Sample, random_crops
from fastconv.cli.demo.training import BATCH, EXTENT, RATE, SEED, WARM_UP
from fastconv.dispatch import threads
from fastconv.problem.extras import require

#: Steps at most, and those of a block.
STEPS, BLOCK = 200, 10

NAMES = "PyTorch", "converted"


def library() -> Any:
    """PyTorch. Raises `MissingExtraError` if it is missing."""
    return require("torch", "torch", "the comparison with PyTorch")


class Comparison(NamedTuple):
    """What two trainings took and found; each pair is that of PyTorch's convolutions, then of fastconv's.

    bicubic   the mean squared error of bicubic on every batch
    losses    the loss of every step
    blocks    the seconds of every timed block
    timed     the number of steps in them
    threads   on which both computed
    """

    bicubic: list[float]
    losses: tuple[list[float], list[float]]
    blocks: tuple[list[float], list[float]]
    timed: int
    threads: int

    @property
    def seconds(self) -> tuple[float, float]:
        """The seconds of all timed steps."""
        return sum(self.blocks[0]), sum(self.blocks[1])

    @property
    def final(self) -> tuple[float, float]:
        """The mean losses of the last 20 steps."""
        return float(np.mean(self.losses[0][-20:])), float(np.mean(self.losses[1][-20:]))

    @property
    def difference(self) -> float:
        """The largest difference of the two losses of a step, as a part of PyTorch's."""
        theirs, ours = map(np.asarray, self.losses)
        return float(np.max(np.abs(ours - theirs) / theirs))

    @property
    def noise(self) -> float:
        """The median change of PyTorch's loss from one step, and so one batch, to the next, as a part of it."""
        theirs = np.asarray(self.losses[0])
        return float(np.median(np.abs(np.diff(theirs)) / theirs[1:]))

    def __str__(self) -> str:
        ratio = statistics.median(np.divide(*self.blocks))
        (theirs, ours), (loss, other) = self.seconds, self.final
        agreement = "agree within" if self.difference < self.noise else "differ by more than"
        return (
            f"{NAMES[0]} {theirs:.2f} s, {NAMES[1]} {ours:.2f} s: "
            f"ratio {theirs / ours:.2f}, of the median turn {ratio:.2f}; final losses {loss:.5f} and {other:.5f}\n"
            f"The losses {agreement} noise: by {self.difference:.2%} in the worst step; "
            f"from batch to batch they change by {self.noise:.0%}."
        )


class _Training:
    """A network of PyTorch's with its optimizer."""

    def __init__(self, network: Any) -> None:
        torch = library()
        self._network, self._optimizer = network, torch.optim.Adam(network.parameters())
        self._from_numpy = torch.from_numpy

    def step(self, batch: Sample, rate: float) -> float:
        """As `training.step`."""
        low, bicubic, truth = map(self._from_numpy, batch)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        loss = (bicubic + self._network(low - 0.5) - truth).square().mean()
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())


def compare(photographs: Sequence[Photograph], steps: int, seconds: float) -> Comparison:
    """Train both networks for `steps` steps, from 20 to `STEPS`, or until `seconds` have passed after two blocks.

    Raises `MissingExtraError` if PyTorch is missing.
    """
    count = threads.get_num_threads()  # asked first, as PyTorch sets OpenMP's number when it is imported
    torch = library()
    from fastconv.torch import convert

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        pair = _Training(_network(torch)), _Training(convert(_network(torch)))
        return _trained(pair, photographs, min(max(steps, 2 * BLOCK), STEPS), seconds, count)
    finally:
        torch.set_num_threads(before)


def _trained(
    pair: tuple[_Training, _Training], photographs: Sequence[Photograph], steps: int, seconds: float, count: int
) -> Comparison:
    start = time.monotonic()
    generator = np.random.default_rng(SEED)
    samples = [sample for photograph in photographs for sample in photograph.training]
    found = Comparison([], ([], []), ([], []), 0, count)
    for first in range(0, steps, BLOCK):
        numbers = range(first, min(first + BLOCK, steps))
        batches = [random_crops(samples, BATCH, EXTENT, generator) for _ in numbers]
        found.bicubic.extend(float(np.mean(np.square(batch.bicubic - batch.truth))) for batch in batches)
        for which in (0, 1) if first % (2 * BLOCK) else (1, 0):
            began = time.perf_counter()
            for number, batch in zip(numbers, batches, strict=True):
                rate = RATE * min(1, (number + 1) / WARM_UP) * (1 - number / steps)
                found.losses[which].append(pair[which].step(batch, rate))
            if first:
                found.blocks[which].append(time.perf_counter() - began)
        if first and time.monotonic() - start > seconds:
            break
    return found._replace(timed=len(found.losses[0]) - BLOCK)


def _network(torch: Any) -> Any:
    """`SuperResolution` as PyTorch's layers, with its weights; bicubic is added by the step."""
    parts: list[Any] = []
    for layer in SuperResolution(rng=np.random.default_rng(SEED)).layers:
        state, settings = layer.state_dict(), vars(layer)
        kind = torch.nn.Conv2d if isinstance(layer, nn.Conv2d) else torch.nn.ConvTranspose2d
        channels = state["weight"].shape[:2]
        inputs, outputs = channels[::-1] if kind is torch.nn.Conv2d else channels
        part = kind(inputs, outputs, state["weight"].shape[2:], settings["stride"], settings["padding"])
        part.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        parts += [part, torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1])


def draw(output: Path, comparison: Comparison) -> None:
    """Write a PNG: the losses of both, as parts of bicubic's error on each batch, and beside them the seconds."""
    figure = require("matplotlib.figure", "demo", "the demo").Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    for name, losses, style in zip(NAMES, comparison.losses, ("-", "--"), strict=True):
        left.plot(range(1, len(losses) + 1), np.divide(losses, comparison.bicubic), style, label=name)
    left.set(xlabel="step", ylabel="loss / error of bicubic on the same batch", title="Training in PyTorch")
    left.legend()
    bars = right.bar(NAMES, comparison.seconds, color=("C0", "C1"))
    right.bar_label(bars, fmt="%.2f s")
    right.set(ylabel="seconds", title=f"{comparison.timed} steps, threads: {comparison.threads}")
    figure.savefig(output, format="png", dpi=120)
