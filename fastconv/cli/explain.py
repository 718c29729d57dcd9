"""`fastconv explain`: which backend and algorithm a layer gets, and why."""

from __future__ import annotations

import argparse
import ast
import warnings
from typing import Any

from fastconv.dispatch.explain import OPERATIONS, explain

_PARAMETERS = ("stride", "padding", "output_padding", "output_size", "dilation", "groups", "padding_mode")


def _literal(text: str) -> Any:
    """The number or tuple that `text` writes, or else `text` itself."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # what Python's documentation lists
        return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The layer as words: `explain conv2d 1,64,56,56 64,64,3,3 --padding 1`."""
    parser.add_argument("operation", metavar="OPERATION", help=", ".join(OPERATIONS))
    parser.add_argument("input_shape", metavar="INPUT", type=_literal, help="shape of the input, such as 1,64,56,56")
    parser.add_argument("weight_shape", metavar="WEIGHT", type=_literal, help="shape of the weight, such as 64,64,3,3")
    for name in _PARAMETERS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=_literal, metavar="VALUE", default=argparse.SUPPRESS,
                            help="as in the call")  # fmt: skip
    parser.add_argument("--dtype", default="float32", help="dtype of the arrays (default: float32)")
    parser.add_argument("--backend", help="as in the call")
    parser.add_argument("--algorithm", default="auto", help="as in the call")


def run(options: argparse.Namespace) -> int:
    """Print the explanation."""
    given = {name: getattr(options, name) for name in _PARAMETERS if hasattr(options, name)}
    why = explain(
        options.operation, options.input_shape, options.weight_shape,
        dtype=options.dtype, backend=options.backend, algorithm=options.algorithm, **given,
    )  # fmt: skip
    print(why)
    return 0
