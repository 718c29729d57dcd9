"""A convolution's parameters in the form that every part of this package takes, and its sizes.

Parameters are lists with one number for each spatial axis; `padding` has two, before and after: (top, bottom, left,
right). In this form they are arguments of the operators (`operators`), which compiled graphs hold.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from fastconv.problem import parameters
from fastconv.problem.errors import ArgumentError
from fastconv.problem.operations import CONV1D, CONV2D, CONV_TRANSPOSE1D, CONV_TRANSPOSE2D

_OPERATIONS = {(1, False): CONV1D, (2, False): CONV2D, (1, True): CONV_TRANSPOSE1D, (2, True): CONV_TRANSPOSE2D}


class Convolution:
    """A convolution or transposed convolution without its tensors.

    Made by `convolution_of`, which returns the same object for the same parameters; it is compared by identity.

    Attributes
        operation   one of `problem.operations`
        arguments   (stride, padding, dilation, is_transposed, output_padding, groups), those of the operators
        how         the same as fastconv's functions take them
    """

    __slots__ = ("arguments", "how", "operation")

    def __init__(
        self, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], is_transposed: bool,
        output_padding: tuple[int, ...], groups: int,
    ) -> None:  # fmt: skip
        self.operation = _OPERATIONS[len(stride), is_transposed]
        self.arguments = stride, padding, dilation, is_transposed, output_padding, groups
        pads = tuple(zip(padding[::2], padding[1::2], strict=True))
        steps, spacings, extra = map(_short, (stride, dilation, output_padding))
        pad = padding[0] if len(set(padding)) == 1 else pads
        self.how: tuple[Any, ...] = (
            (steps, pad, extra, groups, spacings, None, "channels_first")
            if is_transposed
            else (steps, pad, spacings, groups, "zeros", "channels_first")
        )

    @property
    def named(self) -> dict[str, Any]:
        """The parameters by the names that fastconv's functions give them."""
        names = (
            "stride padding output_padding groups dilation"
            if self.operation.is_transposed
            else "stride padding dilation groups"
        )
        return dict(zip(names.split(), self.how, strict=False))

    def with_groups(self, times: int) -> Convolution:
        """So many convolutions with the same parameters as the groups of one."""
        *others, groups = self.arguments
        return convolution_of(*others, groups * times)


def _short(numbers: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number for all axes where they are equal, as calls with single numbers are found more quickly."""
    return numbers[0] if len(set(numbers)) == 1 else numbers


@functools.lru_cache(4096)
def convolution_of(
    stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], is_transposed: bool,
    output_padding: tuple[int, ...], groups: int,
) -> Convolution:  # fmt: skip
    """The convolution with these parameters, each a tuple as in `Convolution.arguments`."""
    return Convolution(stride, padding, dilation, is_transposed, output_padding, groups)


@functools.lru_cache(4096, typed=True)
def read(
    is_transposed: bool, axes: int, kernel: tuple[int, ...] | None, stride: Any, padding: Any, output_padding: Any,
    groups: Any, dilation: Any,
) -> Convolution:  # fmt: skip
    """The convolution whose parameters a person wrote as for `torch.nn.functional`.

    `kernel` are the sizes of the kernel if the padding has a name. Raises `ArgumentError` as fastconv's own functions
    do, and for padding 'same' with a stride, as PyTorch does.
    """
    stride = parameters.per_axis("stride", stride, axes, 1)
    dilation = parameters.per_axis("dilation", dilation, axes, 1)
    found = parameters.padding(padding, axes)
    if found == "valid":
        found = ((0, 0),) * axes
    elif isinstance(found, str):
        assert kernel is not None
        if is_transposed or any(step != 1 for step in stride):
            raise ArgumentError(f"padding={found!r} needs stride 1 and a convolution that is not transposed")
        halos = [spacing * (taps - 1) for spacing, taps in zip(dilation, kernel, strict=True)]
        is_lower = found == "same_lower"
        found = tuple(((halo + is_lower) // 2, (halo + 1 - is_lower) // 2) for halo in halos)
    pads = tuple(number for pair in found for number in pair)
    output_padding = parameters.per_axis("output_padding", output_padding, axes, 0)
    return convolution_of(
        stride, pads, dilation, is_transposed, output_padding, parameters.integer("groups", groups, 1)
    )


@functools.lru_cache(4096)
def output_shape(
    convolution: Convolution, input_shape: tuple[int, ...], weight_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape of the output; raises `ShapeError` or `ArgumentError` for tensors that do not fit."""
    shape: tuple[int, ...] = convolution.operation.geometry(input_shape, weight_shape, *convolution.how).output_shape
    return shape


def symbolic_output_shape(input_shape: Sequence[Any], weight_shape: Sequence[Any], *arguments: Any) -> list[Any]:
    """The shape of the output as a compiler computes it, for sizes that may be symbols and fit each other."""
    stride, padding, dilation, is_transposed, output_padding, groups = arguments
    taps = [spacing * (size - 1) for spacing, size in zip(dilation, weight_shape[2:], strict=True)]
    pads = [before + after for before, after in zip(padding[::2], padding[1::2], strict=True)]
    if is_transposed:
        sizes = [
            (size - 1) * step - pad + tap + extra + 1
            for size, step, pad, tap, extra in zip(input_shape[2:], stride, pads, taps, output_padding, strict=True)
        ]
        return [input_shape[0], weight_shape[1] * groups, *sizes]
    sizes = [
        (size + pad - tap - 1) // step + 1
        for size, step, pad, tap in zip(input_shape[2:], stride, pads, taps, strict=True)
    ]
    return [input_shape[0], weight_shape[0], *sizes]
