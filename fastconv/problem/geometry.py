"""All shape rules: the one place where a problem's sizes are computed and checked.

A convolution links a large map (N, C, H, W) and a small map (N, K, P, Q) through a weight (K, C/groups, R, S):

    h = p * stride - pad + r * dilation,        and likewise w from q and s.

An ordinary convolution reads the large map and writes the small one; a transposed convolution reads the small map
and writes the large one, with the same weight layout. Indices mean the same everywhere in this package:

    n, c, h, w   image, channel, row and column of the large map        g   group
    k, p, q      channel, row and column of the small map               r, s   row and column of the kernel
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastconv.problem import messages, parameters
from fastconv.problem.arrays import Array
from fastconv.problem.axes import Axis, conv_axis, mode_fits, on_axis, transposed_axis
from fastconv.problem.cached import CachedProperty
from fastconv.problem.errors import ShapeError
from fastconv.problem.parameters import DataFormat, NamedPadding, PaddingMode, Pads
from fastconv.problem.recent import Recent

T = TypeVar("T")

#: The axis that a 1-D problem gains when it is computed as a 2-D one.
_UNIT_AXIS = Axis(large=1, small=1, taps=1, stride=1, dilation=1, pad_before=0, pad_after=0)

#: Entries that a geometry keeps, at least. It has about five, and as many for each engine and number of threads.
_DERIVED = 32


class _Sizes(NamedTuple):
    """The fields of a `Geometry`.

    batch           images, N
    batched         whether the arrays have the batch axis; without it N is 1
    large_channels  C
    small_channels  K
    groups          both channel counts divide by it
    axes            one `Axis` for each spatial axis: (height, width), or (width,)
    is_transposed   the input is the small map and the output the large one
    padding_mode    what the padding of the large map contains
    data_format     the order of the axes of both maps
    """

    batch: int
    batched: bool
    large_channels: int
    small_channels: int
    groups: int
    axes: tuple[Axis, ...]
    is_transposed: bool = False
    padding_mode: PaddingMode = "zeros"
    data_format: DataFormat = "channels_first"


class Geometry(_Sizes):
    """Every size of one problem. Made by `Geometry.conv` or `Geometry.transposed`, which check everything."""

    @CachedProperty
    def derived(self) -> Recent[Any]:
        """Results that other modules computed for this geometry, by key, see `remembered`; bounded, as keys hold
        engines and numbers of threads."""
        return Recent(_DERIVED)

    @classmethod
    def conv(
        cls,
        input_shape: Sequence[int],
        weight_shape: Sequence[int],
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: Any = 1,
        padding_mode: Any = "zeros",
        data_format: Any = "channels_first",
        *,
        spatial: int = 2,
        names: tuple[str, str] = ("input", "weight"),
    ) -> "Geometry":
        """The geometry of a convolution of an input (N, C, H, W) with a weight (K, C/groups, R, S).

        `names` are the names of the arguments that have the two shapes, for messages. Raises `ShapeError` if the shapes
        do not fit, `ArgumentError` if a parameter is invalid.

        >>> Geometry.conv((1, 3, 5, 5), (8, 3, 3, 3), stride=2, padding=1).output_shape
        (1, 8, 3, 3)
        """
        return _known(
            _conv, _conv_parameters, spatial, names, input_shape, weight_shape, stride, padding, dilation, groups,
            padding_mode, data_format,
        )  # fmt: skip

    @classmethod
    def transposed(
        cls,
        input_shape: Sequence[int],
        weight_shape: Sequence[int],
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: Any = 1,
        dilation: Any = 1,
        output_size: Any = None,
        data_format: Any = "channels_first",
        *,
        spatial: int = 2,
        names: tuple[str, str] = ("input", "weight"),
    ) -> "Geometry":
        """The geometry of a transposed convolution of an input (N, K, P, Q) with a weight (K, C/groups, R, S).

        >>> Geometry.transposed((1, 8, 3, 3), (8, 3, 3, 3), stride=2, padding=1, output_size=(6, 6)).output_shape
        (1, 3, 6, 6)
        """
        return _known(
            _transposed, _transposed_parameters, spatial, names, input_shape, weight_shape, stride, padding,
            output_padding, groups, dilation, output_size, data_format,
        )  # fmt: skip

    def remembered(self, key: Any, make: Callable[[], T]) -> T:
        """The result of `make()`, computed once for each key; it must depend on the geometry and `key` only."""
        if (value := self.derived.get(key)) is None:
            self.derived[key] = value = make()
        return value

    @property
    def large_shape(self) -> tuple[int, ...]:
        """(N, C, H, W) or (N, H, W, C), without N if not batched, without H if one-dimensional."""
        return self._shape(self.large_channels, tuple(axis.large for axis in self.axes))

    @property
    def small_shape(self) -> tuple[int, ...]:
        """(N, K, P, Q) or (N, P, Q, K), without N if not batched, without P if one-dimensional."""
        return self._shape(self.small_channels, tuple(axis.small for axis in self.axes))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(K, C/groups, R, S), without R if one-dimensional."""
        return (self.small_channels, self.large_channels // self.groups, *(axis.taps for axis in self.axes))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the map that a forward call reads."""
        return self.small_shape if self.is_transposed else self.large_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the map that a forward call writes."""
        return self.large_shape if self.is_transposed else self.small_shape

    @property
    def output_channels(self) -> int:
        """The channels of the map that a forward call writes."""
        return self.large_channels if self.is_transposed else self.small_channels

    @property
    def channels_last(self) -> bool:
        """Whether the last axis of a map is its channels."""
        return self.data_format == "channels_last"

    @property
    def pads(self) -> parameters.Pads:
        """(before, after) of each axis."""
        return tuple((axis.pad_before, axis.pad_after) for axis in self.axes)

    @property
    def flops(self) -> int:
        """Floating-point operations of any of the three contractions: a multiplication and an addition for each image,
        pair of channels of a group, pixel of the small map and tap."""
        return 2 * math.prod(self.weight_shape) * self.batch * math.prod(axis.small for axis in self.axes)

    def maps(self, *, input: T | None = None, output: T | None = None) -> dict[str, T]:
        """The given arrays by their roles, `large` and `small`."""
        roles = ("small", "large") if self.is_transposed else ("large", "small")
        return {role: array for role, array in zip(roles, (input, output), strict=True) if array is not None}

    def lifted(self) -> "Geometry":
        """The same problem with a batch axis, channels first and two spatial axes, which is how it is computed."""
        if self.batched and len(self.axes) == 2 and not self.channels_last:
            return self
        axes = (_UNIT_AXIS,) * (2 - len(self.axes)) + self.axes
        return self.remembered("lifted", lambda: self._replace(batched=True, axes=axes, data_format="channels_first"))

    def lifted_map(self, array: Array) -> Array:
        """A map of the problem as one of `lifted`: a view, whatever its strides."""
        if self.channels_last:
            array = np.moveaxis(array, -1, -1 - len(self.axes))
        if not self.batched:
            array = array[None]
        return array if len(self.axes) == 2 else array[:, :, None]

    def extended(self) -> "Geometry":
        """The same problem on a large map that already contains its padding."""
        axes = tuple(
            axis._replace(large=axis.pad_before + axis.large + axis.pad_after, pad_before=0, pad_after=0)
            for axis in self.axes
        )
        return self._replace(axes=axes, padding_mode="zeros")

    def _shape(self, channels: int, extents: tuple[int, ...]) -> tuple[int, ...]:
        shape = (*extents, channels) if self.channels_last else (channels, *extents)
        return (self.batch, *shape) if self.batched else shape

    def _fits_64_bits(self, names: tuple[str, str]) -> None:
        """Raise unless every array of the problem, and the map with its padding, has a size that 64 bits hold."""
        factors = ((axis.pad_before + axis.large + axis.pad_after, axis.small, axis.taps) for axis in self.axes)
        channels = self.large_channels, self.small_channels
        if parameters.fits_64_bits((self.batch, *channels, *itertools.chain.from_iterable(factors))):
            return  # as the product of all extents does
        for name, shape in zip(names, (self.input_shape, self.weight_shape), strict=True):
            if not parameters.fits_64_bits(shape):
                raise ShapeError(f"{name} of shape {shape} is too large for 64-bit sizes")
        padded = tuple(axis.pad_before + axis.large + axis.pad_after for axis in self.axes)
        for what, shape in (
            ("the output", self.output_shape),
            ("the padded map", self._shape(self.large_channels, padded)),
        ):
            if not parameters.fits_64_bits(shape):
                stride, dilation, padding = zip(*((axis.stride, axis.dilation, (axis.pad_before, axis.pad_after))
                                                  for axis in self.axes), strict=True)  # fmt: skip
                raise ShapeError(
                    f"stride={stride}, dilation={dilation} and padding={padding} on {names[0]} of shape "
                    f"{self.input_shape} make {what} {shape}, which is too large for 64-bit sizes"
                )


#: Geometries that were asked for lately: a layer is called again and again with the same sizes.
_lately: Recent[Geometry] = Recent(512)
#: Parameters that were parsed lately: a layer keeps its own, whatever the sizes of its input.
_parsed: Recent[tuple[Any, ...]] = Recent(512)


def _known(
    make: Callable[..., Geometry], parse: Callable[..., tuple[Any, ...]], spatial: int, names: tuple[str, str],
    input_shape: Sequence[int], weight_shape: Sequence[int], *arguments: Any,
) -> Geometry:  # fmt: skip
    """`make` of two shapes and of the parameters that `parse` gives, from `_lately` if it was made before.

    What is parsed anew is as it was written, so that an error shows it.
    """
    how = parameters.plain(arguments)
    if how is None:
        return make(spatial, names, input_shape, weight_shape, *parse(spatial, *arguments))
    key = make, spatial, names, tuple(input_shape), tuple(weight_shape), how
    if (known := _lately.get(key)) is None:
        if (parsed := _parsed.get((parse, spatial, how))) is None:
            _parsed[parse, spatial, how] = parsed = parse(spatial, *arguments)
        _lately[key] = known = make(spatial, names, input_shape, weight_shape, *parsed)
    return known


def _conv_parameters(
    spatial: int, stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: Any, data_format: Any
) -> tuple[Any, ...]:
    """The parameters of a convolution, as `_conv` takes them."""
    strides = parameters.per_axis("stride", stride, spatial, 1)
    dilations = parameters.per_axis("dilation", dilation, spatial, 1)
    pads = parameters.padding(padding, spatial)
    mode = parameters.padding_mode(padding_mode)
    groups = parameters.integer("groups", groups, 1)
    return strides, pads, dilations, groups, mode, parameters.data_format(data_format)


def _conv(
    spatial: int, names: tuple[str, str], input_shape: Sequence[int], weight_shape: Sequence[int],
    strides: tuple[int, ...], pads: NamedPadding | Pads, dilations: tuple[int, ...], groups: int, mode: PaddingMode,
    data_format: DataFormat,
) -> Geometry:  # fmt: skip
    is_last = data_format == "channels_last"
    batch, channels, extents = map_shape(names[0], input_shape, spatial, is_last)
    outputs, per_group, taps = _weight_shape(names[1], weight_shape, spatial, False)
    if channels != per_group * groups:
        raise ShapeError(messages.conv_channels(names, input_shape, weight_shape, groups, is_last))
    _divides(f"the output channels, the first of {names[1]} {tuple(weight_shape)},", outputs, groups)
    axes = tuple(
        conv_axis(names, i + 2 - spatial, extents[i], taps[i], strides[i], dilations[i], on_axis(pads, i))
        for i in range(spatial)
    )
    if mode != "zeros":
        mode_fits(mode, axes)
    geometry = Geometry(
        batch if batch is not None else 1, batch is not None, channels, outputs, groups, axes, False, mode, data_format
    )
    geometry._fits_64_bits(names)
    return geometry


def _transposed_parameters(
    spatial: int, stride: Any, padding: Any, output_padding: Any, groups: Any, dilation: Any, output_size: Any,
    data_format: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The parameters of a transposed convolution, as `_transposed` takes them."""
    strides = parameters.per_axis("stride", stride, spatial, 1)
    dilations = parameters.per_axis("dilation", dilation, spatial, 1)
    pads = parameters.padding(padding, spatial)
    extra = parameters.per_axis("output_padding", output_padding, spatial, 0)
    groups = parameters.integer("groups", groups, 1)
    wanted = None
    if output_size is not None:
        form = "(height, width)" if spatial == 2 else "(width,)"
        wanted = parameters.sizes("output_size", output_size, (spatial,), form)
    return strides, pads, extra, groups, dilations, wanted, parameters.data_format(data_format)


def _transposed(
    spatial: int, names: tuple[str, str], input_shape: Sequence[int], weight_shape: Sequence[int],
    strides: tuple[int, ...], pads: NamedPadding | Pads, extra: tuple[int, ...], groups: int,
    dilations: tuple[int, ...], wanted: tuple[int, ...] | None, data_format: DataFormat,
) -> Geometry:  # fmt: skip
    is_last = data_format == "channels_last"
    batch, channels, extents = map_shape(names[0], input_shape, spatial, is_last)
    inputs, per_group, taps = _weight_shape(names[1], weight_shape, spatial, True)
    if channels != inputs:
        raise ShapeError(messages.transposed_channels(names, input_shape, weight_shape, is_last))
    _divides(f"the input channels, the first of {names[1]} {tuple(weight_shape)},", inputs, groups)
    axes = tuple(
        transposed_axis(
            i + 2 - spatial, extents[i], taps[i], strides[i], dilations[i], on_axis(pads, i), extra[i],
            None if wanted is None else wanted[i],
        )
        for i in range(spatial)
    )  # fmt: skip
    geometry = Geometry(
        batch if batch is not None else 1, batch is not None, per_group * groups, inputs, groups, axes, True,
        data_format=data_format,
    )  # fmt: skip
    geometry._fits_64_bits(names)
    return geometry


def check_parameters(spatial: int, is_transposed: bool, *arguments: Any) -> int:
    """The groups of a convolution with these parameters; raises what is wrong whatever the shapes."""
    if is_transposed:
        groups: int = _transposed_parameters(spatial, *arguments)[3]
    else:
        groups = _conv_parameters(spatial, *arguments)[3]
    return groups


def check_weight(spatial: int, is_transposed: bool, shape: Sequence[int], groups: int) -> int:
    """The output channels of a convolution with a weight of this shape; raises what is wrong whatever the input."""
    first, second, _ = _weight_shape("weight", shape, spatial, is_transposed)
    which = "input" if is_transposed else "output"
    _divides(f"the {which} channels, the first of weight {tuple(shape)},", first, groups)
    return second * groups if is_transposed else first


def map_shape(name: str, shape: Sequence[int], spatial: int, is_last: bool) -> tuple[int | None, int, tuple[int, ...]]:
    """The batch (None if unbatched), channels and extents of a map; `is_last`: its channels are its last axis.

    Raises `ShapeError` if it has a wrong shape.
    """
    if len(shape) not in (spatial + 1, spatial + 2):
        raise ShapeError(messages.rank(name, shape, spatial, is_last))
    *batch, channels = (*shape[: -spatial - 1], shape[-1]) if is_last else shape[:-spatial]
    extents = tuple(shape[-spatial - 1 : -1] if is_last else shape[-spatial:])
    if channels < 1 or min(extents) < 1:
        raise ShapeError(f"{name} of shape {tuple(shape)} has an axis of length 0; only the batch may be empty")
    return (batch[0] if batch else None), channels, extents


def _weight_shape(
    name: str, shape: Sequence[int], spatial: int, is_transposed: bool
) -> tuple[int, int, tuple[int, ...]]:
    if len(shape) != spatial + 2:
        raise ShapeError(messages.weight_rank(name, shape, spatial, is_transposed))
    if min(shape) < 1:
        raise ShapeError(f"{name} of shape {tuple(shape)} has an axis of length 0")
    if max(shape[2:]) > parameters.LIMIT:
        raise ShapeError(f"{name} of shape {tuple(shape)} has a kernel longer than {parameters.LIMIT}")
    return shape[0], shape[1], tuple(shape[2:])


def _divides(what: str, channels: int, groups: int) -> None:
    if channels % groups:
        raise ShapeError(f"{what} must be a multiple of groups={groups}, not {channels}")
