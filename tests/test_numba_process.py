"""The Numba engine and the process it runs in: Numba's configuration, its cache and who wrote it, a package without
files."""

from __future__ import annotations

import compileall
import importlib
import importlib.machinery
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
from registry import copied_registry

import fastconv as fc
from fastconv.cli import info
from fastconv.dispatch import backends
from fastconv.planner import bias_grad

if "numba" not in fc.available_backends():
    pytest.skip("numba does not run here", allow_module_level=True)

import numba

from fastconv.backends import cache_directory
from fastconv.backends import numba as engine
from fastconv.backends.numba import cache, llvm, numba_internals, variables

HERE = pathlib.Path(__file__).parent
PACKAGE = pathlib.Path(fc.__file__).parent
posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX only")
root = pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="root only")
#: The next engine of `auto`.
NEXT = next(name for name in fc.available_backends() if name != "numba")

#: The pass that compiles most quickly.
CONVOLVE = """
    import logging, numpy as np, fastconv as fc
    logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s %(message)s")
    x, w = np.arange(4096.0).reshape(1, 64, 64).astype("f"), np.array([[[[1, 2], [3, 4]]]], "f")
    def convolve(backend="numba"):
        return fc.conv_transpose2d(x, w, stride=2, backend=backend)
    assert (convolve() == convolve("numpy")).all()
"""


def python(code: str, *before: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """A fresh process; a variable that is None is not set there."""
    given = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    command = [*before, sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=given, cwd=HERE)


def passed(code: str, *before: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """A process that ended well."""
    done = python(code, *before, **environment)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache that was filled where Numba was to check bounds, which the passes do not keep to."""
    where = tmp_path_factory.mktemp("filled")
    for folder in (where, *where.parents[:2]):
        folder.chmod(0o755)
    done = passed(CONVOLVE, NUMBA_BOUNDSCHECK="1", NUMBA_DEBUGINFO="1", FASTCONV_CACHE_DIR=str(where))
    assert "index is out of bounds" not in done.stderr
    return where


def files(folder: pathlib.Path) -> dict[str, int]:
    """The files below a folder, and when they were made."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.bin")}


# ---- Numba's configuration


def test_bounds_checking_changes_nothing(filled):
    """Other processes find the same functions."""
    before = files(filled)
    passed(CONVOLVE, FASTCONV_CACHE_DIR=str(filled))
    assert files(filled) == before
    assert len(before) == 2


