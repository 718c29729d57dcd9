"""One module for each pass. `PASSES` lists them in the order in which compiled engines number them."""

from __future__ import annotations

from fastconv.kernels.drivers.bias_grad import bias_grad
from fastconv.kernels.drivers.weight_grad_channel_lanes import weight_grad_channel_lanes
from fastconv.kernels.drivers.weight_grad_pixel_lanes import weight_grad_pixel_lanes
from fastconv.kernels.drivers.weight_grad_tap_lanes import weight_grad_tap_lanes

PASSES = (weight_grad_tap_lanes, weight_grad_channel_lanes, weight_grad_pixel_lanes, bias_grad)
