"""What engines that multiply tiles keep beyond the cases of every engine: bits, borders, threads, forks, caches."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from problems import Problem
from registry import TILED, able, assert_computed, empty_caches, is_exact, only
from scripts import python
from test_contractions import CASES, LARGE, PADDED

import fastconv as fc
from fastconv.backends import instruction_set as sets
from fastconv.backends.contract import dtype_of
from fastconv.cli.bench import problems as layers_of
from fastconv.dispatch import backends, call_cache
from fastconv.kernels import abi
from fastconv.kernels.drivers.depthwise_rowwise import (
    DepthwiseRowwise,
    DepthwiseRowwiseTransposed,
    DepthwiseRowwiseWeightGrad,
)
from fastconv.kernels.drivers.fft_tiles import FftTiles, FftWeight
from fastconv.kernels.drivers.pixel_lanes import PixelLanes
from fastconv.kernels.drivers.winograd import Winograd
from fastconv.planner import (
    blocking,
    cost_model,
    matmul,
    registry,
)
from fastconv.planner.request import Request

ALL = CASES | LARGE
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")


@pytest.fixture
def anew(monkeypatch):
    """Nothing that was worked out before is remembered, and every problem is large enough for threads."""
    empty_caches(monkeypatch)
    monkeypatch.setattr("fastconv.dispatch.preparation._SERIAL", 0)
    blocking.cheapest_blocking.cache_clear()
    yield monkeypatch
    blocking.cheapest_blocking.cache_clear()


def with_costs(monkeypatch, **changes):
    """Let every kernel, those of weight gradients included, follow other constants than fastconv comes with."""
    kinds = {pipes: model.replaced(**changes) for pipes, model in cost_model.BY_PIPES.items()}
    monkeypatch.setattr(cost_model, "BY_PIPES", kinds)
    monkeypatch.setattr(cost_model, "_choose", cost_model.nominal)


def targets(problem):
    """The contraction of each result that can be computed from a problem's arrays, but for a bias's gradient."""
    maps = ("large", "small") if problem.transposed else ("small", "large")
    return dict(zip(("forward", "input", "weight"), (*maps, "weight"), strict=True))


def compute(problem, which, x, w, bias, dy, **options):
    """One of them."""
    if which == "forward":
        return problem.forward(x, w, bias, **options)
    arrays = (x.shape, w, dy) if which == "input" else (x, w.shape, dy)
    return problem.gradient(which, *arrays, **options)


def results(problem, dtype=np.float32, images=slice(None)):
    """All that can be computed from a problem's normal numbers, of some of its images."""
    x, w, bias, dy = problem.arrays("normal", dtype)
    return {which: compute(problem, which, x[images], w, bias, dy[images]) for which in targets(problem)}


def kernels(engine, problem, target, itemsize=4):
    """The kernels that apply to a contraction of a problem: each is tested on it, by being there."""
    lifted = problem.geometry.lifted()
    lifted = lifted.extended() if lifted.padding_mode != "zeros" else lifted
    return able(Request.of(engine, lifted, target, itemsize, 2))


def of_each_kernel(tiled, problem, which, dtype=np.float32):
    """One result from normal numbers, by each kernel that applies."""
    arrays, found = problem.arrays("normal", dtype), {}
    engine = backends.loaded(tiled)
    for name in kernels(engine, problem, targets(problem)[which], arrays[0].itemsize):
        with only(name):
            found[name] = compute(problem, which, *arrays)
    return found


def all_ways(tiled, problem, **options):
    """All results by each kernel that applies."""
    return {
        (which, name): array
        for which in targets(problem)
        for name, array in of_each_kernel(tiled, problem, which, **options).items()
    }


def assert_same_bits(some, others):
    for name, array in some.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name, strict=True)


#: Kernels that add up a number's products in an order of their own: lanes are added in the end, or spans of rows.
OWN_ORDER = ("matmul", "depthwise_rowwise", "weight_grad_pixel_lanes")


