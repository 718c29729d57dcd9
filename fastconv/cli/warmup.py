"""`fastconv warmup`: compile ahead what would otherwise be compiled at first calls."""

from __future__ import annotations

import argparse
import time

from fastconv.choice import backends
from fastconv.ground.extras import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: it compiles everything that is not yet on disk."""


def run(options: argparse.Namespace) -> int:
    """Compile with a progress bar; print what was compiled and where it is kept."""
    bar = require("tqdm", "warmup", "the progress bar of warmup").tqdm
    reasons = backends.backend_reasons()
    for name in [name for name, reason in reasons.items() if reason is None]:
        functions = getattr(backends.loaded(name), "functions", None)
        if functions is None:
            print(f"{name}: compiles nothing at run time")
            continue
        start = time.perf_counter()
        progress = bar(functions(), unit="function", leave=False)
        for title, ready in progress:
            progress.set_postfix_str(title)
            ready()
        print(f"{name}: {len(functions())} functions are ready after {time.perf_counter() - start:.1f} s")
    for name, reason in reasons.items():
        if reason is not None:
            print(f"{name}: passed over, {reason}")
    return 0
