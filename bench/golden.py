"""A record of how every layer of bench/shapes is computed: the passes, their workspace, and the bits of the result.

    python bench/golden.py compare                  say in words what differs; the exit status is 1 if anything does
    python bench/golden.py compare --shapes quick,unet
    python bench/golden.py record                   write the record anew, after a change that is meant to differ

The record is bench/golden.json. For each layer, contraction, dtype and instruction set it holds the passes of the
Cython engine, their workspace on 1 and on 2 threads in bytes, and a digest of the result, which must be the same on
both: for `algorithm="direct"`, and for `auto` if that takes another algorithm on one of the instruction sets, in layers
of less than a GFLOP.

What NumPy computes (the kernel `fft`) has no passes, and no digest, as its bits are those of NumPy's version.

AVX-512 has two rows: for processors that execute a 64-byte operation at once, and for those that issue it as two halves
(Zen 4). Any processor with AVX-512 computes both. The cost model is the one that fastconv comes with, without this
machine's cache sizes and measured constants, so the record does not depend on the machine. The Numba engine gives the
same bits (tests/test_tiles.py).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import pathlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
from tqdm import tqdm

from fastconv.backends import instruction_set
from fastconv.backends.contract import Plan
from fastconv.backends.cython import CythonEngine
from fastconv.cli.bench.problems import PASSES, Problem, read, shape_files
from fastconv.planner import cost_model
from fastconv.planner.registry import Algorithm, Candidate
from fastconv.planner.request import Contraction

#: What is recorded: the kernels of direct convolution, and by this name in the record those that `auto` takes.
DIRECT, AUTO, BY_AUTO = Algorithm("direct"), Algorithm(None), "{} by auto"
RECORD = pathlib.Path(__file__).with_suffix(".json")
DTYPES = ("float32", "float64")
#: The kernel whose transforms are NumPy's.
NUMPYS = "fft"
#: FLOP of a layer from which on what `auto` takes is not recorded.
LARGE = 10**9
THREADS = (1, 2)
#: The rows of the record: title, instruction set, and whether a 64-byte operation is issued as two halves.
SETS = (
    ("avx512", "avx512", False),
    ("avx512, two steps", "avx512", True),
    ("avx2", "avx2", False),
    ("baseline", "baseline", False),
)
#: What is recorded of one contraction: the passes, the workspace for each of `THREADS` in bytes, and the digest.
Entry = tuple[str, list[int], str]


class Noting(CythonEngine):
    """The Cython engine on one instruction set; it counts the passes that it prepares."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.passes: Counter[str] = Counter()

    def prepared(self, plan: Plan, threads: int) -> Callable[..., None]:
        """As the engine's."""
        self.passes[plan.name] += len(plan.vector)
        return super().prepared(plan, threads)


@contextlib.contextmanager
def processor(two_steps: bool) -> Iterator[None]:
    """A context that sets whether this processor issues a 64-byte operation as two halves."""
    with mock.patch.object(instruction_set, "takes_two_steps", return_value=two_steps):
        yield


def target_of(problem: Problem, which: str) -> Contraction:
    """The contraction of a pass of a problem."""
    maps: tuple[Contraction, Contraction] = ("large", "small") if problem.geometry.is_transposed else ("small", "large")
    return {"forward": maps[0], "input": maps[1]}.get(which, "weight")


def taken_by_auto(problem: Problem, which: str, engine: CythonEngine, dtype: str) -> Candidate:
    """The kernel that `auto` takes."""
    geometry, itemsize = problem.geometry.lifted(), np.dtype(dtype).itemsize
    candidates = AUTO.candidates(engine, geometry, target_of(problem, which), itemsize, 1)
    return next(one for one in candidates if one.passed_over is None)


def entry(
    problem: Problem, which: str, arrays: dict[str, Any], engine: Noting, algorithm: Algorithm, runs: bool = True
) -> Entry:
    """The entry of one pass of a problem; `arrays` by their roles: large, small and weight. Unless it `runs`, it has
    only the workspace."""
    geometry, target = problem.geometry.lifted(), target_of(problem, which)
    first, second = (arrays[role] for role in ("large", "small", "weight") if role != target)
    itemsize = first.itemsize
    spaces, digests = [], set()
    engine.passes.clear()
    for threads in THREADS:
        spaces.append(algorithm.workspace(engine, geometry, target, itemsize, threads))
        if not runs:
            continue
        engine.passes.clear()
        run = algorithm.prepared(engine, geometry, target, itemsize, threads)
        out = np.empty(getattr(geometry, f"{target}_shape"), first.dtype)
        run(first, second, None, out)
        digests.add(hashlib.blake2b(out, digest_size=8).hexdigest())
    passes = ", ".join(f"{name} {number}" for name, number in sorted(engine.passes.items()))
    return passes, spaces, " and ".join(sorted(digests))