def assert_all_same_bits(found):
    """Of each result, by all kernels of the common order, which is one chain over channels, rows and columns."""
    for which in ("forward", "input", "weight"):
        same = [
            array
            for (of, name), array in found.items()
            if of == which and is_exact(name) and not name.endswith(OWN_ORDER)
        ]
        for array in same:
            np.testing.assert_array_equal(array, same[-1], err_msg=which, strict=True)


@pytest.mark.parametrize("name", ALL)
def test_the_bits_do_not_depend_on_threads(tiled, anew, name):
    found = []
    for number in (1, 2, 4):
        fc.set_num_threads(number)
        found.append(results(ALL[name]))
    assert_same_bits(found[0], found[1])
    assert_same_bits(found[0], found[2])


@pytest.mark.parametrize("name", ALL)
def test_the_bits_do_not_depend_on_what_caches_hold(tiled, anew, name):
    near = all_ways(tiled, ALL[name])
    with_costs(anew, level2_source_bytes=0, prefetched_weight_bytes=0)
    assert_same_bits(near, all_ways(tiled, ALL[name]))


@pytest.mark.parametrize("name", [name for name, problem in ALL.items() if len(problem.input_shape) == 4])
def test_the_bits_of_an_image_do_not_depend_on_the_others(tiled, anew, name):
    together, alone = (results(ALL[name], images=images) for images in (slice(None), slice(0, 1)))
    for which in ("forward", "input"):
        np.testing.assert_array_equal(together[which][:1], alone[which])


@pytest.mark.parametrize("row", [(90, 1), (67, 3)], ids=["short rows", "long rows"])
def test_the_bits_of_one_pixel_do_not_depend_on_how_many_there_are(tiled, anew, row):
    channels, taps = row
    problem = Problem(False, 2, (100, channels, taps, taps), (65, channels, taps, taps))
    together = results(problem)
    for images in (slice(0, 1), slice(3, 8), slice(20, 90)):
        some = results(problem, images=images)
        for which in ("forward", "input"):
            np.testing.assert_array_equal(together[which][images], some[which])


@pytest.mark.parametrize("name", ALL)
def test_the_bits_do_not_depend_on_blocks(tiled, anew, name):
    """One chain of additions for each number, wherever the work is cut; sums of several chains are another matter."""
    with_costs(anew, work_items=1, chain_pixels=2**40)
    whole = all_ways(tiled, ALL[name])
    with_costs(
        anew, work_items=1, chain_pixels=2**40, padded_tile_bytes=600, sums_bytes=900, panel_taps=5, block_taps=5,
        tap_lanes_pixels=3, pixel_lanes_pixels=64, small_image=3, depthwise_strip_bytes=100, fewest_rows=3,
        rowwise_item=50, winograd_tiles=3, winograd_bytes=20_000, winograd_weight_channels=16,
    )  # fmt: skip
    assert_same_bits(whole, all_ways(tiled, ALL[name]))


def test_a_kept_call_is_found_by_arguments_of_its_own_types_only(tiled, anew):
    """Of what compares equal, each is treated as if it came first: 1.0 and True are no strides."""
    x, w = np.ones((1, 2, 5, 5), np.float32), np.ones((2, 2, 3, 3), np.float32)
    for refused in (1.0, True, (1.0, 1), (True, 1)):
        for stride in (1, (1, 1), np.int64(1), (np.int64(1), 1)):
            assert fc.conv2d(x, w, stride=stride).shape == (1, 2, 3, 3)
        with pytest.raises(fc.ArgumentError):
            fc.conv2d(x, w, stride=refused)
    assert len(call_cache._kept) == 2  # 1 and (1, 1)


def test_arrays_of_another_byte_order_are_never_kept(tiled, anew):
    """Engines take memory as it is: the long way brings it into this machine's order."""
    other = np.dtype(np.float32).newbyteorder()
    both = np.arange(8, dtype=np.float32).astype(other)
    x, w = both[:4].reshape(1, 1, 4), both[4:6].reshape(1, 1, 2)
    assert x.dtype is w.dtype
    for _ in range(2):
        np.testing.assert_array_equal(fc.conv1d(x, w), [[[5.0, 14.0, 23.0]]])
    assert not call_cache._kept


