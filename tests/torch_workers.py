"""What worker processes of PyTorch compute in tests: a data set, and a step of parallel training."""

from __future__ import annotations

import contextlib
import functools
import pathlib

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastconv as fc
import fastconv.torch as ft
from fastconv.problem import process
from fastconv.torch import compute


class Filtered(torch.utils.data.Dataset):
    """Random images filtered by a function, then by a converted model; with the threads of the process."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.weight = torch.randn(16, 8, 3, 3)
        layers = nn.Conv2d(16, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 4, 4, stride=2)
        self.model = ft.convert(nn.Sequential(*layers)).eval()

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int, bool]:
        image = torch.randn(8, 64, 64, generator=torch.Generator().manual_seed(index))
        with torch.no_grad():
            filtered = ft.conv2d(image, self.weight, padding=1)
            return filtered, self.model(filtered[None]), fc.get_num_threads(), process.was_forked()


#: How fastconv comes to compute a model: converted before it is parallel, after it, or not at all but installed.
WAYS = ["converted", "converted after"] + ["installed"] * hasattr(torch.library, "get_kernel")

#: Calls of a step that fastconv computes: three layers forward, three weights' gradients, and two inputs'.
CALLS = {"forward": 3, "weight_gradient": 3, "input_gradient": 2}


def batch() -> torch.Tensor:
    """The images of a step."""
    return torch.randn(8, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def trained(way: str, images: torch.Tensor, is_parallel: bool) -> dict[str, torch.Tensor]:
    """Gradients and parameters of a model after a step on these images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(24, 3, 4, stride=2, padding=1),
    )  # fmt: skip
    if way == "converted":
        ft.convert(model)
    parallel = DistributedDataParallel(model) if is_parallel else model
    if way == "converted after":
        ft.convert(parallel)
    with ft.install() if way == "installed" else contextlib.nullcontext(), counted() as calls:
        (parallel(images) - images).square().mean().backward()
    assert calls == CALLS, calls
    found = {}
    with torch.no_grad():  # without an optimizer, as the first step of one loads PyTorch's compiler
        for name, parameter in model.named_parameters():
            found[f"gradient of {name}"] = parameter.grad
            found[name] = parameter.sub_(parameter.grad, alpha=0.1)
    return found


@contextlib.contextmanager
def counted():
    """How often each contraction is computed here meanwhile."""
    calls = dict.fromkeys(CALLS, 0)
    before = {name: getattr(compute, name) for name in CALLS}

    def count(name, *given):
        calls[name] += 1
        return before[name](*given)

    for name in CALLS:
        setattr(compute, name, functools.partial(count, name))
    try:
        yield calls
    finally:
        for name in CALLS:
            setattr(compute, name, before[name])


def rank(number: int, processes: int, folder: str) -> None:
    """One process of parallel training: a step on its part of the batch in each way, written to `folder`."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", processes)
    torch.distributed.init_process_group("gloo", store=store, rank=number, world_size=processes)
    for way in WAYS:
        found = trained(way, batch().chunk(processes)[number], is_parallel=True)
        torch.save(found, pathlib.Path(folder, f"{way} {number}"))
    torch.distributed.destroy_process_group()
