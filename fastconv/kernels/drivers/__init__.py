"""One module for each pass. `PASSES` lists them in the order in which compiled engines number them."""

from collections.abc import Callable
from typing import Any

from fastconv.kernels import abi, arguments
from fastconv.kernels.drivers.bias_grad import bias_grad
from fastconv.kernels.drivers.channel_lanes import channel_lanes
from fastconv.kernels.drivers.depthwise_channelwise import depthwise_channelwise, depthwise_channelwise_weight_grad
from fastconv.kernels.drivers.depthwise_in_place import depthwise_in_place, depthwise_in_place_weight_grad
from fastconv.kernels.drivers.depthwise_rowwise import (
    depthwise_rowwise,
    depthwise_rowwise_transposed,
    depthwise_rowwise_weight_grad,
)
from fastconv.kernels.drivers.fft_tiles import fft_tiles, fft_weight
from fastconv.kernels.drivers.fft_weight_grad import fft_weight_grad
from fastconv.kernels.drivers.pixel_lanes import pixel_lanes
from fastconv.kernels.drivers.weight_grad_channel_lanes import weight_grad_channel_lanes
from fastconv.kernels.drivers.weight_grad_pixel_lanes import weight_grad_pixel_lanes
from fastconv.kernels.drivers.weight_grad_tap_lanes import weight_grad_tap_lanes
from fastconv.kernels.drivers.winograd import winograd, winograd_weight
from fastconv.kernels.drivers.winograd_weight_grad import winograd_weight_grad

PASSES = (
    pixel_lanes,
    channel_lanes,
    weight_grad_tap_lanes,
    weight_grad_channel_lanes,
    weight_grad_pixel_lanes,
    depthwise_channelwise,
    depthwise_channelwise_weight_grad,
    depthwise_in_place,
    depthwise_in_place_weight_grad,
    depthwise_rowwise,
    depthwise_rowwise_transposed,
    depthwise_rowwise_weight_grad,
    bias_grad,
    winograd,
    winograd_weight,
    winograd_weight_grad,
    fft_tiles,
    fft_weight,
    fft_weight_grad,
)

#: The names of those that compute float32 only.
FLOAT32_ONLY = frozenset(
    driver.__name__
    for driver in (winograd, winograd_weight, winograd_weight_grad, fft_tiles, fft_weight, fft_weight_grad)
)


def structure_of(driver: Callable[..., None]) -> Any:
    """The structure of a driver's arguments: the type of its first parameter."""
    return next(iter(driver.__annotations__.values()))


def signature() -> str:
    """The numbers of `abi` and the fields of each pass: a module that was compiled with others is out of date."""
    fields = (f"{driver.__name__} {' '.join(arguments.names(structure_of(driver)))}" for driver in PASSES)
    return "; ".join([abi.signature(), *fields])
