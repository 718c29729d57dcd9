"""The picture: a window of each held-out part in low resolution, by bicubic, by the network, and the truth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastconv.cli.demo.network import SuperResolution
from fastconv.cli.demo.photographs import Photograph, Sample, psnr
from fastconv.problem.extras import require

#: Extent of the window that is shown, and the step between candidates, in pixels of the low resolution.
WINDOW, STRIDE = 32, 8


def write(output: Path, network: SuperResolution, photographs: Sequence[Photograph]) -> None:
    """Write the PNG: a row for each photograph, with the PSNR of its whole held-out part in the titles."""
    figure = require("matplotlib.figure", "demo", "the demo").Figure(
        figsize=(12, 3.4 * len(photographs)), layout="constrained"
    )
    for row, photograph in zip(figure.subplots(len(photographs), 4, squeeze=False), photographs, strict=True):
        part = photograph.held_out
        ours = network(part.low, part.bicubic)
        corner = hardest_window(part)
        low, bicubic, truth = part.crop(*corner, WINDOW)
        shown = {
            f"{photograph.name}\nlow resolution": low,
            f"bicubic\n{psnr(part.bicubic, part.truth):.2f} dB": bicubic,
            f"ours\n{psnr(ours, part.truth):.2f} dB": part._replace(bicubic=ours).crop(*corner, WINDOW).bicubic,
            "truth\n": truth,
        }
        for axes, (title, picture) in zip(row, shown.items(), strict=True):
            axes.imshow(np.clip(picture, 0, 1).transpose(1, 2, 0), interpolation="nearest")
            axes.set_title(title)
            axes.set_axis_off()
    figure.suptitle("From the parts held out; the PSNR is that of the whole part")
    figure.savefig(output, format="png", dpi=120)


def hardest_window(part: Sample) -> tuple[int, int]:
    """Top and left, in pixels of the low resolution, of the window in which bicubic's PSNR is lowest."""
    h, w = part.low.shape[-2:]
    corners = itertools.product(range(0, h - WINDOW + 1, STRIDE), range(0, w - WINDOW + 1, STRIDE))

    def bicubic_psnr(corner: tuple[int, int]) -> float:
        window = part.crop(*corner, WINDOW)
        return psnr(window.bicubic, window.truth)

    return min(corners, key=bicubic_psnr)
