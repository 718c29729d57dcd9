/* The weight's gradient with a lane for each pixel: both maps are read in whole vectors, and nothing is transposed but the sums.
 *
 *     correlate_pixels_weight     out[g, k, c, a, b] = sum over n, i, j of small[n, g, k, i, j] * x
 *
 * where x is the pixel of image n and channel c of group g that output (i, j) meets at tap (a, b). A sum has a chain of
 * multiply-adds in each lane, which are added in the end.
 */

/* The micro-kernel: a tile of `height` results times `width` taps, over `runs` runs of `run` pixels each,
 *
 *     sums[m * ld_sums + v * LANES] (+)= sum over r, p of a[m * ld_a + r * pitch_a + p] * b[offsets[2 * v + 1] + r * pitch_b + p]
 *
 * where each element of `sums` is a vector, each lane of which takes every LANES-th pixel of a run. The first `valid` results and
 * `taps` taps exist, at least one; the tile's further ones repeat the last. */
#define DOTS_ARGUMENTS                                                                                            \
    const ELEMENT *a, int64_t ld_a, int64_t pitch_a, int64_t valid, const ELEMENT *b, int64_t pitch_b,            \
        const int64_t *offsets, int64_t taps, int64_t runs, int64_t run, int is_start, ELEMENT *sums, int64_t ld_sums

/* a vector of each; beside the sums, registers hold those of the shorter side of the tile */
#define DOTS_OF(read, ...)                                                                                        \
    {                                                                                                             \
        vector held[MIN(height, width)];                                                                                           \
        if (height < width) {                                                                                     \
            UNROLLED for (int m = 0; m < height; m++) held[m] = read(rows[m] __VA_ARGS__);                        \
            UNROLLED for (int v = 0; v < width; v++) {                                                            \
                const vector x = read(at[v] __VA_ARGS__);                                                         \
                UNROLLED for (int m = 0; m < height; m++) acc[m][v] = NAME(fma)(held[m], x, acc[m][v]);           \
            }                                                                                                     \
        } else {                                                                                                  \
            UNROLLED for (int v = 0; v < width; v++) held[v] = read(at[v] __VA_ARGS__);                           \
            UNROLLED for (int m = 0; m < height; m++) {                                                           \
                const vector a_m = read(rows[m] __VA_ARGS__);                                                     \
                UNROLLED for (int v = 0; v < width; v++) acc[m][v] = NAME(fma)(a_m, held[v], acc[m][v]);          \
            }                                                                                                     \
        }                                                                                                         \
    }

KERNEL void NAME(dots)(DOTS_ARGUMENTS) {
    enum { height = DOTS_RESULTS, width = DOTS_TAPS };
    FITS(height, UNROLLED_MOST);
    FITS(width, UNROLLED_MOST);
    const ELEMENT *rows[height], *at[width];
    vector acc[height][width];
    UNROLLED for (int m = 0; m < height; m++) rows[m] = a + MIN(m, valid - 1) * ld_a;
    UNROLLED for (int v = 0; v < width; v++) at[v] = b + offsets[2 * MIN(v, taps - 1) + 1];
    UNROLLED for (int m = 0; m < height; m++) {
        UNROLLED for (int v = 0; v < width; v++)
            acc[m][v] = is_start ? NAME(zero)() : NAME(read)(sums + MIN(m, valid - 1) * ld_sums + MIN(v, taps - 1) * LANES);
    }
    const NAME(mask) rest = NAME(between)(0, run % LANES);
    for (; runs > 0; runs--) {
        int64_t p = 0;
        for (; p + LANES <= run; p += LANES) DOTS_OF(NAME(read), + p)
        if (p < run) DOTS_OF(NAME(read_some), + p, rest)
        UNROLLED for (int m = 0; m < height; m++) rows[m] += pitch_a;
        UNROLLED for (int v = 0; v < width; v++) at[v] += pitch_b;
    }
    UNROLLED for (int m = 0; m < height; m++) {
        UNROLLED for (int v = 0; v < width; v++) {
            if (m < valid && v < taps) NAME(write)(acc[m][v], sums + m * ld_sums + v * LANES);
        }
    }
}

