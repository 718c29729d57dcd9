"""Calls that were made before: what finds them, what never does, and what is dropped of them."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from registry import TILED, copied_registry, empty_caches

import fastconv as fc
from fastconv.backends.numpy import NumpyEngine
from fastconv.dispatch import backends, call, call_cache, gradients
from fastconv.problem import geometry
from fastconv.problem.recent import Recent


@pytest.fixture
def registry(monkeypatch):
    """A registry to change, and caches that are empty."""
    monkeypatch.setattr(backends, "_registry", copied_registry())
    empty_caches(monkeypatch)
    return monkeypatch


@pytest.fixture(params=TILED)
def planned(request, planned_by_one):
    """Of each tile engine, an entry for each call that took the long way, which plans."""
    with fc.use_backend(request.param):
        yield planned_by_one


@pytest.fixture
def planned_by_one(registry):
    """The same of the engine that `auto` takes."""
    long_way, calls = call.contract, []
    for module in (fc.functional, gradients):
        registry.setattr(module, "contract", lambda *a, **k: (calls.append(1), long_way(*a, **k))[1])
    return calls


def arrays(dtype=np.float32, channels=2):
    rng = np.random.default_rng(0)
    shapes = (1, channels, 6, 7), (4, channels, 3, 3), (4,), (1, 4, 6, 7)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def with_out(function, shape, *given, **parameters):
    return lambda: function(*given, **parameters, out=np.empty(shape, given[-1].dtype))


def forms():
    """Calls by what they are: with a bias, with out, unbatched, of layers."""
    x, w, b, y = arrays()
    row, taps = x[:, :, 0].copy(), w[:, :, 0].copy()
    layer, back = fc.nn.Conv2d(2, 4, 3, padding=1, rng=0), fc.nn.ConvTranspose1d(2, 4, 3, rng=0)
    return {
        "plain": lambda: fc.conv2d(x, w, padding=1),
        "bias": lambda: fc.conv2d(x, w, b, padding=1),
        "out": with_out(fc.conv2d, y.shape, x, w, padding=1),
        "bias and out": with_out(fc.conv2d, y.shape, x, w, b, padding=1),
        "unbatched bias": lambda: fc.conv2d(x[0].copy(), w, b, padding=1),
        "unbatched out": with_out(fc.conv2d, y.shape[1:], x[0].copy(), w, padding=1),
        "one axis": lambda: fc.conv1d(row, taps, b),
        "transposed": lambda: fc.conv_transpose2d(y, w, np.ones(2, "f"), 2),
        "input's gradient": with_out(fc.grad.conv2d_input, x.shape, x.shape, w, y, padding=1),
        "weight's gradient": with_out(fc.grad.conv2d_weight, w.shape, x, w.shape, y, padding=1),
        "reflected": lambda: fc.conv2d(x, w, b, padding=1, padding_mode="reflect"),
        "folded": lambda: fc.grad.conv2d_input(x.shape, w, y, padding=1, padding_mode="circular"),
        "channels last": lambda: fc.conv2d(np.ones((1, 6, 7, 2), "f"), w, b, data_format="channels_last"),
        "a view of channels last": lambda: fc.conv2d(np.moveaxis(np.ones((1, 6, 7, 2), "f"), -1, 1), w, b),
        "a view of channels last as out": lambda: fc.conv2d(
            x, w, b, padding=1, out=np.moveaxis(np.empty((1, 6, 7, 4), "f"), -1, 1)
        ),
        "backwards": lambda: fc.conv2d(x[:, :, ::-1, ::-2], w, b),
        "gradient of views": lambda: fc.grad.conv2d_weight(x[..., ::2], w.shape, y[:, :, 1:5, 1:3]),
        "unpickled": lambda: fc.conv2d(x, pickle.loads(pickle.dumps(w)), b),
        "layer": lambda: layer(x),
        "transposed layer": lambda: back(row),
        "views": lambda: fc.conv2d(x.reshape(x.shape), w[:], out=np.zeros((1, 2, 4, 4, 5), "f")[:, 1]),
    }


@pytest.mark.parametrize("form", forms())
def test_a_call_that_was_made_before_is_not_planned_again(planned, form):
    call = forms()[form]
    first = call()
    planned.clear()
    np.testing.assert_array_equal(call(), first, strict=True)
    assert not planned


def copied():
    """Calls that copy an array because of its strides, and must do so each time."""
    x, w, b, y = arrays()
    unaligned = np.frombuffer(bytes(1) + x.tobytes(), "f", offset=1).reshape(x.shape)
    return {
        "weight": lambda: fc.conv2d(x, w[..., ::-1], b),
        "weight of a gradient": lambda: fc.grad.conv2d_input(x.shape, np.asfortranarray(w), y, padding=1),
        "fields": lambda: fc.conv2d(fields(x), w, b),
        "out of fields": lambda: fc.conv2d(x, w, b, padding=1, out=fields(y)),
        "misaligned": lambda: fc.conv2d(unaligned, w, b),
        "bias's gradient": lambda: fc.grad.conv2d_bias(y[..., ::2]),
        "bias's gradient, rows backwards": lambda: fc.grad.conv2d_bias(y[:, :, ::-1]),
    }


def fields(array):
    """An array with the same elements, which are six bytes from each other."""
    packed = np.zeros(array.shape, "f4,i2")["f0"]
    packed[...] = array
    return packed


@pytest.mark.parametrize("form", copied())
def test_a_call_that_copies_an_array_does_so_each_time(planned, form):
    call = copied()[form]
    with fc.use_backend("numpy"):
        expected = call()
    for _ in range(3):
        np.testing.assert_allclose(call(), expected, atol=1e-5)


def test_a_kept_call_computes_with_the_arrays_it_is_given(planned):
    x, w, b, y = arrays(np.float64)
    for scale in (1, 2, -3):
        out = np.full(y.shape, np.nan)
        expected = fc.conv2d(x, w, padding=1, backend="numpy") + scale * b[:, None, None]
        np.testing.assert_allclose(fc.conv2d(x, w, scale * b, padding=1), expected, atol=1e-12)
        assert fc.conv2d(x, w, scale * b, padding=1, out=out) is out
        np.testing.assert_allclose(out, expected, atol=1e-12)


def read_only(array):
    array.flags.writeable = False
    return array


def refused():
    """What a kept call of the same shapes must refuse: its error, and the call's arguments."""
    *_, b, y = arrays()
    overlapping = np.lib.stride_tricks.as_strided(np.empty(99, "f"), y.shape, (0, 4, 28, 4))
    return {
        "bias of another length": (fc.ShapeError, "bias", {"bias": b[:3].copy()}),
        "bias with an axis more": (fc.ShapeError, "bias", {"bias": b.reshape(4, 1)}),
        "bias of objects": (fc.DTypeError, "bias", {"bias": b.astype(object)}),
        "masked bias": (fc.ArgumentError, "bias", {"bias": np.ma.array(b, mask=[1, 0, 0, 0])}),
        "out of another shape": (fc.ShapeError, "out", {"out": np.empty((4, 6, 7), "f")}),
        "out of another dtype": (fc.DTypeError, "out", {"out": np.empty(y.shape)}),
        "out of another order": (fc.DTypeError, "out", {"out": np.empty(y.shape, np.dtype("f").newbyteorder())}),
        "read-only out": (fc.ArgumentError, "out", {"out": read_only(np.empty(y.shape, "f"))}),
        "out that overlaps itself": (fc.ArgumentError, "out", {"out": overlapping}),
        "out that is no array": (fc.ArgumentError, "out", {"out": [1.0]}),
        "masked out": (fc.ArgumentError, "out", {"out": np.ma.masked_all(y.shape, "f")}),
    }