def entries(problems: list[Problem]) -> dict[str, dict[str, Entry]]:
    """All entries of some layers, by layer, then by pass, dtype and instruction set."""
    here = CythonEngine().instruction_sets()
    engines = [(title, Noting(name), two_steps) for title, name, two_steps in SETS if name in here]
    found: dict[str, dict[str, Entry]] = {}
    for problem in tqdm(problems, unit="layer"):
        of_problem = found[str(problem)] = {}
        for dtype in DTYPES:
            x, w, dy = problem.arrays(dtype)
            lifted = problem.geometry.lifted()
            maps = {**lifted.maps(input=x, output=dy), "weight": w}
            arrays = {role: array.reshape(getattr(lifted, f"{role}_shape")) for role, array in maps.items()}
            taken: set[str] = set()
            for _, engine, two_steps in engines:
                if problem.geometry.flops >= LARGE:
                    continue
                with processor(two_steps), cost_model.use(cost_model.nominal):
                    kernels = {which: taken_by_auto(problem, which, engine, dtype) for which in PASSES}
                    taken |= {which for which, kernel in kernels.items() if kernel.algorithm != "direct"}
            for title, engine, two_steps in engines:
                with processor(two_steps), cost_model.use(cost_model.nominal):
                    for which in PASSES:
                        name = f"{dtype}, {title}"
                        of_problem[f"{which}, {name}"] = entry(problem, which, arrays, engine, DIRECT)
                        if which in taken:
                            runs = taken_by_auto(problem, which, engine, dtype).name != NUMPYS
                            by_auto = entry(problem, which, arrays, engine, AUTO, runs)
                            of_problem[f"{BY_AUTO.format(which)}, {name}"] = by_auto
    return found


def differences(before: dict[str, Any], now: dict[str, dict[str, Entry]]) -> Iterator[str]:
    """What differs between the record and now, in words."""
    for layer, of_layer in now.items():
        for name, (passes, spaces, digest) in of_layer.items():
            known = before.get(layer, {}).get(name)
            if known is None:
                yield f"{layer}: {name}: not in the record"
                continue
            what = [
                f"{title} was {old}, is {new}"
                for title, old, new in zip(
                    ("passes", "workspace", "digest"), known, (passes, spaces, digest), strict=True
                )
                if old != new
            ]
            if what:
                yield f"{layer}: {name}: {'; '.join(what)}"


def known() -> dict[str, dict[str, Entry]]:
    """The record, as `entries` gives it."""
    if not RECORD.exists():
        return {}
    return {
        layer: {
            f"{name}, {title}": (passes, spaces, digest)
            for name, of_sets in of_layer.items()
            for (title, _, _), (passes, *spaces, digest) in zip(SETS, of_sets, strict=True)
        }
        for layer, of_layer in json.loads(RECORD.read_text()).items()
    }


def write(found: dict[str, dict[str, Entry]]) -> None:
    """Make the record of what `entries` gives: a line for each layer, with a list of the instruction sets in each."""
    lines = []
    for layer, of_layer in sorted(found.items()):
        names = dict.fromkeys(", ".join(name.split(", ")[:2]) for name in of_layer)
        rows = {
            name: [[e[0], *e[1], e[2]] for title, *_ in SETS for e in [of_layer[f"{name}, {title}"]]] for name in names
        }
        lines.append(f"{json.dumps(layer)}: {json.dumps(rows, separators=(',', ':'))}")
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> int:
    """Record or compare, and return the exit status."""
    parser = argparse.ArgumentParser(description="What each layer runs and gives, against a record of it.")
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("--shapes", default="all", help="names of shape files with commas between (default: all)")
    options = parser.parse_args()
    names = list(shape_files()) if options.shapes == "all" else options.shapes.split(",")
    problems = list(dict.fromkeys(problem for name in names for problem in read(name)))
    before = known()
    now = entries(problems)
    if options.action == "record":
        write(before | now)
        return 0
    found = list(differences(before, now))
    print(*found, sep="\n")
    print(f"{sum(map(len, now.values()))} contractions of {len(now)} layers, {len(found)} differ")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
