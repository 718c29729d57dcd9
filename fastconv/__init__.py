"""fastconv: convolution and transposed convolution on the CPU, forward and with all gradients, for NumPy arrays.

The package is built in floors; imports only point down.

    functional  plans  grad  nn  matrix  cli    the public functions, thin
    dispatch                                one call: backend, algorithm, threads, denormals, call cache, explain
    planner                                 how a problem is computed: the kernels, their cost and their plans
    backends                                the engines, and the contract that they keep
    kernels                                 what a pass does with memory, written once for the compiled engines
    problem                                 geometry, axes, phases, padding, arrays, errors, the reference

Importing it loads NumPy and nothing heavier; an engine loads on its first use.
"""

from fastconv import grad, nn
from fastconv.backends.memory import get_memory_limit, release_memory, set_memory_limit
from fastconv.dispatch.algorithms import get_algorithm, set_algorithm, use_algorithm
from fastconv.dispatch.backends import available_backends, get_backend, register_backend, set_backend, use_backend
from fastconv.dispatch.denormals import get_flush_denormal, set_flush_denormal
from fastconv.dispatch.explain import Explanation, explain
from fastconv.dispatch.threads import get_num_threads, set_num_threads
from fastconv.functional import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from fastconv.matrix import conv2d_matrix
from fastconv.plans import ConvPlan, plan_conv1d, plan_conv2d, plan_conv_transpose1d, plan_conv_transpose2d
from fastconv.problem.errors import (
    ArgumentError,
    BackendUnavailableError,
    DTypeError,
    FastconvError,
    MissingExtraError,
    ShapeError,
    UsageError,
)
from fastconv.version import __version__

__all__ = [
    "ArgumentError",
    "BackendUnavailableError",
    "ConvPlan",
    "DTypeError",
    "Explanation",
    "FastconvError",
    "MissingExtraError",
    "ShapeError",
    "UsageError",
    "__version__",
    "available_backends",
    "conv1d",
    "conv2d",
    "conv2d_matrix",
    "conv_transpose1d",
    "conv_transpose2d",
    "explain",
    "get_algorithm",
    "get_backend",
    "get_flush_denormal",
    "get_memory_limit",
    "get_num_threads",
    "grad",
    "nn",
    "plan_conv1d",
    "plan_conv2d",
    "plan_conv_transpose1d",
    "plan_conv_transpose2d",
    "register_backend",
    "release_memory",
    "set_algorithm",
    "set_backend",
    "set_flush_denormal",
    "set_memory_limit",
    "set_num_threads",
    "use_algorithm",
    "use_backend",
]