@pytest.mark.parametrize("what", refused())
def test_what_is_refused_is_refused_of_a_kept_call_too(planned, what):
    x, w, b, y = arrays()
    for given in ({}, {"bias": b}, {"out": np.empty(y.shape, "f")}, {"bias": b, "out": np.empty(y.shape, "f")}):
        fc.conv2d(x, w, padding=1, **given)
    error, names, wrong = refused()[what]
    for more in ({}, {"bias": b}, {"out": np.full(y.shape, 7, "f")}):
        with pytest.raises(error, match=names):
            fc.conv2d(x, w, padding=1, **(more | wrong))
        assert (more.get("out", np.array(7)) == 7).all()


@pytest.mark.parametrize("shared", ["input", "weight", "bias"])
@pytest.mark.parametrize("as_view", [False, True])
def test_out_may_share_memory_with_what_is_read(planned, shared, as_view):
    """The result is that of arrays that do not, however often the call was made before."""
    given = {"input": (1, 4, 1, 4), "weight": (4, 4, 1, 1), "bias": (4,)}
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape).astype("f") for name, shape in given.items()}
    expected = fc.conv2d(*values.values())
    for _ in range(2):
        fc.conv2d(*values.values(), out=np.empty_like(expected))
    memory = np.zeros(20, "f")
    array = memory[: values[shared].size].reshape(given[shared])
    array[...] = values[shared]
    if not as_view and shared == "input":
        array = memory = values[shared].copy()
    out = (array if memory is array else memory[:16]).reshape(expected.shape)
    np.testing.assert_array_equal(fc.conv2d(*(values | {shared: array}).values(), out=out), expected)


def test_a_flushed_bias(planned):
    """Of a kept call too, where no tap is linked."""
    x, w, bias = np.zeros((1, 1, 2, 2), "f"), np.zeros((1, 1, 1, 1), "f"), np.full(1, 1e-40, "f")
    for flush in (True, False, True, False):
        fc.set_flush_denormal(flush)
        assert fc.conv_transpose2d(x, w, bias, stride=2).any() != flush


# what is dropped


