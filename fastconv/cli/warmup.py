"""`fastconv warmup`: compile now what first calls would compile."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from fastconv.dispatch import backends
from fastconv.problem.extras import require

_IMAGES = """
The functions are kept in the user's cache directory, or in the first directory of FASTCONV_CACHE_DIR that can be
written. In a container image, run it at build time, with FASTCONV_CACHE_DIR naming a directory inside, and set the
variable in the image too. The image's users take the functions if root built it, or that user:

    ENV FASTCONV_CACHE_DIR=/opt/fastconv
    RUN python -m fastconv warmup

They are for processors like the one that compiled them. For others, name what all of them have, at build time and at
run time, for example NUMBA_CPU_NAME=x86-64-v3 NUMBA_CPU_FEATURES=+avx2,+fma.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none: it compiles everything that is not yet on disk."""
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
    return status
