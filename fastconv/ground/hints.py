"""Messages about shapes that do not fit, with the common slip that explains them, where there is one."""

from __future__ import annotations

from collections.abc import Sequence

_LARGE = {1: ("(N, C, W)", "(C, W)"), 2: ("(N, C, H, W)", "(C, H, W)")}
_KERNEL = {1: "width", 2: "height, width"}


def rank(name: str, shape: Sequence[int], spatial: int) -> str:
    """A map that has too many axes or too few."""
    batched, unbatched = _LARGE[spatial]
    message = f"{name} must be {batched}, or {unbatched} unbatched, not {len(shape)}-dimensional: {tuple(shape)}"
    if len(shape) == spatial:
        message += f"; the channel axis is missing: {name}[None] has it"
    elif len(shape) == spatial + 3:
        message += "; a volume, or an extra axis of length 1?"
    return message


def weight_rank(name: str, shape: Sequence[int], spatial: int) -> str:
    """A weight that has too many axes or too few."""
    message = (
        f"{name} must be (channels, channels / groups, {_KERNEL[spatial]}), "
        f"not {len(shape)}-dimensional: {tuple(shape)}"
    )
    if len(shape) == spatial:
        message += f"; for one channel in and out: {name}[None, None]"
    return message


def conv_channels(names: tuple[str, str], input_shape: Sequence[int], weight_shape: Sequence[int], groups: int) -> str:
    """The input's channels are not weight.shape[1] * groups."""
    spatial = len(weight_shape) - 2
    expected = weight_shape[1] * groups
    channels = input_shape[-spatial - 1]
    message = (
        f"{names[0]} has {channels} channels (shape {tuple(input_shape)}), but {names[1]} of shape "
        f"{tuple(weight_shape)} with groups={groups} takes {weight_shape[1]} * {groups} = {expected}"
    )
    if input_shape[-1] == expected:
        return message + _channels_last(names[0], spatial)
    if weight_shape[0] == channels and groups == 1:
        return message + (
            f"; {names[1]} looks like a transposed convolution's, (C_in, C_out, ...): use conv_transpose, "
            f"or {names[1]}.swapaxes(0, 1)"
        )
    return (
        message
        + _weight_channels_last(names[1], weight_shape, channels, groups)
        + _no_batch(names[0], input_shape, spatial, expected)
    )


def transposed_channels(
    names: tuple[str, str], input_shape: Sequence[int], weight_shape: Sequence[int], groups: int
) -> str:
    """The input's channels are not weight.shape[0]."""
    spatial = len(weight_shape) - 2
    expected = weight_shape[0]
    channels = input_shape[-spatial - 1]
    message = (
        f"{names[0]} has {channels} channels (shape {tuple(input_shape)}), but {names[1]} of shape "
        f"{tuple(weight_shape)}, which is (C_in, C_out / groups, ...) in a transposed convolution, takes {expected}"
    )
    if input_shape[-1] == expected:
        return message + _channels_last(names[0], spatial)
    if weight_shape[1] * groups == channels:
        return message + (
            f"; {names[1]} looks like an ordinary convolution's, (C_out, C_in / groups, ...): "
            f"use {names[1]}.swapaxes(0, 1)"
        )
    return message + _no_batch(names[0], input_shape, spatial, expected)


def _channels_last(name: str, spatial: int) -> str:
    return f"; {name} looks like channels last: use numpy.moveaxis({name}, -1, -{spatial + 1})"


def _weight_channels_last(name: str, shape: Sequence[int], channels: int, groups: int) -> str:
    if shape[-2] * groups != channels:
        return ""
    axes = (*range(len(shape) - 1, len(shape) - 3, -1), *range(len(shape) - 2))
    return f"; {name} looks like (kernel, C_in, C_out): use {name}.transpose{axes}"


def _no_batch(name: str, shape: Sequence[int], spatial: int, expected: int) -> str:
    """(N, H, W) read as unbatched (C, H, W): a batch of single-channel images whose channel axis is missing."""
    if len(shape) == spatial + 1 and expected == 1:
        return f"; a batch of single-channel images is {name}[:, None]"
    return ""
