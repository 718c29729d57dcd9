"""Drawn problems, the calls that compute them, and the error bound that their results must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import assume, reject
from hypothesis import strategies as st

import fastconv as fc
from fastconv.problem.geometry import Geometry


@dataclass(frozen=True, eq=False)  # by identity, so that it can be a key
class Problem:
    """One call: which family on how many axes, the shapes of its arrays, and its parameters."""

    transposed: bool
    spatial: int
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def geometry(self) -> Geometry:
        make = Geometry.transposed if self.transposed else Geometry.conv
        return make(self.input_shape, self.weight_shape, spatial=self.spatial, **self.parameters)

    @property
    def name(self) -> str:
        return f"conv{'_transpose' if self.transposed else ''}{self.spatial}d"

    def forward(self, *arrays, **options):
        return getattr(fc, self.name)(*arrays, **self.parameters, **options)

    def gradient(self, which, *arrays, **options):
        parameters = {} if which == "bias" else self.parameters
        return getattr(fc.grad, f"{self.name}_{which}")(*arrays, **parameters, **options)

    def gradients(self, dy, x, w):
        """The gradients of input, weight and bias, by a call for each."""
        return (
            self.gradient("input", x.shape, w, dy),
            self.gradient("weight", x, w.shape, dy),
            self.gradient("bias", dy),
        )

    def arrays(self, kind="normal", dtype=np.float64, seed=0):
        """Input, weight, bias and output gradient, of standard normal numbers or of small integers."""
        rng = np.random.default_rng(seed)
        geometry = self.geometry
        shapes = (self.input_shape, self.weight_shape, (geometry.output_channels,), geometry.output_shape)
        if kind == "integers":
            return tuple(rng.integers(-3, 4, shape).astype(dtype) for shape in shapes)
        return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def _same_pads(extent: int, taps: int, stride: int, dilation: int, at_end: bool) -> tuple[int, int]:
    """The padding for which the output is ceil(extent / stride), by the definition."""
    total = max(0, (math.ceil(extent / stride) - 1) * stride + dilation * (taps - 1) + 1 - extent)
    return (total // 2, total - total // 2) if at_end else (total - total // 2, total // 2)


@st.composite
def problems(draw, modes=("zeros", "reflect", "replicate", "circular"), families=(False, True)):
    """Geometries of every kind: one and two axes, groups up to depthwise, all forms of padding, batched and not."""
    transposed = draw(st.sampled_from(families))
    spatial = draw(st.sampled_from((1, 2, 2, 2)))
    numbers = lambda least, most: draw(st.tuples(*[st.integers(least, most)] * spatial))  # noqa: E731
    groups = draw(st.integers(1, 3))
    c_in, c_out = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    taps, stride, dilation = numbers(1, 4), numbers(1, 4), numbers(1, 3)
    spans = [d * (t - 1) + 1 for t, d in zip(taps, dilation, strict=True)]
    form = draw(st.sampled_from(("symmetric", "four", "same", "same_lower", "valid")))
    parameters: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    extents = [draw(st.integers(1, 9)) for _ in range(spatial)]
    pads = [(0, 0)] * spatial
    if form == "symmetric":
        pads = [(p, p) for p in numbers(0, 4)]
        parameters["padding"] = tuple(p for p, _ in pads)
    elif form == "four":
        pads = list(zip(numbers(0, 4), numbers(0, 4), strict=True))
        parameters["padding"] = tuple(pads)
    else:
        parameters["padding"] = form
    if transposed:
        # an output of at least one pixel
        for i in range(spatial):
            while form in ("symmetric", "four") and (extents[i] - 1) * stride[i] + spans[i] - sum(pads[i]) < 1:
                extents[i] += 1
        if form in ("same", "same_lower"):
            least = [(extents[i] - 1) * stride[i] + 1 for i in range(spatial)]
            room = [stride[i] - 1 for i in range(spatial)]
        else:
            least = [(extents[i] - 1) * stride[i] + spans[i] - sum(pads[i]) for i in range(spatial)]
            room = [max(stride[i], dilation[i]) - 1 for i in range(spatial)]
        extra = tuple(draw(st.integers(0, room[i])) for i in range(spatial))
        how = draw(st.sampled_from(("nothing", "output_padding", "output_size")))
        if how == "output_size":
            parameters["output_size"] = tuple(low + more for low, more in zip(least, extra, strict=True))
        elif how == "output_padding" and form not in ("same", "same_lower"):
            parameters["output_padding"] = extra
        channels, weight_channels = c_in, (c_in, c_out // groups)
    else:
        parameters["padding_mode"] = draw(st.sampled_from(modes))
        for i in range(spatial):
            at_end = form != "same_lower"
            while True:
                before, after = (
                    _same_pads(extents[i], taps[i], stride[i], dilation[i], at_end)
                    if form.startswith("same")
                    else pads[i]
                )
                if extents[i] + before + after >= spans[i] and max(before, after) < extents[i]:
                    break
                extents[i] += 1
        channels, weight_channels = c_in, (c_out, c_in // groups)
    batch = draw(st.sampled_from(((), (1,), (2,), (3,))))
    return Problem(transposed, spatial, (*batch, channels, *extents), (*weight_channels, *taps), parameters)


@st.composite
def sparse_problems(draw):
    """Maps of a few pixels far from each other: paddings longer than the kernel, strides longer than both, dilations
    beyond the map, so that windows lie in the padding alone. Small sizes are drawn seldom: here they are the rule."""
    transposed = draw(st.booleans())
    spatial = draw(st.sampled_from((1, 2)))
    each = lambda *values: draw(st.tuples(*[st.sampled_from(values)] * spatial))  # noqa: E731
    groups, per_group = draw(st.sampled_from(((1, 1), (1, 3), (2, 2), (17, 1))))
    extents, taps = each(1, 1, 2, 3), each(1, 2, 3, 5, 8)
    parameters: dict[str, Any] = {
        "stride": each(1, 2, 7, 20),
        "dilation": each(1, 1, 2, 9),
        "groups": groups,
        "padding": tuple(zip(each(0, 1, 9, 20), each(0, 1, 9, 20), strict=True)),
    }
    if not transposed:
        parameters["padding_mode"] = draw(st.sampled_from(("zeros", "zeros", "reflect", "replicate", "circular")))
    channels, batch = groups * per_group, draw(st.sampled_from((1, 2)))
    problem = Problem(transposed, spatial, (batch, channels, *extents), (channels, per_group, *taps), parameters)
    try:
        geometry = problem.geometry
    except fc.FastconvError:
        reject()
    assume(math.prod(axis.small for axis in geometry.axes) <= 40)
    assume(math.prod(axis.large for axis in geometry.axes) <= 2000)
    return problem


def assert_within_rounding(result, expected, magnitude, terms, message=""):
    """|result - expected| <= 2 * gamma_K * magnitude, K = terms: what two sums of `terms` products in any order may
    differ by, where `magnitude` is the same sum of absolute values. Source: N. Higham, Accuracy and Stability of
    Numerical Algorithms, 2nd edition, section 3.1."""
    unit = np.finfo(result.dtype).eps / 2
    # one more term for the bias, and one rounding for the product
    gamma = (terms + 2) * unit / (1 - (terms + 2) * unit)
    excess = np.abs(result - expected) - 2 * gamma * magnitude
    assert result.shape == expected.shape, message
    assert (excess <= 0).all(), f"{message} exceeds the bound by {excess.max()}"
