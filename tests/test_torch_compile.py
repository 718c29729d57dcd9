"""The backend of `torch.compile` and `optimize`: what is fused, what it computes, and that changes are seen."""

from __future__ import annotations

import operator
import shutil

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812 (its usual name)
from torch import nn  # noqa: E402

import fastconv as fc  # noqa: E402
import fastconv.torch as ft  # noqa: E402
from fastconv.torch import compiler, fusion  # noqa: E402

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def graphs(monkeypatch):
    """The nodes of every graph after fusing, but for its inputs and output."""
    seen = []
    fuse = fusion.fuse

    def spy(graph, example):
        layers = fuse(graph, example)
        seen.append([node for node in graph.graph.nodes if node.op not in ("placeholder", "output")])
        return layers

    monkeypatch.setattr(fusion, "fuse", spy)
    return seen


def names(graph):
    """The nodes of a graph in words; `planned` is a plan, `planned+` one with a residual."""
    found = []
    for node in graph:
        if node.target is torch.ops.fastconv.planned.default:
            found.append("planned" + "+" * (node.args[1] is not None))
        elif node.target is not getattr:
            found.append(getattr(node.target, "__name__", node.target))
    return found


def settled(model):
    """A model in evaluation mode with statistics that are not trivial."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point():
                value.uniform_(0.5, 1.5) if "var" in name else value.normal_(0, 0.5)
    return model.eval()


class Ends(nn.Module):
    """A convolution, and what a function makes of its output and of the input."""

    def __init__(self, end, convolution=None):
        super().__init__()
        self.conv = convolution or nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.slopes = nn.BatchNorm2d(6), nn.Parameter(torch.rand(6))
        self.slope, self.end = nn.Parameter(torch.rand(1)), end

    def forward(self, x):
        return self.end(self, self.conv(x), x)


#: What is made of a convolution's output y and its input x, and the graph that is left.
ENDS = {
    "nothing": (lambda m, y, x: y, ["planned"]),
    "norm": (lambda m, y, x: m.norm(y), ["planned"]),
    "norm relu": (lambda m, y, x: F.relu(m.norm(y), inplace=True), ["planned"]),
    "relu method": (lambda m, y, x: y.relu(), ["planned"]),
    "relu in place": (lambda m, y, x: y.relu_(), ["planned"]),
    "torch.relu": (lambda m, y, x: torch.relu(y), ["planned"]),
    "relu6": (lambda m, y, x: F.relu6(y), ["planned"]),
    "clamp": (lambda m, y, x: y.clamp(0, 6), ["planned"]),
    "clamp by names": (lambda m, y, x: torch.clamp(y, min=0, max=6.0), ["planned"]),
    "hardtanh": (lambda m, y, x: F.hardtanh(y, 0.0, 6.0), ["planned"]),
    "hardswish": (lambda m, y, x: F.hardswish(y), ["planned"]),
    "leaky relu": (lambda m, y, x: F.leaky_relu(y, 0.2), ["planned"]),
    "prelu": (lambda m, y, x: F.prelu(y, m.slopes), ["planned"]),
    "prelu of one slope": (lambda m, y, x: F.prelu(m.norm(y), m.slope), ["planned"]),
    "residual": (lambda m, y, x: y + x, ["planned+"]),
    "residual first": (lambda m, y, x: torch.add(x, y).relu(), ["planned+"]),
    "residual in place": (lambda m, y, x: F.relu(operator.iadd(m.norm(y), x)), ["planned+"]),
    # what must not be fused, or only a part
    "another clamp": (lambda m, y, x: y.clamp(0, 5), ["planned", "clamp"]),
    "clamp below": (lambda m, y, x: y.clamp(min=0), ["planned", "clamp"]),
    "another hardtanh": (lambda m, y, x: F.hardtanh(y), ["planned", "hardtanh"]),
    "gelu": (lambda m, y, x: F.gelu(m.norm(y)), ["planned", "gelu"]),
    "norm after relu": (lambda m, y, x: m.norm(y.relu()), ["planned", "batch_norm"]),
    "a number": (lambda m, y, x: (y + 1).relu(), ["planned", "add", "relu"]),
    "weighted residual": (lambda m, y, x: torch.add(y, x, alpha=2), ["planned", "add"]),
    "a broadcast residual": (lambda m, y, x: y + x[:, :, :1], ["planned", "getitem", "add"]),
    "with itself": (lambda m, y, x: y + y, ["planned", "add"]),
    "used twice": (lambda m, y, x: m.norm(y) * y, ["planned", "batch_norm", "mul"]),
    "into the input": (lambda m, y, x: operator.iadd(x * 1, y).relu(), ["planned", "mul", "iadd", "relu"]),
    "residual changed before": (lambda m, y, x: m.norm(y) + x.clone().mul_(2), ["planned", "clone", "mul_", "add"]),
}  # fmt: skip


def check(model, x, compiled, rtol=1e-4):
    with torch.no_grad():
        expected, found = model(x), compiled(x)
    assert found.shape == expected.shape
    assert found.stride() == expected.stride()
    assert (found - expected).abs().max() <= rtol * expected.abs().max()


@pytest.mark.parametrize("name", ENDS)
def test_chains(name, graphs):
    end, expected = ENDS[name]
    model, x = settled(Ends(end)), torch.randn(2, 6, 9, 8)
    check(model, x.clone(), ft.optimize(model, x.clone()))
    assert names(graphs[0]) == expected


@pytest.mark.parametrize("name", ENDS)
def test_chains_with_channels_last(name, graphs, monkeypatch):
    """The same with the memory format that graphs get in which Winograd's convolution takes most of the time."""
    monkeypatch.setattr(fusion, "_are_mostly_winograd", lambda layers, shapes: True)
    end, expected = ENDS[name]
    model, x = settled(Ends(end)), torch.randn(2, 6, 9, 8)
    check(model, x.clone(), ft.optimize(model, x.clone()))
    assert names(graphs[0]) == ["contiguous", *expected, "contiguous"]
    last = x.to(memory_format=torch.channels_last)
    check(model, last.clone(), ft.optimize(model, last.clone()))


