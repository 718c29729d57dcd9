"""The four operations of the public functions: convolution and transposed convolution, on one axis or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastconv.problem.geometry import Geometry


class Operation:
    """Convolution or transposed convolution, on one axis or two.

    Compared by identity, which is quick: an operation is a part of the key under which each call is cached.
    """

    __slots__ = ("is_transposed", "spatial")

    def __init__(self, spatial: int, is_transposed: bool) -> None:
        self.spatial, self.is_transposed = spatial, is_transposed

    @property
    def make(self) -> Callable[..., Geometry]:
        """The function that makes the geometry of a problem and checks it."""
        return Geometry.transposed if self.is_transposed else Geometry.conv

    def geometry(
        self, input_shape: Sequence[int], weight_shape: Sequence[int], *parameters: Any, **named: Any
    ) -> Geometry:
        """The geometry of a problem; parameters and errors are those of `make`."""
        return self.make(input_shape, weight_shape, *parameters, spatial=self.spatial, **named)


CONV1D, CONV_TRANSPOSE1D = Operation(1, False), Operation(1, True)
CONV2D, CONV_TRANSPOSE2D = Operation(2, False), Operation(2, True)

#: The operations by the names of their forward functions.
FAMILIES = {
    "conv1d": CONV1D,
    "conv2d": CONV2D,
    "conv_transpose1d": CONV_TRANSPOSE1D,
    "conv_transpose2d": CONV_TRANSPOSE2D,
}
