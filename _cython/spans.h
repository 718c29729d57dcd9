/* The micro-kernels with a lane for each result: for a vector of them, for the first half of one, and for two, which share what is
 * read of the pixels. Included for whole registers and for halves, it wants `part`, the type of so many lanes, PART(kind), the
 * names of its words and of what is made of them. Elements of `a`, `sums` and `start`, which are vectors, are LANES apart in all
 * of them; `next_...` is how far those of the second vector of results are behind the first's.
 */
#ifndef FASTCONV_SPANS_H
#define FASTCONV_SPANS_H

#define MOST_PAIRED 2 /* vectors of results that one micro-kernel sums */

#define SPAN_ARGUMENTS                                                                                            \
    const ELEMENT *a, int64_t next_a, const ELEMENT *b, const int64_t *offsets, int64_t count, const ELEMENT *start,  \
        int64_t next_start, int64_t step, ELEMENT *sums, int64_t next_sums, int64_t ld_sums, int64_t asks

#define TAPS_ARGUMENTS                                                                                            \
    const ELEMENT *a, int64_t next_a, int64_t image_a, const ELEMENT *b, int64_t image_b, const int64_t *offsets,     \
        int64_t images, const int64_t *pixels, int64_t count, const ELEMENT *start, int64_t step, ELEMENT *sums,      \
        int64_t next_sums

/* for tables of all; where some are not compiled, plans do not ask for them */
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
#define ONE_TAPS(run, runs) NAME(taps_##run##_##runs),
#define HALF_TAPS(run, runs) HALF(taps_##run##_##runs),
#define PAIR_TAPS(run, runs) PAIR_OF(taps_##run##_##runs),

/* whether tap t meets the pixels beside those of the next tap */
#define ARE_NEIGHBOURS(t) ((t) + 1 < count && offsets[2 * (t) + 3] == offsets[2 * (t) + 1] + 1)

/* the order of the tables */
enum { ONE_VECTOR, HALF_VECTOR, TWO_VECTORS, VECTOR_KINDS };

#endif

/* The micro-kernel `span` of fastconv/kernels/primitives.py for so many `vectors` of results: `width` pixels of a row, of each of
 * which the sums of several results are a vector, or two. If it `asks`, it says early what the next ones will read, as in
 * `multiply`. */
WORD void PART(span_tile)(const int vectors, const int width, SPAN_ARGUMENTS) {
    part acc[MOST_PAIRED][MOST_SPAN];
    UNROLLED for (int j = 0; j < width; j++) {
        UNROLLED for (int v = 0; v < vectors; v++) acc[v][j] = PART(read)(start + v * next_start + j * step);
    }
    /* taps that meet neighbouring pixels share those: two are multiplied with each that is read, as two vectors of results are */
    const int shares = PAIRS && vectors == 1 && ARE_NEIGHBOURS(0);
    for (int64_t t = 0; shares && t < count;) {
        const ELEMENT *base = b + offsets[2 * t + 1];
        const part factor = PART(read)(a + offsets[2 * t]);
        if (ARE_NEIGHBOURS(t)) {
            const part next = PART(read)(a + offsets[2 * t + 2]);
            acc[0][0] = PART(fma)(factor, PART(spread)(base[0]), acc[0][0]);
            UNROLLED for (int j = 1; j < width; j++) {
                const part x = PART(spread)(base[j]);
                acc[0][j - 1] = PART(fma)(next, x, acc[0][j - 1]);
                acc[0][j] = PART(fma)(factor, x, acc[0][j]);
            }
            acc[0][width - 1] = PART(fma)(next, PART(spread)(base[width]), acc[0][width - 1]);
            t += 2;
        } else {
            UNROLLED for (int j = 0; j < width; j++) acc[0][j] = PART(fma)(factor, PART(spread)(base[j]), acc[0][j]);
            t++;
        }
    }
    for (int64_t t = 0; !shares && t < count; t++) {
        const ELEMENT *base = b + offsets[2 * t + 1];
        part factors[MOST_PAIRED];
        for (int j = 0; asks && j < width; j += LINE) PREFETCH_FAR(base + AHEAD + j);
        UNROLLED for (int v = 0; v < vectors; v++) factors[v] = PART(read)(a + v * next_a + offsets[2 * t]);
        UNROLLED for (int j = 0; j < width; j++) {
            const part x = PART(spread)(base[j]);
            UNROLLED for (int v = 0; v < vectors; v++) acc[v][j] = PART(fma)(factors[v], x, acc[v][j]);
        }
    }
    UNROLLED for (int j = 0; j < width; j++) {
        UNROLLED for (int v = 0; v < vectors; v++) PART(write)(acc[v][j], sums + v * next_sums + j * ld_sums);
    }
}