def test_a_file_that_changes_after_its_import(tmp_path):
    """As when a package is upgraded: what the old text computes is not kept for processes that have the new one."""
    package = pathlib.Path(fc.__file__).parent
    shutil.copytree(package, tmp_path / "fastconv", ignore=shutil.ignore_patterns("__pycache__", "cli"))
    code = f"""
        import pathlib, sys, numpy as np, fastconv as fc
        assert fc.__file__.startswith({str(tmp_path)!r})
        path = pathlib.Path(fc.__file__).parent / "kernels" / "store.py"
        if sys.argv[1:]:
            path.write_text(path.read_text() + "#")
        assert fc.grad.conv2d_bias(np.ones((2, 3, 3)), backend="numba").tolist() == [9, 9]
        from fastconv.backends.numba import cache
        print(cache.kept(), cache.described())
    """
    where = {"FASTCONV_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    changed = textwrap.dedent(code).replace("sys.argv[1:]", "True")
    assert "kernels.store has changed since fastconv was imported" in passed(changed, **where).stdout
    assert not files(tmp_path / "cache")
    passed(code, **where)
    assert files(tmp_path / "cache")


def test_functions_have_names_of_their_own():
    """Files of compiled passes come from different processes. If two functions of one process had the same name, the
    linker could take one of them for the other's namesake in another file: an activation had become another one."""
    code = """
        import collections
        from fastconv.backends.numba import compiling
        names, name = collections.Counter(), compiling._name

        def counted(function, text):
            names[function.__module__, text] += 1
            name(function, text)

        compiling._name = counted
        from fastconv.backends.numba.primitives import primitives
        primitives(4), primitives(8)
        assert len(names) > 50
        print([name for name, count in names.items() if count > 1])
    """
    done = python(code)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_an_error_inside_a_pass_is_raised(tmp_path):
    """On one thread, and on threads of Numba's, which drops what is raised there."""
    done = passed(
        """
        import numpy as np, fastconv as fc
        from fastconv.dispatch import preparation
        from fastconv.kernels.drivers import depthwise_channelwise
        def clear_padding(tile, tables, to, source_height, i0, rows):
            raise ValueError("no driver fails by itself")
        depthwise_channelwise.__globals__["clear_padding"] = clear_padding
        preparation._SERIAL = 0
        for threads in (1, 2):
            fc.set_num_threads(threads)
            try:
                fc.conv2d(np.ones((8, 64, 9, 9), "f"), np.ones((64, 1, 9, 9), "f"), groups=64, backend="numba")
            except RuntimeError as error:
                print(error)
        """,
        FASTCONV_CACHE_DIR=str(tmp_path),
    )
    assert done.stdout.splitlines() == ["a pass of the Numba engine failed, and left its result unfinished"] * 2
    assert "ignored" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("OPT", 0), ("LLVM_REFPRUNE_PASS", 0), ("DEBUG_NRT", 1), ("USING_SVML", "other"), ("OF_A_LATER_NUMBA", 1)],
)
def test_what_changes_the_code_is_in_the_files_name(monkeypatch, name, value):
    """Read whenever a file is looked for: it may be changed within the process."""
    before = cache.stamp()
    monkeypatch.setattr(numba.core.config, name, value, raising=False)
    assert cache.stamp() != before


WITHOUT_EFFECT = {"NUMBA_NUM_THREADS": 7, "THREADING_LAYER": "omp", "CACHE_DIR": "x", "DUMP_ASSEMBLY": 0,
                  "GDB_BINARY": "x"}  # fmt: skip
HELD_OFF = {"BOUNDSCHECK": 1, "DEBUGINFO_DEFAULT": 1, "LOOP_VECTORIZE": 0, "SLP_VECTORIZE": 1, "DISABLE_JIT": 1}


@pytest.mark.parametrize(("name", "value"), (WITHOUT_EFFECT | HELD_OFF).items())
def test_what_does_not_is_not(monkeypatch, name, value):
    """What has nothing to do with it, and what is held off."""
    before = cache.stamp()
    monkeypatch.setattr(numba.core.config, name, value)
    assert cache.stamp() == before
    with variables.held_off():
        assert name not in HELD_OFF or getattr(numba.core.config, name) == variables._HELD[name] != value
    assert getattr(numba.core.config, name) == value


def test_a_configuration_that_changes_within_the_process(tmp_path):
    """Numba's code generator is of the one before, and what it makes must not be taken for the usual."""
    change = """
    import os, numba
    numba.njit(lambda: 1)()
    del os.environ["NUMBA_OPT"]
    """
    done = passed(change + CONVOLVE, NUMBA_OPT="0", FASTCONV_CACHE_DIR=str(tmp_path))
    assert "is not kept: Numba's configuration has changed" in done.stderr
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "given",
    [{"NUMBA_ENABLE_AVX": "0"}, {"NUMBA_CPU_NAME": "generic"}, {"NUMBA_CPU_FEATURES": ""}],
    ids=str,
)
def test_instructions_are_those_that_numba_makes_code_for(given):
    """Vectors of instructions that it may not use would be taken apart."""
    told = """
        from fastconv.backends.numba import cache, llvm, NumbaEngine
        NumbaEngine()
        print(cache.stamp(), *llvm.found())
    """
    if {"avx512", "avx2"}.isdisjoint(backends.loaded("numba").instruction_sets()):
        pytest.skip("there is nothing to leave out")
    stamp, *names = passed(told, **given).stdout.split()
    assert names == ["baseline"]
    assert stamp != cache.stamp()


