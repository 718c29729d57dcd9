"""Time every contender on every problem and pass; each result is compared with the others' before it is timed."""

from __future__ import annotations

import pytest

import fastconv as fc
from fastconv.cli.bench import contenders


def test_problem(benchmark, described, compared, problem, which, contender):
    try:
        timed = contenders.build(contender, problem, which, "float32", described["threads"])
    except contenders.Declined as reason:
        pytest.skip(str(reason))
    compared(problem, which, contenders.as_array(timed()))  # and what compiles at run time has compiled

    benchmark.group = f"{which} {problem}"
    benchmark(timed)
    operation = problem.operation if which == "forward" else f"{problem.operation}_{which}"
    why = fc.explain(
        operation,
        problem.input_shape,
        problem.weight_shape,
        backend=contender if contender in fc.available_backends() else None,
        **dict(problem.parameters),
    )
    benchmark.extra_info |= described | {"contender": contender}
    if contender in fc.available_backends():
        benchmark.extra_info["workspace bytes"] = why.workspace
    if benchmark.stats:  # none under --benchmark-disable
        rate = why.flops / benchmark.stats["median"]
        benchmark.extra_info["GFLOP/s"] = rate / 1e9
        if described["peak"]:
            benchmark.extra_info["share of peak"] = rate / described["peak"]
