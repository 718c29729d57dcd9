"""The photographs that scikit-learn ships: a part held out, each part scaled down separately, crops, PSNR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastconv.problem.arrays import Array
from fastconv.problem.extras import require

#: The factor from the low resolution to the truth, on each axis.
SCALE = 2


class Sample(NamedTuple):
    """A picture in three versions, float32 in [0, 1], channels red, green, blue; a batch has a further axis in front.

    low       (3, h, w): `truth` scaled down and rounded to 8 bits, as in a file
    bicubic   (3, SCALE * h, SCALE * w): `low` scaled up
    truth     (3, SCALE * h, SCALE * w)
    """

    low: Array
    bicubic: Array
    truth: Array

    def crop(self, top: int, left: int, extent: int) -> Sample:
        """The square with this corner and extent, in pixels of the low resolution, as views."""
        return Sample(
            *(
                array[..., scale * top : scale * (top + extent), scale * left : scale * (left + extent)]
                for array, scale in zip(self, (1, SCALE, SCALE), strict=True)
            )
        )


class Photograph(NamedTuple):
    """A photograph's name, its parts for training, and the held-out part that training never sees."""

    name: str
    training: list[Sample]
    held_out: Sample


def load() -> list[Photograph]:
    """The photographs, cut before they are scaled, so that no filter reaches from one part into another."""
    shipped = require("sklearn.datasets", "demo", "the demo").load_sample_images()
    photographs = []
    for filename, pixels in zip(shipped.filenames, shipped.images, strict=True):
        training, held_out = split(pixels.transpose(2, 0, 1).astype(np.float32) / 255)
        photographs.append(Photograph(Path(filename).name, [sample(part) for part in training], sample(held_out)))
    return photographs


def split(picture: Array) -> tuple[list[Array], Array]:
    """The parts of a picture (c, h, w) for training, and the held-out part, the middle quarter of the columns."""
    w = picture.shape[-1]
    first, last = 3 * w // 8, 5 * w // 8
    return [picture[..., :first], picture[..., last:]], picture[..., first:last]


def sample(picture: Array) -> Sample:
    """The sample whose truth is `picture` (3, H, W), without the last row or column if H or W is odd."""
    h, w = (extent // SCALE for extent in picture.shape[-2:])
    truth = picture[:, : SCALE * h, : SCALE * w]
    low = np.round(255 * np.clip(_resized(truth, h, w), 0, 1)) / 255
    return Sample(low, _resized(low, SCALE * h, SCALE * w), truth)


def _resized(picture: Array, h: int, w: int) -> Array:
    """`picture` (c, ., .) resized to (c, h, w) by Pillow's bicubic filter, which smooths when it scales down."""
    image = require("PIL.Image", "demo", "the demo")
    return np.stack([image.fromarray(plane).resize((w, h), image.Resampling.BICUBIC) for plane in picture])


def random_crops(samples: Sequence[Sample], count: int, extent: int, generator: np.random.Generator) -> Sample:
    """A batch of `count` squares from anywhere in the samples, each mirrored, turned and recoloured at random.

    `extent` is in pixels of the low resolution; `low` is (count, 3, extent, extent). Two photographs have few colours:
    permuting the channels keeps the network from learning only these.
    """
    crops = []
    for _ in range(count):
        chosen = samples[int(generator.integers(len(samples)))]
        h, w = chosen.low.shape[-2:]
        top, left = generator.integers((h - extent + 1, w - extent + 1))
        down, right = generator.choice((1, -1), 2)
        colours, axes = generator.permutation(3), (0, *generator.permutation((1, 2)))
        crops.append([array[colours, ::down, ::right].transpose(axes) for array in chosen.crop(top, left, extent)])
    return Sample(*(np.stack(arrays) for arrays in zip(*crops, strict=True)))


def psnr(picture: Array, truth: Array) -> float:
    """Peak signal-to-noise ratio in dB, over all pixels and channels, of a picture clipped to [0, 1]."""
    error = np.clip(picture, 0, 1).astype(np.float64) - truth
    return float(-10 * np.log10(np.mean(np.square(error))))
