"""The command line: `python -m fastconv info | explain | bench | demo | warmup`, also installed as `fastconv`.

Each command is a module of its own, imported only when it runs: `add_arguments(parser)` declares its options, and
`run(options)` does its work and returns the exit status.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from fastconv.cli import streams
from fastconv.problem.errors import FastconvError

_INTERRUPTED, _NO_READER = 130, 141  # 128 and the number of the signal
#: The commands, each with the line that help shows for it.
COMMANDS = {
    "info": "engines that run and why others do not, instruction set, threads, versions",
    "explain": "which backend and algorithm a layer gets, and why",
    "bench": "time layers side by side with PyTorch, ONNX Runtime and other engines",
    "warmup": "compile ahead what the first calls would compile, and measure the machine",
    "demo": "train a small super-resolution network on two photographs",
}


class _Parser(argparse.ArgumentParser):
    """Raises if standard output is full, where argparse's own help printing would ignore it."""

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 if all went well; 1 after an error, with a line on standard error; 2 for wrong usage; 130 if interrupted; 141 if
    the reader of the output has ended.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    command = " ".join(["fastconv", *(word for word in words[:1] if word in COMMANDS)])
    try:
        with streams.usable():
            try:
                return _run(words)
            except FastconvError as error:
                print(f"{command}: {streams.line(error)}", file=sys.stderr)
                return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        streams.give_up_output()
        if isinstance(error, BrokenPipeError):  # the reader of a pipe, such as `head`, wants no more
            return _NO_READER
        print(f"{command}: {streams.line(error)}", file=sys.stderr)
        return 1


def _run(words: Sequence[str]) -> int:
    parser = _Parser(prog="fastconv", description="Convolution on the CPU for NumPy arrays.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if words[:1] == [name]:
            command = importlib.import_module(f"fastconv.cli.{name}")
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    options = parser.parse_args(words)
    return int(options.run(options))
