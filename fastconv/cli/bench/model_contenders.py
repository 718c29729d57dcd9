"""The contenders of whole networks: ways to compute what a module of PyTorch's does.

Each runs inside its own process. `timed` gives one function without arguments to call and to time, after it was called,
so that whatever compiles has compiled. All but eager's are given the very module that eager runs.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastconv.cli.bench.contenders import missing
from fastconv.cli.bench.interface import Timed
from fastconv.cli.bench.libraries import onnxruntime_session, share_onnxruntime
from fastconv.cli.bench.models import KINDS, Case, Network, network, smoothed
from fastconv.dispatch import backends, threads
from fastconv.problem.arrays import Array
from fastconv.problem.extras import require

#: From a module in evaluation or training mode to what is called in its place.
Wrap: TypeAlias = Callable[[Any, str], Any]
#: From a module in evaluation mode, its input and a number of threads to a call that returns an array.
Session: TypeAlias = Callable[[Any, Any, int], Timed]

#: Arrays by their names, in groups that are compared by one measure.
Results: TypeAlias = dict[str, dict[str, Array]]

#: Calls after which a contender is ready, of which the first compiles.
_READY = 3
#: So small that a thousand steps on one batch leave a network's numbers about as they were.
_RATE = 1e-5


class Way(NamedTuple):
    """A contender.

    wrap      how it runs in PyTorch, None if it does not
    session   how it runs elsewhere, for inference
    kinds     those of `KINDS` that it has
    packages  what it needs beside PyTorch, and the extra that has them
    is_ours   whether fastconv convolves
    """

    wrap: Wrap | None = None
    session: Session | None = None
    kinds: Sequence[str] = KINDS
    packages: tuple[str, ...] = ()
    extra: str = "torch"
    is_ours: bool = False


def timed(name: str, case: Case, count: int) -> tuple[Timed, Results]:
    """The call of a contender on `count` threads, and what it computes from the network's first numbers."""
    way = WAYS[name]
    require("torch", "torch", "--model").set_num_threads(count)
    threads.set_num_threads(count)
    backends.set_backend(case.backend)
    definition = network(case)
    with _compiling():
        if way.session is not None:
            call, results = _inference(way.session(definition.module, definition.input, count))
        else:
            assert way.wrap is not None
            make = _step if case.kind == "training" else _forward
            call, results = make(definition, way.wrap)
        for _ in range(_READY - 1):
            call()
    return call, results


def names() -> dict[str, str | None]:
    """All contenders, with the reason why one cannot run here, or None; eager first."""
    return {name: missing(("torch", *way.packages), way.extra) for name, way in WAYS.items()}


def names_of(kind: str, chosen: Sequence[str]) -> list[str]:
    """Those of the contenders that have this kind of call."""
    return [name for name in chosen if kind in WAYS[name].kinds]


def _forward(definition: Network, wrap: Wrap) -> tuple[Timed, Results]:
    torch = require("torch", "torch", "--model")
    run = wrap(definition.module, "inference")

    def call() -> Any:
        with torch.inference_mode():
            return run(definition.input)

    return _inference(call)


def _inference(call: Timed) -> tuple[Timed, Results]:
    return call, {"result": {"the result": np.array(call())}}


def _step(definition: Network, wrap: Wrap) -> tuple[Timed, Results]:
    """A training step: forward, loss, backward, and stochastic gradient descent. Its results are those of the first,
    and the gradients of the network with smooth functions."""
    torch = require("torch", "torch", "--model")
    smooth = smoothed(definition)
    run = wrap(definition.module, "training")
    optimizer = torch.optim.SGD(run.parameters(), lr=_RATE)

    def call() -> Any:
        optimizer.zero_grad()
        loss = definition.loss(run(definition.input))
        loss.backward()
        optimizer.step()
        return loss

    loss, gradients = _gradients(definition, run)
    results = {"loss": {"the loss": loss}, "gradient": gradients}
    if smooth is not None:
        _, results["smooth gradient"] = _gradients(smooth, wrap(smooth.module, "training"))
    return call, results


def _gradients(definition: Network, run: Any) -> tuple[Array, dict[str, Array]]:
    """The loss, and the gradients of all parameters by their names."""
    loss = definition.loss(run(definition.input))
    loss.backward()
    return np.array(loss.detach()), {
        f"the gradient of {name.removeprefix('_orig_mod.')}": np.array(parameter.grad)
        for name, parameter in run.named_parameters()
    }


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """Silences what compilers and exporters say of themselves. Their progress bars get a lock of this process, as the
    usual one is a semaphore of the system's, which a process that is killed leaves behind."""
    require("tqdm", "bench", "--model").tqdm.set_lock(threading.RLock())
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _eager(module: Any, kind: str) -> Any:
    return module


def _compiled(module: Any, kind: str) -> Any:
    """Inductor, which for inference may fold and pack constant weights. It compiles in this process, as others would
    outlive it."""
    settings = require("torch._inductor.config", "torch", "--model")
    settings.freezing, settings.compile_threads = kind == "inference", 1
    return require("torch", "torch", "--model").compile(module)


def _converted(module: Any, kind: str) -> Any:
    return importlib.import_module("fastconv.torch").convert(module)


def _installed(module: Any, kind: str) -> Any:
    importlib.import_module("fastconv.torch").install()
    return module


def _by_backend(module: Any, kind: str) -> Any:
    importlib.import_module("fastconv.torch")
    return require("torch", "torch", "--model").compile(module, backend="fastconv")


def _onnxruntime(module: Any, x: Any, count: int) -> Timed:
    """A session of the model that PyTorch exports."""
    torch = require("torch", "torch", "--model")
    require("onnxruntime", "bench", "the contender onnxruntime")
    share_onnxruntime(count)
    exported = torch.onnx.export(module, (x,), dynamo=True, verbose=False).model_proto.SerializeToString()
    session = onnxruntime_session(exported)
    inputs = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, inputs)[0]


def _openvino(module: Any, x: Any, count: int) -> Timed:
    """The module converted by OpenVINO; float32 in float32, where its default may be bfloat16."""
    library = require("openvino", "openvino", "the contender openvino")
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": count, "INFERENCE_PRECISION_HINT": "f32"}
    converted = library.convert_model(module, example_input=x, input=list(x.shape))
    request = library.Core().compile_model(converted, "CPU", hints).create_infer_request()
    array = x.numpy()
    return lambda: np.array(request.infer([array], share_inputs=True)[0])


#: By name. The first one's results are those that the others must have.
WAYS: Mapping[str, Way] = {
    "eager": Way(_eager),
    "compile": Way(_compiled),
    "onnxruntime": Way(
        None, _onnxruntime, ("inference",), packages=("onnx", "onnxscript", "onnxruntime"), extra="bench"
    ),
    "openvino": Way(None, _openvino, ("inference",), packages=("openvino",), extra="openvino"),
    "convert": Way(_converted, is_ours=True),
    "install": Way(_installed, is_ours=True),
    "backend": Way(_by_backend, kinds=("inference",), is_ours=True),
}