CANNOT_RUN = {
    "NUMBA_DISABLE_JIT=1": "NUMBA_DISABLE_JIT",
    "NUMBA_THREADING_LAYER=nonsense": "NUMBA_THREADING_LAYER=nonsense must be one of",
    "NUMBA_THREADING_LAYER_PRIORITY=omp": "NUMBA_THREADING_LAYER_PRIORITY must name",
    "NUMBA_NUM_THREADS=0": "Number of threads",
    "NUMBA_CPU_FEATURES=+nonsense": "lacks: nonsense",
    "NUMBA_CPU_FEATURES=-sse2": "leaves out what code needs here: sse2",
    "NUMBA_CPU_FEATURES=+sse2, +avx": "must be +NAME or -NAME with commas between",
}
TOLD = """
    import logging, numpy as np, fastconv as fc
    from fastconv.cli import main
    logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
    x, w = np.ones((1, 3, 3)), np.ones((1, 1, 2, 2))
    for _ in range(2):
        assert fc.conv2d(x, w).tolist() == [[[4, 4], [4, 4]]]
    try:
        fc.conv2d(x, w, backend="numba")
    except fc.BackendUnavailableError as error:
        print("refused:", error)
    print("status", main(["info"]))
"""


def is_told(done: subprocess.CompletedProcess[str], reason: str) -> None:
    """`auto` logged the reason once, the named backend raised with it, and info says so."""
    assert [line for line in done.stderr.splitlines() if "numba passed over" in line and reason in line], done.stderr
    assert done.stderr.count("numba passed over") == 1
    assert re.search(f"^refused: .*{re.escape(reason)}", done.stdout, re.MULTILINE), done.stdout
    assert re.search(f"^  numba  *no: .*{re.escape(reason)}", done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.endswith("status 0\n")


@pytest.mark.parametrize("variable", CANNOT_RUN)
def test_a_numba_that_cannot_run(variable):
    name, value = variable.split("=")
    is_told(passed(TOLD, **{name: value}), CANNOT_RUN[variable])


@pytest.mark.parametrize("layer", ["tbb", "omp", "safe", "threadsafe", "forksafe", "workqueue"])
def test_a_threading_layer_that_does_not_load(monkeypatch, layer):
    """It is asked for before any thread is started."""
    there = {"workqueue", "forksafe"}
    monkeypatch.setattr(numba.core.config, "THREADING_LAYER", layer)
    monkeypatch.setattr(importlib.import_module("numba.np.ufunc.parallel"), "_is_initialized", False)
    for missing in ("tbbpool", "omppool"):
        monkeypatch.setitem(sys.modules, f"numba.np.ufunc.{missing}", None)
    if layer in there:
        variables.check()
    else:
        with pytest.raises(fc.BackendUnavailableError, match=f"NUMBA_THREADING_LAYER={layer} does not load: .*; |:"):
            variables.check()


def test_a_broken_configuration_file(monkeypatch):
    """It is read anew before anything is compiled, and where the process is by then."""

    def broken():
        raise ValueError(".numba_config.yaml:\n  is broken")

    monkeypatch.setattr(numba.core.config, "reload_config", broken)
    assert backends._attempt(engine.NumbaEngine) == "ValueError: .numba_config.yaml: is broken"


@pytest.fixture
def failing(monkeypatch):
    """Nothing more can be compiled in this process."""
    monkeypatch.setattr(backends, "_registry", copied_registry())
    monkeypatch.setattr(backends, "_passed_over", set())
    failures = iter([MemoryError("no memory"), RuntimeError("LLVM ERROR:\n  no such thing")] * 9)

    def fails(size):
        raise next(failures)

    monkeypatch.setattr(engine, "_PASSES", dict.fromkeys(engine._PASSES, fails))
    bias_grad._prepared.cache_clear()


@pytest.mark.parametrize("extent", [37, 337])
def test_auto_takes_the_next_engine_if_a_function_does_not_compile(failing, caplog, extent):
    x, w = np.ones((1, extent, 41)), np.ones((1, 1, 2, 2))
    caplog.set_level("INFO")
    out = np.zeros((1, extent - 1, 40))
    for _ in range(3):
        assert (fc.conv2d(x, w, out=out) == 4).all()
    assert (fc.conv2d(x, w) == 4).all()
    passed_over = [record.message for record in caplog.records if "numba passed over" in record.message]
    assert len(passed_over) == 1
    assert "MemoryError: no memory" in passed_over[0]
    assert fc.explain("conv2d", x.shape, w.shape, dtype=x.dtype).backend == NEXT
    with pytest.raises(fc.BackendUnavailableError, match="MemoryError: no memory"):
        fc.conv2d(x, w, backend="numba")


def test_auto_takes_the_next_engine_for_a_bias_gradient(failing):
    grid = np.ones((3, 5, 7, 7))
    for _ in range(2):
        np.testing.assert_array_equal(fc.grad.conv2d_bias(grid), 147)
    with pytest.raises(fc.BackendUnavailableError, match="MemoryError: no memory"):
        fc.grad.conv2d_bias(grid, backend="numba")


def fails(*_):
    raise RuntimeError("LLVM ERROR:\n  no such thing")


#: What fails where, and whether that shows only on several threads, and only where denormal numbers are flushed.
STAGES = {
    "the instruction set": (engine.NumbaEngine, "instruction_sets", 1, False),
    "a pass": (engine, "address", 1, False),
    "the function that calls it": (engine, "entry", 1, False),
    "the function that calls it on threads": (engine, "callers", 2, False),
    "the threads": (numba_internals, "start_threads", 2, False),
    "the floating-point mode": (engine, "_compiled_switch", 1, True),
}


@pytest.mark.parametrize("stage", STAGES)
def test_auto_takes_the_next_engine_whatever_fails(monkeypatch, caplog, stage):
    where, name, threads, flushes = STAGES[stage]
    extent = 91 + list(STAGES).index(stage)  # nothing is known of it yet
    x, w = np.ones((1, 8, extent, 90), "f"), np.ones((8, 8, 3, 3), "f")
    monkeypatch.setitem(backends._registry, "numba", backends.Registration(backends._BUILT_IN["numba"]))
    monkeypatch.setattr(backends, "_passed_over", set())
    monkeypatch.setattr(where, name, variables.failures_are_reasons()(fails) if flushes else fails)
    monkeypatch.setattr(fc.dispatch.threads, "get_num_threads", lambda: threads)
    caplog.set_level("INFO")
    fc.set_flush_denormal(flushes)
    try:
        assert (fc.conv2d(x, w) == 72).all()
        assert (fc.conv2d(x, w) == 72).all()
        (said,) = [record.message for record in caplog.records if "numba passed over" in record.message]
        assert said.endswith("Numba fails to compile it: RuntimeError: LLVM ERROR: no such thing")
        assert fc.explain("conv2d", x.shape, w.shape).backend == NEXT
        out = np.full((1, 8, extent - 2, 88), 5, "f")
        with pytest.raises(fc.BackendUnavailableError, match=r"backend='numba' .*LLVM ERROR: no such thing"):
            fc.conv2d(x, w, backend="numba", out=out)
        assert (out == 5).all()
    finally:
        fc.set_flush_denormal(None)


def test_explain_takes_the_next_engine_too(monkeypatch, caplog):
    """It asks for the tiles, which a call before may not have done."""
    monkeypatch.setitem(backends._registry, "numba", backends.Registration(backends._BUILT_IN["numba"]))
    monkeypatch.setattr(backends, "_passed_over", set())
    monkeypatch.setattr(engine.NumbaEngine, "instruction_sets", fails)
    caplog.set_level("INFO")
    shapes = (1, 8, 61, 67), (8, 8, 3, 3)
    why = fc.explain("conv2d", *shapes)
    assert why.backend == NEXT
    assert "LLVM ERROR: no such thing" in why.backends_passed_over["numba"]
    assert "numba passed over" in caplog.text
    with pytest.raises(fc.BackendUnavailableError, match=r"backend='numba' .*LLVM ERROR: no such thing"):
        fc.explain("conv2d", *shapes, backend="numba")


#: What a later Numba may have changed, and what is said of it.
CHANGED = {
    "del numba.core.compiler.compile_internal": "a part of Numba that the engine needs does not load",
    "numba.core.compiler.compile_internal = lambda given: None": "Numba fails to compile it: ",
}


@pytest.mark.parametrize("changed", CHANGED)
def test_a_newer_numba_that_has_changed(tmp_path, changed):
    """It is tried, and the reason says that it is newer than those that were."""
    before = f"import numba, numba.core.compiler; numba.__version__ = '0.99.1'; {changed}\n"
    done = passed(before + textwrap.dedent(TOLD), FASTCONV_CACHE_DIR=str(tmp_path))
    is_told(done, CHANGED[changed])
    assert "(this is Numba 0.99.1; fastconv is tested with Numba up to 0." in done.stderr


@pytest.mark.parametrize("version", ["0.61.0", "0.68.1", "0.68.0rc1"])
def test_a_numba_that_was_tested(monkeypatch, version):
    monkeypatch.setattr(numba, "__version__", version)
    assert numba_internals.unproved() == ""


@pytest.mark.parametrize("version", ["0.69.0", "1.0.0", "0+unknown"])
def test_a_numba_that_was_not(monkeypatch, version):
    monkeypatch.setattr(numba, "__version__", version)
    assert f"this is Numba {version};" in numba_internals.unproved()


def test_info_says_if_it_cannot_compile(monkeypatch):
    def fails(self, signature):
        raise RuntimeError("LLVM ERROR:\n  no such thing")

    monkeypatch.setattr(engine, "callers", engine.callers.__wrapped__)
    monkeypatch.setattr(numba.core.dispatcher.Dispatcher, "compile", fails)
    engines = dict(info._report())["engines"]
    assert info._checked(dict(engines)["numba"]).startswith(
        "no: Numba fails to compile it: RuntimeError: LLVM ERROR: no"
    )


def test_info_warns_of_a_layer_that_another_user_of_numba_can_end_the_process_with(monkeypatch):
    """Where it is in force, and where the first launch would take it."""
    numba_row = dict(info._report())["engines"][0][1]
    for layer in ("omp", "tbb", "workqueue"):
        monkeypatch.setattr(numba, "threading_layer", lambda layer=layer: layer)
        told = info._checked(numba_row)
        assert f"threads: Numba's, layer {layer}" in told
        assert ("WARNING" in told) is (layer == "workqueue")

    def none_yet():
        raise ValueError("Threading layer is not initialized.")

    monkeypatch.setattr(numba, "threading_layer", none_yet)
    monkeypatch.setattr(numba.core.config, "reload_config", lambda: None)
    monkeypatch.setattr(
        numba_internals, "why_not", lambda module: "not there" if module == numba_internals.TBB else None
    )
    for name, priority, expected in (
        ("default", ["tbb", "omp", "workqueue"], "omp"), ("default", ["workqueue", "tbb", "omp"], "workqueue"),
        ("workqueue", ["tbb", "omp", "workqueue"], "workqueue"), ("threadsafe", ["tbb", "omp", "workqueue"], "omp"),
        ("forksafe", ["tbb", "omp", "workqueue"], "workqueue"),
    ):  # fmt: skip
        monkeypatch.setattr(numba.core.config, "THREADING_LAYER", name)
        monkeypatch.setattr(numba.core.config, "THREADING_LAYER_PRIORITY", priority)
        told = info._checked(numba_row)
        assert f"layer {expected} when they start" in told
        assert ("WARNING: this layer ends the process" in told) is (expected == "workqueue")


def test_a_named_engine_raises_if_a_function_does_not_compile(failing):
    out = np.full((1, 42, 42), 5.0)
    with pytest.raises(fc.BackendUnavailableError, match=r"backend='numba' .*MemoryError: no memory"):
        fc.conv2d(np.ones((1, 43, 43)), np.ones((1, 1, 2, 2)), backend="numba", out=out)
    assert (out == 5).all()


def test_the_number_of_threads_may_ask_for_what_does_not_compile(monkeypatch):
    """The call is a kept one by then, and its engine is another one afterwards."""
    monkeypatch.setattr(backends, "_registry", copied_registry())
    x, w = np.ones((1, 8, 90, 91), "f"), np.ones((8, 8, 3, 3), "f")
    threads = 1
    monkeypatch.setattr(fc.dispatch.threads, "get_num_threads", lambda: threads)
    assert (fc.conv2d(x, w) == 72).all()

    def fails():
        raise ValueError("No threading layer could be loaded.")

    monkeypatch.setattr(engine.callers(4)[1], "ready", fails)
    threads = 2
    assert (fc.conv2d(x, w) == 72).all()
    assert "No threading layer" in fc.dispatch.backends.backend_reasons()["numba"]


def test_info_whatever_is_wrong(tmp_path):
    """A line for each fact, and no traceback; a path need not be printable."""
    done = passed(
        "import sys; from fastconv.cli import main; sys.exit(main(['info']))",
        FASTCONV_BACKEND="nonsense", FASTCONV_ALGORITHM="nonsense", FASTCONV_ISA="nonsense", PYTHONIOENCODING="ascii",
        FASTCONV_NUM_THREADS="nonsense", FASTCONV_CACHE_DIR=os.pathsep.join(["no \N{SNOWMAN}", os.devnull]),
    )  # fmt: skip
    assert done.stderr == ""
    for name in ("backend", "algorithm", "numba", "threads"):
        assert re.search(rf"^  {name}  *ERROR: FASTCONV_\w+", done.stdout, re.MULTILINE), name
    assert "FASTCONV_CACHE_DIR no \\u2603" in done.stdout


# ---- the cache


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """A cache with the file of a function, which can be trusted."""
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "above" / "cache"))
    cache._keep("function.bin", b"content")
    (directory,) = cache.directories()
    assert cache._taken(directory / "function.bin") == b"content"
    return directory / "function.bin"


