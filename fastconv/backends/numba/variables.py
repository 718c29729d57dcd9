"""What Numba's configuration may change: its variables, `.numba_config.yaml`, and the attributes of `numba.config`.

Some of it would make the engine wrong or slow. It is held off while the engine's functions are compiled. What reaches
their machine code all the same is part of their file's name. A configuration without threads, or without a compiler,
is a reason why the engine cannot run.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import textwrap
from collections.abc import Iterator
from typing import Any

import llvmlite.binding
import numba
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target

from fastconv.problem import process
from fastconv.problem.errors import BackendUnavailableError, FastconvError

#: What holds while the engine's functions are compiled, whatever the variables say.
_HELD = {
    "DISABLE_JIT": 0,
    "BOUNDSCHECK": 0,  # a pass has arrays of one element at addresses, and reads beyond that element
    "DEBUGINFO_DEFAULT": 0,  # as would EXTEND_VARIABLE_LIFETIMES, it would keep values in memory
    "EXTEND_VARIABLE_LIFETIMES": 0,
    "DEBUG_ARRAY_OPT_RUNTIME": 0,  # would print in every call
    "LOOP_VECTORIZE": 1,
    "SLP_VECTORIZE": 0,
    "reload_config": lambda: None,  # Numba reads the variables anew for each function that it compiles
}
#: What does not reach machine code. All else is taken to do so, what a later Numba adds included.
_WITHOUT_EFFECT = frozenset({
    "ANNOTATE", "CACHE_DIR", "CACHE_LOCATOR_CLASSES", "CHROME_TRACE", "COLOR_SCHEME", "DISABLE_PERFORMANCE_WARNINGS",
    "FUNCTION_CACHE_SIZE", "GDB_BINARY", "HIGHLIGHT_DUMPS", "HTML", "NUMBA_DEFAULT_NUM_THREADS", "NUMBA_NUM_THREADS",
    "SHOW_HELP", "THREADING_LAYER", "THREADING_LAYER_PRIORITY", "TRACE",
})  # fmt: skip
_KINDS_WITHOUT_EFFECT = ("CUDA_", "DUMP_", "DEBUG_PRINT_")

#: The modules of Numba's threading layers, any one of which does for each value of `NUMBA_THREADING_LAYER`. The value
#: `default` takes the first that loads, and the last, which needs nothing, always does.
_TBB, _OMP, _WORKQUEUE = (f"numba.np.ufunc.{name}" for name in ("tbbpool", "omppool", "workqueue"))
_LAYERS = {
    "tbb": [_TBB],
    "omp": [_OMP],
    "workqueue": [_WORKQUEUE],
    "safe": [_TBB],
    "threadsafe": [_TBB, _OMP],
    "forksafe": [_TBB, _WORKQUEUE],
    "default": [_WORKQUEUE],
}


#: A function that each level of optimization, and each kind of processor, makes other code of.
_SAMPLE = """
define double @sample(double* %a, i64 %n) {
entry:
  br label %turn
turn:
  %i = phi i64 [0, %entry], [%next, %turn]
  %sum = phi double [0.0, %entry], [%more, %turn]
  %place = getelementptr double, double* %a, i64 %i
  %x = load double, double* %place
  %product = fmul double %x, %sum
  %more = fadd double %product, %x
  %next = add i64 %i, 1
  %goes = icmp slt i64 %next, %n
  br i1 %goes, label %turn, label %after
after:
  ret double %more
}
"""
#: Features without which LLVM makes no code for floating-point numbers on a 64-bit processor.
_NEEDED = frozenset({"64bit", "sse", "sse2", "x87", "neon", "fp-armv8"})
#: How LLVM's names of processors without 64-bit code begin, and those of others that begin so too.
_WITHOUT_64_BITS = ("i386", "i486", "i586", "i686", "pentium", "prescott", "yonah", "lakemont", "k6", "athlon", "geode",
                    "winchip", "c3")  # fmt: skip
_WITH_64_BITS = ("athlon64", "athlon-fx")


@contextlib.contextmanager
def held_off() -> Iterator[None]:
    """A context for compiling, in which Numba's configuration is what the engine needs; no other thread compiles."""
    with global_compiler_lock:
        config.reload_config()
        before = {name: getattr(config, name) for name in _HELD if hasattr(config, name)}
        vars(config).update({name: _HELD[name] for name in before})
        try:
            yield
        finally:
            vars(config).update(before)


def target() -> tuple[str, ...]:
    """The platform, the processor's name and its features, as Numba makes code for them in this process."""
    return tuple(map(str, cpu_target.target_context.codegen().magic_tuple()))


@functools.cache
def features() -> frozenset[str]:
    """The features of the processor that Numba makes code for: this one's, but for what the variables leave out."""
    with process.once:  # a fork waits for it: Numba imports modules and makes its code generator here
        config.reload_config()
        _check_features()  # a variable may have changed since `check`
        return frozenset(feature[1:] for feature in target()[2].split(",") if feature.startswith("+"))


