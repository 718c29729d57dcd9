/* The micro-kernel of the weight gradient with a lane for each result: a register tile of `runs` runs of `run` taps,
 *
 *     sums[offsets[2 * t]] = start[step * offsets[2 * t]]
 *         + sum over n, p of a[n * image_a + pixels[2 * p]] * b[n * image_b + pixels[2 * p + 1] + offsets[2 * t + 1]]
 *
 * with 0 <= n < images, 0 <= p < count, t < runs * run. Each element of `a`, `sums` and `start` is a vector, that of `b` a
 * number. The taps of a run are neighbours: of two pixels that are neighbours too, each number that they read is loaded once for
 * both. See channel_lanes.h for `vec`. */
#ifndef FASTCONV_WEIGHT_GRAD_H
#define FASTCONV_WEIGHT_GRAD_H

#define TAPS_ARGUMENTS                                                                                            \
    const ELEMENT *a, int64_t next_a, int64_t image_a, const ELEMENT *b, int64_t image_b, const int64_t *offsets, \
        int64_t images, const int64_t *pixels, int64_t count, const ELEMENT *start, int64_t step, ELEMENT *sums,  \
        int64_t next_sums

/* The functions' names in the tables of all micro-kernels, as in channel_lanes.h. */
#define ONE_TAPS(run, runs) NAME(taps_##run##_##runs),
#define HALF_TAPS(run, runs) HALF(taps_##run##_##runs),
#define PAIR_TAPS(run, runs) PAIR_OF(taps_##run##_##runs),

#endif

INLINE void VEC(taps)(const int vectors, const int run, const int runs, TAPS_ARGUMENTS) {
    vec acc[MAX_PAIRED][MAX_TAPS];
    const ELEMENT *at[MAX_TAPS];
    UNROLLED for (int t = 0; t < runs * run; t++) {
        UNROLLED for (int v = 0; v < vectors; v++) acc[v][t] = VEC(read)(start + step * (v * next_sums + offsets[2 * t]));
    }
    UNROLLED for (int r = 0; r < runs; r++) at[r] = b + offsets[2 * r * run + 1];
    for (int64_t n = 0; n < images; n++) {
        for (const int64_t *pixel = pixels, *const end = pixels + 2 * count; pixel < end; pixel += 2) {
            vec factors[2];
            if (run > 1 && pixel + 2 < end && pixel[3] == pixel[1] + 1) {
                UNROLLED for (int i = 0; i < 2; i++) factors[i] = VEC(read)(a + pixel[2 * i]);
                UNROLLED for (int r = 0; r < runs; r++) {
                    UNROLLED for (int l = 0; l <= run; l++) {
                        const vec x = VEC(broadcast)(at[r][pixel[1] + l]);
                        const int t = r * run + l;
                        if (l > 0) acc[0][t - 1] = VEC(fma)(factors[1], x, acc[0][t - 1]);
                        if (l < run) acc[0][t] = VEC(fma)(factors[0], x, acc[0][t]);
                    }
                }
                pixel += 2;
                continue;
            }
            UNROLLED for (int v = 0; v < vectors; v++) factors[v] = VEC(read)(a + v * next_a + pixel[0]);
            UNROLLED for (int t = 0; t < runs * run; t++) {
                const vec x = VEC(broadcast)(at[t / run][pixel[1] + t % run]);
                UNROLLED for (int v = 0; v < vectors; v++) acc[v][t] = VEC(fma)(factors[v], x, acc[v][t]);
            }
        }
        a += image_a;
        UNROLLED for (int r = 0; r < runs; r++) at[r] += image_b;
    }
    UNROLLED for (int t = 0; t < runs * run; t++) {
        UNROLLED for (int v = 0; v < vectors; v++) VEC(write)(acc[v][t], sums + v * next_sums + offsets[2 * t]);
    }
}

#define TAPS_OF(kind, vectors, run, runs)                                                                                \
    FITS(vectors, MAX_PAIRED);                                                                                           \
    FITS((run) * (runs), MAX_TAPS);                                                                                      \
    NOINLINE void VEC(kind##_##run##_##runs)(TAPS_ARGUMENTS) {                                                           \
        VEC(taps)(vectors, run, runs, a, next_a, image_a, b, image_b, offsets, images, pixels, count, start, step, sums, \
                   next_sums);                                                                                           \
    }
#define TAPS(run, runs) TAPS_OF(taps, 1, run, runs)
FOR_RUNS_1(TAPS) FOR_RUNS_2(TAPS) FOR_RUNS_3(TAPS)
FITS(MAX_TAPS, MAX_UNROLLED);
#undef TAPS
#if PAIRS && !defined(IS_HALF)
#define TAPS(run, runs) TAPS_OF(pair_taps, 2, run, runs)
FOR_RUNS_1(TAPS)
#undef TAPS
#endif
#undef TAPS_OF