@pytest.mark.skipif(os.name != "posix", reason="POSIX only")
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_a_file_is_readable_under_the_umask(monkeypatch, tmp_path, umask):
    """And never writable by others."""
    monkeypatch.setenv("FASTCONV_CACHE_DIR", str(tmp_path / "above" / "cache"))
    before = os.umask(umask)
    try:
        cache._keep("function.bin", b"content")
    finally:
        os.umask(before)
    (directory,) = cache.directories()
    assert stat.S_IMODE((directory / "function.bin").stat().st_mode) == 0o644 & ~umask
    for folder in (directory, directory.parent, directory.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755 & ~umask
    assert [path.name for path in directory.iterdir()] == ["function.bin"]


@posix
@pytest.mark.parametrize("up", range(4), ids=["file", "directory", "above", "further above"])
@pytest.mark.parametrize("mode", [0o602, 0o660], ids=oct)
def test_what_others_can_write_is_not_taken(monkeypatch, kept, up, mode):
    monkeypatch.setattr(cache_directory, "_is_own_group", lambda group: False)
    path = (kept, *kept.parents)[up]
    path.chmod(path.stat().st_mode | mode)
    with pytest.raises(cache_directory.UntrustedError, match=f"{path} can be written by"):
        cache._taken(kept)
    if path.is_dir():
        with pytest.raises(OSError, match="can be written by"):
            cache._keep("other.bin", b"content")
        path.chmod(path.stat().st_mode | stat.S_ISVTX)  # as /tmp: only the owner of a file can replace it
        assert cache._taken(kept) == b"content"


@posix
def test_a_group_of_ones_own_is_no_other(monkeypatch, kept):
    monkeypatch.setattr(cache_directory, "_is_own_group", lambda group: group == kept.stat().st_gid)
    kept.chmod(0o664)
    assert cache._taken(kept) == b"content"


@root
@pytest.mark.parametrize("up", range(3), ids=["file", "directory", "above"])
def test_what_another_user_owns_is_not_taken(kept, up):
    path = (kept, *kept.parents)[up]
    os.chown(path, 12345, -1)
    with pytest.raises(cache_directory.UntrustedError, match=f"{path} belongs to user 12345"):
        cache._taken(kept)


@posix
def test_links_count_as_what_they_lead_to(kept, tmp_path):
    """Whoever made the link: what it leads to is what must be trusted."""
    link = tmp_path / "link"
    link.symlink_to(kept.parent, target_is_directory=True)
    assert cache._taken(link / kept.name) == b"content"
    kept.parent.parent.chmod(0o777)
    with pytest.raises(cache_directory.UntrustedError, match="can be written by everybody"):
        cache._taken(link / kept.name)


@posix
def test_what_is_no_file_is_not_waited_for(kept):
    kept.unlink()
    os.mkfifo(kept, 0o600)
    with pytest.raises(cache_directory.UntrustedError, match="is no file"):
        cache._taken(kept)


def test_a_file_under_another_name_is_damaged(kept):
    """Where names can be changed, no function is taken for another."""
    other = kept.rename(kept.with_name("other.bin"))
    with pytest.raises(ValueError, match="damaged"):
        cache._taken(other)


@posix
def test_a_refused_cache_is_told_once(kept, caplog):
    """In the log, and by info."""
    kept.rename(kept.with_name(f"function-{cache.stamp()}.bin"))
    kept.parent.chmod(0o777)
    for name in ("function", "function", "other"):
        assert cache.Files(name).load_overload(None, None) is None
    (record,) = (record for record in caplog.records if "not taken" in record.message)
    assert record.levelname == "WARNING"
    reason = f"{kept.parent} can be written by everybody"
    assert record.message.endswith(reason)
    assert [line for line in cache.described() if f"0 functions, 0.0 MiB, not taken: {reason}" in line]
    assert not cache.kept()


def test_several_directories(monkeypatch, filled, tmp_path):
    """All are read in order, the first that can be written is."""
    blocked, other = tmp_path / "blocked", tmp_path / "other"
    blocked.write_text("")
    monkeypatch.setenv("FASTCONV_CACHE_DIR", os.pathsep.join(map(str, (blocked, other, filled))))
    before = files(filled)
    passed(CONVOLVE)
    assert (files(other), files(filled)) == ({}, before)
    cache._keep("function.bin", b"content")
    assert list(files(other)) == ["function.bin"]
    assert cache.kept() == dict.fromkeys(
        [f"{name}4_{llvm.machine().name}" for name in ("depthwise_rowwise_transposed", "serial")],
        str(cache.directories()[2]),
    )
    told = cache.described()
    assert re.search("not taken: .*, not writable", told[0])
    assert [line.split(", ")[1] for line in told[1:]] == ["0 functions", "2 functions"]


@pytest.fixture
def unknown_user():
    """The words before a command that make it run as a user whom the system does not know, but who can read Python."""
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv")
    words = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
             "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # fmt: skip
    if python("import numpy", *words, HOME=None).returncode:
        pytest.skip("the interpreter is not for other users")
    return words


@root
def test_without_a_home(unknown_user):
    """It computes, and says that nothing is kept."""
    done = passed(
        CONVOLVE + """
    from fastconv.cli import main
    assert main(["info"]) == 0
        """,
        *unknown_user, HOME=None, XDG_CACHE_HOME=None, FASTCONV_CACHE_DIR=None,
    )  # fmt: skip
    assert "is not kept: there is no home directory" in done.stderr
    assert re.search(r"^  numba  *none: there is no home directory", done.stdout, re.MULTILINE)


@root
def test_a_cache_that_root_filled_is_for_everybody(unknown_user, filled):
    done = passed(CONVOLVE, *unknown_user, HOME=None, FASTCONV_CACHE_DIR=str(filled))
    assert "is not" not in done.stderr


def test_users_outside_of_a_container(monkeypatch):
    """In a user namespace the system's own directories seem to belong to the overflow user."""
    files = {"uid_map": "1000 1000 1\n", "overflowuid": "65534\n"}
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path: files[path.name])
    assert cache_directory._unmapped.__wrapped__() == 65534
    files["uid_map"] = "0 0 4294967295\n"  # all users are known
    assert cache_directory._unmapped.__wrapped__() is None

    def read_text(path):
        raise FileNotFoundError

    monkeypatch.setattr(pathlib.Path, "read_text", read_text)
    assert cache_directory._unmapped.__wrapped__() is None


