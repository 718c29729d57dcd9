"""The compiled module: which compiler built it, and which instruction sets the processor has."""

cdef extern from "machine.h":
    const char* FASTCONV_COMPILER
    int FASTCONV_HAS_NEON
    bint fastconv_has_avx2_fma()
    bint fastconv_has_avx512()


def compiler():
    """The compiler that built this module, with its version."""
    return FASTCONV_COMPILER.decode()


def instruction_sets():
    """The vector instruction sets that the running processor has, of those that kernels are written for."""
    has = {"avx512": fastconv_has_avx512(), "avx2+fma": fastconv_has_avx2_fma(), "neon": FASTCONV_HAS_NEON}
    return tuple(name for name, present in has.items() if present)
