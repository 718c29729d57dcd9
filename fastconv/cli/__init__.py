"""The command line: `python -m fastconv info | explain | bench | demo | warmup`, also installed as `fastconv`.

Each command is a module of its own, imported only when it is asked for: `add_arguments(parser)` declares its options
and `run(options)` does its work and returns the exit status.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from fastconv.ground.errors import FastconvError

_SIGPIPE = 13
#: The commands, each with the line that help shows for it.
COMMANDS = {
    "info": "engines and why not, instruction set, threads, versions",
    "explain": "which backend and algorithm a layer gets, and why",
    "bench": "time layers side by side with PyTorch, ONNX Runtime and other engines",
    "warmup": "compile ahead what the first calls would compile",
    "demo": "train a small super-resolution network on two photographs",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0; 1 for an error of fastconv's, 2 for wrong usage, and 141 if what reads the output has ended.
    """
    parser = argparse.ArgumentParser(prog="fastconv", description="Convolution on the CPU for NumPy arrays.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    words = sys.argv[1:] if arguments is None else list(arguments)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if words[:1] == [name]:
            command = importlib.import_module(f"fastconv.cli.{name}")
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    options = parser.parse_args(words)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
    except FastconvError as error:
        print(f"fastconv {options.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe, such as `head`, wants no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the interpreter's last flush goes
        return 128 + _SIGPIPE
    return status
