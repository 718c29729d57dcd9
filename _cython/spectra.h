/* The primitives of fastconv/kernels/spectra.py: Fourier transforms, which fourier.h has as functions, see
 * fastconv/kernels/fourier.py, and products of spectra. */
#ifndef FASTCONV_SPECTRA_H
#define FASTCONV_SPECTRA_H

#define FORWARD_ARGUMENTS const ELEMENT *x, int64_t ld_x, ELEMENT *y, int64_t ld_y
#define INVERSE_ARGUMENTS FORWARD_ARGUMENTS
#define REAL_FORWARD_ARGUMENTS const ELEMENT *x, int64_t ld_x, ELEMENT *first, ELEMENT *last, ELEMENT *y, int64_t ld_y
#define REAL_INVERSE_ARGUMENTS                                                                                          \
    const ELEMENT *first, const ELEMENT *last, const ELEMENT *x, int64_t ld_x, ELEMENT *y, int64_t ld_y
#define REAL_OUTPUT_ARGUMENTS                                                                                           \
    const ELEMENT *first, const ELEMENT *last, const ELEMENT *x, int64_t ld_x, const ELEMENT *start, ELEMENT *y,        \
        int64_t ld_y
#define COMPLEX_SPAN_ARGUMENTS                                                                                          \
    const ELEMENT *a, const ELEMENT *b, int64_t ld_b, const int64_t *offsets, int64_t count, const ELEMENT *start,      \
        int64_t step, ELEMENT *sums, int64_t ld_sums

#endif

#include "fourier.h"

/* Each real and each imaginary part is one chain of multiply-adds: the product with the real part of `b` comes first. */
INLINE void NAME(complex_tile)(const int width, COMPLEX_SPAN_ARGUMENTS) {
    vector real[MAX_COMPLEX_SPAN], imaginary[MAX_COMPLEX_SPAN];
    UNROLLED for (int j = 0; j < width; j++) {
        real[j] = NAME(read)(start + j * step);
        imaginary[j] = NAME(read)(start + j * step + LANES);
    }
    for (int64_t t = 0; t < count; t++) {
        const ELEMENT *base = b + offsets[2 * t + 1];
        const vector factor = NAME(read)(a + offsets[2 * t]), turned = NAME(read)(a + offsets[2 * t] + LANES);
        const vector opposite = NAME(scaled)(turned, -1);
        UNROLLED for (int j = 0; j < width; j++) {
            const vector x = NAME(broadcast)(base[j * ld_b]), y = NAME(broadcast)(base[j * ld_b + LANES]);
            real[j] = NAME(fma)(factor, x, real[j]);
            imaginary[j] = NAME(fma)(opposite, x, imaginary[j]);
            real[j] = NAME(fma)(turned, y, real[j]);
            imaginary[j] = NAME(fma)(factor, y, imaginary[j]);
        }
    }
    UNROLLED for (int j = 0; j < width; j++) {
        NAME(write)(real[j], sums + j * ld_sums);
        NAME(write)(imaginary[j], sums + j * ld_sums + LANES);
    }
}

#define COMPLEX_SPAN(width)                                                                                              \
    NOINLINE void NAME(complex_span_##width)(COMPLEX_SPAN_ARGUMENTS) {                                                   \
        NAME(complex_tile)(width, a, b, ld_b, offsets, count, start, step, sums, ld_sums);                               \
    }
FOR_COMPLEX_SPAN(COMPLEX_SPAN)
#undef COMPLEX_SPAN

#define FORWARD_OF(number) NAME(forward_##number),
#define INVERSE_OF(number) NAME(inverse_##number),
#define REAL_FORWARD_OF(number) NAME(real_forward_##number),
#define REAL_INVERSE_OF(number) NAME(real_inverse_##number),
#define REAL_OUTPUT_OF(number) NAME(real_output_##number),
#define COMPLEX_SPAN_OF(width) NAME(complex_span_##width),

INLINE void NAME(forward)(int64_t number, FORWARD_ARGUMENTS) {
    static void (*const kernels[])(FORWARD_ARGUMENTS) = {FOR_FOURIER(FORWARD_OF)};
    kernels[number](x, ld_x, y, ld_y);
}
INLINE void NAME(inverse)(int64_t number, INVERSE_ARGUMENTS) {
    static void (*const kernels[])(INVERSE_ARGUMENTS) = {FOR_FOURIER(INVERSE_OF)};
    kernels[number](x, ld_x, y, ld_y);
}
INLINE void NAME(real_forward)(int64_t number, REAL_FORWARD_ARGUMENTS) {
    static void (*const kernels[])(REAL_FORWARD_ARGUMENTS) = {FOR_FOURIER(REAL_FORWARD_OF)};
    kernels[number](x, ld_x, first, last, y, ld_y);
}
INLINE void NAME(real_inverse)(int64_t number, REAL_INVERSE_ARGUMENTS) {
    static void (*const kernels[])(REAL_INVERSE_ARGUMENTS) = {FOR_FOURIER(REAL_INVERSE_OF)};
    kernels[number](first, last, x, ld_x, y, ld_y);
}
INLINE void NAME(real_output)(int64_t number, REAL_OUTPUT_ARGUMENTS) {
    static void (*const kernels[])(REAL_OUTPUT_ARGUMENTS) = {FOR_FOURIER(REAL_OUTPUT_OF)};
    kernels[number](first, last, x, ld_x, start, y, ld_y);
}
INLINE void NAME(complex_span)(int64_t width, COMPLEX_SPAN_ARGUMENTS) {
    static void (*const kernels[])(COMPLEX_SPAN_ARGUMENTS) = {FOR_COMPLEX_SPAN(COMPLEX_SPAN_OF)};
    kernels[width - 1](a, b, ld_b, offsets, count, start, step, sums, ld_sums);
}
#undef FORWARD_OF
#undef INVERSE_OF
#undef REAL_FORWARD_OF
#undef REAL_INVERSE_OF
#undef REAL_OUTPUT_OF
#undef COMPLEX_SPAN_OF
