"""Memory of results: buffers come back when nothing uses them, not before, and no old data reaches a user."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from problems import problems
from registry import empty_caches
from scripts import python
from test_contractions import CASES, LARGE

import fastconv as fc
from fastconv.backends import memory
from fastconv.problem import main_memory

MIB = 2**20
X, W = np.ones((1, 1, 512, 512), "f"), np.ones((1, 1, 1, 1), "f")
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(autouse=True)
def nothing_is_idle():
    fc.release_memory()
    yield
    fc.release_memory()


@pytest.fixture
def every_result(monkeypatch):
    """Results of all sizes are in buffers."""
    monkeypatch.setattr(memory, "LEAST", 1)
    empty_caches(monkeypatch)


def large(mebibytes=1, number=None):
    """An array in a buffer of its own, filled with a number."""
    array = memory.empty((mebibytes * MIB // 4,), np.dtype("f"))
    if number is not None:
        array.fill(number)
    return array


def address(array):
    return array.__array_interface__["data"][0]


def is_in_a_buffer(array):
    while isinstance(array.base, np.ndarray):
        array = array.base
    return isinstance(array.base, memory._Lease)


def idle_buffers():
    return [buffer for buffers in memory._idle.values() for buffer in buffers]


# when a buffer comes back


@pytest.mark.parametrize("view", [lambda y: y, lambda y: y[0, 0, 1:, ::2].T, lambda y: memoryview(y)[0:1], iter])
def test_a_buffer_comes_back_with_the_last_view(engine, view):
    y = fc.conv2d(X, W)
    where, seen = address(y), view(y)
    assert is_in_a_buffer(y)
    del y
    assert not fc.backends.memory.idle_bytes()
    other = fc.conv2d(X, W)
    assert address(other) != where
    del other
    before = memory.idle_bytes()
    del seen
    assert memory.idle_bytes() == 2 * before == 2 * X.nbytes
    assert address(fc.conv2d(X, W)) == where  # the one that became idle last


def test_an_array_in_a_cycle():
    cycle = [large()]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert memory.idle_bytes() == MIB


def test_a_call_that_fails_gives_its_buffer_back(monkeypatch):
    fc.conv2d(X, W, backend="numpy")
    monkeypatch.setattr(fc.dispatch.call, "_delivered", lambda *given: 1 / 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fc.conv2d(X, W, backend="numpy")
        gc.collect()
        assert memory.idle_bytes() == X.nbytes


# what a user sees


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.complex64, np.longdouble])
def test_a_result_is_an_ordinary_array(dtype):
    x = np.arange(2 * MIB).reshape(1, 1, 1024, 2048) % 1000
    for _ in range(2):
        y = fc.conv2d(x.astype(dtype), W.astype(dtype), backend="numpy")
        assert is_in_a_buffer(y)
        assert type(y) is np.ndarray
        assert y.dtype == dtype
        assert y.flags.carray  # C order, aligned and writeable
        assert address(y) % 64 == 0
        np.testing.assert_array_equal(y, x.astype(dtype))
        y[...] = 7
        del y
    if dtype == np.float32:
        assert fc.conv2d(x.astype(dtype), W).dtype is np.dtype("f")


def test_copies_do_not_depend_on_the_buffer():
    y = large(1, 5)
    copies = [copy.copy(y), copy.deepcopy(y), y.copy(), pickle.loads(pickle.dumps(y))]
    copies.append(pickle.loads(pickle.dumps(y, protocol=5)))
    assert not any(is_in_a_buffer(each) for each in copies)
    where = address(y)
    del y
    again = large(1, 6)
    assert address(again) == where
    assert all((each == 5).all() for each in copies)


def test_other_libraries_keep_the_buffer():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(large(1, 3))
    assert not memory.idle_bytes()
    assert (tensor == 3).all()
    del tensor
    assert memory.idle_bytes() == MIB
    passed_on = torch.from_dlpack(large(1, 4))
    assert not memory.idle_bytes()
    del passed_on
    gc.collect()
    assert memory.idle_bytes() == MIB


def test_small_results_are_numpys():
    y = fc.conv2d(X[:, :, :500], W)
    assert y.nbytes < memory.LEAST
    assert not is_in_a_buffer(y)
    assert memory.allocator(100) is np.empty
    assert memory.allocator(100, is_zeroed=True) is np.zeros


def test_sizes_are_rounded_up_by_less_than_an_eighth():
    rng = np.random.default_rng(0)
    sizes = [MIB, MIB + 1, 2 * MIB - 1, *rng.integers(MIB, 2**40, 1000).tolist()]
    for size in sizes:
        rounded = memory._size_class(size)
        assert size <= rounded < size * 1.125
        assert rounded % 4096 == 0
    assert len({memory._size_class(size) for size in range(MIB, 2 * MIB + 1, 4096)}) == 9


def test_an_array_as_large_as_its_buffer_can_be_written_to_its_end():
    for size in (MIB, 2 * MIB, 2 * MIB + 8, 5 * MIB, 9 * MIB - 8):
        array = memory.empty((size,), np.dtype(np.uint8))
        array.fill(1)
        assert array.sum(dtype=np.int64) == size


# the limit


def test_the_limit_holds_and_what_was_idle_longest_is_freed_first():
    fc.set_memory_limit(4 * MIB)
    arrays = [large() for _ in range(8)]
    expected = [address(array) for array in arrays][-4:]
    while arrays:
        del arrays[0]
        assert memory.idle_bytes() <= 4 * MIB
    assert [buffer.address for buffer in idle_buffers()] == expected
    fc.set_memory_limit(2 * MIB)
    assert [buffer.address for buffer in idle_buffers()] == expected[-2:]
    array = large(2)
    del array  # another size class
    assert [buffer.size for buffer in idle_buffers()] == [2 * MIB]


def test_a_result_beyond_the_limit_is_numpys(engine):
    for limit in (0, X.nbytes - 1):
        fc.set_memory_limit(limit)
        assert not is_in_a_buffer(fc.conv2d(X, W))
        assert not idle_buffers()
    fc.set_memory_limit(X.nbytes)
    assert is_in_a_buffer(fc.conv2d(X, W))
    assert memory.idle_bytes() == X.nbytes


def test_a_limit_of_zero_frees_what_is_idle():
    del_later = large()
    del del_later
    fc.set_memory_limit(0)
    assert not idle_buffers()


def test_the_variable_and_the_function_before_it(monkeypatch):
    monkeypatch.setenv("FASTCONV_MEMORY_LIMIT", str(2 * MIB))
    assert fc.get_memory_limit() == 2 * MIB
    arrays = [large() for _ in range(4)]
    del arrays
    assert memory.idle_bytes() == 2 * MIB
    monkeypatch.setenv("FASTCONV_MEMORY_LIMIT", "0")
    assert not is_in_a_buffer(large())
    fc.set_memory_limit(MIB)
    assert is_in_a_buffer(large())
    fc.set_memory_limit(None)
    assert fc.get_memory_limit() == 0
    monkeypatch.delenv("FASTCONV_MEMORY_LIMIT")
    assert fc.get_memory_limit() == memory._default() > 0


@pytest.mark.parametrize("text", ["-1", "1.5", "2G", "none", "²", "\udc80"])
def test_a_wrong_variable_is_an_error_of_every_large_call(engine, monkeypatch, text):
    kept = fc.conv2d(X, W)
    monkeypatch.setenv("FASTCONV_MEMORY_LIMIT", text)
    for _ in range(2):
        with pytest.raises(fc.ArgumentError, match="FASTCONV_MEMORY_LIMIT must be a number of bytes"):
            fc.conv2d(X, W)
    del kept  # raises nothing
    assert fc.conv2d(X[:, :, :9], W).any()
    fc.set_memory_limit(MIB)
    assert fc.conv2d(X, W).any()


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, 2**63, np.ones(2)])
def test_a_wrong_limit(value):
    with pytest.raises(fc.ArgumentError, match=r"^bytes must be"):
        fc.set_memory_limit(value)
    assert fc.get_memory_limit() == memory._default()


def test_release_memory():
    kept, *others = [large(1, 2), large(), large(3)]
    others.clear()
    assert fc.release_memory() == 4 * MIB
    assert fc.release_memory() == 0
    assert (kept == 2).all()
    del kept
    assert fc.release_memory() == MIB


def test_buffers_that_are_idle_for_long_are_freed(monkeypatch):
    """By the next large result that is gone, or by the next collection of garbage."""
    monkeypatch.setattr(memory, "_searched", 0.0)
    clock = [1000.0]
    monkeypatch.setattr(memory, "_now", lambda: clock[0])
    for search in (lambda: large(2), gc.collect):
        huge = large(64)
        del huge
        clock[0] += memory._PATIENCE - 1
        search()
        assert memory.idle_bytes() >= 64 * MIB
        clock[0] += memory._INTERVAL
        search()
        assert memory.idle_bytes() <= 2 * MIB


def test_without_memory_to_map_numpy_makes_the_result(monkeypatch):
    def fails(*given):
        raise OSError("no memory")

    idle = large()
    del idle
    monkeypatch.setattr(memory, "_Buffer", fails)
    y = large(2, 4)
    assert not is_in_a_buffer(y)
    assert (y == 4).all()
    assert not idle_buffers()  # for NumPy to have


def test_info_tells_the_limit_and_what_decided_it(monkeypatch):
    assert "of memory; 0 MiB idle" in memory.explained()
    idle = large(3)
    del idle
    monkeypatch.setenv("FASTCONV_MEMORY_LIMIT", str(5 * MIB))
    assert memory.explained() == "limit 5 MiB, by FASTCONV_MEMORY_LIMIT; 3 MiB idle"
    fc.set_memory_limit(4 * MIB)
    assert memory.explained() == "limit 4 MiB, asked for; 3 MiB idle"


def test_the_default_is_a_share_of_the_memory(monkeypatch):
    for size, expected in ((2**36, 2**33), (2**29, 2**26), (None, 2**30)):
        monkeypatch.setattr(main_memory, "size", lambda size=size: size)
        assert memory._default.__wrapped__() == expected


@pytest.mark.parametrize(
    ("member_of", "files", "expected"),
    [
        ("0::/a/b\n", {"a/memory.max": "2097152\n", "a/b/memory.max": "max\n"}, 2 * MIB),
        ("0::/a\n", {"a/memory.max": "2097152\n", "memory.max": "1048576\n"}, MIB),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "3145728\n"}, 3 * MIB),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("", {}, None),
    ],
)
def test_a_containers_memory(tmp_path, monkeypatch, member_of, files, expected):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(member_of)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    machine = main_memory._of_machine()
    assert main_memory.size(tmp_path) == (expected or machine)
    monkeypatch.setattr(main_memory, "_of_machine", lambda: None)
    main_memory.size.cache_clear()
    assert main_memory.size(tmp_path) == (expected or (2**63 - 4096 if files else None))
    main_memory.size.cache_clear()


# old data


def poison():
    """Fill all idle buffers with NaN, in every dtype of floats, and -1."""
    for buffer in idle_buffers():
        np.frombuffer(buffer._mapping, np.uint8).fill(255)


def assert_no_old_data(compute):
    """Results in buffers full of NaN have the bits of results in fresh memory; on the long way and the short one."""
    expected = compute()
    assert is_in_a_buffer(expected)
    kept = expected.copy()
    del expected
    for _ in range(2):
        poison()
        result = compute()
        assert result.base is not None
        np.testing.assert_array_equal(result, kept, strict=True)
        del result


def passes(problem, dtype):
    x, w, b, y = problem.arrays(dtype=dtype)
    return {
        "forward": lambda: problem.forward(x, w),
        "bias": lambda: problem.forward(x, w, b),
        "unusual strides": lambda: problem.forward(x[..., ::-1], w[..., ::-1], b),
        "input": lambda: problem.gradient("input", x.shape, w, y),
        "weight": lambda: problem.gradient("weight", x, w.shape, y),
        "bias gradient": lambda: problem.gradient("bias", y),
    }


@pytest.mark.parametrize("name", [*CASES, *list(LARGE)[:: 1 + len(LARGE) // 12]])
def test_no_old_data(engine, every_result, name):
    for compute in passes((CASES | LARGE)[name], np.float32).values():
        assert_no_old_data(compute)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
@pytest.mark.parametrize("name", ["stem", "reflect", "gaps between"])
def test_no_old_data_in_other_dtypes(engine, every_result, name, dtype):
    for compute in passes(CASES[name], dtype).values():
        assert_no_old_data(compute)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LARGE)
def test_no_old_data_in_problems_that_fill_tiles(engine, every_result, name, dtype):
    for compute in passes(LARGE[name], dtype).values():
        assert_no_old_data(compute)


@settings(deadline=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck))
@given(problem=problems())
def test_no_old_data_in_drawn_problems(engine, every_result, problem):
    for compute in passes(problem, np.float32).values():
        assert_no_old_data(compute)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_old_data_beside_odd_numbers(engine, every_result, value, threads):
    """A weight that is not finite takes another way."""
    fc.set_num_threads(threads)
    problem = LARGE["up, wide"]
    x, w, _, y = problem.arrays(dtype=np.float32)
    w[0, 0, 0, 0] = value
    assert_no_old_data(lambda: problem.forward(x, w))
    assert_no_old_data(lambda: problem.gradient("input", x.shape, w, y))


def test_no_old_data_in_large_results(engine):
    """Whose buffers are in huge pages, with the real threshold."""
    x, w = np.ones((1, 2, 600, 1000), "f"), np.ones((3, 2, 3, 3), "f")
    assert_no_old_data(lambda: fc.conv2d(x, w, padding=1))
    assert_no_old_data(lambda: fc.conv_transpose2d(x, w.transpose(1, 0, 2, 3).copy()[:, :, :1, :1], stride=2))
    assert_no_old_data(lambda: fc.grad.conv2d_input((1, 2, 602, 1002), w, np.ones((1, 3, 600, 1000), "f")))


def test_an_array_of_zeros():
    make = memory.allocator(2 * MIB, is_zeroed=True)
    for _ in range(3):
        array = make((MIB // 2,), np.dtype("f"))
        assert not array.any()
        array.fill(3)
        del array
        poison()


def test_the_images_of_an_empty_batch(engine, every_result):
    assert fc.conv2d(X[:0], W).shape == (0, 1, 512, 512)
    assert not fc.grad.conv2d_weight(X[:0], W.shape, X[:0]).any()


# threads, signals, forks, the end


def test_threads_at_once_share_no_buffer():
    """Arrays are made, written, given to other threads and dropped there; each keeps its number till then."""
    fc.set_memory_limit(12 * MIB)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    others, start = [], threading.Barrier(4)

    def work(me):
        start.wait()
        for i in range(300):
            number = me * 1000 + i
            array = large(1 + i % 3)
            array[::1024] = number
            others.append((array, number))
            del array
            try:
                array, number = others.pop(0)
            except IndexError:
                continue
            assert (array[::1024] == number).all()
            del array
            if i % 50 == 0:
                fc.release_memory()

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(before)
    others.clear()
    assert memory.idle_bytes() <= 12 * MIB
    buffers = idle_buffers()
    assert len({buffer.address for buffer in buffers}) == len(buffers)


def test_calls_of_several_threads_at_once(engine):
    expected = fc.conv2d(X, W)

    def work(scale):
        for _ in range(10):
            np.testing.assert_array_equal(fc.conv2d(X, W * np.float32(scale)), expected * np.float32(scale))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(1, 4)))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_signal_handler_may_compute():
    def handler(*_):
        array = large(1, 8)
        assert (array == 8).all()
        count[0] += 1

    count, before = [0], signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
        for i in range(100_000):
            array = large(1)
            array[::1024] = i
            assert (array[::1024] == i).all()
            del array
            if count[0] > 100:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    buffers = idle_buffers()
    assert len({buffer.address for buffer in buffers}) == len(buffers)


def test_a_finalizer_may_drop_arrays():
    """In the collector, in the middle of whatever runs."""
    for i in range(5):
        cycle = [large(1, i)]
        cycle.append(cycle)
        weakref.finalize(cycle[0], large, 1, i)
        del cycle
        gc.collect()
    assert 0 < memory.idle_bytes() <= 3 * MIB


@posix
def test_a_fork_in_the_middle():
    """A child allocates, and what it writes is its own; the parent's threads go on meanwhile."""
    done = python(
        """
import os, threading, warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
import numpy as np, fastconv as fc
from fastconv.backends import memory
def large(number):
    array = memory.empty((2**19,), np.dtype("f"))
    array.fill(number)
    return array
mine, stop = large(1), threading.Event()
def work():
    while not stop.is_set():
        assert (large(5) == 5).all()
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for i in range(5):
    child = os.fork()
    if not child:
        status = 1
        try:
            assert memory.idle_bytes() == 0
            arrays = [large(i) for i in range(4)]
            assert all((array == i).all() for i, array in enumerate(arrays)) and (mine == 1).all()
            mine.fill(2)
            del mine
            x = np.ones((1, 1, 600, 600), "f")
            assert (fc.conv2d(x, np.ones((1, 1, 1, 1), "f"), backend="numpy") == 1).all()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (mine == 1).all()
stop.set()
for thread in threads:
    thread.join()
"""
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_arrays_that_outlive_the_interpreter_are_quiet():
    done = python(
        """
import sys, builtins, numpy as np, fastconv as fc
from fastconv.backends import memory
def large():
    return memory.empty((2**19,), np.dtype("f"))
idle = large()
del idle
kept = large()
cycle = [large()]
cycle.append(cycle)
sys.kept, builtins.kept = large(), large()
class Late:
    def __init__(self):
        self.array = large()
    def __del__(self):
        self.array.fill(1)
late = builtins.late = Late()
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_watched_before_the_first_buffer():
    code = "import gc, fastconv; from fastconv.backends import memory; print(memory._at_collection in gc.callbacks)"
    assert python(code).stdout == "False\n"


@pytest.mark.skipif(os.name != "posix", reason="counts page faults")
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_no_new_pages_in_a_pipeline_that_is_run_again(engine, mode):
    """Layers one after the other, each with the output of the one before."""
    import resource

    weights = [np.ones((8, 1, 3, 3), "f"), *(np.full((8, 8, 3, 3), 1e-2, "f") for _ in range(3))]
    if engine[0] == "numpy":
        pytest.skip("it has intermediate arrays of its own")

    def run():
        x = X
        for w in weights:
            x = fc.conv2d(x, w, padding=1, padding_mode=mode)

    for _ in range(3):
        run()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        run()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 100  # 16,000 by pages of 4 KiB