def in_effect() -> tuple[Any, ...]:
    """All of the configuration that the engine's machine code depends on."""
    with held_off():
        return (
            *target(),
            *(
                (name, repr(value))
                for name, value in sorted(vars(config).items())
                if name.isupper() and name not in _WITHOUT_EFFECT and not name.startswith(_KINDS_WITHOUT_EFFECT)
            ),
        )


def is_as_configured() -> bool:
    """Whether the code of this process is what `in_effect` says.

    Numba reads its variables again and again, but makes its code generator once in a process, so that a variable that
    changed in between shows in what the generator makes only.
    """
    try:
        _check_features()  # LLVM would end the process
    except BackendUnavailableError:
        return False
    made = cpu_target.target_context.codegen()
    return _sample(made) == _sample(type(made)("anew"))


def _sample(generator: Any) -> tuple[str, str]:
    """What a code generator makes of a small function, for which processor."""
    machine, module = generator._tm, llvmlite.binding.parse_assembly(_SAMPLE)
    return generator.magic_tuple()[2], machine.emit_assembly(module)


@contextlib.contextmanager
def failures_are_reasons() -> Iterator[None]:
    """A context in which whatever Numba raises becomes a `BackendUnavailableError`."""
    try:
        yield
    except FastconvError:
        raise
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 500)  # Numba's may have a page
        raise BackendUnavailableError(f"Numba fails to compile it: {reason}") from error


def check() -> None:
    """Raise `BackendUnavailableError` if the engine cannot run with this configuration. It starts no thread."""
    config.reload_config()
    if config.DISABLE_JIT:
        raise BackendUnavailableError("NUMBA_DISABLE_JIT forbids it to compile")
    _check_layer()
    _check_features()


def _check_layer() -> None:
    if importlib.import_module("numba.np.ufunc.parallel")._is_initialized:
        return
    priority, known = config.THREADING_LAYER_PRIORITY, ("tbb", "omp", "workqueue")
    if sorted(priority) != sorted(known):
        raise BackendUnavailableError(f"NUMBA_THREADING_LAYER_PRIORITY must name {', '.join(known)}, not {priority}")
    name = str(config.THREADING_LAYER).lower()
    if name not in _LAYERS:
        raise BackendUnavailableError(f"NUMBA_THREADING_LAYER={name} must be one of {', '.join(_LAYERS)}")
    missing = [reason for reason in map(_why_not, _LAYERS[name]) if reason]
    if len(missing) == len(_LAYERS[name]):
        raise BackendUnavailableError(f"NUMBA_THREADING_LAYER={name} does not load: {'; '.join(missing)}")


def _why_not(layer: str) -> str | None:
    """The loader's reason why a module of a threading layer cannot be used."""
    try:
        if layer == _TBB:
            importlib.import_module("numba.np.ufunc.parallel")._check_tbb_version_compatible()
        importlib.import_module(layer)
    except ImportError as error:
        return str(error)
    return None


def _check_features() -> None:
    """A variable may ask for what ends the process: at the first instruction of that kind, or within LLVM."""
    if config.CPU_FEATURES is None:
        return
    here = llvmlite.binding.get_host_cpu_features()
    asked = [feature for feature in str(config.CPU_FEATURES).split(",") if feature]
    if unread := [feature for feature in asked if feature[0] not in "+-" or len(feature) == 1]:
        raise BackendUnavailableError(f"NUMBA_CPU_FEATURES must be +NAME or -NAME with commas between, not {unread}")
    if str(config.CPU_NAME).startswith(_WITHOUT_64_BITS) and not str(config.CPU_NAME).startswith(_WITH_64_BITS):
        raise BackendUnavailableError(f"NUMBA_CPU_NAME={config.CPU_NAME} has no 64-bit code")
    if lacking := [feature[1:] for feature in asked if feature[:1] == "+" and not here.get(feature[1:], False)]:
        raise BackendUnavailableError(f"NUMBA_CPU_FEATURES names what this processor lacks: {', '.join(lacking)}")
    if needed := [feature[1:] for feature in asked if feature[:1] == "-" and feature[1:] in _NEEDED]:
        raise BackendUnavailableError(f"NUMBA_CPU_FEATURES leaves out what code needs here: {', '.join(needed)}")


def threading_layer() -> tuple[str, bool]:
    """Numba's threading layer and whether it is in force; if not, the one that the first launch will take.

    Raises `BackendUnavailableError` if there is none. Starts no threads.
    """
    try:
        return numba.threading_layer(), True
    except ValueError:  # no launch yet
        _check_layer()
    name = str(config.THREADING_LAYER).lower()
    allowed = [layer for layer in ("tbb", "omp", "workqueue") if _LAYERS[layer][0] in _LAYERS[name]]
    order = config.THREADING_LAYER_PRIORITY if name == "default" else allowed
    return next(layer for layer in order if _why_not(_LAYERS[layer][0]) is None), False