static void NAME(correlate_pixels_weight)(const int64_t *plan, const int64_t *tables, const void *from, const void *factor,
                                          const void *term, void *to, void *workspace, int64_t item) {
    const ELEMENT *source = from, *small = factor;
    ELEMENT *out = to, *space = workspace;
    const fastconv_share share = fastconv_share_of(plan, item);
    const int copies = plan[P_COPIES] != 0;
    const int64_t channel = share.g * plan[P_SOURCE_GROUP] + share.c0 * plan[P_SOURCE_CHANNEL], most = plan[P_BLOCK_PIXELS];
    const int64_t taps = plan[P_TAPS_A] * plan[P_TAPS_B], count = share.channels * taps, ld_small = plan[P_WEIGHT_RESULT];
    const int64_t *offsets = tables + plan[P_TAPS];
    const int64_t run_pitch = copies ? plan[P_FIELD_COLS] : plan[P_SOURCE_WIDTH];
    const int64_t image_pitch = copies ? plan[P_PLANES_H] * plan[P_PLANES_W] * plan[P_FIELD_PLANE] : plan[P_SOURCE_IMAGE];
    ELEMENT *field = space + plan[P_FIELD], *sums = space + plan[P_SUMS], *square = space + plan[P_EXTRA];
    /* of a result's sums: whole squares are transposed */
    const int64_t ld_sums = pieces_of(count, LANES) * LANES * LANES;
    (void)term;

    for (int64_t number = share.first; number < share.end; number++) {
        const fastconv_where strip = fastconv_strip_of(plan, number);
        const ELEMENT *base = field;
        if (copies)
            NAME(fill)(plan, tables, source, field, strip.n, strip.images, channel, share.channels, strip.i0, strip.rows, strip.j0,
                       strip.cols);
        else
            base = source + strip.n * plan[P_SOURCE_IMAGE] + channel + strip.i0 * run_pitch + strip.j0;
        const ELEMENT *from_small = small + strip.n * plan[P_WEIGHT_CHANNEL] + share.g * plan[P_WEIGHT_GROUP];
        from_small += share.k0 * ld_small + strip.i0 * plan[P_COLS] + strip.j0;
        /* a block is some runs, which are rows or all of a strip, or a part of one; of a field they are rows, so that a pixel is in
         * the same lane however fields are cut */
        const int is_line = !copies && run_pitch == strip.cols;
        const int64_t run = is_line ? strip.rows * strip.cols : strip.cols, runs = is_line ? 1 : strip.rows;
        const int64_t block_i = MAX(1, most / run);
        for (int64_t n = 0; n < strip.images; n++) {
            for (int64_t i = 0; i < runs; i += block_i) {
                for (int64_t j = 0; j < run; j += most) {
                    const ELEMENT *const a = from_small + n * plan[P_WEIGHT_CHANNEL] + i * plan[P_COLS] + j;
                    const ELEMENT *const x = base + n * image_pitch + i * run_pitch + j;
                    const int is_start = number == share.first && n == 0 && i == 0 && j == 0;
                    for (int64_t t = 0; t < count; t += DOTS_TAPS) {
                        for (int64_t k = 0; k < share.results; k += DOTS_RESULTS)
                            NAME(dots)(a + k * ld_small, ld_small, plan[P_COLS], share.results - k, x, run_pitch, offsets + 2 * t,
                                 count - t, MIN(block_i, runs - i), MIN(most, run - j), is_start,
                                 sums + k * ld_sums + t * LANES, ld_sums);
                    }
                }
            }
        }
    }
    out += share.split * plan[P_OUT_IMAGE] + share.g * plan[P_OUT_GROUP] + share.k0 * plan[P_OUT_RESULT] + share.c0 * taps;
    for (int64_t k = 0; k < share.results; k++) {
        for (int64_t t = 0; t < count; t += LANES)
            NAME(total)(sums + k * ld_sums + t * LANES, square, out + k * plan[P_OUT_RESULT] + t, count - t);
    }
}