# ---- a package without files

#: It may be installed too, so that its extension modules would be found by another way.
ALONE = """
    import sys
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
"""
COMPUTE = """
    import numpy as np, fastconv as fc
    from fastconv.cli import main
    from fastconv.backends.numba import cache
    x, w = np.ones((1, 64, 64), "f"), np.ones((1, 1, 2, 2), "f")
    assert all((fc.conv_transpose2d(x, w, stride=2, backend=name) == 1).all() for name in fc.available_backends())
    assert "numba" in fc.available_backends()
    assert main(["info"]) == 0
    print(cache._engine())
"""


@pytest.fixture
def sources(tmp_path):
    """A copy of the package's Python, and of nothing else."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "*.txt")
    return pathlib.Path(shutil.copytree(PACKAGE, tmp_path / "plain" / "fastconv", ignore=ignored))


def told(engine: str, program: str = "", **environment: str) -> str:
    """What info prints in a process that computes, and finds the functions on disk that are for this text."""
    done = passed(ALONE + program + COMPUTE, **environment)
    assert done.stdout.splitlines()[-1] == engine
    assert "ERROR" not in done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def without_sources(tmp_path_factory):
    """A cache for a package without sources, and what its files are for: the code of the modules."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(importlib.machinery.SourceFileLoader, "get_source", lambda self, name: None)
        engine = cache._engine.__wrapped__()
    assert engine != cache._engine()
    return {"FASTCONV_CACHE_DIR": str(tmp_path_factory.mktemp("without_sources"))}, engine


