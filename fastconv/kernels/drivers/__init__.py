"""One module for each pass. `PASSES` lists them in the order in which compiled engines number them."""

from __future__ import annotations

from fastconv.kernels.drivers.pixel_lanes import pixel_lanes
from fastconv.kernels.drivers.weight_grad_pixel_lanes import weight_grad_pixel_lanes

PASSES = (
    pixel_lanes,
    weight_grad_pixel_lanes,
)
