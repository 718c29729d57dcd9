"""Messages about shapes that do not fit; if a common mistake explains the shape, they name it and the remedy."""

from __future__ import annotations

from collections.abc import Sequence

#: The axes of a batched and of an unbatched map, by the number of spatial axes and whether channels are last.
_MAPS = {
    (1, False): ("(N, C, W)", "(C, W)"),
    (2, False): ("(N, C, H, W)", "(C, H, W)"),
    (1, True): ("(N, W, C)", "(W, C)"),
    (2, True): ("(N, H, W, C)", "(H, W, C)"),
}
_TAPS = {1: "S", 2: "R, S"}


def rank(name: str, shape: Sequence[int], spatial: int, is_last: bool) -> str:
    """A map has too many or too few axes; `is_last`: its channels should be its last axis."""
    batched, unbatched = _MAPS[spatial, is_last]
    message = f"{name} must be {batched}, or {unbatched} unbatched, not {len(shape)}-dimensional: {tuple(shape)}"
    if len(shape) == spatial:
        index, whole = ("..., None", (*shape, 1)) if is_last else ("None", (1, *shape))
        message += f"; the channel axis is missing: {_remedy(name, f'{name}[{index}]', whole)}"
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


def conv_channels(
    names: tuple[str, str], input_shape: Sequence[int], weight_shape: Sequence[int], groups: int, is_last: bool
) -> str:
    """The input's channels are not weight.shape[1] * groups; `is_last`: they should be its last axis."""
    input, weight = names
    spatial = len(weight_shape) - 2
    outputs, per_group, *taps = weight_shape
    expected = per_group * groups
    channels, other = _ends(input_shape, spatial, is_last)
    message = (
        f"{input} has {channels} channels (shape {tuple(input_shape)}), but {weight} of shape {tuple(weight_shape)} "
        f"with groups={groups} takes {per_group} * {groups} = {expected}"
    )
    if other == expected:
        return message + _other_format(input, input_shape, spatial, is_last)
    would_fit = channels // per_group
    fits = channels % per_group == 0 and outputs % would_fit == 0
    if fits and per_group == 1:
        return f"{message}; groups={would_fit} would fit (depthwise)" + _no_channels(
            input, input_shape, spatial, expected, is_last
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
    return message + _no_channels(input, input_shape, spatial, expected, is_last)


def transposed_channels(
    names: tuple[str, str], input_shape: Sequence[int], weight_shape: Sequence[int], is_last: bool
) -> str:
    """The input's channels are not weight.shape[0]; `is_last`: they should be its last axis."""
    input, weight = names
    spatial = len(weight_shape) - 2
    expected, per_group, *taps = weight_shape
    channels, other = _ends(input_shape, spatial, is_last)
    message = (
        f"{input} has {channels} channels (shape {tuple(input_shape)}), but {weight} of shape {tuple(weight_shape)}, "
        f"which is (C_in, C_out / groups, ...) in a transposed convolution, takes {expected}"
    )
    if other == expected:
        return message + _other_format(input, input_shape, spatial, is_last)
    if per_group == channels:
        swapped = _remedy(weight, f"{weight}.swapaxes(0, 1)", (per_group, expected, *taps))
        return f"{message}; {weight} looks like an ordinary convolution's, (C_out, C_in, ...): {swapped}"
    return message + _no_channels(input, input_shape, spatial, expected, is_last)


def _remedy(name: str, expression: str, shape: Sequence[int]) -> str:
    """What to write instead: an expression for an array, or the right tuple for a size."""
    return _right_size(name, shape) or f"use {expression}"


def _right_size(name: str, shape: Sequence[int]) -> str:
    """For an argument that is a size, what it should be."""
    return f"did you mean {tuple(shape)}?" if name.endswith(("_size", "_shape")) else ""


def _ends(shape: Sequence[int], spatial: int, is_last: bool) -> tuple[int, int]:
    """The channels of a map, and what they would be in the other data format."""
    ends = shape[-spatial - 1], shape[-1]
    return ends[::-1] if is_last else ends


def _other_format(name: str, shape: Sequence[int], spatial: int, is_last: bool) -> str:
    """The map has its channels where the other data format has them."""
    *batch, first = shape[:-spatial]
    moved = (*batch, *shape[-spatial:], first) if is_last else (*batch, shape[-1], first, *shape[-spatial:-1])
    other = "first" if is_last else "last"
    remedy = _right_size(name, moved) or f"use data_format='channels_{other}'"
    return f"; {name} looks like channels {other}: {remedy}"


def _no_channels(name: str, shape: Sequence[int], spatial: int, expected: int, is_last: bool) -> str:
    """(N, H, W) was read as unbatched, (C, H, W) or (H, W, C): single-channel images without a channel axis."""
    if len(shape) != spatial + 1 or expected != 1:
        return ""
    index, whole = ("..., None", (*shape, 1)) if is_last else (":, None", (shape[0], 1, *shape[1:]))
    remedy = _remedy(name, f"{name}[{index}]", whole)
    return f"; for a batch of single-channel images, {remedy}"
