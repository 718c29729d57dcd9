/* Kernels that measure the machine: independent multiply-adds that keep every FMA pipe busy, reading, and the STREAM triad.
 *
 * FASTCONV_FMA defines, for one element type and vector length, a function that runs `rounds` rounds of multiply-adds on COUNT
 * accumulators and returns their sum, so that no compiler drops the work. COUNT is at least latency times pipes (8 to 10 on x86,
 * 16 on the wider ARM cores), and with the two operands fits into the registers: 24 of 32, or 12 of 16. The baseline of x86-64
 * has no fused multiply-add: there it is a multiplication and an addition.
 */
#ifndef FASTCONV_PEAK_H
#define FASTCONV_PEAK_H

#if defined(__GNUC__) || defined(__clang__)

#define FASTCONV_FMA(NAME, TYPE, BYTES, COUNT, TARGET)                          \
    TARGET static double NAME(long long rounds, double factor, double term) {   \
        typedef TYPE vector __attribute__((vector_size(BYTES)));                \
        vector a = (vector){0} + (TYPE)factor, b = (vector){0} + (TYPE)term;    \
        vector acc[COUNT];                                                      \
        for (int i = 0; i < COUNT; i++) acc[i] = b * (TYPE)i;                   \
        for (long long round = 0; round < rounds; round++) {                    \
            _Pragma("GCC unroll 24")                                            \
            for (int i = 0; i < COUNT; i++) acc[i] = acc[i] * a + b;            \
        }                                                                       \
        double sum = 0;                                                         \
        for (int i = 0; i < COUNT; i++) sum += (double)acc[i][0];               \
        return sum;                                                             \
    }

#if defined(__x86_64__)
FASTCONV_FMA(fastconv_fma_f32_avx512, float, 64, 24, __attribute__((target("avx512f"))))
FASTCONV_FMA(fastconv_fma_f64_avx512, double, 64, 24, __attribute__((target("avx512f"))))
FASTCONV_FMA(fastconv_fma_f32_avx2, float, 32, 12, __attribute__((target("avx2,fma"))))
FASTCONV_FMA(fastconv_fma_f64_avx2, double, 32, 12, __attribute__((target("avx2,fma"))))
#endif
#if defined(__aarch64__)
#define FASTCONV_BASELINE 24
#else
#define FASTCONV_BASELINE 12
#endif
FASTCONV_FMA(fastconv_fma_f32_baseline, float, 16, FASTCONV_BASELINE, )
FASTCONV_FMA(fastconv_fma_f64_baseline, double, 16, FASTCONV_BASELINE, )

typedef double (*fastconv_fma)(long long, double, double);

/* The kernel of the widest vectors that the processor has; `each` gets the multiply-adds of one of its rounds. */
static fastconv_fma fastconv_widest_fma(int itemsize, int *each) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        *each = 24 * (64 / itemsize);
        return itemsize == 4 ? fastconv_fma_f32_avx512 : fastconv_fma_f64_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        *each = 12 * (32 / itemsize);
        return itemsize == 4 ? fastconv_fma_f32_avx2 : fastconv_fma_f64_avx2;
    }
#endif
    *each = FASTCONV_BASELINE * (16 / itemsize);
    return itemsize == 4 ? fastconv_fma_f32_baseline : fastconv_fma_f64_baseline;
}

/* Reads n doubles, a multiple of 64, as fast as vectors can; adds them up, so that no compiler drops the work. */
#define FASTCONV_READ(NAME, BYTES, TARGET)                                                  \
    TARGET static double NAME(const double *a, long long n) {                               \
        typedef double vector __attribute__((vector_size(BYTES), aligned(8), may_alias));   \
        enum { COUNT = 8, LANES = BYTES / 8 };                                              \
        vector acc[COUNT] = {{0}};                                                          \
        for (long long i = 0; i < n; i += COUNT * LANES) {                                  \
            _Pragma("GCC unroll 8")                                                         \
            for (int j = 0; j < COUNT; j++) acc[j] += *(const vector *)(a + i + j * LANES); \
        }                                                                                   \
        double sum = 0;                                                                     \
        for (int j = 0; j < COUNT; j++) {                                                   \
            for (int lane = 0; lane < LANES; lane++) sum += acc[j][lane];                   \
        }                                                                                   \
        return sum;                                                                         \
    }

#if defined(__x86_64__)
FASTCONV_READ(fastconv_read_avx512, 64, __attribute__((target("avx512f"))))
FASTCONV_READ(fastconv_read_avx2, 32, __attribute__((target("avx2"))))
#endif
FASTCONV_READ(fastconv_read_baseline, 16, )

typedef double (*fastconv_reader)(const double *, long long);

/* The reader of the widest vectors that the processor has. */
static fastconv_reader fastconv_widest_reader(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return fastconv_read_avx512;
    if (__builtin_cpu_supports("avx2")) return fastconv_read_avx2;
#endif
    return fastconv_read_baseline;
}

#else /* a compiler without vector extensions measures nothing and reports so */

typedef double (*fastconv_fma)(long long, double, double);
static fastconv_fma fastconv_widest_fma(int itemsize, int *each) { *each = 0; return 0; }
typedef double (*fastconv_reader)(const double *, long long);
static fastconv_reader fastconv_widest_reader(void) { return 0; }

#endif

static void fastconv_triad(double *a, const double *b, const double *c, double factor, long long n) {
    for (long long i = 0; i < n; i++) a[i] = b[i] + factor * c[i];
}

#endif
