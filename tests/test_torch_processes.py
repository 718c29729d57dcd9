"""PyTorch's ways to many processes, with convolutions computed here: data loaders, parallel training, serving."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import re
import subprocess
import sys

import pytest
from scripts import python

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this PyTorch has no gloo", allow_module_level=True)

import torch_workers  # noqa: E402

import fastconv as fc  # noqa: E402

EXAMPLES = pathlib.Path(__file__).parent.parent / "docs" / "examples"
CONTEXTS = multiprocessing.get_all_start_methods()
#: Processes of one machine find each other without its network.
LOCAL = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
#: The engine that loads soonest, where a test is not about engines.
SOON = {"FASTCONV_BACKEND": "cython"} if "cython" in fc.available_backends() else {}
QUIET = "import warnings; warnings.filterwarnings('ignore', '.*fork.*', DeprecationWarning)\n"


def test_data_loaders_compute_what_their_parent_does():
    """The parent has computed with two threads before, so a forked worker has their pool's ruins."""
    code = QUIET + (
        "import multiprocessing, torch, fastconv as fc, fastconv.torch as ft\n"
        "from torch_workers import Filtered\n"
        "multiprocessing.set_forkserver_preload(['torch_workers'])\n"
        "torch.set_num_threads(2)\n"
        "data = Filtered()\n"
        "x, w = torch.randn(8, 16, 64, 64), torch.randn(16, 16, 3, 3, requires_grad=True)\n"
        "ft.conv2d(x, w).square().sum().backward(); torch.ones(3_000_000).exp().sum()\n"
        "expected = list(map(data.__getitem__, range(len(data))))\n"
        "assert {threads for *_, threads, _ in expected} == {2}\n"
        f"for context in {CONTEXTS}:\n"
        "    loader = torch.utils.data.DataLoader(\n"
        "        data, batch_size=None, num_workers=2, multiprocessing_context=context, timeout=100)\n"
        "    same = [torch.equal(a, b) and torch.equal(c, d) and threads == 1 and forked == (context != 'spawn')\n"
        "            for (a, c, threads, forked), (b, d, *_) in zip(loader, expected, strict=True)]\n"
        "    print(context, same.count(True))\n"
    )
    done = python(code, timeout=250)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [word for context in CONTEXTS for word in (context, "6")], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_trains():
    """With one thread of PyTorch's, whose pool is lost as ours is, it finds what its parent does with two."""
    code = QUIET + (
        "import os, signal, torch\n"
        "from torch_workers import WAYS, batch, trained\n"
        "torch.set_num_threads(2)\n"
        "for way in WAYS:\n"
        "    expected = trained(way, batch(), is_parallel=False)\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        signal.alarm(60); torch.set_num_threads(1); status = 1\n"
        "        try:\n"
        "            torch.testing.assert_close(trained(way, batch(), is_parallel=False), expected)\n"
        "            status = 0\n"
        "        finally:\n"
        "            os._exit(status)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = python(code, timeout=100, **SOON)
    assert done.stdout.split() == ["0"] * len(torch_workers.WAYS), done.stderr


def test_parallel_training_is_that_of_one_process(tmp_path):
    """Averaged over two processes, gradients are those of the whole batch but for rounding, and the same in both."""
    code = (
        "import sys, torch\n"
        "from torch_workers import rank\n"
        "torch.multiprocessing.spawn(rank, (2, sys.argv[1]), nprocs=2)"
    )
    done = python(code, str(tmp_path), timeout=200, **LOCAL, **SOON)
    assert done.returncode == 0, done.stderr
    for way in torch_workers.WAYS:
        expected = torch_workers.trained(way, torch_workers.batch(), is_parallel=False)
        first, second = (torch.load(tmp_path / f"{way} {number}") for number in range(2))
        assert first.keys() == second.keys() == expected.keys()
        for name, values in expected.items():
            assert torch.equal(first[name], second[name]), (way, name)
            torch.testing.assert_close(first[name], values, atol=1e-6, rtol=1e-4, msg=f"{way}, {name}")


def example(name: str, *command: str) -> str:
    """What an example of docs/pytorch-processes.md prints."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, *command, str(EXAMPLES / name)], capture_output=True, text=True, check=False, timeout=200,
        env=environment | LOCAL | SOON,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_of_a_data_loader():
    assert example("loader.py", "-W", "error").splitlines() == ["(16, 3, 64, 64)"] * 2


def test_the_example_of_serving():
    assert example("serve.py", "-W", "error").splitlines() == ["(1, 3, 60, 60) float32"] * 8


@pytest.mark.slow
def test_the_example_of_training_by_torchrun():
    """The loss falls, and each process has the one thread that torchrun gives it."""
    told = example("train.py", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    rows = re.findall(r"^epoch (\d): loss (\S+), 2 processes, threads 1$", told, re.MULTILINE)
    assert [number for number, _ in rows] == ["0", "1", "2"]
    assert float(rows[-1][1]) < 0.5 * float(rows[0][1])
