"""How Numba's configuration affects the engine: its variables, `.numba_config.yaml`, attributes of `numba.config`.

- Settings that would make the engine wrong or slow are overridden while its functions are compiled (`held_off`).
- All others that may change machine code are part of the names of the files that hold it (`in_effect`).
- Settings with which Numba cannot compile or start threads, or would end the process, make the engine unavailable, with
  the setting as the reason (`check`).
"""

from __future__ import annotations

import contextlib
import functools
import textwrap
from collections.abc import Iterator
from typing import Any

import numba

from fastconv.backends.numba import numba_internals
from fastconv.backends.numba.numba_internals import OMP, TBB, WORKQUEUE, config
from fastconv.problem import process
from fastconv.problem.errors import BackendUnavailableError, FastconvError

#: The settings that are overridden while the engine's functions are compiled.
_HELD = {
    "DISABLE_JIT": 0,
    "BOUNDSCHECK": 0,  # passes view memory as arrays of one element, and index beyond it
    "DEBUGINFO_DEFAULT": 0,  # like EXTEND_VARIABLE_LIFETIMES, keeps values in memory instead of registers
    "EXTEND_VARIABLE_LIFETIMES": 0,
    "DEBUG_ARRAY_OPT_RUNTIME": 0,  # prints in every call
    "LOOP_VECTORIZE": 1,
    "SLP_VECTORIZE": 0,
    "reload_config": lambda: None,  # Numba reads the variables again for each function that it compiles
}
#: Settings that do not change machine code. All others are assumed to, those of later versions included.
_WITHOUT_EFFECT = frozenset({
    "ANNOTATE", "CACHE_DIR", "CACHE_LOCATOR_CLASSES", "CHROME_TRACE", "COLOR_SCHEME", "DISABLE_PERFORMANCE_WARNINGS",
    "FUNCTION_CACHE_SIZE", "GDB_BINARY", "HIGHLIGHT_DUMPS", "HTML", "NUMBA_DEFAULT_NUM_THREADS", "NUMBA_NUM_THREADS",
    "SHOW_HELP", "THREADING_LAYER", "THREADING_LAYER_PRIORITY", "TRACE",
})  # fmt: skip
_KINDS_WITHOUT_EFFECT = ("CUDA_", "DUMP_", "DEBUG_PRINT_")

#: For each value of `NUMBA_THREADING_LAYER`, the modules of threading layers of which one must load. `default` falls
#: back to `workqueue`, which needs no library.
_LAYERS = {
    "tbb": [TBB],
    "omp": [OMP],
    "workqueue": [WORKQUEUE],
    "safe": [TBB],
    "threadsafe": [TBB, OMP],
    "forksafe": [TBB, WORKQUEUE],
    "default": [WORKQUEUE],
}


#: A function whose assembly differs between levels of optimization and between processors.
_SAMPLE = """
define double @sample(double* %a, i64 %n) {
entry:
  br label %iteration
iteration:
  %i = phi i64 [0, %entry], [%next, %iteration]
  %sum = phi double [0.0, %entry], [%more, %iteration]
  %pointer = getelementptr double, double* %a, i64 %i
  %x = load double, double* %pointer
  %product = fmul double %x, %sum
  %more = fadd double %product, %x
  %next = add i64 %i, 1
  %goes = icmp slt i64 %next, %n
  br i1 %goes, label %iteration, label %after
after:
  ret double %more
}
"""
#: Features without which LLVM cannot generate floating-point code for a 64-bit processor.
_NEEDED = frozenset({"64bit", "sse", "sse2", "x87", "neon", "fp-armv8"})
#: How LLVM's names of 32-bit processors begin, and those of 64-bit processors that begin in the same way.
_WITHOUT_64_BITS = ("i386", "i486", "i586", "i686", "pentium", "prescott", "yonah", "lakemont", "k6", "athlon", "geode",
                    "winchip", "c3")  # fmt: skip
_WITH_64_BITS = ("athlon64", "athlon-fx")


@contextlib.contextmanager
def held_off() -> Iterator[None]:
    """A context for compiling with the settings that the engine needs; other threads wait before they compile."""
    with numba_internals.compiler_lock():
        config.reload_config()
        before = {name: getattr(config, name) for name in _HELD if hasattr(config, name)}
        vars(config).update({name: _HELD[name] for name in before})
        try:
            yield
        finally:
            vars(config).update(before)


