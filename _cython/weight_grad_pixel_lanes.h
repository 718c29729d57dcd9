/* The micro-kernel of the weight gradient with a lane for each pixel: a register tile of `height` results times `width` taps, over
 * `runs` runs of `run` pixels each,
 *
 *     sums[m * ld_sums + v * LANES] (+)= sum over r, p of a[m * ld_a + r * pitch_a + p] * b[offsets[2 * v + 1] + r * pitch_b + p]
 *
 * where each element of `sums` is a vector, each lane of which sums every LANES-th pixel of a run. The first `valid` results and
 * `taps` taps exist, at least one; the tile's further ones repeat the last. */
#define DOTS_ARGUMENTS                                                                                 \
    const ELEMENT *a, int64_t ld_a, int64_t pitch_a, int64_t valid, const ELEMENT *b, int64_t pitch_b, \
        const int64_t *offsets, int64_t taps, int64_t runs, int64_t run, int is_start, ELEMENT *sums, int64_t ld_sums

/* multiply-adds of a vector of each row and tap; beside the sums, registers hold the shorter side of the tile */
#define DOTS_OF(read, ...)                                                                               \
    {                                                                                                    \
        vector held[MIN(height, width)];                                                                 \
        if (height < width) {                                                                            \
            UNROLLED for (int m = 0; m < height; m++) held[m] = read(rows[m] __VA_ARGS__);               \
            UNROLLED for (int v = 0; v < width; v++) {                                                   \
                const vector x = read(at[v] __VA_ARGS__);                                                \
                UNROLLED for (int m = 0; m < height; m++) acc[m][v] = NAME(fma)(held[m], x, acc[m][v]);  \
            }                                                                                            \
        } else {                                                                                         \
            UNROLLED for (int v = 0; v < width; v++) held[v] = read(at[v] __VA_ARGS__);                  \
            UNROLLED for (int m = 0; m < height; m++) {                                                  \
                const vector a_m = read(rows[m] __VA_ARGS__);                                            \
                UNROLLED for (int v = 0; v < width; v++) acc[m][v] = NAME(fma)(a_m, held[v], acc[m][v]); \
            }                                                                                            \
        }                                                                                                \
    }

NOINLINE void NAME(dots)(DOTS_ARGUMENTS) {
    enum { height = DOTS_RESULTS, width = DOTS_TAPS };
    FITS(height, MAX_UNROLLED);
    FITS(width, MAX_UNROLLED);
    const ELEMENT *rows[height], *at[width];
    vector acc[height][width];
    UNROLLED for (int m = 0; m < height; m++) rows[m] = a + MIN(m, valid - 1) * ld_a;
    UNROLLED for (int v = 0; v < width; v++) at[v] = b + offsets[2 * MIN(v, taps - 1) + 1];
    UNROLLED for (int m = 0; m < height; m++) {
        UNROLLED for (int v = 0; v < width; v++)
            acc[m][v] = is_start ? NAME(zero)() : NAME(read)(sums + MIN(m, valid - 1) * ld_sums + MIN(v, taps - 1) * LANES);
    }
    const NAME(mask) rest = NAME(lane_mask)(0, run % LANES);
    for (; runs > 0; runs--) {
        int64_t p = 0;
        for (; p + LANES <= run; p += LANES) DOTS_OF(NAME(read), + p)
        if (p < run) DOTS_OF(NAME(masked_load), + p, rest)
        UNROLLED for (int m = 0; m < height; m++) rows[m] += pitch_a;
        UNROLLED for (int v = 0; v < width; v++) at[v] += pitch_b;
    }
    UNROLLED for (int m = 0; m < height; m++) {
        UNROLLED for (int v = 0; v < width; v++) {
            if (m < valid && v < taps) NAME(write)(acc[m][v], sums + m * ld_sums + v * LANES);
        }
    }
}
