"""Contenders of the benchmark that compute nothing."""

from __future__ import annotations

import numpy as np

from fastconv.cli.bench import contenders
from fastconv.cli.bench.child import Prepared
from fastconv.cli.bench.libraries import Sessions

#: The libraries that have a session for each weight, no gradients and no channels-last maps.
SESSIONS = {name for name, (library, *_) in contenders.OTHERS.items() if issubclass(library, Sessions)}


class FakeWorker:
    """A contender whose turns take what they are told."""

    def __init__(self, name, times):
        self.name, self._times = name, iter(times)

    def prepare(self, problem, which):
        return Prepared(np.ones(3, np.float32), None)

    def turn(self, problem, which, seconds):
        return next(self._times)

    def forget(self):
        pass


class Recording:
    """A contender whose calls note where the arrays lie that they read, and in one of them the weight's session."""

    def __init__(self, sessions=None):
        self.sessions, self.read, self.made = sessions, [], 0

    def new_map(self, shape, dtype, channels_last=False):
        return np.empty(shape, dtype)

    new_weight = new_map

    def as_map(self, own):
        return np.asarray(own)

    def forward(self, problem, weight, bias=None):
        self.made += 1
        return lambda x: self.read.append((x, weight))

    def gradient(self, problem, which, x, w, dy):
        arrays = (x, w, dy)
        return lambda: self.read.append(tuple(arrays[index] for index in contenders.READS[which]))
