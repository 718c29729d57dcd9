"""The compiled engine: what it says where it cannot run, and the machine code of its kernels."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import fastconv as fc
from fastconv.backends import cython, instruction_set
from fastconv.dispatch import backends
from fastconv.kernels import abi, arguments, drivers

needs_cython = pytest.mark.skipif("cython" not in fc.available_backends(), reason="the cython engine is not there")


def reason(monkeypatch) -> str:
    """Why the engine cannot run, as the registry tells it."""
    monkeypatch.setitem(backends._registry, "cython", backends.Registration(backends._BUILT_IN["cython"]))
    told = backends.backend_reasons()["cython"]
    assert told is not None
    with pytest.raises(fc.BackendUnavailableError, match=re.escape(told)):
        fc.conv2d(np.ones((1, 2, 2)), np.ones((1, 1, 2, 2)), backend="cython")
    return told


def test_a_module_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastconv._tiles", None)
    monkeypatch.setattr(cython, "REASON", pathlib.Path("no such file"))
    assert "does not load: import of fastconv._tiles halted" in reason(monkeypatch)


def test_a_module_that_was_not_compiled(monkeypatch, tmp_path):
    """The build leaves the compiler's reason behind."""
    monkeypatch.setitem(sys.modules, "fastconv._tiles", None)
    monkeypatch.setattr(cython, "REASON", tmp_path / "_tiles.txt")
    cython.REASON.write_text("command 'cc' failed\n\ntiles.c:1: error: no such thing\n")
    told = reason(monkeypatch)
    assert told.endswith(
        "it was not compiled when fastconv was installed: command 'cc' failed; tiles.c:1: error: no such thing"
    )


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"no library"])
def test_a_file_that_cannot_be_loaded(monkeypatch, tmp_path, content):
    """Another processor's, another Python's, half of one: a reason, and no crash."""
    broken = tmp_path / f"_tiles{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    broken.write_bytes(content)
    monkeypatch.delitem(sys.modules, "fastconv._tiles", raising=False)
    monkeypatch.setattr(fc, "__path__", [str(tmp_path)])
    monkeypatch.setattr(cython, "REASON", tmp_path / "_tiles.txt")
    assert "its compiled module does not load: " in reason(monkeypatch)