@pytest.mark.parametrize("channels", [4, 64])
def test_the_memory_format_follows_the_kernels(channels, graphs):
    """Winograd's convolution is for wide layers."""
    model = settled(nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, channels, 3), nn.MaxPool2d(2)))
    x = torch.randn(1, 3, 40, 40)
    check(model, x, ft.optimize(model, x))
    last = ["contiguous"] * (channels == 64)
    assert names(graphs[0]) == [*last, "planned", "planned", "max_pool2d", *last]


def test_a_graph_that_looks_at_the_format_keeps_it(graphs, monkeypatch):
    monkeypatch.setattr(fusion, "_are_mostly_winograd", lambda layers, shapes: True)
    model, x = settled(Ends(lambda m, y, x: y.view(2, -1))), torch.randn(2, 6, 9, 8)
    check(model, x, ft.optimize(model, x))
    assert names(graphs[0]) == ["planned", "view"]


def test_a_tensor_that_is_written_in_between_is_read_before(graphs):
    """The convolution reads its input before it is changed."""

    def end(model, y, x):
        x.mul_(2)
        return model.norm(y) + x

    model, x = settled(Ends(end)), torch.randn(2, 6, 9, 8)
    optimized = ft.optimize(model, x.clone())
    with torch.no_grad():
        torch.testing.assert_close(optimized(x.clone()), model(x.clone()))
    assert names(graphs[0]) == ["planned", "mul_", "batch_norm", "add"]


CONVOLUTIONS = {
    "groups": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=3),
    "depthwise": lambda: nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False),
    "same": lambda: nn.Conv2d(6, 6, 4, padding="same"),
    "transposed": lambda: nn.ConvTranspose2d(6, 6, 3, padding=1, groups=2),
    "float64": lambda: nn.Conv2d(6, 6, 3, padding=1).double(),
    "converted": lambda: ft.convert(nn.Conv2d(6, 6, 3, padding=1)),
    "converted, transposed": lambda: ft.convert(nn.ConvTranspose2d(6, 6, 3, padding=1)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, graphs):
    model = settled(Ends(lambda m, y, x: F.relu(m.norm(y) + x), CONVOLUTIONS[name]()))
    model.to(model.conv.weight.dtype)
    x = torch.randn(2, 6, 9, 8, dtype=model.conv.weight.dtype)
    check(model, x, ft.optimize(model, x))
    assert names(graphs[0]) == ["planned+"]
    last = x.to(memory_format=torch.channels_last)
    check(model, last, ft.optimize(model, last))


@pytest.mark.parametrize("make", [nn.Conv1d, nn.ConvTranspose1d])
def test_one_axis(make, graphs):
    model = settled(nn.Sequential(make(3, 4, 5, stride=2), nn.BatchNorm1d(4), nn.LeakyReLU()))
    check(model, torch.randn(2, 3, 20), ft.optimize(model, torch.randn(2, 3, 20)))
    assert names(graphs[0]) == ["planned"]


