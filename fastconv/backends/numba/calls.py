"""`call`: an intrinsic that calls a compiled pass at its address."""

from __future__ import annotations

from typing import Any

from fastconv.backends.numba.llvm import make_intrinsic
from fastconv.backends.numba.numba_internals import call_at, types


def _call(typing_context: Any, function: Any, *arguments: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call_at(context, builder, values[0], values[1:])

    return types.boolean(types.int64, *(types.int64,) * len(arguments)), codegen


#: The arguments of `call`: the address of a pass, then the arguments of the pass.
CALLED = ["function", "plans", "number", "tables", "source", "factor", "bias", "out", "finish", "space", "counters",
          "worker", "workers"]  # fmt: skip
#: call(function, ...): run the pass; returns whether it raised.
call = make_intrinsic(CALLED, _call)