def test_a_module_of_another_version(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastconv._tiles", SimpleNamespace(SIGNATURE=drivers.signature() + " more"))
    assert "of another version; install fastconv anew" in reason(monkeypatch)


@needs_cython
def test_a_compiler_without_openmp(monkeypatch):
    """One thread computes, whatever number is asked for, and info says so."""
    engine = cython.CythonEngine()
    x, w = np.ones((2, 16, 40, 40), "f"), np.ones((16, 16, 3, 3), "f")
    expected = fc.conv2d(x, w, backend="numpy")
    started = []

    class Pass(engine._tiles.Pass):
        def __call__(self, *arguments):
            started.append(arguments[6])  # the number of threads
            super().__call__(*arguments)

    for has_threads, workers in ((True, 2), (False, 1)):
        sets = engine.instruction_sets()
        engine._tiles = SimpleNamespace(Pass=Pass, HAS_THREADS=has_threads, instruction_sets=lambda found=sets: found)
        monkeypatch.setitem(backends._registry, "cython", backends.Registration(lambda engine=engine: engine))
        fc.set_num_threads(2)
        np.testing.assert_array_equal(fc.conv2d(x, w, backend="cython", algorithm="direct"), expected)
        assert started.pop() == workers
        assert ("no OpenMP" in engine.details()) is not has_threads
        backends.call_cache.forget()
        engine = cython.CythonEngine()


@needs_cython
def test_what_the_compiled_module_refuses():
    """Its own arguments are checked too, before any work."""
    tiles = cython.CythonEngine()._tiles
    names = list(arguments.names(drivers.structure_of(drivers.PASSES[0])))
    vectors, tables = np.zeros((1, len(names)), np.int64), np.zeros(1, np.int64)
    found = tiles.instruction_sets()[0]
    with pytest.raises(ValueError, match=r"avx3.*is none of"):
        tiles.Pass("avx3", drivers.PASSES[0].__name__, 4, vectors, tables)
    for wrong in (vectors[:0], vectors[:, 1:].copy()):
        with pytest.raises(ValueError, match=f"at least one vector of {len(names)} integers"):
            tiles.Pass(found, drivers.PASSES[0].__name__, 4, wrong, tables)
    vectors[0, names.index("group")] = 1
    run = tiles.Pass(found, drivers.PASSES[0].__name__, 4, vectors, tables)  # no work items: it would write nothing
    out = np.zeros(1)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        run(np.zeros(1), np.zeros(1), None, out, 0, 0, 1)


# ---- machine code: for each instruction set, how its registers are written, and its instruction of a multiply-add

SETS = {"avx512": ("zmm", r"vfmadd\w+p[sd]"), "avx2": ("ymm", r"vfmadd\w+p[sd]"), "baseline": ("xmm", r"v?addp[sd]")}


def kernels() -> dict[str, tuple[int, str]]:
    """Each micro-kernel of each instruction set: the number of its accumulators, and its machine code."""
    listing = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", cython.CythonEngine()._tiles.__file__],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    codes = dict(re.findall(r"^[0-9a-f]+ <(\w+?)(?:\.(?:constprop|isra)\.\d+)*>:\n((?:.+\n)+)", listing, re.MULTILINE))
    expected = {}
    for name in SETS:
        kind = instruction_set.ALL[name].kind
        full, few, one = abi.TILES[kind]
        shapes = {"multiply_narrow": (full[0], 1), "multiply_full": full, "multiply_few": few, "multiply_one": one}
        shapes |= {"multiply_full_prefetch": full, "multiply_few_prefetch": few}
        if full[1] > 2:
            shapes["multiply_two"] = (full[0], 2)
        shapes |= {f"along_{chr(97 + i)}": (1, width) for i, width in enumerate(abi.ALONG[kind])}
        shapes["along_3x3"] = (3, 3)
        if instruction_set.ALL[name].fused:  # without masks, there is code for each number of lanes
            shapes["dots"] = abi.DOTS[kind]
        shapes |= {f"band_{chr(97 + i)}": (1, width) for i, width in enumerate(abi.BANDS[kind])}
        shapes |= {f"span_{width + 1}": (1, width + 1) for width in range(abi.SPAN[kind])}
        shapes |= {
            f"taps_{run}_{runs + 1}": (run, runs + 1)
            for run in range(1, instruction_set.ALL[name].run + 1)
            for runs in range(abi.TAPS[kind] // run)
        }
        by_results = {each: shape for each, shape in shapes.items() if each.startswith(("span_", "taps_"))}
        if instruction_set.ALL[name].has_halves:
            shapes |= {f"half_{each}": shape for each, shape in by_results.items()}
        if instruction_set.ALL[name].has_pairs:
            shapes |= {f"pair_{each}": (2, width) for each, (run, width) in by_results.items() if run == 1}
        if kind[0] == 32:  # with fewer registers, masks and weights wait in memory
            shapes |= {f"row_kernel_{size}_{stride}": (size, size) for size, stride in abi.ROW_KERNELS}
            shapes |= {f"row_kernel_transposed_{size}_{odd}": (1, 1) for size, odd in abi.ROW_KERNELS_TRANSPOSED}
            shapes |= {
                f"row_kernel_weight_grad_{size}_{stride}": (size, size) for size, stride in abi.ROW_KERNELS_WEIGHT_GRAD
            }
        for kernel, (rows, vectors) in shapes.items():
            for element in ("f32", "f64"):
                expected[f"{kernel}_{element}_{name}"] = rows * vectors
    return {name: (number, codes[name]) for name, number in expected.items()}


def faults(name: str, number: int, code: str) -> list[str]:
    """What is wrong with a kernel: vectors of another width, more or fewer multiply-adds, a vector on the stack."""
    register, multiply_add = SETS[name.rpartition("_")[2]]
    if name.startswith("half_"):
        register = {"zmm": "ymm"}[register]
    lines = [line.split("\t")[-1] for line in code.splitlines()]
    vectors = [line for line in lines if re.match(r"v?\w+p[sd]\b", line.strip())]
    found = []
    multiplied = [line for line in vectors if re.match(multiply_add, line)]
    if not multiplied or len(multiplied) % number:  # a compiler may do several taps a turn
        found.append(f"{len(multiplied)} multiply-adds for {number} accumulators")
    found += [line for line in multiplied if f"%{register}" not in line]
    frame = r"\(%rsp|\(%rbp" if re.search(r"mov +%rsp,%rbp", code) else r"\(%rsp"
    found += [line for line in vectors if re.search(frame, line)]
    return found


@needs_cython
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("objdump"), reason="needs objdump")
def test_accumulators_stay_in_registers():
    """Each micro-kernel has a multiply-add for each accumulator, of whole vectors, and none goes over the stack."""
    if "avx2" not in cython.CythonEngine()._tiles.instruction_sets():
        pytest.skip("the kernels of another processor are listed otherwise")
    found = {name: faults(name, *kernel) for name, kernel in kernels().items()}
    sets = [instruction_set.ALL[name] for name in SETS]
    by_results = 0
    for known in sets:
        spans, taps = abi.SPAN[known.kind], abi.TAPS[known.kind]
        by_results += (1 + known.has_halves) * (spans + sum(taps // (run + 1) for run in range(known.run)))
        by_results += known.has_pairs * (spans + taps)
    small = sum(map(len, (abi.ROW_KERNELS, abi.ROW_KERNELS_TRANSPOSED, abi.ROW_KERNELS_WEIGHT_GRAD)))
    three_vectors = sum(abi.TILES[known.kind][0][1] > 2 for known in sets)
    assert len(found) == 2 * (15 * len(SETS) - 1 + three_vectors + by_results + small)
    assert not {name: said for name, said in found.items() if said}


def test_a_spilled_accumulator_would_be_seen():
    """The test above can fail."""
    kept = "  10:\tvfmadd231ps %zmm1,%zmm2,%zmm3\n"
    assert faults("multiply_one_f32_avx512", 1, kept) == []
    assert faults("multiply_one_f32_avx512", 2, kept)
    assert faults("multiply_one_f32_avx512", 1, kept.replace("zmm", "ymm"))
    assert faults("half_span_1_f32_avx512", 1, kept)
    assert faults("half_span_1_f32_avx512", 1, kept.replace("zmm", "ymm")) == []
    assert faults("multiply_one_f32_avx512", 1, kept + "  16:\tvmovups %zmm3,0x40(%rsp)\n")
    framed = "   8:\tmov    %rsp,%rbp\n" + kept
    assert faults("multiply_one_f32_avx512", 1, framed) == []
    assert faults("multiply_one_f32_avx512", 1, framed + "  16:\tvmovaps -0x40(%rbp),%zmm3\n")


# ---- buffers of the micro-kernels: their sizes come from the table in kernels/abi.py

ROOT = pathlib.Path(__file__).parent.parent
needs_compiler = pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="needs cc")
CAN_BUILD = (ROOT / "setup.py").exists() and importlib.util.find_spec("Cython") is not None
needs_sources = pytest.mark.skipif(not CAN_BUILD, reason="needs the sources and Cython")
SETUP = runpy.run_path(str(ROOT / "setup.py"), run_name="setup") if CAN_BUILD else {}
#: Each names larger tiles than the real table does for this instruction set.
SET = (16, False)
LARGER = {
    "TILES": {SET: ((13, 3), (3, 17), (1, 31))},
    "DOTS": {SET: (17, 9)},
    "ALONG": {SET: (31, 7, 5, 3, 1)},
    "BANDS": {SET: (16, 9)},
    "SPAN": {SET: 31},
    "TAPS": {SET: 31},
    "ROW_KERNELS": ((11, 1), (9, 2)),
    "ROW_KERNELS_TRANSPOSED": ((9, 1), (8, 0)),
    "ROW_KERNELS_WEIGHT_GRAD": ((9, 1), (8, 2)),
}
#: Runs the micro-kernels of these tiles over ones; with `-fsanitize=bounds`, an access outside of an array ends it.
PROGRAM = """
#include "instructions.h"
static int runs_here(void) { return 1; }
#define SET larger
#define VECTOR_BYTES 16
#define REGISTERS 16
#define FUSED 0
#define LANES_f32 4
#define LANES_f64 2
#include "instruction_set.h"
#define NAME_OF(kernel) kernel##_f32_larger

static float ones[1 << 12], zeros[1 << 12], sums[1 << 16];
static const int64_t offsets[64];

int main(void) {
    const int heights[] = {FULL_ROWS, FULL_ROWS, FEW_ROWS, ONE_ROWS};
    const int widths[] = {FULL_VECTORS, FULL_VECTORS, FEW_VECTORS, ONE_VECTORS};
    const int numbers[] = {FULL_VECTORS, FULL_VECTORS + PREFETCHING, FEW_ROWS_TILE, ONE_ROW_TILE};
    for (int i = 0; i < 1 << 12; i++) ones[i] = 1;
    for (int tile = 0; tile < 4; tile++) {
        NAME_OF(multiply)(numbers[tile], ones, 0, heights[tile], ones, offsets, 5, zeros, 0, 0, sums, widths[tile] * 4);
        for (int i = 0; i < heights[tile] * widths[tile] * 4; i++) {
            if (sums[i] != 5) return 1;
            sums[i] = 0;
        }
    }
    NAME_OF(along_a)(ones, ones, 0, offsets, 5, zeros, 0, 0, sums, 0, 4);
    NAME_OF(along_3x3)(ones, ones, 0, offsets, 5, zeros, 0, 0, sums, 0, 4);
    NAME_OF(band_a)(ones, ones, offsets, 1, 5, 0, 20, zeros, 0, sums, 4, BAND_A);
    NAME_OF(dots)(ones, 0, 0, DOTS_RESULTS, ones, 0, offsets, DOTS_TAPS, 1, 7, 1, sums, DOTS_TAPS * 4);
    NAME_OF(span_31)(ones, 0, ones, 1, offsets, 5, zeros, 0, 0, sums, 0, 4, 1, 16, ones, offsets, 5);
    NAME_OF(taps_1_31)(ones, 0, 0, ones, 0, offsets, 1, offsets, 5, zeros, 0, sums, 0);
    NAME_OF(row_kernel_11_1)(ones, ones, 20, 20, 1, 0, 0, 0, sums, 10, 10, 10, 4);
    NAME_OF(row_kernel_9_2)(ones, ones, 20, 20, 1, 0, 0, 0, sums, 6, 6, 6, 4);
    NAME_OF(row_kernel_transposed_9_1)(ones, ones, 9, 9, 1, 4, 4, 0, 0, sums, 9, 0, 9);
    NAME_OF(row_kernel_weight_grad_9_1)(ones, 20, 20, 1, 0, 0, ones, 12, 12, 4, sums);
    NAME_OF(row_kernel_weight_grad_8_2)(ones, 20, 20, 1, 0, 0, ones, 7, 7, 4, sums);
    return 0;
}
"""


def compiled(folder: pathlib.Path, header: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What the compiler says to PROGRAM with this header of the table."""
    for name, text in {**SETUP["PRINTER"]["headers"](str(ROOT / "fastconv")), "plans.h": header}.items():
        (folder / name).write_text(text)
    (folder / "larger.c").write_text(PROGRAM)
    return subprocess.run(
        ["cc", "-std=gnu11", *options, f"-I{ROOT / '_cython'}", f"-I{folder}", "larger.c"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def larger() -> str:
    """The header of a table with larger tiles."""
    names = {name: getattr(abi, name) for name in dir(abi)}
    names |= {name: names[name] | value if isinstance(value, dict) else value for name, value in LARGER.items()}
    return SETUP["header"](names)


@needs_sources
@needs_compiler
def test_a_larger_tile_has_larger_buffers(larger, tmp_path):
    done = compiled(tmp_path, larger, "-O0", "-fsanitize=bounds", "-fsanitize-undefined-trap-on-error", "-o", "larger")
    assert done.returncode == 0, done.stderr
    subprocess.run([tmp_path / "larger"], check=True, timeout=60)


@needs_sources
@needs_compiler
@pytest.mark.parametrize(
    "wrong",
    [
        "#define MAX_ROWS 12",
        "#define MAX_VECTORS 30",
        "#define MAX_SIDE 2",
        "#define MAX_ALONG 30",
        "#define MAX_BAND 15",
        "#define MAX_SPAN 30",
        "#define MAX_TAPS 30",
        "#define MAX_ROW_KERNELS 10",
        "#define MAX_ROW_KERNELS_TRANSPOSED 8",
        "#define MAX_ROW_KERNELS_WEIGHT_GRAD 8",
        "#define ALONG_A 33",
        "#define BAND_A 17",
    ],
)
def test_a_tile_that_its_buffers_do_not_hold_does_not_compile(larger, tmp_path, wrong):
    """Nor does one whose loops the compiler would not unroll."""
    name = wrong.split()[1]
    changed = re.sub(rf"#define {name} .*", wrong, larger)
    assert changed != larger
    done = compiled(tmp_path, changed, "-fsyntax-only")
    assert done.returncode != 0
    assert "a tile is too large for its micro-kernel" in done.stderr
