/* The micro-kernel with a lane for each result.
 *
 * It is compiled for one vector of results, for half a vector, and for two vectors, which share what is read of the source. This
 * file and weight_grad.h are included for whole registers and for halves, with `vec`, the vector type, and VEC(name), the name of
 * a function on it. The vectors of `a`, `sums` and `start` are LANES elements each in all cases; `next_...` is the distance of
 * the second vector of results from the first.
 */
#ifndef FASTCONV_CHANNEL_LANES_H
#define FASTCONV_CHANNEL_LANES_H

/* About how many taps ahead pixels are prefetched: the distance is rounded to whole register tiles. */
#define TAPS_AHEAD 128

#define MAX_PAIRED 2 /* vectors of results of a register tile, at most */

#define SPAN_ARGUMENTS                                                                                               \
    const ELEMENT *a, int64_t next_a, const ELEMENT *b, int64_t ld_b, const int64_t *offsets, int64_t count,         \
        const ELEMENT *start, int64_t next_start, int64_t step, ELEMENT *sums, int64_t next_sums, int64_t ld_sums,   \
        int64_t prefetch, int64_t ahead, const ELEMENT *fetched, const int64_t *fetches, int64_t fetch_count

/* The functions' names in the tables of all micro-kernels. The planner does not choose those that this set has not compiled. */
#if HALVES
#define HALF(kind) NAME(half_##kind)
#else
#define HALF(kind) NAME(kind)
#endif
#if PAIRS
#define PAIR_OF(kind) NAME(pair_##kind)
#else
#define PAIR_OF(kind) NAME(kind)
#endif
#define ONE_SPAN(width) NAME(span_##width),
#define HALF_SPAN(width) HALF(span_##width),
#define PAIR_SPAN(width) PAIR_OF(span_##width),

/* whether taps t and t + 1 read neighbouring pixels */
#define ARE_NEIGHBOURS(t) ((t) + 1 < count && offsets[2 * (t) + 3] == offsets[2 * (t) + 1] + ld_b)

#endif

/* The micro-kernel `span` of fastconv/kernels/primitives.py: a register tile of `width` pixels of a row times `vectors` vectors of
 * results. With `prefetch` it prefetches what the next tiles read, with `ahead` what it will read of `a` itself, and at each of
 * the first `fetch_count` taps a line of the weight that will be packed next. */
INLINE void VEC(span_tile)(const int vectors, const int width, SPAN_ARGUMENTS) {
    vec acc[MAX_PAIRED][MAX_SPAN];
    UNROLLED for (int j = 0; j < width; j++) {
        UNROLLED for (int v = 0; v < vectors; v++) acc[v][j] = VEC(read)(start + v * next_start + j * step);
    }
    const int64_t later = ld_b * width * (1 + TAPS_AHEAD / count);
    /* taps that read neighbouring pixels share those: each pixel that is loaded is multiplied by two taps */
    const int shares = PAIRS && vectors == 1 && ARE_NEIGHBOURS(0);
    for (int64_t t = 0; shares && t < count;) {
        const ELEMENT *base = b + offsets[2 * t + 1];
        const vec factor = VEC(read)(a + offsets[2 * t]);
        if (ARE_NEIGHBOURS(t)) {
            const vec next = VEC(read)(a + offsets[2 * t + 2]);
            acc[0][0] = VEC(fma)(factor, VEC(broadcast)(base[0]), acc[0][0]);
            UNROLLED for (int j = 1; j < width; j++) {
                const vec x = VEC(broadcast)(base[j * ld_b]);
                acc[0][j - 1] = VEC(fma)(next, x, acc[0][j - 1]);
                acc[0][j] = VEC(fma)(factor, x, acc[0][j]);
            }
            acc[0][width - 1] = VEC(fma)(next, VEC(broadcast)(base[width * ld_b]), acc[0][width - 1]);
            t += 2;
        } else {
            UNROLLED for (int j = 0; j < width; j++) acc[0][j] = VEC(fma)(factor, VEC(broadcast)(base[j * ld_b]), acc[0][j]);
            t++;
        }
    }
    for (int64_t t = 0; !shares && t < count; t++) {
        const ELEMENT *base = b + offsets[2 * t + 1];
        vec factors[MAX_PAIRED];
        if (prefetch && ld_b == 1)
            for (int j = 0; j < width; j += LINE) PREFETCH_FAR(base + PREFETCH_AHEAD + j);
        else if (prefetch) { /* each tap another pixel of a later tile, as the taps of a cache line of channels need each line once */
            const ELEMENT *const pixel = base + later + (offsets[2 * t + 1] & (LINE - 1)) * ld_b;
            for (int j = 0; j < width; j += LINE) PREFETCH_FAR(pixel + j * ld_b);
        }
        for (int v = 0; ahead && v < vectors; v++) PREFETCH(a + v * next_a + offsets[2 * t] + ahead);
        if (t < fetch_count) PREFETCH(fetched + fetches[t]);
        UNROLLED for (int v = 0; v < vectors; v++) factors[v] = VEC(read)(a + v * next_a + offsets[2 * t]);
        UNROLLED for (int j = 0; j < width; j++) {
            const vec x = VEC(broadcast)(base[j * ld_b]);
            UNROLLED for (int v = 0; v < vectors; v++) acc[v][j] = VEC(fma)(factors[v], x, acc[v][j]);
        }
    }
    UNROLLED for (int j = 0; j < width; j++) {
        UNROLLED for (int v = 0; v < vectors; v++) VEC(write)(acc[v][j], sums + v * next_sums + j * ld_sums);
    }
}

#define SPAN_OF(kind, vectors, width)                                                                                              \
    FITS(vectors, MAX_PAIRED);                                                                                                     \
    FITS(width, MAX_SPAN);                                                                                                         \
    NOINLINE void VEC(kind##_##width)(SPAN_ARGUMENTS) {                                                                            \
        VEC(span_tile)(vectors, width, a, next_a, b, ld_b, offsets, count, start, next_start, step, sums, next_sums, ld_sums,      \
                       prefetch, ahead, fetched, fetches, fetch_count);                                                            \
    }
#define SPAN(width) SPAN_OF(span, 1, width)
FOR_SPAN(SPAN)
FITS(MAX_SPAN, MAX_UNROLLED);
#undef SPAN
#if PAIRS && !defined(IS_HALF)
#define SPAN(width) SPAN_OF(pair_span, 2, width)
FOR_SPAN(SPAN)
#undef SPAN
#endif
#undef SPAN_OF

