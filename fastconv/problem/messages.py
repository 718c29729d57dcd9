"""Messages about shapes that do not fit; if a common mistake explains the shape, they name it and the remedy."""

from __future__ import annotations

from collections.abc import Sequence

_MAPS = {1: ("(N, C, W)", "(C, W)"), 2: ("(N, C, H, W)", "(C, H, W)")}
_TAPS = {1: "S", 2: "R, S"}


def rank(name: str, shape: Sequence[int], spatial: int) -> str:
    """A map has too many or too few axes."""
    batched, unbatched = _MAPS[spatial]
    message = f"{name} must be {batched}, or {unbatched} unbatched, not {len(shape)}-dimensional: {tuple(shape)}"
    if len(shape) == spatial:
        message += f"; the channel axis is missing: {_remedy(name, f'{name}[None]', (1, *shape))}"
    elif len(shape) == spatial + 3:
        message += "; a volume, or an extra axis of length 1?"
    return message


def weight_rank(name: str, shape: Sequence[int], spatial: int, is_transposed: bool) -> str:
    """A weight has too many or too few axes."""
    channels = "C_in, C_out / groups" if is_transposed else "C_out, C_in / groups"
    message = f"{name} must be ({channels}, {_TAPS[spatial]}), not {len(shape)}-dimensional: {tuple(shape)}"
    if len(shape) == spatial:
        message += f"; for one channel in and out, {_remedy(name, f'{name}[None, None]', (1, 1, *shape))}"
    return message


def conv_channels(names: tuple[str, str], input_shape: Sequence[int], weight_shape: Sequence[int], groups: int) -> str:
    """The input's channels are not weight.shape[1] * groups."""
    input, weight = names
    spatial = len(weight_shape) - 2
    outputs, per_group, *taps = weight_shape
    expected = per_group * groups
    channels = input_shape[-spatial - 1]
    message = (
        f"{input} has {channels} channels (shape {tuple(input_shape)}), but {weight} of shape {tuple(weight_shape)} "
        f"with groups={groups} takes {per_group} * {groups} = {expected}"
    )
    if input_shape[-1] == expected:
        return message + _channels_last(input, input_shape, spatial)
    would_fit = channels // per_group
    fits = channels % per_group == 0 and outputs % would_fit == 0
    if fits and per_group == 1:
        return f"{message}; groups={would_fit} would fit (depthwise)" + _no_channels(
            input, input_shape, spatial, expected
        )
    if outputs == channels and groups == 1:
        swapped = _remedy(weight, f"{weight}.swapaxes(0, 1)", (per_group, outputs, *taps))
        return f"{message}; {weight} looks like a transposed convolution's, (C_in, C_out, ...): {swapped}"
    # kernel extents in front of two channel counts, which are larger
    if weight_shape[-2] * groups == channels and max(weight_shape[:spatial]) < min(weight_shape[spatial:]):
        axes = (len(weight_shape) - 1, len(weight_shape) - 2, *range(spatial))
        moved = _remedy(weight, f"{weight}.transpose{axes}", [weight_shape[axis] for axis in axes])
        return f"{message}; {weight} looks like (kernel, C_in, C_out): {moved}"
    if fits:
        return f"{message}; groups={would_fit} would fit"
    return message + _no_channels(input, input_shape, spatial, expected)


def transposed_channels(names: tuple[str, str], input_shape: Sequence[int], weight_shape: Sequence[int]) -> str:
    """The input's channels are not weight.shape[0]."""
    input, weight = names
    spatial = len(weight_shape) - 2
    expected, per_group, *taps = weight_shape
    channels = input_shape[-spatial - 1]
    message = (
        f"{input} has {channels} channels (shape {tuple(input_shape)}), but {weight} of shape {tuple(weight_shape)}, "
        f"which is (C_in, C_out / groups, ...) in a transposed convolution, takes {expected}"
    )
    if input_shape[-1] == expected:
        return message + _channels_last(input, input_shape, spatial)
    if per_group == channels:
        swapped = _remedy(weight, f"{weight}.swapaxes(0, 1)", (per_group, expected, *taps))
        return f"{message}; {weight} looks like an ordinary convolution's, (C_out, C_in, ...): {swapped}"
    return message + _no_channels(input, input_shape, spatial, expected)


def _remedy(name: str, expression: str, shape: Sequence[int]) -> str:
    """What to write instead: an expression for an array, or the right tuple for a size."""
    return f"did you mean {tuple(shape)}?" if name.endswith(("_size", "_shape")) else f"use {expression}"


def _channels_last(name: str, shape: Sequence[int], spatial: int) -> str:
    moved = (*shape[: -spatial - 1], shape[-1], *shape[-spatial - 1 : -1])
    return f"; {name} looks like channels last: {_remedy(name, f'numpy.moveaxis({name}, -1, -{spatial + 1})', moved)}"


def _no_channels(name: str, shape: Sequence[int], spatial: int, expected: int) -> str:
    """(N, H, W) was read as unbatched (C, H, W): single-channel images whose channel axis is missing."""
    if len(shape) != spatial + 1 or expected != 1:
        return ""
    remedy = _remedy(name, f"{name}[:, None]", (shape[0], 1, *shape[1:]))
    return f"; for a batch of single-channel images, {remedy}"