@pytest.mark.parametrize("name", ALL)
def test_the_bits_do_not_depend_on_what_the_lanes_are(tiled, anew, name):
    with_costs(anew, work_items=1, chain_pixels=2**40)  # the parts of sums may differ
    for dtype in (np.float32, np.float64):
        assert_all_same_bits(all_ways(tiled, ALL[name], dtype=dtype))


@pytest.mark.parametrize(("k", "taps"), [(19, 1), (5, 1), (5, 2), (5, 3)])
def test_the_bits_of_every_number_of_taps(tiled, anew, k, taps):
    """With a lane for each result, each number of a weight's taps up to `plans.TAPS`, and of runs of them, has a
    micro-kernel of its own, for one vector of results and for two."""
    for channels in range(1, 2 * max(abi.TAPS.values()) + 2):
        problem = Problem(False, 1, (3, channels, 23), (k, channels, taps), {"stride": 2 if taps == 1 else 1})
        for dtype in (np.float32, np.float64):
            assert_all_same_bits(all_ways(tiled, problem, dtype=dtype))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("k", "taps"), [(19, 1), (5, 1), (5, 3)])
def test_the_bits_of_rows_of_every_length(tiled, anew, transposed, k, taps):
    """With a lane for each result, each length of a row up to `plans.SPAN` has a micro-kernel of its own: for a vector
    of results, whose taps share pixels or do not, and for two."""
    for width in range(1, 2 * max(abi.SPAN.values()) + 2):
        weight = (3, k, taps) if transposed else (k, 3, taps)
        problem = Problem(transposed, 1, (2, 3, width), weight, {"padding": taps // 2})
        for dtype in (np.float32, np.float64):
            assert_all_same_bits(all_ways(tiled, problem, dtype=dtype))


def plans(engine, problem, target, itemsize, *names, packs_weight=False):
    """The plans of a contraction, by one of the kernels `names`, or by the one that is chosen."""
    request = Request.of(engine, problem.geometry.lifted(), target, itemsize, 2)._replace(packs_weight=packs_weight)
    with registry.only(*names):
        return registry.choose(request).proposal.plans()


#: The arguments of the passes whose field `number` says which micro-kernel of a table it is.
NUMBERED = {
    "depthwise_rowwise": DepthwiseRowwise,
    "depthwise_rowwise_transposed": DepthwiseRowwiseTransposed,
    "depthwise_rowwise_weight_grad": DepthwiseRowwiseWeightGrad,
    "fft_tiles": FftTiles,
    "fft_weight": FftWeight,
    "winograd": Winograd,  # `winograd_weight` runs micro-kernels of the same table, where that is cheaper
}


def micro_kernels(plan):
    """Which micro-kernels of a pass a plan runs, where there is a table of them; else 0."""
    if plan.name == "pixel_lanes":
        return set(plan.vector.view(dtype_of(PixelLanes))["register_tile"]["kind"].ravel().tolist())
    place = None
    if plan.name in NUMBERED:
        place = dtype_of(NUMBERED[plan.name]).fields["number"][1] // 8
    return {0} if place is None else set(plan.vector[:, place].tolist())


def test_every_kernel_pass_and_micro_kernel_has_a_problem(tiled, anew):
    """So that a new row of their tables is tested by being there."""
    found, unused = set(), {name for name, kernel in registry.KERNELS.items() if kernel.tiled}
    engine = backends.loaded(tiled)
    for problem in ALL.values():
        for target in targets(problem).values():
            for name in kernels(engine, problem, target):
                unused.discard(name)
                for constant in (False, True):
                    for plan in plans(engine, problem, target, 4, name, packs_weight=constant):
                        found |= {(plan.name, kind) for kind in micro_kernels(plan)}
    tables = {
        "pixel_lanes": abi.TILES[32, True],
        "depthwise_rowwise": abi.ROW_KERNELS,
        "depthwise_rowwise_transposed": abi.ROW_KERNELS_TRANSPOSED,
        "depthwise_rowwise_weight_grad": abi.ROW_KERNELS_WEIGHT_GRAD,
        "winograd": abi.WINOGRAD,
        "fft_tiles": abi.FOURIER,
        "fft_weight": abi.FOURIER,
    }
    passes = (
        "pixel_lanes",
        "weight_grad_tap_lanes",
        "depthwise_channelwise",
        "depthwise_channelwise_weight_grad",
        "depthwise_rowwise",
        "depthwise_rowwise_transposed",
        "channel_lanes",
        "weight_grad_channel_lanes",
        "depthwise_rowwise_weight_grad",
        "weight_grad_pixel_lanes",
        "winograd",
        "winograd_weight",
        "winograd_weight_grad",
        "fft_tiles",
        "fft_weight",
        "fft_weight_grad",
    )
    assert not unused
    assert found == {(name, kind) for name in passes for kind in range(len(tables.get(name, "1")))}


@pytest.mark.parametrize("name", PADDED)
def test_taps_on_the_padding_are_left_out(tiled, name):
    """In both directions, with a lane for each result."""
    for target in ("small", "large"):
        for plan in plans(backends.loaded(tiled), PADDED[name], target, 4, "channel_lanes"):
            assert plan.skips_padding


#: Each engine with each instruction set that it has here, the best first.
SETS = [(name, found) for name in TILED for found in backends.loaded(name).instruction_sets()]
BEST = [(name, backends.loaded(name).instruction_sets()[0]) for name in TILED]


#: Whether arrays end at a page, or start there, and the kind of processor: one that takes two steps for the longest
#: registers has other micro-kernels. What compiles at run time takes half a minute for each other set than the best:
#: there one must do.
ENDS = [(True, False), (True, True), (False, False)]
BETWEEN_PAGES = [
    (*each, end, two_steps)
    for each in SETS
    for end, two_steps in (ENDS if each[0] != "numba" or each in BEST else ENDS[:1])
    if not two_steps or sets.ALL[each[1]].has_halves
]


def dtypes_between_pages(name: str, instructions: str) -> tuple[type, ...]:
    """The dtypes with which an engine runs there: one where each takes half a minute to compile."""
    return (np.float32,) if name == "numba" and (name, instructions) not in BEST else (np.float32, np.float64)


def between_pages(name: str, instructions: str, at_end: bool, two_steps: bool) -> subprocess.CompletedProcess[str]:
    """A process that runs every pass of an engine between protected pages."""
    with tempfile.TemporaryDirectory() as cache:
        # what the other tests use is in the usual cache, or will be
        where = {} if (name, instructions) in BEST else {"FASTCONV_CACHE_DIR": cache}
        dtypes = [dtype.__name__ for dtype in dtypes_between_pages(name, instructions)]
        code = f"import test_tiles; test_tiles.run_between_protected_pages({name!r}, {at_end}, {two_steps}, {dtypes})"
        return python(code, FASTCONV_ISA=instructions, **where)


@functools.cache
def started(*each: Any) -> Future[subprocess.CompletedProcess[str]]:
    return beside().submit(between_pages, *each)


@functools.cache
def beside() -> ThreadPoolExecutor:
    """One process at a time, beside the tests."""
    return ThreadPoolExecutor(1)


def start_processes(items: list[pytest.Item]) -> None:
    """Start the processes of these tests: `conftest` calls this before the first test, as they take minutes."""
    parameters = [
        tuple(item.callspec.params[name] for name in ("name", "instructions", "at_end", "two_steps"))
        for item in items
        if item.originalname == test_nothing_outside_an_array_is_touched.__name__
    ]
    for each in sorted(parameters, key=lambda each: each[:2] in BEST):
        started(*each)


def digests(*each: Any) -> dict[str, str]:
    """What such a process printed of the bits of each dtype, once it has survived."""
    done = started(*each).result()
    assert done.returncode == 0, done.stdout + done.stderr
    count, *found = done.stdout.split()
    assert count == str(len(ALL))
    return dict(zip(found[::2], found[1::2], strict=True))


def run_between_protected_pages(name: str, at_end: bool, two_steps: bool, dtypes: list[str]) -> None:
    """What the tests above start: its process is expected to survive. Prints the number of problems, and for each dtype
    a digest."""
    import faulthandler

    from guarded import copied, guarded

    faulthandler.enable()
    sets.takes_two_steps = lambda: two_steps
    if at_end:
        with_costs(
            pytest.MonkeyPatch(), level2_source_bytes=0, prefetched_weight_bytes=0
        )  # what is asked for early need not exist
    engine = backends.loaded(name)
    bits = {dtype: hashlib.sha256() for dtype in dtypes}
    for title, problem in ALL.items():
        print(title, file=sys.stderr, flush=True)  # the last one is the one that did not survive
        for dtype, kind in itertools.product(dtypes, ("integers", "normal")):
            x, w, bias, dy = (copied(array, at_end) for array in problem.arrays(kind, np.dtype(dtype)))
            arrays = x, w, bias, dy
            calls = [
                (functools.partial(compute, problem, which, *arrays), shape, kernel)
                for (which, target), shape in zip(targets(problem).items(), (dy.shape, x.shape, w.shape), strict=True)
                for kernel in kernels(engine, problem, target, x.itemsize)
            ]
            calls.append((functools.partial(problem.gradient, "bias", dy), bias.shape, "pixel_lanes"))
            for call, shape, kernel in calls:
                out = guarded(shape, dtype, at_end)
                with fc.use_backend(name), only(kernel):
                    call(out=out)
                if kind == "normal":
                    bits[dtype].update(out.tobytes())
                    continue
                with fc.use_backend("numpy"):
                    assert_computed(out, call(), kernel, title)
    print(len(ALL), *itertools.chain.from_iterable((dtype, found.hexdigest()) for dtype, found in bits.items()))


def test_an_instruction_set_that_is_not_there():
    """Whoever names one gets it, or an error before any work."""
    code = (
        "import fastconv as fc, numpy as np\n"
        "out = np.full((1, 1, 1), 7.0)\n"
        "for name in fc.available_backends():\n"
        "    try:\n"
        "        fc.conv2d(np.ones((1, 2, 2)), np.ones((1, 1, 2, 2)), backend=name, out=out)\n"
        "    except fc.ArgumentError as error:\n"
        "        assert (out == 7).all(); print(name, error)"
    )
    done = python(code, FASTCONV_ISA="avx3")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == TILED
    assert all("FASTCONV_ISA=avx3" in line and "expected one of" in line for line in lines)


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n", True),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\n", False),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n", False),
        ("AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", True),
        ("", False),
    ],
)
def test_processors_that_take_two_steps_for_a_register(described, expected):
    assert sets.are_two_steps(described) is expected


