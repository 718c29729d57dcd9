"""Plans: a convolution whose weight, bias and parameters are given once, for many inputs.

>>> import numpy as np
>>> import fastconv as fc
>>> plan = fc.plan_conv2d(np.ones((1, 1, 2, 2)), np.array([-12.0]), activation="relu")
>>> plan(np.arange(9.0).reshape(1, 3, 3))
array([[[ 0.,  0.],
        [ 8., 12.]]])
"""

from typing import Any, NamedTuple

import numpy as np

from fastconv.dispatch import algorithms, backends
from fastconv.dispatch.call import contract, find_call
from fastconv.dispatch.call_cache import Calls
from fastconv.dispatch.finish import Activation, Epilogue, Packed
from fastconv.problem.arrays import Array, as_array, cast, check_shape, common_dtype, compute_dtype
from fastconv.problem.errors import DTypeError
from fastconv.problem.geometry import check_parameters, check_weight
from fastconv.problem.operations import FAMILIES
from fastconv.problem.parameters import plain
from fastconv.problem.recent import Recent

__all__ = ["ConvPlan", "plan_conv1d", "plan_conv2d", "plan_conv_transpose1d", "plan_conv_transpose2d"]


#: Calls, and so input shapes, of which a plan keeps what it has prepared, at least.
_CALLS = 16


class _Constants(NamedTuple):
    """What a plan computes with in one dtype; `packed` as in `Epilogue`."""

    weight: Array
    bias: Array | None
    activation: Activation
    packed: Packed | None


class ConvPlan:
    """A convolution with a constant weight, as the functions `plan_...` make it.

    `plan(input, residual=None, out=None)` computes activation(convolution(input) + residual). Threads may share a plan.
    A pickled or copied plan has the weight, the bias and the parameters.

    Attributes
        operation      the name of the function that it stands for, such as "conv2d"
        weight, bias   read-only copies of what was given; bias may be None
        activation     the activation as it was given

    >>> import numpy as np
    >>> import fastconv as fc
    >>> plan = fc.plan_conv1d([[[1.0, -1.0]]])
    >>> plan([[3.0, 1.0, 2.0]], residual=np.array([[10.0, 20.0]]))
    array([[12., 19.]])
    """

    def __init__(
        self, operation: str, weight: Any, bias: Any, parameters: tuple[Any, ...], activation: Any, algorithm: str,
        backend: str | None,
    ) -> None:  # fmt: skip
        self._operation = of = FAMILIES[operation]
        weight = as_array("weight", weight)
        groups = check_parameters(of.spatial, of.is_transposed, *parameters)
        channels = check_weight(of.spatial, of.is_transposed, weight.shape, groups)
        if bias is not None:
            bias = as_array("bias", bias)
            check_shape("bias", bias, (channels,), "one number for each output channel")
        self._activation = Activation.of(activation, channels)
        algorithms.check(algorithm)
        if backend is not None:
            backends.pick(backend, compute_dtype(common_dtype(weight=weight, bias=bias)))
        self.operation = operation
        self.weight: Array = _constant(weight)
        self.bias: Array | None = None if bias is None else _constant(bias)
        self.activation = activation
        known = plain(parameters)
        self._parameters = parameters if known is None else known
        self._algorithm, self._backend = algorithm, backend
        self._converted: dict[np.dtype[Any], _Constants] = {}
        self._kept: Calls = Recent(_CALLS)

    def __call__(self, input: Any, residual: Any = None, out: Array | None = None) -> Array:
        """activation(convolution(input) + residual).

        `residual` has the output's shape, and a dtype that the output's holds; None for none. `out` is an array of the
        output's shape and dtype that is written and returned; it may be the residual. The bits are those of the
        function without a plan, followed by the same operations in NumPy.
        """
        input = as_array("input", input)
        if residual is not None:
            residual = as_array("residual", residual)
        second = input if residual is None else residual
        key, call = find_call(
            residual is None, input, second, None, (), self._algorithm, self._backend, out, self._kept
        )
        if call is not None:
            return call(input, second, None, out)
        geometry = self._operation.geometry(input.shape, self.weight.shape, *self._parameters)
        dtype = common_dtype(input=input, weight=self.weight, bias=self.bias)
        weight, bias, activation, packed = self._in(compute_dtype(dtype))
        if residual is not None:
            check_shape("residual", residual, geometry.output_shape, "the output's")
            if not np.can_cast(residual.dtype, dtype, "safe"):
                raise DTypeError(f"residual has dtype {residual.dtype}, which the output's {dtype} cannot hold")
        return contract(
            geometry, **geometry.maps(input=input), weight=weight, bias=bias, dtype=dtype,
            algorithm=self._algorithm, backend=self._backend, out=out, key=key if dtype == input.dtype else None,
            kept=self._kept, epilogue=Epilogue(activation, packed), residual=residual,
        )  # fmt: skip

    def _in(self, dtype: np.dtype[Any]) -> _Constants:
        """The constants in the dtype of the computation, converted once."""
        if (known := self._converted.get(dtype)) is None:
            weight, bias = cast(self.weight, dtype), None if self.bias is None else cast(self.bias, dtype)
            packed: Packed | None = {} if dtype.kind == "f" and np.isfinite(weight).all() else None
            self._converted[dtype] = known = _Constants(weight, bias, self._activation.in_dtype(dtype), packed)
        return known

    def __reduce__(self) -> tuple[Any, ...]:
        given = self.weight, self.bias, self._parameters, self.activation, self._algorithm, self._backend
        return ConvPlan, (self.operation, *given)

    def __repr__(self) -> str:
        return f"<plan of {self.operation}, weight {self.weight.shape}, activation {self.activation!r}>"


