"""One module for each pass. `PASSES` lists them in the order in which compiled engines number them."""

from __future__ import annotations

from fastconv.kernels.drivers.bias_grad import bias_grad
from fastconv.kernels.drivers.channel_lanes import channel_lanes
from fastconv.kernels.drivers.depthwise_channelwise import depthwise_channelwise, depthwise_channelwise_weight_grad
from fastconv.kernels.drivers.depthwise_rowwise import (
    depthwise_rowwise,
    depthwise_rowwise_transposed,
    depthwise_rowwise_weight_grad,
)
from fastconv.kernels.drivers.weight_grad_channel_lanes import weight_grad_channel_lanes
from fastconv.kernels.drivers.weight_grad_pixel_lanes import weight_grad_pixel_lanes
from fastconv.kernels.drivers.weight_grad_tap_lanes import weight_grad_tap_lanes

PASSES = (
    channel_lanes,
    weight_grad_tap_lanes,
    weight_grad_channel_lanes,
    weight_grad_pixel_lanes,
    depthwise_channelwise,
    depthwise_channelwise_weight_grad,
    depthwise_rowwise,
    depthwise_rowwise_transposed,
    depthwise_rowwise_weight_grad,
    bias_grad,
)
