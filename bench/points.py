"""The rounding error of Winograd's convolution by its points: a row for each set of points that was tried.

    python bench/points.py

A layer of 3x3 taps, 256 to 64 channels, 16x16 pixels, is computed by NumPy in float32 with F(4x4, 3x3) for tiles of 6x6
and F(3x3, 3x3) for tiles of 5x5. Channels are added one after the other. The error is the root mean square of the
difference to float64; the table has its ratio to that of direct convolution. The weight is transformed in float64 and
rounded once, so the errors are a little smaller than those of `bench/accuracy.py`.
"""

from fractions import Fraction

import numpy as np

from fastconv.kernels.toom_cook import POINTS, transforms
from fastconv.problem.arrays import Array

TAPS, CHANNELS, RESULTS, EXTENT = 3, 256, 64, 16
#: The sets by the size of a tile; the first is the one in use.
SETS = {
    6: (POINTS[6], "0 1 -1 1/2 -2", "0 1 -1 2 -2", "0 1 -1 1/2 -1/2"),
    5: (POINTS[5], "0 1 -1 2", "0 1 -1 1/2", "1 -1 1/2 -1/2", "1 -1 2 -2"),
}


def layer() -> tuple[Array, Array]:
    """The padded source as ReLU leaves it, and the weight."""
    rng = np.random.default_rng(0)
    source = np.maximum(rng.standard_normal((CHANNELS, EXTENT, EXTENT)), 0).astype("f")
    weight = rng.standard_normal((RESULTS, CHANNELS, TAPS, TAPS)) * (2 / (CHANNELS * TAPS**2)) ** 0.5
    return np.pad(source, ((0, 0), (1, TAPS + 4), (1, TAPS + 4))), weight.astype("f")


def added(a: Array, b: Array) -> Array:
    """The sum over the first axis of the product, in order, in the precision of its arguments."""
    total = np.zeros(np.broadcast_shapes(a.shape, b.shape)[1:], a.dtype)
    for left, right in zip(a, b, strict=True):
        total += left * right
    return total


def direct(source: Array, weight: Array) -> Array:
    """Direct convolution, in the precision of its arguments."""
    windows = np.lib.stride_tricks.sliding_window_view(source, (TAPS, TAPS), (1, 2))[:, :EXTENT, :EXTENT]
    pixels = windows.transpose(0, 3, 4, 1, 2).reshape(-1, 1, EXTENT, EXTENT)
    return added(pixels, weight.reshape(RESULTS, -1).T[:, :, None, None])


def winograd(source: Array, weight: Array, size: int, points: tuple[Fraction, ...]) -> Array:
    """Winograd's convolution with tiles of this size, in float32."""
    outputs = size - TAPS + 1
    found = transforms(outputs, TAPS, points)
    of_input, of_output = (np.array(matrix, "d").astype("f") for matrix in (found.input, found.output))
    of_weight = np.array(found.weight, "d") / np.array(found.divisors, "d")[:, None]
    count = -(-EXTENT // outputs)
    tiles = np.lib.stride_tricks.sliding_window_view(source, (size, size), (1, 2))[:, ::outputs, ::outputs]
    values = of_input @ tiles[:, :count, :count] @ of_input.T
    kernels = (of_weight @ weight.astype("d") @ of_weight.T).astype("f").swapaxes(0, 1)
    products = added(values[:, None], kernels[:, :, None, None])
    result = (of_output @ products @ of_output.T).transpose(0, 1, 3, 2, 4)
    return result.reshape(RESULTS, count * outputs, count * outputs)[:, :EXTENT, :EXTENT]


def main() -> None:
    """Print the table."""
    source, weight = layer()
    exact = direct(source.astype("d"), weight.astype("d"))

    def error(result: Array) -> float:
        return float(np.sqrt(np.mean((result - exact) ** 2)))

    of_direct = error(direct(source, weight))
    print("| tile | points, and infinity | error, of direct's |\n|---|---|---|")
    for size, sets in SETS.items():
        for points in sets:
            values = tuple(map(Fraction, points.split())) if isinstance(points, str) else points
            ratio = error(winograd(source, weight, size, values)) / of_direct
            print(f"| {size}x{size} | {', '.join(map(str, values))} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
