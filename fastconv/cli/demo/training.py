"""Training: Adam, one step, the loop with its progress bar, and the time of a step with a given engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from fastconv.cli.demo.network import SuperResolution
from fastconv.cli.demo.photographs import Photograph, Sample, psnr, random_crops
from fastconv.dispatch.backends import use_backend
from fastconv.problem.arrays import Array
from fastconv.problem.extras import require

#: Adam's highest rate, reached after `WARM_UP` steps; from there it falls linearly to zero. Without the warm-up the
#: first, noisy steps can leave every ReLU at zero for good.
RATE, WARM_UP = 2e-3, 50
#: Crops in a step, and their extent in pixels of the low resolution.
BATCH, EXTENT = 8, 24
#: Steps between two evaluations on the held-out parts, which only the progress bar shows.
LOOK = 100
SEED = 0


class Adam:
    """Adam, with the constants of D. P. Kingma, J. Ba, Adam: A Method for Stochastic Optimization, 2015.

    Each step changes `parameters` in place.
    """

    def __init__(
        self, parameters: Sequence[Array], beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        self._parameters = list(parameters)
        self._beta1, self._beta2, self._eps = beta1, beta2, eps
        self._means = [np.zeros_like(parameter) for parameter in parameters]
        self._squares = [np.zeros_like(parameter) for parameter in parameters]
        self._steps = 0

    def step(self, gradients: Sequence[Array], rate: float) -> None:
        """Move each parameter against its gradient by about `rate`."""
        self._steps += 1
        # the running means start at zero; these factors undo the bias
        unbias1, unbias2 = 1 - self._beta1**self._steps, 1 - self._beta2**self._steps
        for i, gradient in enumerate(gradients):
            self._means[i] += (1 - self._beta1) * (gradient - self._means[i])
            self._squares[i] += (1 - self._beta2) * (gradient**2 - self._squares[i])
            move = (self._means[i] / unbias1) / (np.sqrt(self._squares[i] / unbias2) + self._eps)
            self._parameters[i] -= rate * move


def step(network: SuperResolution, optimizer: Adam, batch: Sample, rate: float) -> float:
    """One training step: forward, backward, update. Returns the mean squared error before the update."""
    error = network(batch.low, batch.bicubic) - batch.truth
    network.backward(2 / error.size * error)
    optimizer.step(network.gradients(), rate)
    return float(np.mean(np.square(error)))


def train(photographs: Sequence[Photograph], steps: int, seconds: float) -> tuple[SuperResolution, int, float]:
    """Train a network for `steps` steps or `seconds` seconds, whichever ends first; returns it, the steps, the seconds.

    Adam's rate follows whichever is nearer its end, so that it also reaches zero when time runs out. If the steps end
    first, the same `steps` give the same network, up to the engine's rounding.
    """
    start = time.monotonic()
    generator = np.random.default_rng(SEED)
    network = SuperResolution(rng=generator)
    optimizer = Adam(network.parameters())
    samples = [sample for photograph in photographs for sample in photograph.training]
    losses: list[float] = []
    elapsed = progress = 0.0
    with require("tqdm", "demo", "the demo").tqdm(total=steps, unit="step") as bar:
        while progress < 1:
            batch = random_crops(samples, BATCH, EXTENT, generator)
            rate = RATE * min(1, (len(losses) + 1) / WARM_UP) * (1 - progress)
            losses.append(step(network, optimizer, batch, rate))
            elapsed = time.monotonic() - start
            progress = max(len(losses) / steps, elapsed / seconds)
            bar.update()
            if len(losses) % LOOK == 0 or progress >= 1:
                held_out = _held_out_psnr(network, photographs)
                bar.set_postfix_str(f"loss {np.mean(losses[-LOOK:]):.5f}, held-out PSNR {held_out:.2f} dB")
    return network, len(losses), elapsed


def _held_out_psnr(network: SuperResolution, photographs: Sequence[Photograph]) -> float:
    """The mean PSNR on the held-out parts."""
    parts = [photograph.held_out for photograph in photographs]
    return statistics.fmean(psnr(network(part.low, part.bicubic), part.truth) for part in parts)


def seconds_a_step(backend: str, photographs: Sequence[Photograph], repeats: int = 7) -> float:
    """The median seconds of a training step with this backend, after a first one that may compile."""
    generator = np.random.default_rng(SEED)
    network = SuperResolution(rng=generator)
    optimizer = Adam(network.parameters())
    batch = random_crops(photographs[0].training, BATCH, EXTENT, generator)
    times = []
    with use_backend(backend):
        for _ in range(1 + repeats):
            start = time.perf_counter()
            step(network, optimizer, batch, RATE)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
