"""`fastconv warmup`: compile now what first calls would compile; measure the machine if asked to."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from fastconv.backends.contract import is_tiled
from fastconv.dispatch import backends
from fastconv.planner import calibration, measured_costs
from fastconv.problem.extras import require

_IMAGES = """
The functions are kept in the user's cache directory, or in the first directory of FASTCONV_CACHE_DIR that can be
written. In a container image, run it at build time, with FASTCONV_CACHE_DIR naming a directory inside, and set the
variable in the image too. The image's users take the functions if root built it, or that user:

    ENV FASTCONV_CACHE_DIR=/opt/fastconv
    RUN python -m fastconv warmup

They are for processors like the one that compiled them. For others, name what all of them have, at build time and at
run time, for example NUMBA_CPU_NAME=x86-64-v3 NUMBA_CPU_FEATURES=+avx2,+fma. What --measure finds is kept beside them,
for the processor that it ran on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Without any it compiles everything that is not yet on disk."""
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure too, in half a minute, how quick this machine's kernels are: the planner's choices follow that",
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _IMAGES


def run(options: argparse.Namespace) -> int:
    """Compile with a progress bar; print what was compiled and where it is kept. Status 1 if something was not kept."""
    bar = require("tqdm", "warmup", "the progress bar of warmup").tqdm
    reasons = backends.backend_reasons()
    status = 0
    for name in [name for name, reason in reasons.items() if reason is None]:
        engine: Any = backends.in_use(name)
        if not hasattr(engine, "functions"):
            print(f"{name}: compiles nothing at run time")
            continue
        functions = engine.functions()
        start = time.perf_counter()
        progress = bar(functions, unit="function", leave=False)
        for title, ready in progress:
            progress.set_postfix_str(title)
            ready()
        print(f"{name}: {len(functions)} functions are ready after {time.perf_counter() - start:.1f} s")
        kept = engine.kept()
        if lacking := [title for title, _ in functions if title not in kept]:
            print(f"{name}: {len(lacking)} of them are not kept: {'; '.join(engine.caches())}", file=sys.stderr)
            status = 1
        else:
            print(f"{name}: kept in {'; then '.join(engine.caches())}")
    for name, reason in reasons.items():
        if reason is not None:
            print(f"{name}: passed over, {reason}")
    if options.measure:
        status = max(status, _measure(bar, [name for name, reason in reasons.items() if reason is None]))
    return status


def _measure(bar: Any, names: Sequence[str]) -> int:
    """Measure the cost model's constants with the first engine that has kernels to choose from; returns the status."""
    engines = {name: backends.loaded(name) for name in names}
    found = next(((name, engine) for name, engine in engines.items() if is_tiled(engine)), None)
    if found is None:
        print("cost model: not measured, as no engine runs here that chooses between kernels", file=sys.stderr)
        return 1
    name, engine = found
    seconds = calibration.SECONDS
    total = len(calibration.DTYPES) * seconds + 1e-6  # what is told in parts may add up to a little more
    with bar(total=total, unit="s", leave=False, bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s") as progress:
        measured = calibration.measure(engine, name, progress.update, seconds=seconds)
    try:
        path = measured_costs.keep(measured)
    except OSError as error:
        print(f"cost model: measured, but not kept: {error}", file=sys.stderr)
        return 1
    print(f"cost model: measured with {name}, kept in {path}; it is in force from the next process on")
    return 0
