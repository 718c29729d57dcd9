"""The registries in tests: the kernels that apply to a request, which of them are exact, and what tests replace."""

from __future__ import annotations

import contextlib
import copy

import numpy as np

import fastconv as fc
from fastconv.backends.contract import is_tiled
from fastconv.dispatch import backends, call_cache
from fastconv.planner import registry
from fastconv.problem import geometry
from fastconv.problem.recent import Recent

#: The tile engines that run here.
TILED = [name for name in fc.available_backends() if is_tiled(backends.pick(name, np.dtype("f")))]


def copied_registry():
    """The registry as it is: to register, load or withdraw a backend changes the copy alone."""
    return {name: copy.copy(registered) for name, registered in backends._registry.items()}


def empty_caches(monkeypatch):
    """Neither what was worked out before the test is remembered in it, nor what it works out afterwards."""
    monkeypatch.setattr(geometry, "_lately", Recent(512))
    monkeypatch.setattr(call_cache, "_kept", Recent(512))


def forget():
    """Forget what was planned before."""
    geometry._lately.clear()
    call_cache.forget()


@contextlib.contextmanager
def only(*names):
    """A context in which these kernels run wherever one of them applies, in calls that were planned before as well."""
    with registry.only(*names):
        forget()
        yield
    forget()


def able(request):
    """The names of the kernels that apply to a request, chosen or not."""
    return [
        name
        for name, kernel in registry.KERNELS.items()
        if kernel.tiled is (request.layout is not None)
        and request.target in kernel.makes
        and kernel.applies(request) is None
    ]


def is_exact(name):
    """Whether a kernel adds up the products of the definition, so that sums of small integers have no rounding."""
    return registry.KERNELS[name].algorithm == "direct"


def assert_computed(found, expected, name, message=""):
    """A result from small integers by the kernel `name`: the expected numbers, or within rounding if it is not exact.

    The bound is for float32, numbers up to 3 and tens of channels. A missing product is at least 1.
    """
    message = f"{message}, {name}"
    if is_exact(name):
        np.testing.assert_array_equal(found, expected, err_msg=message)
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2, err_msg=message)