def test_workspace_of_every_layer():
    """At most 2 MiB a thread, beside the parts of a weight's gradient, in every layer that comes along."""
    engine = backends.pick(TILED[0], np.dtype("f"))
    layers = {
        problem for file in layers_of.shape_files().values() for problem in layers_of.parse(file.read_text(), "file")
    }
    for layer in layers:
        for itemsize, target in itertools.product((4, 8), ("small", "large", "weight")):
            for plan in plans(engine, layer, target, itemsize):
                assert plan.workspace * itemsize <= 2**21, (str(layer), target)


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (Problem(False, 2, (1, 70, 5, 3), (9, 70, 5, 3)), {"small", "large", "weight"}),
        (Problem(False, 2, (9, 70, 5, 3), (9, 70, 5, 3)), {"small", "large"}),
        (Problem(False, 2, (1, 2, 5, 3), (9, 2, 5, 3)), {"small", "large"}),
        (Problem(True, 1, (2, 9, 1), (9, 700, 2), {"stride": 5}), {"small", "large", "weight"}),
        (Problem(False, 2, (1, 70, 5, 3), (10, 35, 5, 3), {"groups": 2}), set()),
        (Problem(False, 2, (1, 70, 6, 3), (9, 70, 5, 3)), set()),
        (Problem(False, 1, (1, 70, 3), (9, 70, 2), {"dilation": 2}), set()),
        (Problem(False, 2, (1, 70, 2, 3), (9, 70, 3, 3), {"padding": ((1, 0), (0, 0))}), set()),
        (Problem(True, 2, (1, 9, 1, 1), (9, 70, 2, 2), {"stride": 2, "output_padding": 1}), set()),
    ],
)
def test_what_a_product_of_matrices_is(problem, expected):
    engine, lifted = backends.loaded(TILED[0]), problem.geometry.lifted()
    reasons = {target: matmul.applies(Request.of(engine, lifted, target, 4, 1)) for target in matmul.OTHER_TARGET}
    assert {target for target, reason in reasons.items() if reason is None} == expected


