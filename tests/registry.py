"""What tests replace of the registry of backends and of the caches, for as long as a test takes."""

from __future__ import annotations

import copy

from fastconv.dispatch import backends, call_cache
from fastconv.problem import geometry
from fastconv.problem.recent import Recent


def copied_registry():
    """The registry as it is: to register, load or withdraw a backend changes the copy alone."""
    return {name: copy.copy(registered) for name, registered in backends._registry.items()}


def empty_caches(monkeypatch):
    """Neither what was worked out before the test is remembered in it, nor what it works out afterwards."""
    monkeypatch.setattr(geometry, "_lately", Recent(512))
    monkeypatch.setattr(call_cache, "_kept", Recent(512))
