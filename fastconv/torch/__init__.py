"""PyTorch on the CPU, computed by fastconv: functions, converted models, and a backend of `torch.compile`.

    conv1d, conv2d, conv_transpose1d, conv_transpose2d   functions of tensors, as those of `torch.nn.functional`
    Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d     layers, as those of `torch.nn`
    convert(module), report(module)                      a model's layers compute here; revert=True goes back
    install(), uninstall()                               all convolutions of the process do, where that is faster
    torch.compile(model, backend="fastconv")             inference with batch norms, activations and residuals fused
    optimize(model, example)                             the same without a compiler

Importing this needs PyTorch: `pip install "fastconv[torch]"`.

>>> import torch
>>> import fastconv.torch as ft
>>> image, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2, requires_grad=True)
>>> ft.conv2d(image, weight).sum().backward()
>>> weight.grad
tensor([[[[4., 4.],
          [4., 4.]]]])
"""

from fastconv.problem.errors import MissingExtraError
from fastconv.problem.extras import require

#: The oldest PyTorch that has all that this package uses; pyproject.toml names it as well.
OLDEST = 2, 6

# the modules below import torch, so its absence is told first
# ruff: noqa: E402
_torch = require("torch", "torch", "fastconv.torch")
if tuple(map(int, _torch.__version__.split(".")[:2])) < OLDEST:
    raise MissingExtraError(
        f"fastconv.torch needs PyTorch {'.'.join(map(str, OLDEST))} or newer, not {_torch.__version__}; "
        'install it with: pip install -U "fastconv[torch]"'
    )

from fastconv.torch import operators as _operators  # noqa: F401 (it registers the operators)
from fastconv.torch.compiler import optimize
from fastconv.torch.convert import Report, convert, report
from fastconv.torch.functional import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from fastconv.torch.installed import install, uninstall
from fastconv.torch.layers import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d

__all__ = [
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Report",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "convert",
    "install",
    "optimize",
    "report",
    "uninstall",
]
