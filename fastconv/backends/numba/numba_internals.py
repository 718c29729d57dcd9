"""Everything that the engine uses of Numba and llvmlite beyond their documented interfaces; no other module touches it.

Numba promises nothing about these parts, so each entry says what it relies on and how it fails where that has changed.
All of it is the same from Numba 0.61 (`OLDEST`) to 0.68 (`PROVED`); CI runs the whole engine with both, and
pyproject.toml lets pip install nothing newer. A newer Numba that was installed all the same is tried. If a part is
missing, loading the engine or compiling its first function raises; that becomes the backend's reason, `auto` logs it
and takes the next backend.

The lock that Numba compiles under is also looked up by `dispatch.backends`, in `sys.modules`: a fork must wait for it
even if only other libraries use Numba.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic

from fastconv.problem.errors import BackendUnavailableError

#: The oldest minor version of Numba that the engine works with, and the newest that CI has run it with.
OLDEST, PROVED = (0, 61), (0, 68)


def unproved() -> str:
    """What to add to the reason of a failure: a hint if this Numba is newer than `PROVED`, and nothing otherwise."""
    found = re.match(r"(\d+)\.(\d+)", numba.__version__)  # a developer's build may have no numbers
    if found is not None and tuple(map(int, found.groups())) <= PROVED:
        return ""
    newest = ".".join(map(str, PROVED))
    return f" (this is Numba {numba.__version__}; fastconv is tested with Numba up to {newest})"


try:
    import llvmlite
    import llvmlite.binding
    from llvmlite import ir
    from numba.core import cgutils, config, targetconfig
    from numba.core.compiler import CompileResult, compile_internal
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target
    from numba.np.numpy_support import from_dtype
except ImportError as error:
    raise BackendUnavailableError(
        f"a part of Numba that the engine needs does not load: {error}{unproved()}"
    ) from error

__all__ = ["config", "from_dtype", "intrinsic", "ir", "types"]
# config: Numba's settings as attributes of a module, and `reload_config()`, which reads the variables anew. An engine
# without a setting that `variables` overrides is not affected by it.
# from_dtype: the type of a NumPy record, whose values are pointers; compiling the first pass fails where they are not.
# ir: llvmlite's builders of LLVM instructions, with typed pointers: `Type.as_pointer()`, `builder.bitcast`. A llvmlite
# without typed pointers raises when the first function is compiled.

_log = logging.getLogger("fastconv")

#: Numba's modules of the threading layers. A layer that is not installed raises ImportError when it is imported.
TBB, OMP, WORKQUEUE = (f"numba.np.ufunc.{name}" for name in ("tbbpool", "omppool", "workqueue"))


# ---- versions and the processor


def versions() -> tuple[str, str]:
    """Of Numba and of llvmlite, which together make the machine code."""
    return numba.__version__, llvmlite.__version__


def host_features() -> dict[str, bool]:
    """LLVM's names of this processor's features, and whether it has them."""
    return dict(llvmlite.binding.get_host_cpu_features())


def architecture() -> str:
    """The processor family for which LLVM generates code in this process, such as x86_64."""
    return str(llvmlite.binding.get_process_triple().partition("-")[0])


# ---- the code generator


def code_generator() -> Any:
    """The generator that Numba makes once per process and compiles every function with.

    Relies on `registry.cpu_target.target_context.codegen()`.
    """
    return cpu_target.target_context.codegen()


def new_code_generator() -> Any:
    """A generator as Numba would make it now, from the variables as they are.

    Relies on the class of the present one, which takes the name of a module.
    """
    return type(code_generator())("anew")


def target_of(generator: Any) -> tuple[str, ...]:
    """The platform, the processor's name and its features as `+name,-name`, for which a generator makes code.

    Relies on `magic_tuple()`, by which Numba's own disk cache distinguishes processors.
    """
    return tuple(map(str, generator.magic_tuple()))


def assembly(generator: Any, llvm: str) -> str:
    """The assembly that a generator makes of a module in LLVM's language.

    Relies on `_tm`, llvmlite's target machine.
    """
    return str(generator._tm.emit_assembly(llvmlite.binding.parse_assembly(llvm)))


def compiler_lock() -> AbstractContextManager[Any]:
    """The lock that Numba holds while it compiles; the thread that has it can take it again."""
    return global_compiler_lock  # type: ignore[no-any-return]


# ---- LLVM instructions inside of a function that is being compiled


def declared(builder: Any, kind: Any, name: str) -> Any:
    """The function `name` of type `kind`, such as an LLVM intrinsic, declared in the module that is being built.

    Relies on `cgutils.get_or_insert_function`.
    """
    return cgutils.get_or_insert_function(builder.module, kind, name)


def on_stack(builder: Any, kind: Any) -> Any:
    """A pointer to memory for one value of type `kind` in the function's stack frame; by `cgutils.alloca_once`."""
    return cgutils.alloca_once(builder, kind)