def test_without_sources(sources, without_sources):
    compileall.compile_dir(sources, quiet=2, legacy=True)
    for path in sources.rglob("*.py"):
        path.unlink()
    cache_of, engine = without_sources
    assert "its compiled module does not load: " in told(engine, PYTHONPATH=str(sources.parent), **cache_of)


def test_in_an_archive(sources, tmp_path):
    (sources / "_tiles.txt").write_text("command 'cc' failed")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for path in sources.rglob("*.*"):
            archive.write(path, path.relative_to(sources.parent))
    printed = told(cache._engine(), PYTHONPATH=str(tmp_path / "archive.zip"))
    assert "it was not compiled when fastconv was installed: command 'cc' failed" in printed


def test_in_a_frozen_program(sources, without_sources):
    """Modules that have code and no file."""
    frozen = """
    import importlib.abc, importlib.machinery, pathlib
    root, codes = pathlib.Path(FOLDER), {}
    for path in root.rglob("*.py"):
        *above, name = path.relative_to(root.parent).with_suffix("").parts
        codes[".".join(above if name == "__init__" else [*above, name])] = path.read_text(), name == "__init__"
    class Frozen(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
        def find_spec(self, name, path=None, target=None):
            return importlib.machinery.ModuleSpec(name, self, is_package=codes[name][1]) if name in codes else None
        def get_source(self, name):
            raise OSError
        def get_code(self, name):
            return compile(codes[name][0], "frozen", "exec")
        def is_package(self, name):
            return codes[name][1]
    sys.meta_path.insert(0, Frozen())
    """
    cache_of, engine = without_sources
    assert "its compiled module does not load: " in told(
        engine, frozen.replace("FOLDER", repr(str(sources))), **cache_of
    )
