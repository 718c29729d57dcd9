"""Words that call a compiled pass at its address, in Numba's own convention, by which it tells whether it failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numba.core import types

from fastconv.backends.numba.llvm import make_intrinsic


def call_at(context: Any, builder: Any, function: Any, arguments: Sequence[Any]) -> Any:
    """Call the pass at an address, with integers for arguments; whether it failed, as Numba's convention tells."""
    kinds = (types.int64,) * len(arguments)
    conventions = context.call_conv
    callee = builder.inttoptr(function, conventions.get_function_type(types.void, kinds).as_pointer())
    return conventions.call_function(builder, callee, types.void, kinds, arguments)[0].is_error


def _call(typing_context: Any, function: Any, *arguments: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call_at(context, builder, values[0], values[1:])

    return types.boolean(types.int64, *(types.int64,) * len(arguments)), codegen


#: The arguments of `call`: a pass's address, and what it takes.
CALLED = [
    "function",
    "plans",
    "number",
    "tables",
    "source",
    "factor",
    "bias",
    "out",
    "space",
    "counters",
    "worker",
    "workers",
]
#: call(function, ...): the compiled pass at an address, with its arguments; whether it failed.
call = make_intrinsic(CALLED, _call)