class Perceptron(nn.Module):
    """Linear layers on the last axis, as in ConvNeXt, and those that are too small."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 96), nn.Linear(96, 64, bias=False)
        self.slopes, self.small = nn.PReLU(64), nn.Linear(64, 3)

    def forward(self, x):
        y = self.second(F.relu(self.first(x))) + x
        y = self.second(F.gelu(self.first(self.slopes(self.second(self.first(y.mT.mT))))))
        return self.small(y), self.first(y[:1, :1])


def test_linear_layers(graphs):
    model, x = settled(Perceptron()), torch.randn(2, 64, 64)
    optimized = ft.optimize(model, x)
    for other in (x, torch.randn(3, 64, 64), x.mT):
        for number in range(2):
            check(lambda x, number=number: model(x)[number], other, lambda x, number=number: optimized(x)[number])
    found = [name for name in names(graphs[0]) if name not in ("getitem", "mT")]
    assert found == [
        "planned", "planned+", "planned", "planned", "prelu", "planned", "gelu", "planned", "linear", "linear",
    ]  # fmt: skip


class Residual(nn.Module):
    """A block of ResNet."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters)
        self.second, self.norm2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters)
        self.project = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.norm2(self.second(self.relu(self.norm1(self.first(x)))))
        y += self.project(x)
        return self.relu(y)


def network():
    model = nn.Sequential(Residual(3, 8, 2), Residual(8, 16, 1), nn.ConvTranspose2d(16, 3, 2, stride=2), nn.Tanh())
    return settled(model), torch.randn(2, 3, 16, 16)


def compiled(model, x):
    return torch.compile(model, backend="fastconv", fullgraph=True)


needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="inductor needs a C++ compiler")
each_way = pytest.mark.parametrize("way", [ft.optimize, pytest.param(compiled, marks=needs_compiler)])


@each_way
def test_a_network(way, graphs):
    model, x = network()
    fast = way(model, x)
    check(model, x, fast)
    assert names(graphs[0]) == ["planned", "planned", "planned+"] * 2 + ["planned", "tanh"]
    # another size, another batch, another memory format
    for other in (torch.randn(3, 3, 20, 12), torch.randn(1, 3, 16, 16), x.to(memory_format=torch.channels_last)):
        check(model, other, fast)


@each_way
def test_changed_parameters_are_seen(way):
    model, x = network()
    fast = way(model, x)
    check(model, x, fast)
    block = model[0]
    with torch.no_grad():
        for change in (
            lambda: block.first.weight.mul_(1.5),
            lambda: block.norm1.running_mean.add_(0.5),
            lambda: block.norm2.running_var.data.mul_(2),
            lambda: setattr(block.second, "weight", nn.Parameter(-block.second.weight)),
            lambda: model.load_state_dict({name: value * 1.1 for name, value in model.state_dict().items()}),
        ):
            before = fast(x)
            change()
            check(model, x, fast)
            assert not torch.allclose(fast(x), before, atol=1e-4)


@needs_compiler
def test_a_training_graph_is_inductors(graphs, caplog):
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.randn(1, 3, 8, 8)
    fast = torch.compile(model, backend="fastconv")
    fast(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not graphs
    assert "inductor compiles this graph without fastconv" in caplog.text
    frozen = model.requires_grad_(requires_grad=False)
    check(frozen, x, torch.compile(frozen, backend="fastconv"))
    assert names(graphs[0]) == ["planned"]


def test_plans_end_with_their_graph():
    """What the operator looks up is kept by the compiled graphs alone."""
    store = ft.fused._layers
    before = len(store)
    model, x = network()
    optimized = ft.optimize(model, x)
    assert len(store) == before + 7
    del optimized
    torch.compiler.reset()
    assert len(store) == before


def test_optimized_models_want_no_gradients():
    model, x = network()
    optimized = ft.optimize(model, (x,))
    assert not optimized(x.requires_grad_()).requires_grad
    assert [id(one) for one in optimized.parameters()] == [id(one) for one in model.parameters()]


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("model must be a torch.nn.Module, not function", lambda: ft.optimize(test_one_axis, torch.ones(1))),
        ("model is in training mode", lambda: ft.optimize(nn.Conv2d(1, 1, 1), torch.ones(1, 1, 1, 1))),
    ],
)
def test_errors(message, call):
    with pytest.raises(fc.ArgumentError, match=message):
        call()


def test_the_backend_is_found_by_its_name():
    from torch._dynamo import list_backends, lookup_backend

    assert "fastconv" in list_backends(())
    assert lookup_backend("fastconv") is compiler.backend
