/* A pass over matrices with a lane of the vectors for each result:
 *
 *     correlate_results     out[n, g, k, i, j] = bias + sum over c, a, b of weight[g, k, c, a, b] * x
 *
 * the correlation of dense.h, bit for bit. There the source is copied where its pixels do not fill vectors, and the weight is
 * read as it is; here the weight is transposed, and pixels are read one at a time, from wherever they are. That is cheaper
 * where a weight meets many pixels for its size: few channels, groups, rows that no vector fits.
 */

/* The micro-kernel: `width` pixels of a row, of which the sums of LANES results each are a vector,
 *
 *     sums[j] = start[j] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + j]
 *
 * with 0 <= t < count, j < width. Each element of `a`, `sums` and `start` is a vector, that of `b` a number. */
#define SPAN_ARGUMENTS                                                                                            \
    const ELEMENT *a, const ELEMENT *b, const int64_t *offsets, int64_t count, const ELEMENT *start, int64_t step,    \
        ELEMENT *sums

WORD void NAME(span)(const int width, SPAN_ARGUMENTS) {
    vector acc[16];
    UNROLLED for (int j = 0; j < width; j++) acc[j] = NAME(read)(start + j * step);
    for (int64_t t = 0; t < count; t++) {
        const vector factor = NAME(read)(a + offsets[2 * t]);
        const ELEMENT *base = b + offsets[2 * t + 1];
        UNROLLED for (int j = 0; j < width; j++) acc[j] = NAME(fma)(factor, NAME(spread)(base[j]), acc[j]);
    }
    UNROLLED for (int j = 0; j < width; j++) NAME(write)(acc[j], sums + j * LANES);
}

#define SPAN(width)                                                       \
    KERNEL void NAME(span_##width)(SPAN_ARGUMENTS) {                      \
        NAME(span)(width, a, b, offsets, count, start, step, sums);       \
    }
FOR_SPANS(SPAN)
#undef SPAN

/* The weight of `count` channels, a row of lanes each tap: LANES results from `a` on, of which `valid` exist. */
static void NAME(pack_weight)(const int64_t *plan, const ELEMENT *weight, int64_t at, int64_t valid, int64_t count,
                              ELEMENT *panel) {
    const int64_t result = plan[P_WEIGHT_RESULT], channel = plan[P_WEIGHT_CHANNEL], kernel = MIN(result, channel);
    const int64_t size = plan[P_GROUPS] * plan[P_WEIGHT_GROUP];
    if (channel == kernel) { /* a result's channels lie one after the other */
        NAME(to_lanes)(weight, size, at, result, valid, 1, 0, panel, count * kernel);
        return;
    }
    for (int64_t c = 0; c < count; c++, at += channel, panel += kernel * LANES) {
        if (result == 1 && at + LANES <= size)
            NAME(move)(panel, weight + at);
        else
            NAME(to_lanes)(weight, size, at, result, valid, 1, 0, panel, kernel);
    }
}

