"""The four operations that the functions of the face, and their gradients, belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastconv.problem.geometry import Geometry


@dataclass(frozen=True, eq=False, slots=True)
class Operation:
    """Convolution or transposed convolution, on one axis or two.

    Each is equal to itself only, which is quick to tell: every call looks for what is kept under its operation.
    """

    spatial: int
    is_transposed: bool

    @property
    def make(self) -> Callable[..., Geometry]:
        """What makes the geometry of a problem, and checks it."""
        return Geometry.transposed if self.is_transposed else Geometry.conv

    def geometry(
        self, input_shape: Sequence[int], weight_shape: Sequence[int], *parameters: Any, **named: Any
    ) -> Geometry:
        """The geometry of a problem, with its parameters as `make` takes them; raises what that raises."""
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
