"""The compiled part of the build, and which folders are packages; everything else is in pyproject.toml.

Modules that cannot be compiled are left out, with the compiler's reason in a file beside where they would be.
"""

import contextlib
import os
import pathlib
import runpy
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

PRINTER = runpy.run_path(str(pathlib.Path("_cython", "printer.py")))
GENERATED = pathlib.Path("build", "plans")
HEADERS = [str(path) for path in sorted(pathlib.Path("_cython").glob("*.h"))]
#: Folders of bench/ that are parts of the package.
BENCH = ("shapes", "pipelines", "models")
#: For each kind of compiler, by setuptools' name: options that all modules want, and ways to ask for OpenMP, as options
#: for the compiler and for the linker; the first that builds a program is taken, and none is a way too.
OPTIONS = {
    # contraction off: the kernels say themselves where a multiply-add is fused, so that all engines give the same bits
    "unix": ["-O2", "-g0", "-ffp-contract=off"],
    "mingw32": ["-O2", "-g0", "-ffp-contract=off"],
    "msvc": ["/O2", "/std:c11"],
}
OPENMP = {
    "unix": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],
    "mingw32": [(["-fopenmp"], ["-fopenmp"])],
    "msvc": [(["/openmp"], [])],
}


def header(names: dict[str, Any]) -> str:
    """The C header of the names and numbers that stand in kernels/abi.py, among them the sizes of buffers in C."""
    lines = [
        "/* Made from fastconv/kernels/abi.py by setup.py. */",
        "#ifndef FASTCONV_PLANS_H",
        "#define FASTCONV_PLANS_H",
    ]
    numbers = ("ONE_VECTOR", "HALF_VECTOR", "TWO_VECTORS", "FEW_ROWS_TILE", "ONE_ROW_TILE", "PREFETCHING")
    numbers += ("COUNTER", "CACHE_LINE", "NO_ACTIVATION", "RELU", "RELU6", "HARDSWISH", "SLOPES")
    lines += [f"enum {{ {', '.join(f'{name} = {names[name]}' for name in numbers)} }};"]
    lines += [f"#define {name} {names[name]}" for name in ("HALVED", "PAIRED", "RUN", "SUM_VECTORS")]
    for name in ("ROW_KERNELS", "ROW_KERNELS_TRANSPOSED", "ROW_KERNELS_WEIGHT_GRAD"):
        lines += [f"#define FOR_{name}(DO) {' '.join(f'DO({a}, {b})' for a, b in names[name])}"]
        lines += [f"#define MAX_{name} {max(size for size, _ in names[name])}"]
    for name in ("TAP_ROWS", "WINDOWS"):
        lines += [f"#define FOR_{name}(DO) {' '.join(f'DO({taps}, {stride})' for taps, stride in names[name])}"]
        lines += [f"#define MAX_{name} {max(taps for taps, _ in names[name])}"]
    lines += ["#endif"]
    # which tiles there are depends on the instruction set, so this part is read once for each
    for (registers, fused), tiles in names["TILES"].items():
        lines += [f"#if REGISTERS == {registers} && FUSED == {int(fused)}"]
        for kind, (rows, vectors) in zip(("FULL", "FEW", "ONE"), tiles, strict=True):
            lines += [f"#define {kind}_ROWS {rows}", f"#define {kind}_VECTORS {vectors}"]
        lines += [f"#define MAX_ROWS {max(rows for rows, _ in tiles)}"]
        lines += [f"#define MAX_VECTORS {max(vectors for _, vectors in tiles)}"]
        lines += [f"#define MAX_SIDE {max(map(min, tiles))}  /* the shorter of a tile */"]
        for kind in ("ALONG", "BAND"):
            widths = names["ALONG" if kind == "ALONG" else "BANDS"][registers, fused]
            lines += [f"#define {kind}_{chr(65 + i)} {width}" for i, width in enumerate(widths)]
            lines += [f"#define MAX_{kind} {max(widths)}"]
        (rows, cols), (_, long_cols) = names["RECTANGLES"][registers, fused]
        lines += [f"#define TALL_ROWS {rows}", f"#define TALL_COLS {cols}", f"#define LONG_COLS {long_cols}"]
        many, few = names["WINDOW_PIXELS"][registers, fused]
        lines += [f"#define WINDOW_PIXELS(size) ((size) <= 4 ? {many} : {few})", f"#define MAX_WINDOW_PIXELS {many}"]
        span, taps = (names[name][registers, fused] for name in ("SPAN", "TAPS"))
        for side, number in zip(("RESULTS", "TAPS"), names["DOTS"][registers, fused], strict=True):
            lines += [f"#define DOTS_{side} {number}"]
        lines += [f"#define MAX_SPAN {span}", f"#define MAX_TAPS {taps}"]
        complex_span = names["COMPLEX_SPAN"][registers, fused]
        lines += [f"#define MAX_COMPLEX_SPAN {complex_span}"]
        for kind, most in (("SPAN", span), ("COMPLEX_SPAN", complex_span)):
            lines += [f"#define FOR_{kind}(DO) {' '.join(f'DO({i + 1})' for i in range(most))}"]
        for run in range(1, names["RUN"] + 1):
            numbers = range(taps // run if run == 1 or registers >= names["PAIRED"] else 0)
            lines += [f"#define FOR_RUNS_{run}(DO) {' '.join(f'DO({run}, {i + 1})' for i in numbers)}"]
        lines += ["#endif"]
    return "\n".join([*lines, ""])


def write_plans() -> str:
    """Write `header` where the compiler finds it; returns its path."""
    with PRINTER["kernels"]("fastconv") as module:
        return write("plans.h", header(vars(module("abi"))))


def write(name: str, text: str) -> str:
    """Write a generated header, unless it is there already, as else everything would be compiled anew; its path."""
    path = GENERATED / name
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(path)


def write_drivers() -> list[str]:
    """The C headers printed from fastconv/kernels; their paths."""
    return [write(name, text) for name, text in PRINTER["headers"]("fastconv").items()]


class Build(build_ext):
    """Builds what this compiler can build, and keeps its reason for what it cannot."""

    def build_extensions(self) -> None:
        """Settle the options, which depend on the compiler."""
        kind = self.compiler.compiler_type
        compile_openmp, link_openmp = self._openmp(kind)
        for extension in self.extensions:
            extension.extra_compile_args = [*OPTIONS.get(kind, []), *extension.extra_compile_args]
            if extension.name.endswith("_tiles"):
                extension.extra_compile_args += compile_openmp
                extension.extra_link_args += link_openmp
        super().build_extensions()

    def build_extension(self, extension: Extension) -> None:
        """Keep what was said if it fails; setuptools goes on, as the modules are optional."""
        module = pathlib.Path(self.get_ext_fullpath(extension.name))
        reason = module.with_name(f"{extension.name.split('.')[-1]}.txt")
        reason.parent.mkdir(parents=True, exist_ok=True)
        said: list[str] = []
        try:
            with heard(said):
                super().build_extension(extension)
        except Exception as error:
            reason.write_text(f"{''.join(said)[-4000:]}\n{error}\n")
            module.unlink(missing_ok=True)  # one from an earlier build would be of another version
            raise
        else:
            reason.unlink(missing_ok=True)
        finally:
            sys.stderr.write("".join(said))

    def _openmp(self, kind: str) -> tuple[list[str], list[str]]:
        """The first way to ask for OpenMP by which a small program is compiled and linked."""
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        for compile_args, link_args in OPENMP.get(kind, []):
            with tempfile.TemporaryDirectory() as folder, heard([]), contextlib.suppress(Exception):
                path = pathlib.Path(folder, "openmp.c")
                path.write_text(program)
                objects = self.compiler.compile([str(path)], output_dir=folder, extra_postargs=compile_args)
                self.compiler.link_executable(objects, "openmp", output_dir=folder, extra_postargs=link_args)
                return compile_args, link_args
        return [], []


@contextlib.contextmanager
def heard(said: list[str]) -> Iterator[None]:
    """Keeps what this process and those that it starts say on standard error."""
    with tempfile.TemporaryFile("w+") as file:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            said.append(file.read())


if __name__ == "__main__":
    modules = cythonize(
        [
            Extension(
                "fastconv._machine",
                ["_cython/machine.pyx"],
                include_dirs=["_cython"],
                depends=HEADERS,
                extra_compile_args=["-ffp-contract=fast"] if os.name == "posix" else [],
            ),
            Extension(
                "fastconv._tiles",
                ["_cython/tiles.pyx", "_cython/avx512.c", "_cython/avx2.c", "_cython/baseline.c"],
                include_dirs=["_cython", str(GENERATED)],
                depends=[*HEADERS, write_plans(), *write_drivers()],
            ),
        ],
        build_dir="build/cython",
        language_level=3,
    )
    for module in modules:
        # where it cannot be compiled, the package installs without it; cythonize forgets this if it is said before
        module.optional = True

    setup(
        ext_modules=modules,
        cmdclass={"build_ext": Build},
        # the benchmark's layers and models live beside the benchmarks, and go into a wheel as parts of the package
        packages=[*find_packages(include=["fastconv", "fastconv.*"]), *(f"fastconv.{kind}" for kind in BENCH)],
        package_dir={f"fastconv.{kind}": f"bench/{kind}" for kind in BENCH},
        package_data={"fastconv": ["py.typed"], "fastconv.shapes": ["*.txt"], "fastconv.pipelines": ["*.txt"]},
    )