static void NAME(correlate_results)(const int64_t *plan, const int64_t *tables, const void *from, const void *factor,
                                    const void *term, void *to, void *workspace, int64_t item) {
    const ELEMENT *source = from, *weight = factor, *bias = term;
    ELEMENT *out = to, *space = workspace;
    const int64_t channels = plan[P_CHANNELS], results = plan[P_RESULTS], taps = plan[P_TAPS_A] * plan[P_TAPS_B];
    const fastconv_where where = fastconv_piece_of(plan, item);
    const int64_t images = where.images, rows = where.rows, cols = where.cols, g = where.g;
    const int copies = plan[P_COPIES] != 0;
    ELEMENT *field = space + plan[P_FIELD], *panel = space + plan[P_PANEL], *starts = space + plan[P_START];
    ELEMENT *sums = space + plan[P_SUMS], *maps = space + plan[P_EXTRA];
#define SPAN(width) NAME(span_##width),
    static void (*const kernels[])(SPAN_ARGUMENTS) = {FOR_SPANS(SPAN)};
#undef SPAN

    const int64_t run_pitch = copies ? plan[P_FIELD_COLS] : plan[P_SOURCE_WIDTH];
    const int64_t image_pitch = copies ? plan[P_PLANES_H] * plan[P_PLANES_W] * plan[P_FIELD_PLANE] : plan[P_SOURCE_IMAGE];
    const int64_t run = run_pitch == cols ? rows * cols : cols, runs = run_pitch == cols ? 1 : rows;
    const int64_t pixels = images * rows * cols, spans = pieces_of(run, MOST_SPAN), pitch = pieces_of(pixels, LANES) * LANES;
    out += plan[P_OUT_START] + where.n * plan[P_OUT_IMAGE] + g * plan[P_OUT_GROUP];
    out += where.i0 * plan[P_OUT_ROW] + where.j0 * plan[P_OUT_COL] + where.k0 * plan[P_OUT_RESULT];

    for (int64_t c0 = 0; c0 < channels; c0 += plan[P_BLOCK_CHANNELS]) {
        const int64_t count_c = MIN(plan[P_BLOCK_CHANNELS], channels - c0);
        const int64_t channel = g * plan[P_SOURCE_GROUP] + c0 * plan[P_SOURCE_CHANNEL];
        const ELEMENT *base = field;
        if (copies)
            NAME(fill)(plan, tables, source, field, where.n, images, channel, count_c, where.i0, rows, where.j0, cols);
        else
            base = source + where.n * image_pitch + channel + where.i0 * run_pitch + where.j0;
        for (int64_t k = 0; k < where.results; k += LANES) {
            const int64_t valid = MIN(LANES, where.results - k);
            NAME(pack_weight)(plan, weight,
                              g * plan[P_WEIGHT_GROUP] + (where.k0 + k) * plan[P_WEIGHT_RESULT] + c0 * plan[P_WEIGHT_CHANNEL],
                              valid, count_c, panel);
            for (int64_t lane = 0; lane < LANES; lane++)
                starts[lane] = bias && lane < valid ? bias[g * results + where.k0 + k + lane] : 0;
            ELEMENT *const block = sums + k * pixels, *sum = block, *there = out + k * plan[P_OUT_RESULT];
            const int is_last = c0 + count_c == channels;
            for (int64_t line = 0; line < images * runs; line++) {
                const ELEMENT *b = base + line / runs * image_pitch + line % runs * run_pitch;
                for (int64_t number = 0, j = 0, end; number < spans; number++, sum += (end - j) * LANES, j = end) {
                    end = run * (number + 1) / spans;
                    /* where these sums go will have come by the time that they are whole */
                    ELEMENT *const goal = there + line / runs * plan[P_OUT_IMAGE] + line % runs * plan[P_OUT_ROW] + j * plan[P_OUT_COL];
                    for (int64_t lane = 0; is_last && lane < valid; lane++) PREFETCH_TO_WRITE(goal + lane * plan[P_OUT_RESULT]);
                    kernels[end - j - 1](panel, b + j, tables + plan[P_TAPS], count_c * taps, c0 ? sum : starts,
                                         c0 ? LANES : 0, sum);
                }
            }
            if (!is_last) continue;

            /* the last channels' sums are whole */
            if (valid == LANES && plan[P_OUT_COL] == 1) {
                for (int64_t image = 0; image < images; image++)
                    NAME(place_lanes)(plan, block + image * rows * cols * LANES, there + image * plan[P_OUT_IMAGE], valid,
                                      rows, cols);
                continue;
            }
            for (int64_t pixel = 0; pixel < pixels; pixel += LANES)
                NAME(transpose)(block + pixel * LANES, LANES, maps + pixel, pitch);
            for (int64_t lane = 0; lane < valid; lane++)
                NAME(place)(plan, maps + lane * pitch, cols, there + lane * plan[P_OUT_RESULT], rows, cols, images, 0, 0);
        }
    }
}
