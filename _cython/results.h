/* A pass over matrices with a lane of the vectors for each result:
 *
 *     correlate_results     out[n, g, k, i, j] = bias + sum over c, a, b of weight[g, k, c, a, b] * x
 *
 * the correlation of dense.h, bit for bit. There the source is copied where its pixels do not fill vectors, and the weight is
 * read as it is; here the weight is transposed, and pixels are read one at a time, from wherever they are. That is cheaper
 * where a weight meets many pixels for its size: few channels, groups, rows that no vector fits. The phases of a transposed
 * convolution read one field, and their sums lie as they are written; or lanes are results of all of them.
 */

/* The weight of `count` channels, a row of lanes each tap: LANES results from `a` on, of which `valid` exist. */
static void NAME(pack_weight)(const int64_t *plan, const ELEMENT *weight, int64_t at, int64_t valid, int64_t count,
                              ELEMENT *panel) {
    const int64_t result = plan[P_WEIGHT_RESULT], channel = plan[P_WEIGHT_CHANNEL], kernel = MIN(result, channel);
    const int64_t size = plan[P_GROUPS] * plan[P_WEIGHT_GROUP];
    if (channel == kernel) { /* a result's channels lie one after the other */
        NAME(old_to_lanes)(weight, size, at, result, valid, 1, 0, panel, NULL, count * kernel);
        return;
    }
    for (int64_t c = 0; c < count; c++, at += channel, panel += kernel * LANES) {
        if (result == 1 && at + LANES <= size)
            NAME(move)(panel, weight + at);
        else
            NAME(old_to_lanes)(weight, size, at, result, valid, 1, 0, panel, NULL, kernel);
    }
}

/* The same where lanes are results of all phases, of which `run` lie side by side; `lanes` says where. */
WORD void NAME(pack_runs)(const int run, const int64_t *plan, const int64_t *tables, const ELEMENT *weight,
                          const int64_t *lanes, int64_t valid, int64_t count, ELEMENT *panel) {
    const int64_t taps = plan[P_TAPS_A] * plan[P_TAPS_B], *const in_kernel = tables + plan[P_TAP_TABLE];
    for (int64_t c = 0; c < count; c++, weight += plan[P_WEIGHT_CHANNEL]) {
        for (int64_t tap = 0; tap < taps; tap++, panel += LANES) {
            NAME(clear)(panel);
            for (int64_t lane = 0; lane < valid; lane += run)
                memcpy(panel + lane, weight + in_kernel[tap] + lanes[3 * lane], run * sizeof(ELEMENT));
        }
    }
}

/* And their sums, to where each belongs. */
WORD void NAME(place_runs)(const int run, const int64_t *plan, const int64_t *lanes, int64_t valid, const ELEMENT *sums,
                           ELEMENT *out, int64_t images, int64_t rows, int64_t cols) {
    for (int64_t line = 0; line < images * rows; line++) {
        ELEMENT *to = out + line / rows * plan[P_OUT_IMAGE] + line % rows * plan[P_OUT_ROW];
        for (int64_t col = 0; col < cols; col++, to += plan[P_OUT_COL], sums += LANES) {
            for (int64_t lane = 0; lane < valid; lane += run)
                memcpy(to + lanes[3 * lane + 1], sums + lane, run * sizeof(ELEMENT));
        }
    }
}

#define FOR_RUN(run, call) \
    if (run >= 16) call(16); else if (run == 8) call(8); else if (run == 4) call(4); else if (run == 2) call(2); else call(1)
#define OF_RUN(n) NAME(pack_runs)((n) < LANES ? (n) : LANES, plan, tables, weight, lanes, valid, count, panel)
static void NAME(pack_merged)(int64_t run, const int64_t *plan, const int64_t *tables, const ELEMENT *weight,
                              const int64_t *lanes, int64_t valid, int64_t count, ELEMENT *panel) {
    FOR_RUN(run, OF_RUN);
}
#undef OF_RUN
#define OF_RUN(n) NAME(place_runs)((n) < LANES ? (n) : LANES, plan, lanes, valid, sums, out, images, rows, cols)
static void NAME(place_merged)(int64_t run, const int64_t *plan, const int64_t *lanes, int64_t valid, const ELEMENT *sums,
                               ELEMENT *out, int64_t images, int64_t rows, int64_t cols) {
    FOR_RUN(run, OF_RUN);
}
#undef OF_RUN

