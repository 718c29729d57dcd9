"""The epilogue of a plan: a residual that is added to the sums, and an activation that is applied to them.

Kernels that finish their sums where they store them and `FinishedAfter`, which finishes a whole array, give the same
bits: both compute, in the dtype of the sums,

    y += residual
    relu         0 where y <= 0, otherwise y
    relu6        relu, then 6 where y >= 6
    hardswish    (y * (0 where y + 3 <= 0, 6 where y + 3 >= 6, otherwise y + 3)) / 6
    leaky_relu   y where y > 0, otherwise y * slope
    prelu        the same with a slope for each channel

A NaN stays NaN. Minus zero becomes zero in relu, as in `numpy.maximum(y, 0)`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastconv.backends.contract import Run
from fastconv.kernels import abi
from fastconv.planner.panels import Panels
from fastconv.planner.steps import PanelRun
from fastconv.problem.arrays import Array, as_array, cast, check_shape
from fastconv.problem.errors import ArgumentError, DTypeError, one_of
from fastconv.problem.parameters import shown

#: The activations without a parameter, by name, and those with one.
PLAIN = {"relu": abi.RELU, "relu6": abi.RELU6, "hardswish": abi.HARDSWISH}
SLOPED = ("leaky_relu", "prelu")


#: The packed weights of a plan that were made so far.
Packed: TypeAlias = dict[Panels, Array]


class Activation(NamedTuple):
    """An activation by its number in `kernels.abi`; `slopes` has one for each output channel, or is None."""

    number: int = abi.NO_ACTIVATION
    slopes: Array | None = None

    @classmethod
    def of(cls, value: Any, channels: int) -> "Activation":
        """The activation that a person wrote, for an output of so many channels; raises if there is none like it."""
        if value is None:
            return cls()
        if isinstance(value, str) and value in PLAIN:
            return cls(PLAIN[value])
        is_pair = isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) == 2
        if is_pair and isinstance(value[0], str) and value[0] in SLOPED:
            return cls(abi.SLOPES, _slopes(value[0], value[1], channels))
        if isinstance(value, str) and value in SLOPED:
            parameter = "slope" if value == "leaky_relu" else "slopes"
            raise ArgumentError(f"activation={value!r} has a parameter: write ({value!r}, {parameter})")
        forms = [*PLAIN, *(f"({name!r}, ...)" for name in SLOPED)]
        raise ArgumentError(f"activation={shown(value)} is none: it may be None, and {one_of(value, forms)}")

    def in_dtype(self, dtype: np.dtype[Any]) -> "Activation":
        """The same with slopes in the dtype of the sums; raises unless that is a floating one."""
        if self.number and dtype.kind != "f":
            raise DTypeError(f"an activation needs an output of floating numbers, not {dtype}")
        return self if self.slopes is None else self._replace(slopes=cast(self.slopes, dtype))


def _slopes(name: str, value: Any, channels: int) -> Array:
    """The slopes of an activation, one for each channel."""
    title = f"the slope{'s' * (name == 'prelu')} of {name}"
    array = as_array(title, value)
    if array.dtype.kind not in "fiu":
        raise DTypeError(f"{title} must be real numbers, not {array.dtype}")
    if name == "prelu":
        check_shape(title, array, (channels,), "one for each output channel")
    elif array.ndim:
        raise ArgumentError(f"{title} must be one number, not an array of shape {array.shape}")
    slopes = np.empty(channels, array.dtype if array.dtype.kind == "f" else np.float64)
    slopes[:] = array
    slopes.flags.writeable = False
    return slopes


class Epilogue(NamedTuple):
    """What a plan's call does that a function's does not: a residual is added, if there is one, then the activation is
    applied.

    `packed` keeps the weight as kernels pack it. It is None for a weight that is not finite, for which passes are wrong
    and need steps around them (`planner.finite`); then the sums are finished after these.
    """

    activation: Activation
    packed: Packed | None

    def bound(self, run: "FinishedAfter | PanelRun", weight: Array, bias: Array | None, *, adds: bool) -> Run:
        """`run` as a function of (input, residual, None, out); without `adds` there is no residual."""
        compute, weights = run.with_weight(weight, self.packed)
        number, slopes = self.activation

        def without(first: Array, _: Array, no_bias: Array | None, out: Array) -> None:
            compute(first, weights, bias, out, None, slopes, number)

        def adding(first: Array, residual: Array, no_bias: Array | None, out: Array) -> None:
            compute(first, weights, bias, out, residual, slopes, number)

        return adding if adds else without


class FinishedAfter(NamedTuple):
    """A run whose sums are finished afterwards by NumPy."""

    run: Run

    def with_weight(self, weight: Array, packed: Packed | None) -> tuple["FinishedAfter", Array]:
        """Itself, and the weight as it takes it."""
        return self, weight

    def __call__(
        self, first: Array, second: Array, bias: Array | None, out: Array, residual: Array | None,
        slopes: Array | None, number: int,
    ) -> None:  # fmt: skip
        """Compute and finish sums (N, C, H, W)."""
        self.run(first, second, bias, out)
        with np.errstate(all="ignore"):
            if residual is not None:
                np.add(out, residual, out=out)
            _APPLY[number](out, slopes)


def _relu(y: Array, _: Array | None) -> None:
    np.maximum(y, 0, out=y)


def _relu6(y: Array, _: Array | None) -> None:
    np.minimum(np.maximum(y, 0, out=y), 6, out=y)


def _hardswish(y: Array, _: Array | None) -> None:
    gate = y + 3
    _relu6(gate, None)
    y *= gate
    y /= 6


def _sloped(y: Array, slopes: Any) -> None:
    np.multiply(y, slopes[:, None, None], out=y, where=~(y > 0))


_APPLY = {
    abi.NO_ACTIVATION: lambda y, _: None,
    abi.RELU: _relu,
    abi.RELU6: _relu6,
    abi.HARDSWISH: _hardswish,
    abi.SLOPES: _sloped,
}
