"""What this package takes from PyTorch that has no public name, in one module.

Tested with PyTorch 2.13. Each function says what is relied on; tests of operators, transforms and compiled graphs fail
if it changes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

_PLAIN = {torch.Tensor, torch.nn.Parameter}


def are_plain(*tensors: torch.Tensor | None) -> bool:
    """Whether these are CPU tensors with memory of their own and nothing looks at what is called with them.

    Something may: a compiler or tracer, a mode such as `FlopCounterMode` or `FakeTensorMode`, a transform such as
    `torch.func.vmap`, forward-mode differentiation, autocast, a subclass of `Tensor`. It sees the registered operators.
    """
    if (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
    ):
        return False
    for tensor in tensors:  # a loop takes half of the time of a generator
        if tensor is not None and not (type(tensor) in _PLAIN and tensor.is_cpu and tensor.layout is torch.strided):
            return False
    return True


def is_strided(tensor: torch.Tensor) -> bool:
    """Whether a CPU tensor is no subclass and has memory of its own."""
    return type(tensor) in _PLAIN and tensor.is_cpu and tensor.layout is torch.strided


def are_transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is active."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def constant_in_graphs(function: Any) -> Any:
    """`torch.compiler.assume_constant_result`, which would load the compiler."""
    function._dynamo_marked_constant = True
    return function


def can_replace_kernels() -> bool:
    """Whether this PyTorch has a way to the kernel that was there before; 2.9 and newer have."""
    return hasattr(torch.library, "get_kernel")


def below_autocast() -> Any:
    """A context in which operators skip autocast, as in the kernels that PyTorch registers for it."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    return torch._C._ExcludeDispatchKeyGuard(keys)


def inductor() -> Any:
    """PyTorch's own backend of `torch.compile`."""
    return torch._dynamo.lookup_backend("inductor")
