"""Converts maps for kernels that take them in C order only, and counts the copies as cost and workspace."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastconv.planner.request import Proposal, Request
from fastconv.problem.arrays import Array


def converted(request: Request, strided: tuple[str, ...]) -> tuple[str, ...]:
    """The maps of a contraction that are not in C order, and not among those that the kernel takes with any strides."""
    return tuple(
        role
        for role, order in request.orders._asdict().items()
        if order is not None and role not in strided and request.layout is not None
    )


def with_cost(proposal: Proposal, request: Request, roles: tuple[str, ...]) -> Proposal:
    """The proposal with the cost of converting these maps, which one thread does while the others wait.

    The cost of a weight gradient is the same for any number of threads. It selects the kernel, and so the order of
    additions.
    """
    if not roles:
        return proposal
    waiting = request.model.work_items if request.target == "weight" else proposal.sharing
    vectors = _elements(request, roles) / request.tiles.lanes
    return proposal._replace(cost=proposal.cost + vectors * request.model.convert_vector * waiting)


def workspace(request: Request, roles: tuple[str, ...]) -> int:
    """The bytes of the copies."""
    return request.itemsize * _elements(request, roles)


def converting(run: Any, request: Request, roles: tuple[str, ...]) -> Any:
    """`run`, which takes these maps in C order, for maps of any strides. It may be a `FinishingRun`."""
    if not roles:
        return run
    first_role, second_role = (role for role in ("large", "small", "weight") if role != request.target)
    convert_first, convert_second, convert_out = (role in roles for role in (first_role, second_role, request.target))

    def run_converted(first: Array, second: Array, bias: Array | None, out: Array, *finish: Any) -> None:
        if convert_first:
            first = np.ascontiguousarray(first)
        if convert_second:
            second = np.ascontiguousarray(second)
        written = np.empty(out.shape, out.dtype) if convert_out else out
        if finish and convert_out:
            residual, *activation = finish
            finish = None if residual is None else np.ascontiguousarray(residual), *activation
        run(first, second, bias, written, *finish)
        if convert_out:
            out[...] = written

    return run_converted


def _elements(request: Request, roles: tuple[str, ...]) -> int:
    return sum(math.prod(getattr(request.geometry, f"{role}_shape")) for role in roles)
