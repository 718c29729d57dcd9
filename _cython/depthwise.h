/* Passes over channels that have a kernel each: a lane of the vectors for each channel, pixels one after the other.
 *
 *     correlate_channels          out[n, c, i, j] = bias + sum over a, b of weight[c, a, b] * x
 *     correlate_channels_weight   out[c, a, b] = sum over n, i, j of small[n, c, i, j] * x
 *
 * where x is the pixel of image n and channel c that output (i, j) meets at tap (a, b).
 *
 * The second is the first with pixels and taps exchanged: the small map is its kernel. With lanes along the channels neither
 * the width of a map nor a stride leaves lanes empty; a square of LANES x LANES numbers is transposed in registers on its way
 * in and out. Long rows of taps are squares of a band matrix, whose taps on the padding are left out: they need no zeros in the
 * field.
 */

/* `count` pixels of `valid` channels, from offset `at` of a map of `size` elements, one after the other or each to its place;
 * further lanes are overwritten. `multiple` results share a channel, of which the first `before` are left out. */
static void NAME(old_to_lanes)(const ELEMENT *map, int64_t size, int64_t at, int64_t pitch, int64_t valid, int64_t multiple,
                           int64_t before, ELEMENT *to, const int64_t *places, int64_t count) {
    for (int64_t v = 0; v < count; v += LANES) {
        if (multiple == 1 && at + (valid - 1) * pitch + v + LANES <= size) {
            if (places)
                NAME(scatter)(map + at + v, pitch, valid, to, places + v, MIN(LANES, count - v));
            else
                NAME(transpose)(map + at + v, pitch, valid, to + v * LANES, LANES, MIN(LANES, count - v));
            continue;
        }
        for (int64_t j = v; j < MIN(v + LANES, count); j++) {
            ELEMENT *there = to + (places ? places[j] : j * LANES);
            NAME(clear)(there);
            for (int64_t lane = 0; lane < valid; lane++) there[lane] = map[at + (before + lane) / multiple * pitch + j];
        }
    }
}

/* The zeros around the pixels of a strip's field. */
static void NAME(clear_around)(const int64_t *plan, const int64_t *tables, ELEMENT *field, int64_t i0, int64_t used) {
    const int64_t cols = plan[P_FIELD_COLS], planes_w = plan[P_PLANES_W];
    for (int64_t a = 0; a < plan[P_PLANES_H]; a++) {
        for (int64_t u = 0; u < used; u++) {
            const int64_t h = tables[plan[P_ORIGINS_H] + a] + i0 + u * plan[P_HOP_H];
            const int inside = h >= 0 && h < plan[P_SOURCE_HEIGHT];
            if (!inside && plan[P_CLIPS]) continue; /* nobody reads it */
            for (int64_t b = 0; b < planes_w; b++) {
                const int64_t *const bounds = tables + plan[P_INSIDE_W] + 2 * b;
                ELEMENT *to = field + ((a * planes_w + b) * plan[P_FIELD_ROWS] + u) * cols * LANES;
                for (int64_t v = 0; v < (inside ? bounds[0] : 0); v++) NAME(clear)(to + v * LANES);
                for (int64_t v = inside ? bounds[1] : 0; v < cols; v++) NAME(clear)(to + v * LANES);
            }
        }
    }
}

/* The pixels of a strip in its field. */
static void NAME(fill_lanes)(const int64_t *plan, const int64_t *tables, const ELEMENT *source, ELEMENT *field,
                             int64_t start, int64_t valid, int64_t before, int64_t i0, int64_t used) {
    const int64_t width = plan[P_SOURCE_WIDTH], height = plan[P_SOURCE_HEIGHT];
    for (int64_t layer = 0; layer < plan[P_LAYERS]; layer++) {
        const int64_t *const described = tables + plan[P_LAYER_TABLE] + 4 * layer;
        const int64_t origin = described[0] + i0, step = described[1];
        const int64_t rows = described[2] - (plan[P_FIELD_ROWS] - used) * (plan[P_HOP_H] / step);
        const int64_t first = pieces_of(MAX(0, -origin), step), end = MIN(rows, pieces_of(MAX(0, height - origin), step));
        const int64_t run = step == 1 ? end - first : 1; /* rows that follow each other are as good as one */
        for (int64_t u = first; u < end; u += run)
            NAME(old_to_lanes)(source, plan[P_SOURCE_SIZE], start + (origin + u * step) * width, plan[P_SOURCE_CHANNEL], valid,
                           plan[P_MULTIPLE], before, field, tables + described[3] + u * width, run * width);
    }
}

