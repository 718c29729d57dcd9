"""`fastconv.torch`'s functions against `torch.nn.functional`, and what PyTorch wants of an operator."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812 (its usual name)
from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import fastconv as fc  # noqa: E402
import fastconv.torch as ft  # noqa: E402

torch.set_num_threads(1)  # on problems this small, threads only wait for each other

#: Function, shapes of input, weight and bias, and parameters.
CASES = {
    "conv2d": ("conv2d", (2, 4, 7, 8), (6, 4, 3, 2), 6, {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}),
    "groups": ("conv2d", (2, 4, 6, 6), (8, 2, 3, 3), 8, {"groups": 2, "padding": "same"}),
    "even same": ("conv2d", (1, 2, 5, 6), (3, 2, 4, 2), 3, {"padding": "same", "dilation": 3}),
    "depthwise": ("conv2d", (2, 5, 6, 7), (5, 1, 3, 3), 5, {"groups": 5, "padding": 1, "stride": 2}),
    "conv1d": ("conv1d", (2, 3, 11), (4, 3, 3), 4, {"stride": 2, "padding": "valid"}),
    "unbatched": ("conv1d", (3, 11), (4, 3, 3), 4, {"padding": [1]}),
    "transposed": (
        "conv_transpose2d", (2, 4, 5, 4), (4, 3, 3, 4), 6,
        {"stride": (2, 3), "padding": 1, "groups": 2, "output_padding": (1, 0)},
    ),
    "transposed unbatched": ("conv_transpose2d", (4, 5, 4), (4, 3, 2, 2), 3, {"stride": [2, 1], "dilation": 2}),
    "transposed 1d": ("conv_transpose1d", (2, 4, 7), (4, 3, 4), 3, {"stride": 3, "padding": 2, "output_padding": 1}),
}  # fmt: skip
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


# PyTorch warns of its own "same" with even kernels
pytestmark = pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel lengths:UserWarning",
    "ignore:`torch.jit:DeprecationWarning",  # of its own forward mode, and of its compiler
)


def tensors(case, dtype=torch.float64, **options):
    _, *shapes, _ = case
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [tensor.to(dtype).requires_grad_(**options) for tensor in made] if options else [
        tensor.to(dtype) for tensor in made
    ]  # fmt: skip


def ours(case):
    return lambda *given: getattr(ft, case[0])(*given, **case[-1])


def theirs(case):
    return lambda *given: getattr(F, case[0])(*given, **case[-1])


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_outputs_and_gradients_are_torchs(case, dtype):
    given = tensors(case, dtype, requires_grad=True)
    output, expected = ours(case)(*given), theirs(case)(*given)
    torch.testing.assert_close(output, expected)
    v = torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(output, given, v), torch.autograd.grad(expected, given, v))
    assert torch.equal(ours(case)(*(tensor.detach() for tensor in given)), output)


@each_case
def test_first_and_second_derivatives(case):
    given = tensors(case, requires_grad=True)
    assert gradcheck(ours(case), given, fast_mode=True)
    assert gradgradcheck(ours(case), given, fast_mode=True)


@each_case
def test_only_what_is_needed_is_computed(case, monkeypatch):
    made = []
    for name in ("input_gradient", "weight_gradient", "bias_gradient"):
        before = getattr(ft.compute, name)
        monkeypatch.setattr(
            ft.compute, name, lambda *given, name=name, before=before: made.append(name) or before(*given)
        )
    for number, name in enumerate(("input_gradient", "weight_gradient", "bias_gradient")):
        given = tensors(case)
        given[number].requires_grad_()
        ours(case)(*given).sum().backward()
        assert made == [name], name
        made.clear()
    assert not ours(case)(*tensors(case)).requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert not ours(case)(*tensors(case, requires_grad=True)).requires_grad


@each_case
def test_half_precision_is_rounded_once(case):
    for dtype in (torch.float16, torch.bfloat16):
        given = tensors(case, dtype)
        exact = ours(case)(*(tensor.float() for tensor in given))
        assert torch.equal(ours(case)(*given), exact.to(dtype))
        needing = [tensor.requires_grad_() for tensor in given]
        assert {one.dtype for one in torch.autograd.grad(ours(case)(*needing).sum(), needing)} == {dtype}


def test_complex_and_integer_tensors():
    x, w = (torch.randn(shape, dtype=torch.complex128, requires_grad=True) for shape in ((1, 2, 3, 3), (1, 2, 2, 2)))
    torch.testing.assert_close(ft.conv2d(x, w), F.conv2d(x, w))
    assert gradcheck(ft.conv2d, (x, w))
    assert gradgradcheck(ft.conv2d, (x, w))
    numbers = torch.arange(9).reshape(1, 1, 3, 3)
    assert torch.equal(ft.conv2d(numbers, numbers[..., :2, :2]), F.conv2d(numbers, numbers[..., :2, :2]))


def test_memory_is_read_and_written_where_it_is(monkeypatch):
    """What the engine gets is the tensors' memory, and the result is PyTorch's."""
    seen = []
    forward = fc.functional.forward
    monkeypatch.setattr(fc.functional, "forward", lambda *given: seen.append(given) or forward(*given))
    x, w, b = (tensor.float() for tensor in tensors(CASES["conv2d"]))
    for input in (x, x.to(memory_format=torch.channels_last), x.expand(3, *x.shape)[1], x.flip(0).transpose(2, 3)):
        output = ft.conv2d(input, w, b, padding=1)
        _, *arrays, _, _, _, out = seen.pop()
        assert [array.__array_interface__["data"][0] for array in (*arrays, out)] == [
            tensor.data_ptr() for tensor in (input, w, b, output)
        ]


@pytest.mark.parametrize("case", [case for case in CASES.values() if len(case[1]) == 4], ids=str)
def test_results_have_the_memory_format_of_the_input(case):
    given = tensors(case, torch.float32)
    given[0] = given[0].to(memory_format=torch.channels_last).requires_grad_()
    output = ours(case)(*given)
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, theirs(case)(*given))
    (gradient,) = torch.autograd.grad(output, given[0], torch.ones_like(output))
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def operator_calls(case):
    """Calls of the three operators that a case makes: operator and arguments."""
    input, weight, bias = tensors(case, requires_grad=True)
    if input.dim() != weight.dim():
        input = input.detach()[None].requires_grad_()
    defaults = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
    written = (defaults | case[-1]).values()
    kernel = tuple(weight.shape[2:])
    how = [*ft.functional.convolution("transpose" in case[0], len(kernel), kernel, *written).arguments]
    how = [list(one) if isinstance(one, tuple) else one for one in how]
    grad_output = torch.ones_like(torch.ops.fastconv.convolution(input, weight, bias, *how)).requires_grad_()
    return [
        (torch.ops.fastconv.convolution.default, (input, weight, bias, *how)),
        (torch.ops.fastconv.convolution_input.default, ([*input.shape], weight, grad_output, *how)),
        (torch.ops.fastconv.convolution_weight.default, (input, [*weight.shape], grad_output, *how)),
    ]


@pytest.mark.parametrize("name", ["groups", "transposed", "conv1d"])
def test_opcheck(name):
    for operator, given in operator_calls(CASES[name]):
        torch.library.opcheck(operator, given)


@each_case
def test_operators_can_be_differentiated_twice(case):
    for operator, given in operator_calls(case):
        numbers = [index for index, one in enumerate(given) if isinstance(one, torch.Tensor)]

        def call(*chosen, operator=operator, given=given, numbers=numbers):
            return operator(*(chosen[numbers.index(i)] if i in numbers else one for i, one in enumerate(given)))

        chosen = [given[number] for number in numbers]
        assert gradcheck(call, chosen, fast_mode=True)
        assert gradgradcheck(call, chosen, fast_mode=True)


@each_case
@pytest.mark.parametrize("batched", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)], ids=str)
def test_vmap(case, batched):
    """Of the function, its gradients and its second derivatives, with any of the tensors batched, along any axis."""
    generator = torch.Generator().manual_seed(0)
    given = tensors(case)
    for number in batched:
        axis = number % given[number].dim()
        shape = [*given[number].shape]
        shape.insert(axis, 3)
        given[number] = torch.randn(shape, generator=generator, dtype=torch.float64)
    dims = tuple(number % (given[number].dim() - 1) if number in batched else None for number in range(3))
    torch.testing.assert_close(torch.vmap(ours(case), dims)(*given), torch.vmap(theirs(case), dims)(*given))

    def gradients(function):
        return torch.func.grad(lambda *given: function(*given).sin().sum(), argnums=(0, 1, 2))

    torch.testing.assert_close(
        torch.vmap(gradients(ours(case)), dims)(*given), torch.vmap(gradients(theirs(case)), dims)(*given)
    )

    def second(function):
        return gradients(lambda *given: sum(one.sin().sum() for one in gradients(function)(*given)))

    torch.testing.assert_close(
        torch.vmap(second(ours(case)), dims)(*given), torch.vmap(second(theirs(case)), dims)(*given)
    )


@each_case
def test_forward_mode(case):
    given = tensors(case)
    tangents = [one.cos() for one in given]
    for chosen in ((0,), (1,), (2,), (0, 1, 2)):
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(one, tangents[i]) if i in chosen else one for i, one in enumerate(given)]
            found, expected = (forward_ad.unpack_dual(function(case)(*duals)).tangent for function in (ours, theirs))
        torch.testing.assert_close(found, expected)
    of_ours, of_theirs = (torch.func.jvp(function(case), tuple(given), tuple(tangents)) for function in (ours, theirs))
    torch.testing.assert_close(of_ours, of_theirs)

    def hessian(function):
        return torch.func.hessian(lambda weight: function(given[0], weight, given[2]).sin().sum())(given[1])

    torch.testing.assert_close(hessian(ours(case)), hessian(theirs(case)))


def test_autocast():
    case = CASES["conv2d"]
    given = tensors(case, torch.float32, requires_grad=True)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            output = ours(case)(*given)
        assert output.dtype is dtype
        low = [tensor.detach().to(dtype) for tensor in given]
        assert torch.equal(output, ours(case)(*low))
        gradients = torch.autograd.grad(output.float().sum(), given)
        assert {gradient.dtype for gradient in gradients} == {torch.float32}


@each_case
def test_modes_and_tracers_see_the_operators(case):
    given = tensors(case, torch.float32)
    with FlopCounterMode(display=False) as expected:
        theirs(case)(*given)
    with FlopCounterMode(display=False) as counter:
        output = ours(case)(*(tensor.detach().requires_grad_() for tensor in given))
        assert counter.get_total_flops() == expected.get_total_flops() > 0
        output.sum().backward()
    assert counter.get_total_flops() == 3 * expected.get_total_flops()

    class Model(torch.nn.Module):
        def forward(self, *given):
            return ours(case)(*given)

    expected = ours(case)(*given)
    traced = torch.fx.experimental.proxy_tensor.make_fx(ours(case))(*given)
    assert torch.ops.fastconv.convolution.default in {node.target for node in traced.graph.nodes}
    assert torch.equal(traced(*given), expected)
    exported = torch.export.export(Model(), tuple(given))
    assert torch.ops.fastconv.convolution.default in {node.target for node in exported.graph.nodes}
    assert torch.equal(exported.module()(*given), expected)
    meta = [tensor.to("meta") for tensor in given]
    assert ours(case)(*meta).shape == expected.shape


def test_symbolic_tracing():
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(ft.Conv2d(2, 3, 3), torch.nn.ReLU()))
    assert ft.conv2d in {node.target for node in traced.graph.nodes}
    x = torch.randn(1, 2, 5, 5)
    assert torch.equal(
        traced(x), torch.relu(ft.conv2d(x, traced.get_parameter("0.weight"), traced.get_parameter("0.bias")))
    )


def test_subclasses_are_asked():
    class Logged(torch.Tensor):
        called = ()

        @classmethod
        def __torch_function__(cls, function, types, given=(), named=None):
            Logged.called += (function,)
            return super().__torch_function__(function, types, given, named or {})

    output = ft.conv2d(torch.ones(1, 1, 3, 3).as_subclass(Logged), torch.ones(1, 1, 2, 2))
    assert Logged.called[0] is ft.conv2d
    assert output.tolist() == [[[[4, 4], [4, 4]]]]


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (fc.DTypeError, "input must be a torch.Tensor", lambda x, w: ft.conv2d(np.ones((1, 2, 4, 4)), w)),
        (fc.DTypeError, "input, weight and bias must have one dtype", lambda x, w: ft.conv2d(x, w.double())),
        (fc.DTypeError, "weight and bias must have one dtype", lambda x, w: ft.conv2d(x, w, torch.ones(3).double())),
        (fc.ShapeError, "bias must have shape", lambda x, w: ft.conv2d(x, w, torch.ones(2))),
        (fc.ShapeError, "input has 2 channels", lambda x, w: ft.conv2d(x, w, groups=3)),
        (fc.ShapeError, "input must have 4 axes", lambda x, w: ft.conv2d(x[0, 0], w)),
        (fc.ShapeError, "weight must have 4 axes", lambda x, w: ft.conv2d(x, w[0])),
        (fc.ArgumentError, "stride must be at least 1", lambda x, w: ft.conv2d(x, w, stride=0)),
        (fc.ArgumentError, "stride must be", lambda x, w: ft.conv2d(x, w, stride=1.0)),
        (fc.ArgumentError, "needs stride 1", lambda x, w: ft.conv2d(x, w, stride=2, padding="same")),
        (fc.ArgumentError, "is no padding", lambda x, w: ft.conv2d(x, w, padding="some")),
        (fc.ArgumentError, "output_padding", lambda x, w: ft.conv_transpose2d(x, w[:2], output_padding=1)),
        (fc.ArgumentError, "has the layout", lambda x, w: ft.conv2d(x.to_sparse(), w)),
    ],
)  # fmt: skip
def test_errors_come_before_any_work(error, message, call, monkeypatch):
    monkeypatch.setattr(fc.dispatch.call, "contract", None)
    with pytest.raises(error, match=message):
        call(torch.ones(1, 2, 4, 4), torch.ones(3, 2, 3, 3))


def test_a_named_backend_is_taken():
    x, w = torch.randn(1, 4, 8, 8), torch.randn(4, 4, 3, 3)
    for backend in fc.available_backends():
        with fc.use_backend(backend):
            assert torch.equal(ft.conv2d(x, w), torch.from_numpy(fc.conv2d(x.numpy(), w.numpy())))
    with fc.use_backend("numpy"), fc.use_algorithm("winograd"), pytest.raises(fc.ArgumentError, match="winograd"):
        ft.conv2d(x, w)


def test_an_old_or_missing_pytorch_is_told():
    """The message has the line that installs it, and the extra requires what the message says."""
    code = """
import sys, types
sys.modules["torch"] = None if sys.argv[1] == "none" else types.SimpleNamespace(__version__=sys.argv[1])
import fastconv
try:
    import fastconv.torch
except fastconv.MissingExtraError as error:
    print(error)
"""
    for version, message in (
        ("none", "fastconv.torch needs torch, which"),
        ("2.5.1+cpu", "needs PyTorch 2.6 or newer, not 2.5.1"),
    ):
        printed = subprocess.run(
            [sys.executable, "-c", code, version], capture_output=True, text=True, check=True
        ).stdout
        assert message in printed
        assert '"fastconv[torch]"' in printed
    text = (pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'torch = ["torch>={".".join(map(str, ft.OLDEST))}"]' in text
