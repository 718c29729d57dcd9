"""The compiled passes: how threads share their work items, and the instruction sets that they are compiled for."""

from cpython.buffer cimport PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cython.parallel cimport prange
from libc.stdint cimport int64_t, intptr_t

cdef extern from "plans.h":
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define FASTCONV_HAS_OPENMP 1
    static int fastconv_openmp_threads(void) {
        const int threads = omp_get_max_threads(), limit = omp_get_thread_limit();
        return threads < limit ? threads : limit;
    }
    #else
    #define FASTCONV_HAS_OPENMP 0
    static int fastconv_openmp_threads(void) { return 1; }
    #endif
    """
    const int FASTCONV_HAS_OPENMP
    int fastconv_openmp_threads() nogil
    enum: COUNTER

cdef extern from "instructions.h":
    const char* FASTCONV_PASSES
    const char* FASTCONV_SIGNATURE
    enum: P_ITEMS, P_GROUP, P_WORKSPACE
    ctypedef void (*fastconv_pass_function)(const int64_t*, const int64_t*, const void*, const void*, const void*, void*,
                                            const void*, void*, int64_t) noexcept nogil
    ctypedef struct fastconv_pass:
        fastconv_pass_function compute
        int64_t fields
    ctypedef struct fastconv_instruction_set:
        const char* name
        bint (*runs_here)()
        fastconv_pass passes[2][11]
    const fastconv_instruction_set* fastconv_set(int number)
    int64_t fastconv_fetch_add(int64_t* counter) nogil

cdef extern from "float_mode.h":
    enum: FASTCONV_FLUSH
    int64_t fastconv_switch(int64_t kept, int64_t added) nogil

#: The names of the passes, in the order of an instruction set's table.
PASSES = tuple(FASTCONV_PASSES.decode().split())

#: Whether several threads can run a pass: whether the compiler had OpenMP.
HAS_THREADS = bool(FASTCONV_HAS_OPENMP)

#: What `fastconv.kernels.drivers.signature()` was when this module was built.
SIGNATURE = FASTCONV_SIGNATURE.decode()

#: The bits of a floating-point mode that flush denormal numbers, see `backends.contract.FloatMode`; 0 where there are none.
FLUSH = FASTCONV_FLUSH


def switch(int64_t kept, int64_t added):
    """Set the floating-point mode of this thread to (mode & kept) | added; returns the mode before."""
    return fastconv_switch(kept, added)


def openmp_threads():
    """The number of threads that OpenMP would use for the calling thread: set by `omp_set_num_threads` or the environment."""
    return fastconv_openmp_threads()


def instruction_sets():
    """The names of the compiled instruction sets that this processor has, that of the widest registers first."""
    cdef int number = 0
    found = []
    while fastconv_set(number) != NULL:
        if fastconv_set(number).runs_here():
            found.append(fastconv_set(number).name.decode())
        number += 1
    return tuple(found)


cdef void run_items(
    fastconv_pass_function compute, const int64_t* plans, int64_t number, int64_t fields, const int64_t* tables,
    const char* source, const char* factor, const char* bias, char* out, const void* finish, char* space, char* counters,
    int64_t worker, int64_t workers,
) noexcept nogil:
    """Take work items of this worker's share, then what is left of the others' shares.

    The shares are the same at each call, so that the data that a thread reads and writes again is in its own caches. The
    `number` plans of a call write different elements. Those of a group write neighbouring ones, so a thread does an item
    of each plan of a group in turn, while the cache lines are in its cache.
    """
    cdef int64_t group = plans[P_GROUP], items = 0, total, i, share, taken, first
    for i in range(number):
        items = max(items, plans[i * fields + P_ITEMS])
    total = items * (number // group)
    for i in range(workers):
        share = (worker + i) % workers
        while True:
            taken = total * share // workers + fastconv_fetch_add(<int64_t*>(counters + COUNTER * share))
            if taken >= total * (share + 1) // workers:
                break
            for first in range(taken // items * group, taken // items * group + group):
                if taken % items < plans[first * fields + P_ITEMS]:
                    compute(plans + first * fields, tables, source, factor, bias, out, finish, space, taken % items)


cdef void run_items_in_mode(
    int64_t mode, fastconv_pass_function compute, const int64_t* plans, int64_t number, int64_t fields,
    const int64_t* tables, const char* source, const char* factor, const char* bias, char* out, const void* finish,
    char* space, char* counters, int64_t worker, int64_t workers,
) noexcept nogil:
    """The same in the floating-point mode `mode`; afterwards the thread has its own mode again."""
    cdef int64_t own = fastconv_switch(0, mode)
    run_items(compute, plans, number, fields, tables, source, factor, bias, out, finish, space, counters, worker, workers)
    fastconv_switch(0, own)


cdef class Pass:
    """A pass with its plans, each a row of `plans`: Pass(instruction_set, name, itemsize, plans, tables)."""

    cdef fastconv_pass_function compute
    cdef const int64_t[:, ::1] plans
    cdef const int64_t[::1] tables
    cdef int64_t step

    def __init__(self, str instruction_set, str name, int itemsize, const int64_t[:, ::1] plans,
                 const int64_t[::1] tables):
        cdef int number = instruction_sets_index(instruction_set)
        cdef const fastconv_pass* found = &fastconv_set(number).passes[{4: 0, 8: 1}[itemsize]][0] + <int>PASSES.index(name)
        if plans.shape[0] < 1 or plans.shape[1] != found.fields or tables.shape[0] < 1:
            raise ValueError(f"a plan of {name} has at least one vector of {found.fields} integers, and tables")
        self.compute = found.compute
        self.plans, self.tables = plans, tables
        self.step = plans[0, P_WORKSPACE] * itemsize

    def __call__(self, source, factor, bias, out, intptr_t space, intptr_t counters, int workers, residual=None,
                  slopes=None, int64_t activation=0):
        """Run it over arrays with the strides of the plans, on `workers` threads, each with its own workspace, one after the other
        from `space` on.

        `bias` may be None. The last three say how sums are finished, see `TileEngine.prepared`. At `counters` there is a cache line
        for each worker. Releases the GIL. All threads compute in the floating-point mode of the calling thread.
        """
        cdef Py_buffer read[5]
        cdef Py_buffer written
        cdef int held = 0, worker, i
        cdef const int64_t* plans = &self.plans[0, 0]
        cdef const int64_t* tables = &self.tables[0]
        cdef int64_t number = self.plans.shape[0], fields = self.plans.shape[1], step = self.step, mode
        cdef fastconv_pass_function compute = self.compute
        cdef const char* at[5]
        cdef int64_t finish[3]
        cdef const int64_t* how = NULL
        cdef char* to
        PyObject_GetBuffer(out, &written, PyBUF_WRITABLE | PyBUF_STRIDES)
        to = <char*>written.buf
        try:
            at[0] = at_buffer(source, read, &held)
            at[1] = at_buffer(factor, read, &held)
            at[2] = at_buffer(bias, read, &held)
            if residual is not None or activation:
                at[3] = at_buffer(residual, read, &held)
                at[4] = at_buffer(slopes, read, &held)
                finish[0] = activation
                finish[1] = 0 if at[3] == NULL else at[3] - to
                finish[2] = <int64_t>at[4]
                how = finish
            for i in range(workers):
                (<int64_t*>(counters + COUNTER * i))[0] = 0
            with nogil:
                if workers == 1:
                    run_items(compute, plans, number, fields, tables, at[0], at[1], at[2], to, how, <char*>space,
                              <char*>counters, 0, 1)
                else:
                    # a thread that starts here inherits this thread's mode for good, and other libraries use the same threads
                    mode = fastconv_switch(0, 0)
                    for worker in prange(workers, num_threads=workers, schedule="static", chunksize=1):
                        run_items_in_mode(mode, compute, plans, number, fields, tables, at[0], at[1], at[2], to,
                                          how, <char*>space + worker * step, <char*>counters, worker, workers)
                    fastconv_switch(0, mode)
        finally:
            PyBuffer_Release(&written)
            for i in range(held):
                PyBuffer_Release(&read[i])


cdef const char* at_buffer(array, Py_buffer* read, int* held) except? NULL:
    """The address of an array, whose buffer is added to the `held` ones of `read`; NULL for None."""
    if array is None:
        return NULL
    PyObject_GetBuffer(array, &read[held[0]], PyBUF_STRIDES)
    held[0] += 1
    return <const char*>read[held[0] - 1].buf


cdef int instruction_sets_index(str name) except -1:
    cdef int number = 0
    while fastconv_set(number) != NULL:
        if fastconv_set(number).name.decode() == name and fastconv_set(number).runs_here():
            return number
        number += 1
    raise ValueError(f"{name!r} is none of {', '.join(instruction_sets())}")