/* A row of `cols` sums, which begin as what stands at `start`; `band` is as P_BAND says. */
static void NAME(along_row)(const ELEMENT *a, const ELEMENT *b, const int64_t *offsets, int64_t count, const int64_t *band,
                            const ELEMENT *start, int64_t start_step, ELEMENT *sums, int64_t step, int64_t cols) {
    static const int widths[] = {ALONG_A, ALONG_B, ALONG_C, ALONG_D, ALONG_E};
    static void (*const kernels[])(ALONG_ARGUMENTS) = {NAME(along_a), NAME(along_b), NAME(along_c), NAME(along_d),
                                                       NAME(along_e)};
    const int64_t taps = band[0];
    for (int64_t j = 0, width; taps && j < cols; j += width) {
        const int is_long = cols - j > BAND_B;
        width = is_long ? BAND_A : BAND_B;
        const int64_t end = MIN(taps + width - 1, band[2] - j);
        /* what is read before the first pixel, or behind the last where there is a zero, is linked to no sum */
        const int64_t first = band[1] > j ? band[1] - j : end - pieces_of(MAX(0, end), width) * width;
        (is_long ? NAME(band_a) : NAME(band_b))(a, b + j * LANES, offsets, count / taps, taps, first, end,
                                                start + j * start_step, start_step, sums + j * step, step,
                                                MIN(width, cols - j));
    }
    int which = 0;
    for (int64_t j = 0; !taps && j < cols; j += widths[which]) {
        while (cols - j < widths[which]) which++;
        kernels[which](a, b + j * LANES, 0, offsets, count, start + j * start_step, 0, start_step, sums + j * step, 0, step);
    }
}

/* A strip's sums, from lanes to maps. */
static void NAME(place_lanes)(const int64_t *plan, const ELEMENT *sums, ELEMENT *out, int64_t valid, int64_t rows,
                              int64_t cols) {
    const int64_t out_result = plan[P_OUT_RESULT], out_row = plan[P_OUT_ROW], out_col = plan[P_OUT_COL];
    int64_t run = cols, runs = rows;
    if (out_col == 1 && out_row == run) {
        run *= rows;
        runs = 1;
    }
    for (int64_t i = 0; i < runs; i++) {
        const ELEMENT *from = sums + i * run * LANES;
        ELEMENT *to = out + i * out_row;
        int64_t j = 0;
        for (; out_col == 1 && run >= LANES && j < run; j += LANES) {
            const int64_t v = MIN(j, run - LANES); /* the last ones once more */
            NAME(transpose)(from + v * LANES, LANES, LANES, to + v, out_result, valid);
        }
        for (; j < run; j++) {
            for (int64_t lane = 0; lane < valid; lane++) {
                to[lane * out_result + j * out_col] = from[j * LANES + lane];
            }
        }
    }
}

static void NAME(correlate_channels)(const int64_t *plan, const int64_t *tables, const void *from, const void *factor,
                                     const void *term, void *to, void *workspace, int64_t item) {
    const ELEMENT *source = from, *weight = factor, *bias = term;
    ELEMENT *out = to, *space = workspace;
    const int64_t results = plan[P_RESULTS], sums_cols = plan[P_SUMS_COLS], kernel = plan[P_WEIGHT_RESULT];
    const int64_t multiple = plan[P_MULTIPLE], apart_h = plan[P_APART_H], apart_w = plan[P_APART_W];
    ELEMENT *field = space + plan[P_FIELD], *factors = space + plan[P_PANEL], *start = space + plan[P_START];
    ELEMENT *sums = space + plan[P_SUMS];

    /* which piece it is */
    const int64_t strips = pieces_of(plan[P_ROWS], plan[P_BLOCK_ROWS]), blocks = pieces_of(results, LANES);
    const int64_t i0 = item % strips * plan[P_BLOCK_ROWS];
    item /= strips;
    const int64_t k0 = item % blocks * LANES, n0 = item / blocks * plan[P_BLOCK_IMAGES];
    const int64_t rows = MIN(plan[P_BLOCK_ROWS], plan[P_ROWS] - i0), valid = MIN(LANES, results - k0);
    const int64_t used = rows + plan[P_FIELD_ROWS] - plan[P_BLOCK_ROWS];
    const int64_t written = MIN(rows * apart_h, plan[P_SUMS_ROWS] - i0 * apart_h);

    NAME(old_to_lanes)(weight, results * kernel, k0 * kernel, kernel, valid, 1, 0, factors, NULL, kernel);
    for (int64_t lane = 0; lane < LANES; lane++) start[lane] = bias && lane < valid ? bias[k0 + lane] : 0;
    out += plan[P_OUT_START] + k0 * plan[P_OUT_RESULT] + i0 * apart_h * plan[P_OUT_ROW];
    NAME(clear_around)(plan, tables, field, i0 * plan[P_HOP_H], used);
    for (int64_t n = n0; n < MIN(n0 + plan[P_BLOCK_IMAGES], plan[P_IMAGES]); n++) {
        NAME(fill_lanes)(plan, tables, source, field,
                         n * plan[P_SOURCE_IMAGE] + k0 / multiple * plan[P_SOURCE_CHANNEL], valid, k0 % multiple,
                         i0 * plan[P_HOP_H], used);
        if (plan[P_GAPS]) {
            for (int64_t j = 0; j < written * sums_cols; j++) NAME(move)(sums + j * LANES, start);
        }
        for (int64_t phase = 0; phase < plan[P_PHASES]; phase++) {
            const int64_t *const described = tables + plan[P_PHASE_TABLE] + 10 * phase;
            const int64_t of_phase = MIN(rows, described[0] - i0), cols = described[1];
            const int64_t *const clips = tables + described[6] + 2 * i0;
            ELEMENT *to_phase = sums + (described[2] * sums_cols + described[3]) * LANES;
            for (int64_t i = 0; i < of_phase; i++) {
                const int64_t first = plan[P_CLIPS] ? clips[2 * i] : 0, end = plan[P_CLIPS] ? clips[2 * i + 1] : described[5];
                const ELEMENT *row = field + i * plan[P_FIELD_COLS] * LANES;
                ELEMENT *line = to_phase + i * apart_h * sums_cols * LANES;
                if (first < end) {
                    NAME(along_row)(factors, row, tables + described[4] + 2 * first, end - first, described + 7, start, 0,
                                    line, apart_w * LANES, cols);
                } else {
                    for (int64_t j = 0; j < cols; j++) NAME(move)(line + j * apart_w * LANES, start);
                }
            }
        }
        NAME(place_lanes)(plan, sums, out + n * plan[P_OUT_IMAGE], valid, written, sums_cols);
    }
}