def nothing(context: Any) -> Any:
    """What an intrinsic of type void returns; by `context.get_dummy_value`."""
    return context.get_dummy_value()


def call_at(context: Any, builder: Any, function: Any, arguments: Sequence[Any]) -> Any:
    """Call the function without a result at an address, with integers as arguments; returns whether it raised.

    Relies on Numba's calling convention, `context.call_conv`: which LLVM type a function has, and that a call returns
    (status, result), whose `status.is_error` tells whether it raised. Both sides of the call are compiled with the same
    Numba, so a changed convention does no harm as long as these names exist.
    """
    kinds = (types.int64,) * len(arguments)
    convention = context.call_conv
    callee = builder.inttoptr(function, convention.get_function_type(types.void, kinds).as_pointer())
    status, _ = convention.call_function(builder, callee, types.void, kinds, arguments)
    return status.is_error


def compile_into(context: Any, function: Any, signature: Any) -> Any:
    """Compile a Python function into the module that is being built; returns a descriptor for `call_compiled`.

    Relies on `compile_internal`, with a copy of the flags of the function that is being compiled. `no_compile` keeps
    the function from being optimized and emitted by itself; the other two flags leave out its wrappers for Python and
    C. An unknown flag raises. With the option `parallel` a function without loops would raise a warning. The linkage is
    changed in `_final_module`, the library's LLVM module: a function that is inlined wherever it is called is dropped
    afterwards, while with Numba's own linkage it would be emitted as well.
    """
    library = context.active_code_library
    flags = targetconfig.ConfigStack().top().copy()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.discard("auto_parallel")
    compiled = compile_internal(context.typing_context, context, library, function, signature.args,
                                signature.return_type, flags, {})  # fmt: skip
    library._final_module.get_function(compiled.fndesc.mangled_name).linkage = "linkonce_odr"
    return compiled.fndesc


def library_of(context: Any) -> Any:
    """The code library, Numba's object for one LLVM module, that is being built."""
    return context.active_code_library


def call_compiled(context: Any, builder: Any, descriptor: Any, signature: Any, arguments: Sequence[Any]) -> Any:
    """Call a function that `compile_into` has put into this module; by `context.call_internal`."""
    return context.call_internal(builder, descriptor, signature, arguments)


# ---- dispatchers, the objects that `numba.njit` returns


def keep_in(dispatcher: Any, cache: Any) -> None:
    """Let a dispatcher look for its compiled functions in `cache`, and hand over those that it compiles.

    Relies on `_cache`, of which Numba calls `load_overload(signature, target)` and `save_overload(signature, result)`.
    Without that attribute each process would compile anew, which is slow but right, so it is only logged.
    """
    if not hasattr(dispatcher, "_cache"):
        _log.warning("compiled functions are not kept: Numba's dispatchers have no _cache%s", unproved())
    dispatcher._cache = cache


def compile_for(dispatcher: Any, signature: Any) -> None:
    """Compile for one signature, or take the function from the cache; calls with other types raise from then on."""
    dispatcher.compile(signature)
    dispatcher.disable_compile()


def entry_point(dispatcher: Any) -> Any:
    """The one compiled function of a dispatcher as a function of C, without the dispatch by types.

    Relies on `overloads` and `entry_point`.
    """
    (overload,) = dispatcher.overloads.values()
    return overload.entry_point


def address_of(dispatcher: Any) -> int:
    """The address of the machine code, which `call_at` calls.

    Relies on the library that the function was compiled into, and on its name there.
    """
    (overload,) = dispatcher.overloads.values()
    return int(overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name))


# ---- compiled functions on disk


def dismantled(overload: Any) -> Any:
    """What is to be pickled of a compiled function; by `CompileResult._reduce`, as Numba's own disk cache does."""
    return overload._reduce()


def rebuilt(target: Any, parts: Any) -> Any:
    """A compiled function from what `dismantled` gave; by `CompileResult._rebuild`.

    Files carry the versions of Numba and llvmlite in their names, so parts never come from another version.
    """
    target.refresh()
    return CompileResult._rebuild(target, *parts)


# ---- threads


def has_threads() -> bool:
    """Whether Numba's threads run already, so that its threading layer is settled.

    Relies on `_is_initialized` of the module that starts them.
    """
    return bool(_parallel()._is_initialized)


def why_not(layer: str) -> str | None:
    """Why a module of a threading layer, such as `TBB`, cannot be used; None if it can.

    Relies on `_check_tbb_version_compatible`, which raises ImportError for a TBB that is too old.
    """
    try:
        if layer == TBB:
            _parallel()._check_tbb_version_compatible()
        importlib.import_module(layer)
    except ImportError as error:
        return str(error)
    return None


def start_threads() -> None:
    """Start Numba's threads if they do not run, which raises if no threading layer loads.

    By `numba.get_num_threads`, which is documented, but not that it does this.
    """
    numba.get_num_threads()


def _parallel() -> Any:
    return importlib.import_module("numba.np.ufunc.parallel")
