"""One spatial axis: its two extents, and the stride, dilation and padding that link them."""

from collections.abc import Callable
from typing import NamedTuple

from fastconv.problem import parameters
from fastconv.problem.errors import ArgumentError, ShapeError
from fastconv.problem.parameters import NamedPadding, PaddingMode

_AXIS_NAMES = ("height", "width")


class Axis(NamedTuple):
    """One spatial axis: the extents of both maps, the number of taps, and what links them."""

    large: int
    small: int
    taps: int
    stride: int
    dilation: int
    pad_before: int
    pad_after: int

    @property
    def span(self) -> int:
        """Positions of the large map from the kernel's first tap to its last, both included."""
        return self.dilation * (self.taps - 1) + 1


def on_axis(pads: NamedPadding | parameters.Pads, i: int) -> NamedPadding | tuple[int, int]:
    """The padding of axis i."""
    return pads if isinstance(pads, str) else pads[i]


def _share(total: int, name: NamedPadding) -> tuple[int, int]:
    """(before, after) of a named padding; an odd pixel goes to the end, or to the start for `same_lower`."""
    less, more = total // 2, total - total // 2
    return (more, less) if name == "same_lower" else (less, more)


def conv_axis(
    names: tuple[str, str], i: int, large: int, taps: int, stride: int, dilation: int,
    padding: NamedPadding | tuple[int, int],
) -> Axis:  # fmt: skip
    """The axis of a convolution: small = floor((large + before + after - span) / stride) + 1."""
    span = dilation * (taps - 1) + 1
    if padding == "valid":
        before, after = 0, 0
    elif isinstance(padding, str):
        before, after = _share(max(0, (-(-large // stride) - 1) * stride + span - large), padding)
    else:
        before, after = padding
    padded = before + large + after
    if span > padded:
        raise ShapeError(
            f"{names[1]}: a kernel of {taps} taps with dilation {dilation} spans {span} along the {_AXIS_NAMES[i]}, "
            f"more than {names[0]} with its padding has there ({large} + {before} + {after} = {padded})"
        )
    return Axis(large, (padded - span) // stride + 1, taps, stride, dilation, before, after)


def transposed_axis(
    i: int, small: int, taps: int, stride: int, dilation: int,
    padding: NamedPadding | tuple[int, int], output_padding: int, wanted: int | None,
) -> Axis:  # fmt: skip
    """The axis of a transposed convolution: large = (small - 1) * stride - before - after + span + output_padding.

    With a `same` padding it is the axis whose convolution gives `small`: large = small * stride, or the nearby
    extent that `output_size` asks for.
    """
    axis = _AXIS_NAMES[i]
    span = dilation * (taps - 1) + 1
    limit = max(stride, dilation)
    if isinstance(padding, str) and padding != "valid":
        if output_padding:
            raise ArgumentError(
                f"output_padding must be 0 with padding={padding!r}, which settles the output, not {output_padding}"
            )
        reachable = range((small - 1) * stride + 1, small * stride + 1)
        large = reachable[-1] if wanted is None else wanted
        before, after = _share(max(0, (small - 1) * stride + span - large), padding)
    else:
        before, after = (0, 0) if isinstance(padding, str) else padding
        least = (small - 1) * stride - before - after + span
        reachable = range(least, least + limit)
        if output_padding >= limit:
            raise ArgumentError(
                f"output_padding must be less than the larger of stride and dilation, {limit} along the {axis}, "
                f"not {output_padding}"
            )
        large = least + output_padding if wanted is None else wanted
        if output_padding and large in reachable and large != least + output_padding:
            raise ArgumentError(
                f"output_padding={output_padding} contradicts output_size={wanted} along the {axis}, which settles "
                f"it as {large - least}; leave output_padding out"
            )
    reachable = range(max(1, reachable.start), max(1, reachable.stop))
    if not reachable or (wanted is None and large < 1):
        raise ShapeError(
            f"padding takes away the whole output along the {axis}: ({small} - 1) * stride {stride} - {before} - "
            f"{after} + span {span} of the kernel + output_padding {output_padding} is less than 1"
        )
    if large not in reachable:
        listed = f"{reachable[0]} to {reachable[-1]}" if len(reachable) > 1 else f"only {reachable[0]}"
        raise ShapeError(f"output_size cannot be {wanted} along the {axis}; reachable: {listed}")
    return Axis(large, small, taps, stride, dilation, before, after)


#: The largest padding that each mode allows for a map of the given extent, and how the message says it.
_MODE_LIMITS: dict[str, tuple[Callable[[int], int], str]] = {
    "reflect": (lambda extent: extent - 1, "less than"),
    "circular": (lambda extent: extent, "at most"),
}


def mode_fits(mode: PaddingMode, axes: tuple[Axis, ...]) -> None:
    """Raise `ArgumentError` if the padding of an axis is larger than its mode allows."""
    if mode not in _MODE_LIMITS:
        return
    most, relation = _MODE_LIMITS[mode]
    for axis, name in zip(axes, _AXIS_NAMES[-len(axes) :], strict=True):
        if max(axis.pad_before, axis.pad_after) > most(axis.large):
            raise ArgumentError(
                f"padding must be {relation} the input's {name}, {axis.large}, with padding_mode={mode!r}, "
                f"not ({axis.pad_before}, {axis.pad_after})"
            )
