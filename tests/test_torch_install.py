"""`install`: the convolutions of a whole process, and what is left to PyTorch."""

from __future__ import annotations

import threading

import pytest

torch = pytest.importorskip("torch")
if not hasattr(torch.library, "get_kernel"):
    pytest.skip("this PyTorch has no way to a kernel that was replaced", allow_module_level=True)

import torch.nn.functional as F  # noqa: E402, N812 (its usual name)
from torch import nn  # noqa: E402

import fastconv as fc  # noqa: E402
import fastconv.torch as ft  # noqa: E402

torch.set_num_threads(1)

#: Calls that are long enough to be taken: function, shapes of input, weight and bias, parameters.
TAKEN = {
    "conv2d": (F.conv2d, (2, 16, 40, 40), (16, 16, 3, 3), 16, {"padding": 1, "stride": (1, 2)}),
    "depthwise": (F.conv2d, (4, 32, 40, 40), (32, 1, 5, 5), 32, {"padding": 2, "groups": 32}),
    "conv1d": (F.conv1d, (4, 16, 2000), (16, 16, 9), 16, {"dilation": 2}),
    "transposed": (F.conv_transpose2d, (2, 16, 20, 20), (16, 16, 4, 4), 16, {"stride": 2, "padding": 1}),
    "transposed 1d": (F.conv_transpose1d, (4, 16, 999), (16, 8, 5), 16, {"stride": 3, "padding": 2, "groups": 2}),
    "unbatched": (F.conv2d, (16, 60, 60), (16, 16, 3, 3), 16, {}),
}  # fmt: skip


@pytest.fixture
def counted(monkeypatch):
    """The names of the contractions that were computed here."""
    calls = []
    for name in ("forward", "input_gradient", "weight_gradient", "bias_gradient"):
        before = getattr(ft.compute, name)
        monkeypatch.setattr(
            ft.compute, name, lambda *given, name=name, before=before: calls.append(name) or before(*given)
        )
    return calls


def tensors(case, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in case[1:4]
    ]


def everything(function, given, parameters):
    """The output, the gradients, and their gradients."""
    output = function(*given, **parameters)
    first = torch.autograd.grad(output.square().sum(), given, create_graph=True)
    return [output, *first, *torch.autograd.grad(sum(one.square().sum() for one in first), given)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN)
def test_convolutions_are_computed_here(case, dtype, counted):
    function, *_, parameters = case
    given = tensors(case, dtype)
    expected = everything(function, given, parameters)
    assert not counted
    with ft.install():
        found = everything(function, given, parameters)
    assert {"forward", "input_gradient", "weight_gradient", "bias_gradient"} == set(counted)
    counted.clear()
    for one, other in zip(found, expected, strict=True):
        error = (one - other).abs().max() / other.abs().max()
        assert error < (1e-4 if dtype is torch.float32 else 1e-12)
    assert all(map(torch.equal, everything(function, given, parameters), expected))
    assert not counted


def test_channels_last_and_masks(counted):
    x, w, b = tensors(TAKEN["conv2d"])
    x = x.detach().to(memory_format=torch.channels_last)
    expected = F.conv2d(x, w, b, padding=1)
    with ft.install():
        output = F.conv2d(x, w, b, padding=1)
        assert output.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
        counted.clear()
        torch.autograd.grad(output.sum(), [w])
    assert counted == ["weight_gradient"]


LEFT = {
    "short": lambda: F.conv2d(torch.ones(1, 4, 8, 8), torch.ones(4, 4, 3, 3)),
    "three axes": lambda: F.conv3d(torch.ones(1, 8, 16, 16, 16), torch.ones(8, 8, 3, 3, 3)),
    "bfloat16": lambda: F.conv2d(torch.ones(1, 16, 40, 40).bfloat16(), torch.ones(16, 16, 3, 3).bfloat16()),
    "integers": lambda: F.conv2d(torch.ones(1, 8, 40, 40).int(), torch.ones(8, 8, 3, 3).int()),
    "no images": lambda: F.conv2d(torch.ones(0, 16, 40, 40), torch.ones(16, 16, 3, 3)),
    "meta": lambda: F.conv2d(torch.ones(1, 16, 40, 40, device="meta"), torch.ones(16, 16, 3, 3, device="meta")),
}


@pytest.mark.parametrize("call", LEFT.values(), ids=LEFT)
def test_other_calls_are_pytorchs(call, counted):
    expected = call()
    with ft.install():
        output = call()
    assert not counted
    assert output.shape == expected.shape
    assert output.dtype is expected.dtype
    assert output.is_meta or torch.equal(output, expected)


def test_errors_are_pytorchs():
    x, w = torch.ones(1, 4, 60, 60), torch.ones(8, 6, 3, 3)
    messages = []
    for install in (False, True):
        if install:
            ft.install()
        try:
            for call in (
                lambda: F.conv2d(x, w),
                lambda: F.conv2d(x, w[:, :4].double()),
                lambda: F.conv2d(x, w[:, :4], stride=-1),
            ):
                with pytest.raises(RuntimeError) as error:
                    call()
                messages.append(str(error.value))
        finally:
            ft.uninstall()
    assert messages[:3] == messages[3:]


def test_where_it_is_slower_it_is_not_taken(monkeypatch, counted):
    """The predicate asks our own cost model."""
    x, w = torch.ones(1, 16, 50, 50), torch.ones(16, 16, 3, 3)
    with ft.install():
        F.conv2d(x, w)
        assert counted
        counted.clear()
        ft.installed._is_faster.cache_clear()
        monkeypatch.setattr(ft.installed, "_LEAST", 1e9)
        F.conv2d(x, w)
    ft.installed._is_faster.cache_clear()
    assert not counted


def test_models_and_the_numpy_engine(counted):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.ConvTranspose2d(16, 3, 3))
    x = torch.randn(2, 3, 50, 50)
    expected = model(x)
    with ft.install():
        torch.testing.assert_close(model(x), expected)
        assert counted == ["forward"] * 2
        counted.clear()
        with fc.use_backend("numpy"):  # which is not faster
            torch.testing.assert_close(model(x), expected)
        assert not counted


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_graphs(counted):
    torch.compiler.reset()
    x, w, b = tensors(TAKEN["conv2d"])
    compiled = torch.compile(lambda *given: F.conv2d(*given).relu(), backend="aot_eager", fullgraph=True)
    expected = compiled(x, w, b)
    with ft.install():
        torch.testing.assert_close(compiled(x, w, b), expected, atol=1e-4, rtol=1e-4)
    assert counted == ["forward"]


def test_installing_twice_and_from_threads(counted):
    assert not ft.installed.is_installed()
    ft.uninstall()  # changes nothing
    threads = [threading.Thread(target=ft.install) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ft.installed.is_installed()
    x, w, _ = tensors(TAKEN["conv2d"])
    F.conv2d(x, w)
    assert counted == ["forward"]
    ft.uninstall()
    assert not ft.installed.is_installed()
    F.conv2d(x, w)
    assert counted == ["forward"]


def test_an_error_inside_ends_it():
    with pytest.raises(KeyError), ft.install():
        raise KeyError
    assert not ft.installed.is_installed()


def test_an_older_pytorch_is_told(monkeypatch):
    monkeypatch.delattr(torch.library, "get_kernel")
    with pytest.raises(fc.UsageError, match=r"needs PyTorch 2\.9 or newer"):
        ft.install()
