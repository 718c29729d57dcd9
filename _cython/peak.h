/* Measuring the machine: independent multiply-adds that keep every FMA pipe busy, and the STREAM triad.
 *
 * FASTCONV_FMA makes, for one element type and vector length, a function that runs `rounds` rounds of 12 multiply-adds
 * on as many accumulators: more than latency times pipes of any processor so far, and with the two operands 14
 * registers, which the smallest register file holds. It returns their sum, so that no compiler drops the work.
 */
#ifndef FASTCONV_PEAK_H
#define FASTCONV_PEAK_H

#define FASTCONV_ACCUMULATORS 12

#if defined(__GNUC__) || defined(__clang__)

#define FASTCONV_FMA(NAME, TYPE, BYTES, TARGET)                                       \
    TARGET static double NAME(long rounds, double factor, double term) {              \
        typedef TYPE vector __attribute__((vector_size(BYTES)));                      \
        vector a = (vector){0} + (TYPE)factor, b = (vector){0} + (TYPE)term;          \
        vector acc[FASTCONV_ACCUMULATORS];                                            \
        for (int i = 0; i < FASTCONV_ACCUMULATORS; i++) acc[i] = b * (TYPE)i;         \
        for (long round = 0; round < rounds; round++) {                               \
            _Pragma("GCC unroll 12")                                                  \
            for (int i = 0; i < FASTCONV_ACCUMULATORS; i++) acc[i] = acc[i] * a + b;  \
        }                                                                             \
        double sum = 0;                                                               \
        for (int i = 0; i < FASTCONV_ACCUMULATORS; i++) sum += (double)acc[i][0];     \
        return sum;                                                                   \
    }

#if defined(__x86_64__)
FASTCONV_FMA(fastconv_fma_f32_avx512, float, 64, __attribute__((target("avx512f"))))
FASTCONV_FMA(fastconv_fma_f64_avx512, double, 64, __attribute__((target("avx512f"))))
FASTCONV_FMA(fastconv_fma_f32_avx2, float, 32, __attribute__((target("avx2,fma"))))
FASTCONV_FMA(fastconv_fma_f64_avx2, double, 32, __attribute__((target("avx2,fma"))))
#endif
FASTCONV_FMA(fastconv_fma_f32_baseline, float, 16, )
FASTCONV_FMA(fastconv_fma_f64_baseline, double, 16, )

typedef double (*fastconv_fma)(long, double, double);

/* The widest kernel that the processor runs, and its lanes. */
static fastconv_fma fastconv_widest_fma(int itemsize, int *lanes) {
#if defined(__x86_64__)
    if (fastconv_has_avx512()) {
        *lanes = 64 / itemsize;
        return itemsize == 4 ? fastconv_fma_f32_avx512 : fastconv_fma_f64_avx512;
    }
    if (fastconv_has_avx2_fma()) {
        *lanes = 32 / itemsize;
        return itemsize == 4 ? fastconv_fma_f32_avx2 : fastconv_fma_f64_avx2;
    }
#endif
    *lanes = 16 / itemsize;
    return itemsize == 4 ? fastconv_fma_f32_baseline : fastconv_fma_f64_baseline;
}

#else /* a compiler without vector extensions measures nothing, which is told as such */

typedef double (*fastconv_fma)(long, double, double);
static fastconv_fma fastconv_widest_fma(int itemsize, int *lanes) { *lanes = 0; return 0; }

#endif

static void fastconv_triad(double *a, const double *b, const double *c, double factor, long n) {
    for (long i = 0; i < n; i++) a[i] = b[i] + factor * c[i];
}

#endif
