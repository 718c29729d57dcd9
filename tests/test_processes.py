"""Other people's processes: forks, the interpreter's end, first calls from many threads."""

from __future__ import annotations

import importlib.util
import os
import re
import threading
import time

import pytest
from scripts import python

import fastconv as fc
from fastconv.problem import process

BACKENDS = fc.available_backends()
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

#: What a forked child computes, before and after it asks for two threads.
CHILD = """
import os, signal, sys, warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
def compute(backend):
    import numpy as np, fastconv as fc
    x, w = np.ones((2, 16, 60, 60), "f"), np.ones((16, 16, 3, 3), "f")
    y = fc.conv2d(x, w, backend=backend)
    dw = fc.grad.conv2d_weight(x, w.shape, y, backend=backend)
    return np.allclose(y, 144) and np.allclose(dw, 144 * 2 * 58 * 58)
def in_child(backend):
    child = os.fork()
    if not child:
        signal.alarm(120)
        status = 1
        try:
            import fastconv as fc
            same = compute(backend)
            fc.set_num_threads(2)
            status = 0 if same and compute(backend) and fc.get_num_threads() == 1 else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
#: How the parent came to have threads: none of it is fastconv's doing.
PARENTS = {
    "torch": "import torch; torch.set_num_threads(2); torch.ones(3_000_000).exp().sum()",
    "numba": (
        "import numba, numpy as np\n"
        "@numba.njit(parallel=True)\n"
        "def total(x):\n"
        "    s = 0.0\n"
        "    for i in numba.prange(len(x)):\n"
        "        s += x[i]\n"
        "    return s\n"
        "total(np.ones(100))"
    ),
    "sklearn": (
        "import numpy as np\n"
        "from sklearn.cluster import KMeans\n"
        "KMeans(3, n_init=1).fit(np.random.default_rng(0).random((3000, 4)))"
    ),
}


@posix
@pytest.mark.parametrize("imported", [False, True], ids=["unmet", "imported"])
@pytest.mark.parametrize("parent", PARENTS)
def test_a_child_of_a_parent_with_threads_computes(parent, imported):
    """Whoever forked, and whether or not the parent had imported fastconv, with every engine."""
    if importlib.util.find_spec(parent) is None:
        pytest.skip(f"{parent} is not installed")
    code = f"{CHILD}\n{'import fastconv' if imported else ''}\n{PARENTS[parent]}\n"
    done = python(f"{code}for name in {BACKENDS}:\n    print(in_child(name))", timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"] * len(BACKENDS), done.stderr
    assert done.stderr.count("computing on one thread") == len(BACKENDS)  # once in each, as each asked for two


@posix
def test_a_process_that_was_forked_knows_it():
    code = (
        "import os, subprocess, sys, warnings\n"
        "warnings.filterwarnings('ignore', '.*fork.*', DeprecationWarning)\n"
        "ask = 'from fastconv.problem import process; print(process.was_forked(), flush=True)'\n"
        "exec(ask)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    exec(ask); subprocess.run([sys.executable, '-c', ask]); os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "exec(ask)"
    )
    assert python(code).stdout.split() == ["False", "True", "False", "False"]


@posix
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="the system does not tell who was forked")
def test_a_process_that_was_forked_before_the_import_knows_it():
    code = (
        "import os\nchild = os.fork()\n"
        "if not child:\n    from fastconv.problem import process; os._exit(process.was_forked())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert python(code).stdout.split() == ["1"]


@posix
def test_info_tells_a_forked_process_why_it_has_one_thread():
    code = (
        "import os\nchild = os.fork()\n"
        "if not child:\n    from fastconv.cli import main; os._exit(main(['info']))\n"
        "os.waitpid(child, 0)"
    )
    report = python(code, FASTCONV_NUM_THREADS="2").stdout
    assert re.search("threads +1: this process was forked.*; 2 were asked for", report)


@posix
@pytest.mark.parametrize("busy", BACKENDS)
def test_a_fork_while_another_thread_computes(busy, tmp_path):
    """Nothing is on disk, so that the first forks meet a thread that loads an engine and compiles."""
    code = (
        f"{CHILD}\nimport threading, time, fastconv\n"
        "go_on = True\n"
        "def work():\n"
        "    while go_on:\n"
        f"        assert compute({busy!r})\n"
        "threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "for thread in threads: thread.start()\n"
        "for pause in (0.05, 0.2, 0.2, 1, 0.1, 0.1):\n"
        "    time.sleep(pause)\n"
        f"    print(in_child({busy!r}))\n"
        "go_on = False\n"
        "for thread in threads: thread.join()\n"
    )
    cached = {} if busy == "numba" else {"FASTCONV_NUM_THREADS": "2"}
    done = python(code, timeout=250, FASTCONV_CACHE_DIR=str(tmp_path), **cached)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"] * 6, done.stderr


@posix
@pytest.mark.parametrize("name", BACKENDS)
def test_a_signals_handler_computes_and_forks(name):
    """It runs in the middle of a call, on the same thread, whatever that one holds."""
    code = (
        f"{CHILD}\nimport time, fastconv as fc\n"
        f"fc.set_backend({name!r}); fc.set_num_threads(1)\n"
        "def tiny(): assert fc.conv2d([[[1.0, 2.0]]], [[[[1.0, 1.0]]]]) == 3\n"
        "count = 0\n"
        "def handler(*_):\n"
        "    global count\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "    tiny()\n"
        "    if count % 50 == 0:\n"
        "        child = os.fork()\n"
        "        if not child:\n"
        "            signal.alarm(20); tiny(); os._exit(0)\n"
        "        assert os.waitpid(child, 0)[1] == 0\n"
        "    count += 1\n"
        "    if count < 400: signal.setitimer(signal.ITIMER_REAL, 1e-4)\n"
        "tiny()\n"
        "signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 1e-4)\n"
        "while count < 400: tiny()\n"
    )
    done = python(code, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("name", BACKENDS)
def test_the_end_of_a_process_whose_daemon_threads_compute(name, size):
    """Quick, with status 0 and nothing said."""
    code = (
        "import threading, time, numpy as np, fastconv as fc\n"
        f"fc.set_backend({name!r}); fc.set_num_threads(2)\n"
        f"x, w = np.ones((8, 64, {size}, {size}), 'f'), np.ones((64, 64, 3, 3), 'f')\n"
        "y = fc.conv2d(x, w)\n"
        "def work():\n"
        "    while True:\n"
        "        fc.conv2d(x, w); fc.grad.conv2d_weight(x, w.shape, y)\n"
        "for _ in range(4): threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.3)\n"
        "print(time.time())\n"
    )
    for _ in range(3):
        done = python(code, timeout=60)
        ended = time.time()
        assert (done.returncode, done.stderr) == (0, "")
        assert ended - float(done.stdout) < 10


@pytest.mark.skipif("numba" not in BACKENDS, reason="numba does not run here")
@pytest.mark.parametrize("cached", [False, True], ids=["compiling", "from disk"])
def test_first_calls_from_many_threads(cached, tmp_path):
    code = (
        "import threading, numpy as np, fastconv as fc\n"
        "fc.set_num_threads(2)\n"
        "x, w = np.ones((1, 16, 60, 60), 'f'), np.ones((16, 16, 3, 3), 'f')\n"
        "barrier, results = threading.Barrier(8), []\n"
        "def first(number):\n"
        "    barrier.wait()\n"
        "    y = fc.conv2d(x, w, padding=number % 2)\n"
        "    dw = fc.grad.conv2d_weight(x, w.shape, y, padding=number % 2)\n"
        "    results.append(abs(y.max() - 144) < 0.01 and bool(dw.any()))\n"
        "threads = [threading.Thread(target=first, args=[number]) for number in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print(results.count(True))"
    )
    where = {} if cached else {"FASTCONV_CACHE_DIR": str(tmp_path)}
    done = python(code, FASTCONV_BACKEND="numba", **where)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["8"], "")


def test_settings_that_change_while_others_compute():
    """A thread sets and takes back what another one reads."""
    go_on, errors = threading.Event(), []

    def change():
        while not go_on.is_set():
            for name in (BACKENDS[0], None):
                fc.set_backend(name)
                fc.set_algorithm("direct" if name else None)
                fc.set_num_threads(1 if name else None)

    def compute():
        try:
            for number in range(20):
                fc.conv2d([[[1.0, 2.0]]], [[[[float(number)]]]])
                fc.explain("conv2d", (1, 1, 3 + number % 5, 3), (1, 1, 1, 1))
        except Exception as error:
            errors.append(error)

    changing = threading.Thread(target=change)
    changing.start()
    computing = [threading.Thread(target=compute) for _ in range(3)]
    for thread in computing:
        thread.start()
    for thread in computing:
        thread.join()
    go_on.set()
    changing.join()
    assert not errors


@pytest.mark.parametrize("name", BACKENDS)
def test_the_end_of_a_process_that_waits_for_its_threads_there(name):
    """By a callback that was registered before fastconv's own, which runs after it, and starts another thread."""
    code = (
        "import atexit, threading, time, numpy as np\n"
        "done = threading.Event()\n"
        "def compute(): return fc.conv2d(np.ones((1, 8, 90, 90)), np.ones((8, 8, 3, 3)))\n"
        "def work():\n"
        "    while not done.is_set(): assert (compute() == 72).all()\n"
        "def stop():\n"
        "    done.set(); working.join()\n"
        "    late = threading.Thread(target=lambda: print((compute() == 72).all())); late.start(); late.join()\n"
        "atexit.register(stop)\n"
        "import fastconv as fc\n"
        f"fc.set_backend({name!r})\n"
        "working = threading.Thread(target=work, daemon=True); working.start()\n"
        "time.sleep(0.2)"
    )
    done = python(code, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["True"], "")


@posix
def test_blas_has_one_thread_in_a_forked_process():
    pytest.importorskip("threadpoolctl")
    code = (
        "import os, threadpoolctl, numpy as np, fastconv as fc\n"
        "from fastconv.dispatch import threads\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    with threads.limited():\n"
        "        pools = [pool for pool in threadpoolctl.threadpool_info() if pool['user_api'] == 'blas']\n"
        "    os._exit(0 if {pool['num_threads'] for pool in pools} == {1} else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert python(code).stdout.split() == ["0"]


def test_a_gate_waits_and_keeps_out():
    gate, order = process.Gate(), []
    inside, leave = threading.Event(), threading.Event()

    def first():
        with gate:
            inside.set()
            leave.wait(10)
            with gate:  # once inside, a thread passes
                order.append("first")

    def second():
        with gate:
            order.append("second")

    one = threading.Thread(target=first)
    one.start()
    inside.wait(10)
    threading.Timer(0.1, leave.set).start()
    gate.close()
    other = threading.Thread(target=second)
    other.start()
    with gate:  # the thread that closed it passes
        order.append("mine")
    time.sleep(0.05)
    assert order == ["first", "mine"]
    gate.open()
    one.join(10)
    other.join(10)
    assert order == ["first", "mine", "second"]