@posix
def test_a_protected_page_is_protected():
    """The tests above can fail."""
    code = "import guarded, numpy as np; a = guarded.guarded((3,), 'f', True); "
    assert python(code + "a.sum()").returncode == 0
    assert python(code + "np.lib.stride_tricks.as_strided(a, (4,)).sum()").returncode < 0


def compute_at_once(name: str) -> None:
    """Eight threads, each with problems of its own, all launching at once. They do not have this context's choices."""
    rng = np.random.default_rng(0)
    x = [rng.integers(-3, 4, (2, 8 + i, 30, 30)).astype("f") for i in range(8)]
    w = [rng.integers(-3, 4, (16, 8 + i, 3, 3)).astype("f") for i in range(8)]
    expected = [fc.conv2d(a, b, padding=1, backend="numpy") for a, b in zip(x, w, strict=True)]
    wrong = []
    start = threading.Barrier(8)

    def work(i):
        start.wait()
        computed = (fc.conv2d(x[i], w[i], padding=1, backend=name, algorithm="direct") for _ in range(20))
        wrong.extend(i for result in computed if not np.array_equal(result, expected[i]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("name", TILED)
def test_eight_threads_at_once(name):
    fc.set_num_threads(2)
    compute_at_once(name)


@pytest.mark.skipif("numba" not in TILED, reason="numba does not run here")
@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
def test_eight_threads_at_once_under_each_threading_layer(layer):
    if layer == "tbb":
        pytest.importorskip("numba.np.ufunc.tbbpool", exc_type=ImportError)
    code = "import test_tiles, numba; test_tiles.compute_at_once('numba'); print(numba.threading_layer())"
    done = python(code, NUMBA_THREADING_LAYER=layer, FASTCONV_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == layer


@posix
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
@pytest.mark.parametrize("name", TILED)
def test_a_forked_child_computes(name, layer):
    """After its parent used threads; within seconds."""
    code = (
        "import os, signal, numpy as np, fastconv as fc\n"
        f"fc.set_backend({name!r})\n"
        "x, w = np.ones((1, 16, 60, 60), 'f'), np.ones((16, 16, 3, 3), 'f')\n"
        "expected = fc.conv2d(x, w)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.alarm(20)\n"
        "    same = np.array_equal(fc.conv2d(x, w), expected) and fc.grad.conv2d_weight(x, w.shape, expected).any()\n"
        "    os._exit(0 if same else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "assert np.array_equal(fc.conv2d(x, w), expected)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, "NUMBA_THREADING_LAYER": layer, "FASTCONV_NUM_THREADS": "2"},
    )  # fmt: skip
    assert done.stdout.strip() == "0"


needs_numba = pytest.mark.skipif("numba" not in TILED, reason="numba does not run here")
#: Runs the pass that is compiled in the shortest time.
SUM = (
    "import logging, numpy as np, fastconv as fc\n"
    "logging.basicConfig(level=logging.DEBUG, format='%(name)s %(message)s')\n"
    "assert fc.grad.conv2d_bias(np.ones((2, 3, 3)), backend='numba').tolist() == [9, 9]"
)


@needs_numba
def test_a_cache_is_filled_used_and_repaired(tmp_path):
    """A damaged file costs the time to compile again, and is whole afterwards."""
    first = python(SUM, FASTCONV_CACHE_DIR=str(tmp_path))
    assert first.returncode == 0, first.stderr
    (file,) = tmp_path.rglob("bias_grad8_*.bin")
    whole = file.read_bytes()
    stamp = file.stat().st_mtime_ns
    assert python(SUM, FASTCONV_CACHE_DIR=str(tmp_path)).returncode == 0
    assert file.stat().st_mtime_ns == stamp  # it was read, and not made again
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", whole[:1000] + b"\0" * 100 + whole[1100:]):
        file.write_bytes(damaged)
        done = python(SUM, FASTCONV_CACHE_DIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert "it is damaged" in done.stderr
        assert file.stat().st_size == len(whole)


@needs_numba
def test_functions_of_one_name_from_two_processes_do_not_meet(tmp_path):
    """A process that takes both precisions from files which two others wrote."""
    convolve = (
        "import sys, numpy as np, fastconv as fc\n"
        "for dtype in sys.argv[1:]:\n"
        "    x, w = np.arange(600.0, dtype=dtype).reshape(1, 6, 10, 10), np.ones((6, 1, 3, 3), dtype)\n"
        "    calls = lambda by: (fc.conv2d(x, w, groups=6, backend=by), fc.grad.conv2d_bias(x, backend=by))\n"
        "    assert all(map(np.array_equal, calls('numba'), calls('numpy'))), dtype\n"
    )
    for dtypes in (["f"], ["d"], ["f", "d"], ["d", "f"]):
        done = subprocess.run([sys.executable, "-c", convolve, *dtypes], capture_output=True, text=True, check=False,
                              env={**os.environ, "FASTCONV_CACHE_DIR": str(tmp_path)})  # fmt: skip
        assert done.returncode == 0, done.stderr


@needs_numba
def test_a_cache_that_cannot_be_written(tmp_path):
    file = tmp_path / "no directory"
    file.write_text("")
    done = python(SUM, FASTCONV_CACHE_DIR=str(file))
    assert done.returncode == 0, done.stderr
    assert "is not kept" in done.stderr
    if hasattr(os, "geteuid") and os.geteuid():  # nothing is read-only to the superuser
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        assert python(SUM, FASTCONV_CACHE_DIR=str(tmp_path / "inside")).returncode == 0


@pytest.mark.parametrize(
    "breaking",
    ["sys.modules['numba'] = None", "import types; sys.modules['numba'] = types.ModuleType('numba')"],
    ids=["absent", "broken"],
)
def test_without_numba_auto_passes_over_it(breaking):
    """The next is cython, and where that is not there either, numpy."""
    code = (
        f"import sys, logging; {breaking}\n"
        "import numpy as np, fastconv as fc\n"
        "from fastconv.dispatch import backends\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        "assert fc.conv2d(np.ones((1, 3, 3)), np.ones((1, 1, 2, 2))).tolist() == [[[4, 4], [4, 4]]]\n"
        "assert 'numba' not in fc.available_backends(); print(backends.backend_reasons()['numba'])\n"
        "print(fc.explain('conv2d', (1, 3, 3), (1, 1, 2, 2)).backend)\n"
        "try:\n    fc.conv2d(np.ones((1, 3, 3)), np.ones((1, 1, 2, 2)), backend='numba')\n"
        "except fc.BackendUnavailableError:\n    print('refused')"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert re.search("numba|llvmlite", done.stdout.splitlines()[0])
    assert done.stdout.splitlines()[1:] == ["cython" if "cython" in TILED else "numpy", "refused"]
    assert "backend numba passed over" in done.stderr


# ---- last, so that their processes have had the time of all others


@posix
@pytest.mark.parametrize(("name", "instructions", "at_end", "two_steps"), BETWEEN_PAGES)
def test_nothing_outside_an_array_is_touched(name, instructions, at_end, two_steps):
    """Every array of every pass flush against a page that ends the process when it is touched."""
    assert [*digests(name, instructions, at_end, two_steps)] == [
        dtype.__name__ for dtype in dtypes_between_pages(name, instructions)
    ]


@posix
@pytest.mark.skipif(len(TILED) < 2, reason="there is one such engine")
@pytest.mark.parametrize("instructions", sorted({instructions for _, instructions in SETS}))
def test_all_engines_give_the_same_bits(instructions):
    """On one instruction set, whatever it is, and either kind of processor: they follow one order of additions."""
    for two_steps in (False, True):
        found = {each: digests(*each) for each in BETWEEN_PAGES if (each[1], each[3]) == (instructions, two_steps)}
        for dtype in ("float32", "float64"):
            assert len({of_each[dtype] for of_each in found.values() if dtype in of_each}) <= 1, found