#define SPAN_OF(kind, vectors, width)                                                                                       \
    FITS(vectors, MOST_PAIRED);                                                                                             \
    FITS(width, MOST_SPAN);                                                                                                 \
    KERNEL void PART(kind##_##width)(SPAN_ARGUMENTS) {                                                                      \
        PART(span_tile)(vectors, width, a, next_a, b, offsets, count, start, next_start, step, sums, next_sums, ld_sums, asks);  \
    }
#define SPAN(width) SPAN_OF(span, 1, width)
FOR_SPAN(SPAN)
FITS(MOST_SPAN, UNROLLED_MOST);
FITS(MOST_TAPS, UNROLLED_MOST);
#undef SPAN
#if PAIRS && !defined(HALF_PARTS)
#define SPAN(width) SPAN_OF(pair_span, 2, width)
FOR_SPAN(SPAN)
#undef SPAN
#endif
#undef SPAN_OF

/* The micro-kernel of correlate_results_weight: `runs` runs of `run` taps each, likewise,
 *
 *     sums[offsets[2 * t]] = start[step * offsets[2 * t]]
 *         + sum over n, p of a[n * image_a + pixels[2 * p]] * b[n * image_b + pixels[2 * p + 1] + offsets[2 * t + 1]]
 *
 * with 0 <= n < images, 0 <= p < count, t < runs * run. Each element of `a`, `sums` and `start` is a vector, that of `b` a number.
 * The taps of a run are neighbours: of two pixels that are neighbours too, each number that they read is read once for both. */
WORD void PART(taps)(const int vectors, const int run, const int runs, TAPS_ARGUMENTS) {
    part acc[MOST_PAIRED][MOST_TAPS];
    const ELEMENT *at[MOST_TAPS];
    UNROLLED for (int t = 0; t < runs * run; t++) {
        UNROLLED for (int v = 0; v < vectors; v++) acc[v][t] = PART(read)(start + step * (v * next_sums + offsets[2 * t]));
    }
    UNROLLED for (int r = 0; r < runs; r++) at[r] = b + offsets[2 * r * run + 1];
    for (int64_t n = 0; n < images; n++) {
        for (const int64_t *pixel = pixels, *const end = pixels + 2 * count; pixel < end; pixel += 2) {
            part factors[2];
            if (run > 1 && pixel + 2 < end && pixel[3] == pixel[1] + 1) {
                UNROLLED for (int i = 0; i < 2; i++) factors[i] = PART(read)(a + pixel[2 * i]);
                UNROLLED for (int r = 0; r < runs; r++) {
                    UNROLLED for (int l = 0; l <= run; l++) {
                        const part x = PART(spread)(at[r][pixel[1] + l]);
                        const int t = r * run + l;
                        if (l > 0) acc[0][t - 1] = PART(fma)(factors[1], x, acc[0][t - 1]);
                        if (l < run) acc[0][t] = PART(fma)(factors[0], x, acc[0][t]);
                    }
                }
                pixel += 2;
                continue;
            }
            UNROLLED for (int v = 0; v < vectors; v++) factors[v] = PART(read)(a + v * next_a + pixel[0]);
            UNROLLED for (int t = 0; t < runs * run; t++) {
                const part x = PART(spread)(at[t / run][pixel[1] + t % run]);
                UNROLLED for (int v = 0; v < vectors; v++) acc[v][t] = PART(fma)(factors[v], x, acc[v][t]);
            }
        }
        a += image_a;
        UNROLLED for (int r = 0; r < runs; r++) at[r] += image_b;
    }
    UNROLLED for (int t = 0; t < runs * run; t++) {
        UNROLLED for (int v = 0; v < vectors; v++) PART(write)(acc[v][t], sums + v * next_sums + offsets[2 * t]);
    }
}

#define TAPS_OF(kind, vectors, run, runs)                                                                                   \
    FITS(vectors, MOST_PAIRED);                                                                                             \
    FITS((run) * (runs), MOST_TAPS);                                                                                        \
    KERNEL void PART(kind##_##run##_##runs)(TAPS_ARGUMENTS) {                                                               \
        PART(taps)(vectors, run, runs, a, next_a, image_a, b, image_b, offsets, images, pixels, count, start, step, sums,   \
                   next_sums);                                                                                              \
    }
#define TAPS(run, runs) TAPS_OF(taps, 1, run, runs)
FOR_RUNS_1(TAPS) FOR_RUNS_2(TAPS) FOR_RUNS_3(TAPS)
#undef TAPS
#if PAIRS && !defined(HALF_PARTS)
#define TAPS(run, runs) TAPS_OF(pair_taps, 2, run, runs)
FOR_RUNS_1(TAPS)
#undef TAPS
#endif
#undef TAPS_OF
