"""Layers: a weight, a bias and their gradients, with the constructor arguments of their `torch.nn` namesakes.

>>> import numpy as np
>>> from fastconv import nn
>>> layer = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1, rng=0)
>>> y = layer(np.ones((4, 3, 16, 16), np.float32))
>>> y.shape
(4, 8, 8, 8)
>>> layer.backward(np.ones_like(y)).shape, layer.weight_grad.shape, layer.bias_grad.shape
((4, 3, 16, 16), (8, 3, 3, 3), (8,))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from fastconv import functional, grad, plans
from fastconv.dispatch.gradients import Gradients
from fastconv.problem import parameters
from fastconv.problem.arrays import Array, as_array, cast, check_numbers, check_shape, check_writeable
from fastconv.problem.errors import ArgumentError, DTypeError, ShapeError, UsageError
from fastconv.problem.geometry import check_weight

#: For a layer to use a plan: how often each number of the weight is used, and multiply-adds, at least. Then comparing
#: the weight with the plan's takes at most a percent or two of the call.
_PLANNED, _LONG = 2048, 2**25

__all__ = ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d", "fold_batch_norm"]


def _padding(value: Any, spatial: int) -> Any:
    """A padding as it was written, with tuples for lists, as torch stores it."""
    parameters.padding(value, spatial)
    known = parameters.plain((value,))
    return value if known is None else known[0]


#: How each parameter of the forward function is checked and stored by a layer.
_PARSERS: Mapping[str, Callable[[Any, int], Any]] = {
    "stride": lambda value, spatial: parameters.per_axis("stride", value, spatial, 1),
    "dilation": lambda value, spatial: parameters.per_axis("dilation", value, spatial, 1),
    "output_padding": lambda value, spatial: parameters.per_axis("output_padding", value, spatial, 0),
    "padding": _padding,
    "groups": lambda value, _: parameters.integer("groups", value, 1),
    "padding_mode": lambda value, _: parameters.padding_mode(value),
    "data_format": lambda value, _: parameters.data_format(value),
}


class _Layer:
    """The base of the four layers. A subclass names its forward and backward functions and its number of axes.

    A layer that is called again without `backward` in between computes by a plan where that pays. It compares its
    parameters with the plan's at each call, so that a changed one is noticed.

    Attributes
        weight, bias             the parameters; bias is None in a layer without one
        weight_grad, bias_grad   their gradients after `backward`; None before
    """

    _spatial: ClassVar[int]
    _is_transposed: ClassVar[bool]
    _forward: ClassVar[Callable[..., Array]]
    _backward: ClassVar[Callable[..., Gradients]]
    _plan_of: ClassVar[Callable[..., plans.ConvPlan]]

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, bias: bool, device: Any, dtype: Any, rng: Any,
        **passed_on: Any,
    ) -> None:  # fmt: skip
        spatial = self._spatial
        self.in_channels = parameters.integer("in_channels", in_channels, 1)
        self.out_channels = parameters.integer("out_channels", out_channels, 1)
        self.kernel_size = parameters.per_axis("kernel_size", kernel_size, spatial, 1)
        for name, value in passed_on.items():
            setattr(self, name, _PARSERS[name](value, spatial))
        #: Names of the attributes that are passed to the forward function.
        self._passed_on = tuple(passed_on)
        groups: int = vars(self)["groups"]
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % groups:
                raise ArgumentError(f"{name} must be a multiple of groups={groups}, not {getattr(self, name)}")
        if device is not None and str(device) != "cpu":
            raise ArgumentError(f"device must be None or 'cpu', not {parameters.shown(device)}")
        if not isinstance(bias, bool | np.bool_):
            raise ArgumentError(f"bias must be a boolean, not {parameters.shown(bias)}")
        self.dtype = check_numbers("dtype", np.float32 if dtype is None else dtype)
        if self.dtype.kind != "f":
            raise DTypeError(f"dtype must be a floating dtype, not {self.dtype}")

        first, second = self.out_channels, self.in_channels
        if self._is_transposed:
            first, second = second, first
        shape = (first, second // groups, *self.kernel_size)
        if not parameters.fits_64_bits(shape):
            raise ArgumentError(f"in_channels, out_channels and kernel_size make a weight {shape}, which is too large")
        try:
            generator = np.random.default_rng(rng)
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"rng must be a numpy.random.Generator or a seed: {error}") from None
        # torch's default, Kaiming-uniform with a = sqrt(5); fan_in is the product of all axes but the first
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight: Array = cast(generator.uniform(-bound, bound, shape), self.dtype)
        self.bias: Array | None = (
            cast(generator.uniform(-bound, bound, self.out_channels), self.dtype) if bias else None
        )
        self.weight_grad: Array | None = None
        self.bias_grad: Array | None = None
        self._seen: tuple[Array, dict[str, Any]] | None = None
        #: Whether the last thing that the layer did was `backward`, or nothing yet.
        self._is_training = True
        self._plan: tuple[dict[str, Any], plans.ConvPlan] | None = None

    def _call(self, input: Any, **further: Any) -> Array:
        """Call the forward function and keep what `backward` needs."""
        input = as_array("input", input)
        passed = self._given()
        if further:
            passed |= further
        plan = self._current_plan(input, passed)
        output = type(self)._forward(input, self.weight, self.bias, **passed) if plan is None else plan(input)
        self._seen, self._is_training = (input, passed), False
        return output

    def _current_plan(self, input: Array, passed: dict[str, Any]) -> plans.ConvPlan | None:
        """A plan of the layer as it is; None while it is trained, if comparing the weight would take too long, or for
        maps with channels last, of which plans make copies."""
        weight = self.weight
        if passed["data_format"] == "channels_last":
            return None
        pixels = input.size // self.in_channels // (1 if self._is_transposed else math.prod(vars(self)["stride"]))
        if self._is_training or pixels < _PLANNED or not isinstance(weight, np.ndarray) or weight.size * pixels < _LONG:
            return None
        if self._plan is not None:
            of, plan = self._plan
            if of == passed and _are_same(plan.weight, weight) and _are_same(plan.bias, self.bias):
                return plan
        self._plan = passed, type(self)._plan_of(weight, self.bias, **passed)
        return self._plan[1]

    def backward(self, grad_output: Any) -> Array:
        """The gradient with respect to the input of the last call; leaves those of the parameters in `weight_grad`
        and `bias_grad`.

        `grad_output` has the shape of the last output. The layer keeps the input without a copy, so it must not have
        changed since. Raises `UsageError` before the first call, and what the functions in `fastconv.grad` raise.
        """
        if self._seen is None:
            raise UsageError("backward has nothing to go back from: call the layer on an input first")
        input, passed = self._seen
        self._is_training, self._plan = True, None
        input_grad, self.weight_grad, self.bias_grad = type(self)._backward(
            grad_output, input, self.weight, **passed, output_mask=(True, True, self.bias is not None)
        )
        assert input_grad is not None
        return input_grad

    def state_dict(self) -> dict[str, Array]:
        """The parameters by name, as in torch: `weight` and, if there is one, `bias`. The arrays are the layer's own.

        >>> import fastconv.nn
        >>> sorted(fastconv.nn.Conv1d(1, 2, 3).state_dict())
        ['bias', 'weight']
        """
        return {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy parameters from the `state_dict` of such a layer or of its torch namesake.

        Values may be anything that NumPy reads as an array, CPU tensors included. Raises `ArgumentError` if names are
        missing or unknown or a parameter of the layer is not writeable, `ShapeError` if a shape differs, `DTypeError`
        if a dtype does not fit. Then nothing has been copied.
        """
        if not isinstance(state_dict, Mapping):
            raise ArgumentError(f"state_dict must be a mapping of names to arrays, not {parameters.shown(state_dict)}")
        own = self.state_dict()
        if missing := own.keys() - state_dict.keys():
            raise ArgumentError(f"state_dict lacks {', '.join(sorted(missing))}")
        if unknown := state_dict.keys() - own.keys():
            raise ArgumentError(f"state_dict has {', '.join(sorted(map(str, unknown)))}, which this layer has not")
        arrays = {name: self._loadable(name, parameter, state_dict[name]) for name, parameter in own.items()}
        if self.bias is not None and np.shares_memory(self.weight, self.bias):
            raise ArgumentError("the layer's weight and bias must not share memory: to load one would change the other")
        for name, array in arrays.items():
            np.copyto(own[name], array)

    def _loadable(self, name: str, parameter: Any, value: Any) -> Array:
        """A copy of `value` in the dtype of `parameter`; raises if it does not fit or `parameter` is not writeable."""
        if not isinstance(parameter, np.ndarray):
            raise ArgumentError(f"the layer's {name} must be an array to load into, not {parameters.shown(parameter)}")
        check_writeable(f"the layer's {name}", parameter)
        title = f"state_dict[{name!r}]"
        array = as_array(title, value)
        check_shape(title, array, parameter.shape, "the layer's")
        if not np.can_cast(array.dtype, parameter.dtype, "same_kind"):
            raise DTypeError(f"{title} has dtype {array.dtype}, which the layer's {parameter.dtype} cannot hold")
        with np.errstate(all="ignore"):
            return array.astype(parameter.dtype)

    def _given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._passed_on}

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled or copied: everything but the last input and the plan."""
        return vars(self) | {"_seen": None, "_plan": None}

    def __repr__(self) -> str:
        given = {"kernel_size": self.kernel_size, **self._given(), "bias": self.bias is not None}
        listed = ", ".join(f"{name}={value}" for name, value in given.items())
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, {listed})"


class _Conv(_Layer):
    _is_transposed = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None, *, data_format: str = "channels_first", rng: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, bias, device, dtype, rng,
            stride=stride, padding=padding, dilation=dilation, groups=groups, padding_mode=padding_mode,
            data_format=data_format,
        )  # fmt: skip

    def __call__(self, input: Any) -> Array:
        """The output for `input`, with the shapes of the forward function."""
        return self._call(input)


class _ConvTranspose(_Layer):
    _is_transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None, *, data_format: str = "channels_first", rng: Any = None,
    ) -> None:  # fmt: skip
        if padding_mode != "zeros":
            raise ArgumentError(
                f"padding_mode of a transposed convolution must be 'zeros', not {parameters.shown(padding_mode)}"
            )
        super().__init__(
            in_channels, out_channels, kernel_size, bias, device, dtype, rng,
            stride=stride, padding=padding, output_padding=output_padding, groups=groups, dilation=dilation,
            data_format=data_format,
        )  # fmt: skip

    def __call__(self, input: Any, output_size: Any = None) -> Array:
        """The output for `input`, with the shapes of the forward function.

        `output_size`, if given, is the output's (height, width), or its whole shape; it replaces the layer's
        `output_padding`.
        """
        if output_size is None:
            return self._call(input)
        input = as_array("input", input)
        size = parameters.sizes(
            "output_size", output_size, (self._spatial, input.ndim), "the output's extents or shape"
        )
        if len(size) > self._spatial:  # a whole shape
            is_last = vars(self)["data_format"] == "channels_last"
            size = size[-self._spatial - 1 : -1] if is_last else size[-self._spatial :]
        return self._call(input, output_size=size, output_padding=0)


class Conv2d(_Conv):
    """A 2-D convolution layer, see `functional.conv2d`.

    The arguments are those of `torch.nn.Conv2d`: `in_channels`, `out_channels`, `kernel_size`, `stride`, `padding`,
    `dilation`, `groups`, `bias`, `padding_mode`, `device` (None or "cpu") and `dtype` (a floating dtype, float32 by
    default). `data_format` is that of input and output. `rng` is a `numpy.random.Generator` or a seed for the initial
    values, which have torch's distribution: uniform within 1/sqrt(fan_in). Raises `ArgumentError` or `DTypeError` for
    invalid arguments.

    >>> import numpy as np
    >>> import fastconv.nn
    >>> fastconv.nn.Conv2d(2, 4, (3, 5), padding="same")(np.ones((2, 8, 8))).shape
    (4, 8, 8)
    """

    _spatial = 2
    _forward = staticmethod(functional.conv2d)
    _plan_of = staticmethod(plans.plan_conv2d)
    _backward = staticmethod(grad.conv2d_backward)


class ConvTranspose2d(_ConvTranspose):
    """A 2-D transposed convolution layer, see `functional.conv_transpose2d`.

    The arguments are those of `torch.nn.ConvTranspose2d`, and `data_format` and `rng` as for `Conv2d`.

    >>> import numpy as np
    >>> import fastconv.nn
    >>> layer = fastconv.nn.ConvTranspose2d(2, 1, 3, stride=2, padding=1)
    >>> layer(np.ones((2, 4, 4))).shape, layer(np.ones((2, 4, 4)), output_size=(8, 8)).shape
    ((1, 7, 7), (1, 8, 8))
    """

    _spatial = 2
    _forward = staticmethod(functional.conv_transpose2d)
    _plan_of = staticmethod(plans.plan_conv_transpose2d)
    _backward = staticmethod(grad.conv_transpose2d_backward)


class Conv1d(_Conv):
    """A 1-D convolution layer: `Conv2d` with one spatial axis.

    >>> import numpy as np
    >>> import fastconv.nn
    >>> fastconv.nn.Conv1d(2, 4, 3, stride=2)(np.ones((2, 9))).shape
    (4, 4)
    """

    _spatial = 1
    _forward = staticmethod(functional.conv1d)
    _plan_of = staticmethod(plans.plan_conv1d)
    _backward = staticmethod(grad.conv1d_backward)


class ConvTranspose1d(_ConvTranspose):
    """A 1-D transposed convolution layer: `ConvTranspose2d` with one spatial axis.

    >>> import numpy as np
    >>> import fastconv.nn
    >>> fastconv.nn.ConvTranspose1d(2, 4, 3, stride=2)(np.ones((2, 4))).shape
    (4, 9)
    """

    _spatial = 1
    _forward = staticmethod(functional.conv_transpose1d)
    _plan_of = staticmethod(plans.plan_conv_transpose1d)
    _backward = staticmethod(grad.conv_transpose1d_backward)


def _are_same(one: Array | None, other: Any) -> bool:
    """Whether two parameters, of which the first is in C order, have the same bits."""
    if one is None or not isinstance(other, np.ndarray):
        return one is None and other is None
    if one.shape != other.shape or one.dtype != other.dtype or not other.flags.c_contiguous:
        return False
    unit = np.int64 if one.nbytes % 8 == 0 else np.int8
    return bool((one.reshape(-1).view(unit) == other.reshape(-1).view(unit)).all())


def fold_batch_norm(
    weight: Any, bias: Any, mean: Any, variance: Any, gamma: Any = None, beta: Any = None, eps: float = 1e-5,
    *, transposed: bool = False, groups: int = 1,
) -> tuple[Array, Array]:  # fmt: skip
    """The (weight, bias) of one convolution that does what a convolution followed by a batch norm does.

    The batch norm maps a channel y to (y - mean) / sqrt(variance + eps) * gamma + beta, with a number for each output
    channel in each of its arrays. `bias`, `gamma` and `beta` may be None, for zeros, ones and zeros. `transposed` says
    that the weight is that of a transposed convolution, (C_in, C_out / groups, ...), of so many `groups`; otherwise its
    first axis are the output channels. Computed in float64 and rounded once, to the weight's dtype. Raises
    `ShapeError`, `ArgumentError` or `DTypeError`.

    >>> import numpy as np
    >>> import fastconv.nn
    >>> fastconv.nn.fold_batch_norm(np.ones((1, 1, 1, 1)), None, [1.0], [0.25], [2.0], [3.0], eps=0.0)
    (array([[[[4.]]]]), array([-1.]))
    """
    weight, groups = as_array("weight", weight), parameters.integer("groups", groups, 1)
    spatial = weight.ndim - 2
    if spatial not in (1, 2):
        raise ShapeError(f"weight must have three axes or four, not shape {weight.shape}")
    if weight.dtype.kind != "f":
        raise DTypeError(f"weight must have a floating dtype, not {weight.dtype}")
    if isinstance(eps, bool) or not isinstance(eps, float | int | np.number) or not eps >= 0:
        raise ArgumentError(f"eps must be a number of at least 0, not {parameters.shown(eps)}")
    channels = check_weight(spatial, bool(transposed), weight.shape, groups)
    given = {"bias": bias, "mean": mean, "variance": variance, "gamma": gamma, "beta": beta}
    numbers = {name: _of_channels(name, value, channels) for name, value in given.items()}
    with np.errstate(all="ignore"):
        factor = numbers["gamma"] / np.sqrt(numbers["variance"] + float(eps))
        shift = (numbers["bias"] - numbers["mean"]) * factor + numbers["beta"]
        # (groups, input channels of a group, output channels of a group) or (output channels)
        shape = (groups, 1, channels // groups) if transposed else (channels,)
        grouped = (groups, -1, *weight.shape[1:]) if transposed else weight.shape
        scaled = weight.astype(np.float64).reshape(grouped) * factor.reshape(
            *shape, *(1,) * (len(grouped) - len(shape))
        )
        return scaled.reshape(weight.shape).astype(weight.dtype), shift.astype(weight.dtype)


def _of_channels(name: str, value: Any, channels: int) -> Array:
    """One of a batch norm's arrays in float64; None stands for ones if it is gamma, otherwise for zeros."""
    if value is None and name in ("bias", "gamma", "beta"):
        return np.full(channels, float(name == "gamma"))
    array = as_array(name, value)
    check_shape(name, array, (channels,), "one number for each output channel")
    return cast(array, np.dtype(np.float64))