static void NAME(correlate_results)(const int64_t *plan, const int64_t *tables, const void *from, const void *factor,
                                    const void *term, void *to, void *workspace, int64_t item) {
    const ELEMENT *source = from, *weight = factor, *bias = term;
    ELEMENT *out = to, *space = workspace;
    const int64_t channels = plan[P_CHANNELS], results = plan[P_RESULTS], phases = plan[P_PHASES];
    const fastconv_where where = fastconv_piece_of(plan, item);
    const int64_t images = where.images, i0 = where.i0, g = where.g;
    const int copies = plan[P_COPIES] != 0;
    const int64_t merges = plan[P_MERGES];
    const int asks = plan[P_ASKS] && !copies;
    const ELEMENT *const of_group = weight + g * plan[P_WEIGHT_GROUP];
    ELEMENT *field = space + plan[P_FIELD], *panel = space + plan[P_PANEL], *starts = space + plan[P_START];
    ELEMENT *sums = space + plan[P_SUMS], *maps = space + plan[P_EXTRA];
    static void (*const kernels[VECTOR_KINDS][MOST_SPAN])(SPAN_ARGUMENTS) = {
        {FOR_SPAN(ONE_SPAN)}, {FOR_SPAN(HALF_SPAN)}, {FOR_SPAN(PAIR_SPAN)}};

    /* what it reads, and the sums of an image: as many as are written */
    const int64_t run_pitch = copies ? plan[P_FIELD_COLS] : plan[P_SOURCE_WIDTH];
    const int64_t image_pitch = copies ? plan[P_PLANES_H] * plan[P_PLANES_W] * plan[P_FIELD_PLANE] : plan[P_SOURCE_IMAGE];
    const int64_t apart_h = plan[P_APART_H], apart_w = plan[P_APART_W], ld = apart_w * LANES;
    const int64_t rows = MIN(where.rows * apart_h, plan[P_SUMS_ROWS] - i0 * apart_h);
    const int64_t cols = MIN(where.cols * apart_w, plan[P_SUMS_COLS] - where.j0 * apart_w);
    const int64_t pixels = images * rows * cols, pitch = (pieces_of(pixels, LANES) | 1) * LANES;
    out += plan[P_OUT_START] + where.n * plan[P_OUT_IMAGE] + g * plan[P_OUT_GROUP];
    out += i0 * apart_h * plan[P_OUT_ROW] + where.j0 * apart_w * plan[P_OUT_COL];
    if (!merges) out += where.k0 * plan[P_OUT_RESULT];

    for (int64_t c0 = 0; c0 < channels; c0 += plan[P_BLOCK_CHANNELS]) {
        const int64_t count_c = MIN(plan[P_BLOCK_CHANNELS], channels - c0);
        const int64_t channel = g * plan[P_SOURCE_GROUP] + c0 * plan[P_SOURCE_CHANNEL];
        const int is_last = c0 + count_c == channels;
        const ELEMENT *base = field;
        if (copies)
            NAME(fill)(plan, tables, source, field, where.n, images, channel, count_c, i0, where.rows, where.j0, where.cols);
        else
            base = source + where.n * image_pitch + channel + i0 * run_pitch + where.j0;
        /* one vector of results, or two that share what is read of the pixels */
        for (int64_t k = 0, end_k; k < where.results; k = end_k) {
            const int which = fastconv_vectors_for(plan, where.results - k);
            end_k = MIN(where.results, k + (which == TWO_VECTORS ? 2 * LANES : LANES));
            ELEMENT *const block = sums + k * pixels, *const there = out + k * plan[P_OUT_RESULT];
            for (int64_t of = k; of < end_k; of += LANES) {
                const int64_t valid = MIN(LANES, end_k - of), at_start = of - k;
                const int64_t *const lanes = merges ? tables + plan[P_LANE_TABLE] + 3 * (where.k0 + of) : NULL;
                ELEMENT *const of_panel = panel + (of > k) * plan[P_NEXT_PANEL];
                if (merges)
                    NAME(pack_merged)(merges, plan, tables, of_group + c0 * plan[P_WEIGHT_CHANNEL], lanes, valid, count_c, of_panel);
                else
                    NAME(pack_weight)(plan, weight,
                                      g * plan[P_WEIGHT_GROUP] + (where.k0 + of) * plan[P_WEIGHT_RESULT] + c0 * plan[P_WEIGHT_CHANNEL],
                                      valid, count_c, of_panel);
                for (int64_t lane = 0; lane < LANES; lane++) {
                    const int64_t result = merges ? g * plan[P_MULTIPLE] + lanes[3 * lane + 2] : g * results + where.k0 + of + lane;
                    starts[at_start + lane] = bias && lane < valid ? bias[result] : 0;
                }
                for (int64_t pixel = 0; c0 == 0 && plan[P_GAPS] && pixel < pixels; pixel++)
                    NAME(move)(sums + of * pixels + pixel * LANES, starts + at_start);
            }
            for (int64_t phase = 0; phase < phases; phase++) {
                const int64_t *const described = tables + plan[P_PHASE_TABLE] + 5 * phase;
                int64_t run = MIN(where.cols, described[1] - where.j0), runs = MIN(where.rows, described[0] - i0);
                if (phases == 1 && run_pitch == run) { /* rows are read, and summed, one behind the other */
                    run *= runs;
                    runs = 1;
                }
                const int64_t spans = pieces_of(run, MOST_SPAN);
                for (int64_t line = 0; line < images * MAX(0, runs); line++) {
                    const int64_t image = line / runs, row = described[2] + line % runs * apart_h, col = described[3];
                    const ELEMENT *b = base + image * image_pitch + line % runs * run_pitch;
                    ELEMENT *const sum = block + ((image * rows + row) * cols + col) * LANES;
                    const int64_t *met = tables + described[4]; /* the taps of a span */
                    if (plan[P_CLIPS]) met += 2 * (i0 + line % runs) * spans;
                    ELEMENT *const goal = there + image * plan[P_OUT_IMAGE] + row * plan[P_OUT_ROW] + col;
                    for (int64_t number = 0, j = 0, end; number < spans; number++, j = end) {
                        end = run * (number + 1) / spans;
                        /* where these sums go will have come by the time that they are whole; some of it only, if it is all in
                         * few sets of a cache */
                        for (int64_t lane = 0; is_last && !merges && !plan[P_ALIASES] && lane < end_k - k; lane++)
                            PREFETCH_TO_WRITE(goal + j * apart_w * plan[P_OUT_COL] + lane * plan[P_OUT_RESULT]);
                        kernels[which][end - j - 1](panel, plan[P_NEXT_PANEL], b + j, tables + met[0], count_c * met[1],
                                                    c0 ? sum + j * ld : starts, c0 ? LANES * pixels : LANES, c0 ? ld : 0,
                                                    sum + j * ld, LANES * pixels, ld, asks && k == 0 && phase == 0);
                        if (plan[P_CLIPS]) met += 2;
                    }
                }
            }
            if (!is_last) continue;

            /* the last channels' sums are whole */
            for (int64_t of = k; of < end_k; of += LANES) {
                const int64_t valid = MIN(LANES, end_k - of);
                const ELEMENT *const whole = sums + of * pixels;
                ELEMENT *const to_there = out + of * plan[P_OUT_RESULT];
                if (merges) {
                    NAME(place_merged)(merges, plan, tables + plan[P_LANE_TABLE] + 3 * (where.k0 + of), valid, whole, out, images,
                                       rows, cols);
                    continue;
                }
                /* a square of pixels and results at a time, or whole rows where the lines of a square would not stay in a cache */
                if (plan[P_OUT_COL] == 1 && rows * cols >= LANES && !plan[P_ALIASES]) {
                    for (int64_t image = 0; image < images; image++)
                        NAME(place_lanes)(plan, whole + image * rows * cols * LANES, to_there + image * plan[P_OUT_IMAGE], valid,
                                          rows, cols);
                    continue;
                }
                for (int64_t pixel = 0; pixel < pixels; pixel += LANES)
                    NAME(transpose)(whole + pixel * LANES, LANES, LANES, maps + pixel, pitch, valid);
                for (int64_t lane = 0; lane < valid; lane++)
                    NAME(place)(plan, i0, starts[of - k + lane], maps + lane * pitch, cols, to_there + lane * plan[P_OUT_RESULT],
                                rows, cols, images, 0, 0);
            }
        }
    }
}
