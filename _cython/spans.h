/* The micro-kernels with a lane for each result, for whole registers and for the first half of their lanes: included for each,
 * it wants `part`, the type of so many lanes, and PART(kind), the names of its words and of what is made of them. Elements of
 * `a`, `sums` and `start`, which are vectors, are LANES apart in both.
 */
#ifndef FASTCONV_SPANS_H
#define FASTCONV_SPANS_H

#define SPAN_ARGUMENTS                                                                                            \
    const ELEMENT *a, const ELEMENT *b, const int64_t *offsets, int64_t count, const ELEMENT *start, int64_t step,    \
        ELEMENT *sums, int64_t ld_sums

#define TAPS_ARGUMENTS                                                                                            \
    const ELEMENT *a, int64_t image_a, const ELEMENT *b, int64_t image_b, const int64_t *offsets, int64_t images,     \
        const int64_t *pixels, int64_t count, const ELEMENT *start, int64_t step, ELEMENT *sums

/* for tables of both, and whether so many results fit into half a register; without kernels for that, those for all of it */
#if HALVES
#define HALF(kind) NAME(half_##kind)
#else
#define HALF(kind) NAME(kind)
#endif
#define WHOLE_SPAN(width) NAME(span_##width),
#define HALF_SPAN(width) HALF(span_##width),
#define WHOLE_TAPS(width) NAME(taps_##width),
#define HALF_TAPS(width) HALF(taps_##width),
#define IS_HALF(results) ((results) <= LANES / 2)

#endif

/* The micro-kernel of correlate_results: `width` pixels of a row, of each of which the sums of several results are a vector,
 *
 *     sums[j] = start[j] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + j]
 *
 * with 0 <= t < count, j < width. Each element of `a`, `sums` and `start` is a vector, that of `b` a number. */
WORD void PART(span)(const int width, SPAN_ARGUMENTS) {
    part acc[16];
    UNROLLED for (int j = 0; j < width; j++) acc[j] = PART(read)(start + j * step);
    for (int64_t t = 0; t < count; t++) {
        const part factor = PART(read)(a + offsets[2 * t]);
        const ELEMENT *base = b + offsets[2 * t + 1];
        UNROLLED for (int j = 0; j < width; j++) acc[j] = PART(fma)(factor, PART(spread)(base[j]), acc[j]);
    }
    UNROLLED for (int j = 0; j < width; j++) PART(write)(acc[j], sums + j * ld_sums);
}

#define SPAN(width)                                                          \
    KERNEL void PART(span_##width)(SPAN_ARGUMENTS) {                         \
        PART(span)(width, a, b, offsets, count, start, step, sums, ld_sums); \
    }
FOR_SPAN(SPAN)
#undef SPAN

/* The micro-kernel of correlate_results_weight: `width` taps, likewise,
 *
 *     sums[offsets[2 * t]] = start[step * offsets[2 * t]]
 *         + sum over n, p of a[n * image_a + pixels[2 * p]] * b[n * image_b + pixels[2 * p + 1] + offsets[2 * t + 1]]
 *
 * with 0 <= n < images, 0 <= p < count, t < width. Each element of `a`, `sums` and `start` is a vector, that of `b` a number. */
WORD void PART(taps)(const int width, TAPS_ARGUMENTS) {
    part acc[16];
    const ELEMENT *at[16];
    UNROLLED for (int t = 0; t < width; t++) {
        acc[t] = PART(read)(start + step * offsets[2 * t]);
        at[t] = b + offsets[2 * t + 1];
    }
    for (int64_t n = 0; n < images; n++) {
        for (const int64_t *pixel = pixels; pixel < pixels + 2 * count; pixel += 2) {
            const part factor = PART(read)(a + pixel[0]);
            UNROLLED for (int t = 0; t < width; t++) acc[t] = PART(fma)(factor, PART(spread)(at[t][pixel[1]]), acc[t]);
        }
        a += image_a;
        UNROLLED for (int t = 0; t < width; t++) at[t] += image_b;
    }
    UNROLLED for (int t = 0; t < width; t++) PART(write)(acc[t], sums + offsets[2 * t]);
}

#define TAPS(width)                                                                                    \
    KERNEL void PART(taps_##width)(TAPS_ARGUMENTS) {                                                   \
        PART(taps)(width, a, image_a, b, image_b, offsets, images, pixels, count, start, step, sums);  \
    }
FOR_TAPS(TAPS)
#undef TAPS
