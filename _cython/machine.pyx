"""The compiler that built this module, and kernels that measure the machine."""

cdef extern from "machine.h":
    const char* FASTCONV_COMPILER

cdef extern from "cache_line_latency.h":
    int fastconv_take_turns(long long* number, int me, long long count) noexcept nogil

cdef extern from "peak.h":
    ctypedef double (*fastconv_fma)(long long rounds, double factor, double term) noexcept nogil
    fastconv_fma fastconv_widest_fma(int itemsize, int* each)
    ctypedef double (*fastconv_reader)(const double* a, long long n) noexcept nogil
    fastconv_reader fastconv_widest_reader()
    void fastconv_triad(double* a, const double* b, const double* c, double factor, long long n) noexcept nogil


def compiler():
    """The compiler that built this module, with its version."""
    return FASTCONV_COMPILER.decode()


def multiply_adds(int itemsize, long long rounds):
    """Run independent multiply-adds of the widest vectors, of floats of 4 or 8 bytes, without the GIL.

    Returns the number of floating-point operations; 0 where this build has no such kernel."""
    cdef int each = 0
    cdef fastconv_fma kernel = fastconv_widest_fma(itemsize, &each)
    cdef double total = 0
    if kernel == NULL:
        return 0
    with nogil:
        total = kernel(rounds, 0.5, 1.0)
    assert total == total
    return 2 * rounds * each


def triad(double[::1] a, const double[::1] b, const double[::1] c):
    """Run the STREAM triad a = b + 3 * c without the GIL; returns the bytes read and written, as STREAM counts them."""
    cdef long long n = a.shape[0]
    if b.shape[0] != n or c.shape[0] != n:
        raise ValueError("the three arrays must have one length")
    with nogil:
        fastconv_triad(&a[0], &b[0], &c[0], 3.0, n)
    return 3 * 8 * n


def read(const double[::1] a, long long times):
    """Read an array `times` times, in whole vectors, without the GIL. Its length must be a multiple of 64.

    Returns the bytes read, 0 where this build has no such kernel, and the sum of everything that was read."""
    cdef fastconv_reader kernel = fastconv_widest_reader()
    cdef long long n = a.shape[0], number
    cdef double total = 0
    if n % 64:
        raise ValueError("the length must be a multiple of 64")
    if kernel == NULL:
        return 0, 0.0
    with nogil:
        for number in range(times):
            total += kernel(&a[0], n)
    return 8 * n * times, total


def take_turns(long long[::1] numbers, int me, long long count):
    """Count up the first of `numbers`, which must be 0, in turn with another thread, `count` times each, without the GIL.

    This thread is number `me`, 0 or 1. Returns whether the other thread came."""
    cdef int came
    with nogil:
        came = fastconv_take_turns(&numbers[0], me, count)
    return bool(came)