def _constant(array: Array) -> Array:
    """A read-only copy in C order."""
    copy = np.array(array, order="C")
    copy.flags.writeable = False
    return copy


def plan_conv2d(
    weight: Any, bias: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", data_format: str = "channels_first", activation: Any = None,
    algorithm: str = "auto", backend: str | None = None,
) -> ConvPlan:  # fmt: skip
    """A plan of `conv2d`: what does not depend on the input is done once.

    Arguments as for `conv2d`, and
        activation    what is applied to the output: None, "relu", "relu6", "hardswish", ("leaky_relu", slope), or
                      ("prelu", slopes) with a slope for each output channel

    Returns a function plan(input, residual=None, out=None), see `ConvPlan`. It has copies of the arrays: to change them
    later does not change the plan. Raises as `conv2d`, before any work.

    >>> import numpy as np
    >>> import fastconv as fc
    >>> plan = fc.plan_conv2d(np.ones((2, 1, 1, 1)), activation=("prelu", [0.5, 0.25]))
    >>> plan(np.array([[[-4.0, 4.0]]]))
    array([[[-2.,  4.]],
    <BLANKLINE>
           [[-1.,  4.]]])
    """
    parameters = stride, padding, dilation, groups, padding_mode, data_format
    return ConvPlan("conv2d", weight, bias, parameters, activation, algorithm, backend)


def plan_conv_transpose2d(
    weight: Any, bias: Any = None, *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1, output_size: Any = None, data_format: str = "channels_first", activation: Any = None,
    algorithm: str = "auto", backend: str | None = None,
) -> ConvPlan:  # fmt: skip
    """A plan of `conv_transpose2d`, see `plan_conv2d`.

    >>> import numpy as np
    >>> import fastconv as fc
    >>> plan = fc.plan_conv_transpose2d(np.ones((1, 1, 1, 2)), stride=(1, 2), activation="relu6")
    >>> plan(np.array([[[-1.0, 9.0]]]))
    array([[[0., 0., 6., 6.]]])
    """
    parameters = stride, padding, output_padding, groups, dilation, output_size, data_format
    return ConvPlan("conv_transpose2d", weight, bias, parameters, activation, algorithm, backend)


def plan_conv1d(
    weight: Any, bias: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", data_format: str = "channels_first", activation: Any = None,
    algorithm: str = "auto", backend: str | None = None,
) -> ConvPlan:  # fmt: skip
    """A plan of `conv1d`, see `plan_conv2d`.

    >>> import fastconv as fc
    >>> fc.plan_conv1d([[[1.0, -1.0]]], activation="relu")([[3.0, 1.0, 2.0]])
    array([[2., 0.]])
    """
    parameters = stride, padding, dilation, groups, padding_mode, data_format
    return ConvPlan("conv1d", weight, bias, parameters, activation, algorithm, backend)


def plan_conv_transpose1d(
    weight: Any, bias: Any = None, *, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1,
    dilation: Any = 1, output_size: Any = None, data_format: str = "channels_first", activation: Any = None,
    algorithm: str = "auto", backend: str | None = None,
) -> ConvPlan:  # fmt: skip
    """A plan of `conv_transpose1d`, see `plan_conv2d`.

    >>> import fastconv as fc
    >>> fc.plan_conv_transpose1d([[[1.0, -1.0]]], stride=2, activation=("leaky_relu", 0.5))([[3.0, 4.0]])
    array([[ 3. , -1.5,  4. , -2. ]])
    """
    parameters = stride, padding, output_padding, groups, dilation, output_size, data_format
    return ConvPlan("conv_transpose1d", weight, bias, parameters, activation, algorithm, backend)