def target() -> tuple[str, ...]:
    """The platform, the processor's name and its features for which Numba generates code in this process."""
    return numba_internals.target_of(numba_internals.code_generator())


@functools.cache
def features() -> frozenset[str]:
    """The processor features that Numba uses: those of this processor, unless variables leave some out."""
    with process.once:  # a fork must not interrupt this: Numba imports modules and makes its code generator
        config.reload_config()
        _check_features()  # a variable may have changed since `check`
        return frozenset(feature[1:] for feature in target()[2].split(",") if feature.startswith("+"))


def in_effect() -> tuple[Any, ...]:
    """All settings that the engine's machine code may depend on."""
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
    """Whether this process generates the code that `in_effect` describes.

    Numba reads its variables again and again, but makes its code generator only once. If a variable has changed since,
    the generator still follows the old value, so its assembly is compared with that of a new one.
    """
    try:
        _check_features()  # LLVM would end the process
    except BackendUnavailableError:
        return False
    return _sample(numba_internals.code_generator()) == _sample(numba_internals.new_code_generator())


def _sample(generator: Any) -> tuple[str, str]:
    """The features that a code generator uses, and its assembly of a small function."""
    return numba_internals.target_of(generator)[2], numba_internals.assembly(generator, _SAMPLE)


@contextlib.contextmanager
def failures_are_reasons() -> Iterator[None]:
    """A context in which any exception of Numba becomes a `BackendUnavailableError`, so that `auto` takes the next."""
    try:
        yield
    except FastconvError:
        raise
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 500)  # Numba's messages may fill a page
        hint = numba_internals.unproved()
        raise BackendUnavailableError(f"Numba fails to compile it: {reason}{hint}") from error


def check() -> None:
    """Raise `BackendUnavailableError` if the engine cannot run with this configuration. Starts no threads."""
    config.reload_config()
    if config.DISABLE_JIT:
        raise BackendUnavailableError("NUMBA_DISABLE_JIT forbids it to compile")
    _check_layer()
    _check_features()


def _check_layer() -> None:
    if numba_internals.has_threads():
        return
    priority, known = config.THREADING_LAYER_PRIORITY, ("tbb", "omp", "workqueue")
    if sorted(priority) != sorted(known):
        raise BackendUnavailableError(f"NUMBA_THREADING_LAYER_PRIORITY must name {', '.join(known)}, not {priority}")
    name = str(config.THREADING_LAYER).lower()
    if name not in _LAYERS:
        raise BackendUnavailableError(f"NUMBA_THREADING_LAYER={name} must be one of {', '.join(_LAYERS)}")
    missing = [reason for reason in map(numba_internals.why_not, _LAYERS[name]) if reason]
    if len(missing) == len(_LAYERS[name]):
        raise BackendUnavailableError(f"NUMBA_THREADING_LAYER={name} does not load: {'; '.join(missing)}")


def _check_features() -> None:
    """Refuse processor features that would end the process, by an illegal instruction or inside LLVM."""
    if config.CPU_FEATURES is None:
        return
    here = numba_internals.host_features()
    given = [feature for feature in str(config.CPU_FEATURES).split(",") if feature]
    if unread := [feature for feature in given if feature[0] not in "+-" or len(feature) == 1]:
        raise BackendUnavailableError(f"NUMBA_CPU_FEATURES must be +NAME or -NAME with commas between, not {unread}")
    if str(config.CPU_NAME).startswith(_WITHOUT_64_BITS) and not str(config.CPU_NAME).startswith(_WITH_64_BITS):
        raise BackendUnavailableError(f"NUMBA_CPU_NAME={config.CPU_NAME} has no 64-bit code")
    if lacking := [feature[1:] for feature in given if feature[:1] == "+" and not here.get(feature[1:], False)]:
        raise BackendUnavailableError(f"NUMBA_CPU_FEATURES names what this processor lacks: {', '.join(lacking)}")
    if needed := [feature[1:] for feature in given if feature[:1] == "-" and feature[1:] in _NEEDED]:
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
    return next(layer for layer in order if numba_internals.why_not(_LAYERS[layer][0]) is None), False