def test_what_was_used_last_is_kept():
    recent = Recent(4)
    for i in range(100):
        recent[i] = i
        recent.get("hot")
        recent["hot"] = "hot"
        assert [recent.get(j) for j in range(max(0, i - 2), i + 1)] == list(range(max(0, i - 2), i + 1))
        assert len(recent) <= 8
    recent.clear()
    assert (len(recent), recent.get("hot")) == (0, None)


def test_threads_that_fill_it_at_once_find_their_own_or_nothing():
    recent, start = Recent(8), threading.Barrier(4)

    def work(me):
        start.wait()
        for i in range(3000):
            recent[me, i % 20] = me, i % 20
            assert recent.get((me, (i * 7) % 20)) in (None, (me, (i * 7) % 20))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(recent) <= 2 * (8 + 4)


@pytest.mark.parametrize("cache", [geometry._lately, call_cache._kept], ids=["geometries", "calls"])
def test_the_sizes_of_a_layer_that_is_used_stay(cache):
    """512 others may come in between."""
    assert cache._size >= 512


def test_a_hot_call_among_many_shapes_is_never_planned_again(planned_by_one):
    """Every 10th call is the hot one; the others go round through 600 shapes."""
    w = np.ones((1, 1, 1), "f")
    *lines, hot = (np.ones((1, 1, n), "f") for n in range(1, 602))
    fc.conv1d(hot, w)
    for i, line in enumerate((lines * 2)[:1000]):
        fc.conv1d(line, w)
        planned_by_one.clear()
        if i % 10 == 0:
            fc.conv1d(hot, w)
            assert not planned_by_one
    for line in lines[:400]:  # the last that were used
        fc.conv1d(line, w)
    assert not planned_by_one
    assert len(call_cache._kept) <= 1024
    assert len(geometry._lately) <= 1024


def test_engines_that_were_replaced_do_not_pile_up(registry):
    """What a problem keeps of engines and numbers of threads is bounded."""
    x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    for _ in range(200):
        fc.register_backend("mine", NumpyEngine)
        fc.conv2d(x, w, backend="mine")
    known = geometry.Geometry.conv(x.shape, w.shape)
    assert len(known.derived) <= 2 * geometry._DERIVED


# what a change of the registry drops


class Waiting:
    """A loader that, told so, waits in its first run until it may go on."""

    def __init__(self, *engines):
        self.engines = list(engines)
        self.loading, self.go_on = threading.Event(), threading.Event()

    def __call__(self):
        engine = self.engines.pop(0)
        if not self.loading.is_set():
            self.loading.set()
            assert self.go_on.wait(30)
        return engine


def test_a_loader_that_runs_while_its_name_is_registered_again(registry):
    """Its engine is the call's that it ran for, and no later call's: not even if the new loader is the same one."""
    old, new = NumpyEngine(), NumpyEngine()
    loader = Waiting(old, new)
    fc.register_backend("mine", loader)
    with ThreadPoolExecutor(1) as pool:
        earlier = pool.submit(backends.pick, "mine", np.dtype("f"))
        assert loader.loading.wait(30)
        fc.register_backend("mine", loader)
        loader.go_on.set()
        assert earlier.result(30) is old
    assert backends.pick("mine", np.dtype("f")) is new


def kept_late(registry, name, change):
    """Make `change` in one call of the backend `name`, between its choice of an engine and the moment it is kept."""
    keep, changed = call_cache.keep, []

    def changing(*given):
        if not changed:
            changed.append(1)
            change()
        keep(*given)

    registry.setattr(call_cache, "keep", changing)
    x, w, *_ = arrays()
    fc.conv2d(x, w, backend=name)
    assert changed
    return fc.conv2d(x, w, backend=name)


@pytest.mark.parametrize("name", TILED)
def test_a_call_that_is_kept_after_its_backend_was_registered_again(registry, name):
    engine = backends.loaded(name)
    fc.register_backend("mine", lambda: engine)

    def gone():
        raise ImportError("gone")

    with pytest.raises(fc.BackendUnavailableError, match="gone"):
        kept_late(registry, "mine", lambda: fc.register_backend("mine", gone))


@pytest.mark.parametrize("name", TILED)
def test_a_call_that_is_kept_after_its_backend_was_withdrawn(registry, name):
    engine = backends.loaded(name)
    fc.register_backend("mine", lambda: engine)
    with pytest.raises(fc.BackendUnavailableError, match="it fails"):
        kept_late(registry, "mine", lambda: backends.withdraw(engine, "it fails"))


def test_to_withdraw_an_engine_leaves_its_successor(registry):
    fc.register_backend("mine", NumpyEngine)
    engine = backends.pick("mine", np.dtype("f"))
    fc.register_backend("mine", NumpyEngine)
    backends.withdraw(engine, "it fails")
    assert fc.conv2d(np.ones((1, 1, 1)), np.ones((1, 1, 1, 1)), backend="mine") == 1