static void NAME(correlate_channels_weight)(const int64_t *plan, const int64_t *tables, const void *from,
                                            const void *factor, const void *term, void *to, void *workspace,
                                            int64_t item) {
    const ELEMENT *source = from, *small = factor;
    ELEMENT *out = to, *space = workspace;
    /* the outputs are the kernel's taps, ROWS x COLS, and the taps are the small map's pixels, TAPS_A x TAPS_B */
    const int64_t rows = plan[P_ROWS], cols = plan[P_COLS], taps_a = plan[P_TAPS_A], taps_b = plan[P_TAPS_B];
    const int64_t strips = pieces_of(taps_a, plan[P_BLOCK_PIXELS]), units = plan[P_IMAGES] * strips;
    const int64_t blocks = pieces_of(plan[P_CHANNELS], LANES), c0 = item % blocks * LANES, split = item / blocks;
    const int64_t valid = MIN(LANES, plan[P_CHANNELS] - c0);
    ELEMENT *field = space + plan[P_FIELD], *factors = space + plan[P_PANEL];
    ELEMENT *sums = space + plan[P_SUMS];
    (void)term;

    for (int64_t j = 0; j < rows * cols; j++) NAME(clear)(sums + j * LANES);
    const int64_t first_unit = units * split / plan[P_SPLITS];
    for (int64_t unit = first_unit; unit < units * (split + 1) / plan[P_SPLITS]; unit++) {
        const int64_t n = unit / strips, p0 = unit % strips * plan[P_BLOCK_PIXELS];
        const int64_t count = MIN(plan[P_BLOCK_PIXELS], taps_a - p0) * taps_b;
        NAME(old_to_lanes)(small, plan[P_SMALL_SIZE],
                       n * plan[P_WEIGHT_CHANNEL] + c0 * plan[P_WEIGHT_RESULT] + p0 * taps_b, plan[P_WEIGHT_RESULT], valid,
                       1, 0, factors, NULL, count);
        if (strips > 1 || unit == first_unit)
            NAME(clear_around)(plan, tables, field, p0 * plan[P_BLOCK_ROWS], plan[P_FIELD_ROWS]);
        NAME(fill_lanes)(plan, tables, source, field, n * plan[P_SOURCE_IMAGE] + c0 * plan[P_SOURCE_CHANNEL], valid, 0,
                         p0 * plan[P_BLOCK_ROWS], plan[P_FIELD_ROWS]);
        if (rows == 3 && cols == 3) {
            NAME(along_square)(factors, field, plan[P_FIELD_COLS] * LANES, tables + plan[P_TAPS], count, sums, 3 * LANES,
                               LANES, sums, 3 * LANES, LANES);
            continue;
        }
        for (int64_t i = 0; i < rows; i++) {
            const int64_t *const clip = tables + plan[P_CLIP_ROWS] + 2 * i;
            const int64_t first = plan[P_CLIPS] ? MAX(0, clip[0] - p0 * taps_b) : 0;
            const int64_t end = plan[P_CLIPS] ? MIN(count, clip[1] - p0 * taps_b) : count;
            ELEMENT *line = sums + i * cols * LANES;
            if (first < end)
                NAME(along_row)(factors, field + i * plan[P_FIELD_COLS] * LANES, tables + plan[P_TAPS] + 2 * first,
                                end - first, tables + plan[P_BAND], line, LANES, line, LANES, cols);
        }
    }
    for (int64_t lane = 0; lane < valid; lane++) {
        ELEMENT *taps = out + split * plan[P_OUT_IMAGE] + (c0 + lane) * rows * cols;
        for (int64_t j = 0; j < rows * cols; j++) taps[j] = sums[j * LANES + lane];
    }
}
