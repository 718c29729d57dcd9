/* Passes over matrices: the weight's gradient for groups of several channels.
 *
 *     correlate_weight, correlate_results_weight     out[g, k, c, a, b] = sum over n, i, j of small[n, g, k, i, j] * x
 *
 * where x is the pixel of image n and channel c of group g that output (i, j) meets at tap (a, b).
 *
 * In the first a row of the tile is a result k, its vectors are taps, for which the source's pixels are transposed; in the
 * second a row is a tap, whose pixels are read one at a time, from wherever they are, and its vectors are results, for which
 * the small map's are. Both run over pixels, and give the same bits: each element is one chain of multiply-adds in the order
 * of the definition, or as many as the plan says.
 */

/* The pixels first <= pixel < last of a strip: a row of the panel a pixel, of `taps` taps. */
static void NAME(pack_taps)(const NAME(strip) *strip, const int64_t *offsets, const ELEMENT *from, int64_t taps,
                            ELEMENT *panel, int64_t pitch, int64_t first, int64_t last) {
    /* a vector of taps after the other: rows a power of two apart are in one set of a cache, which holds no more */
    for (int64_t t = 0; t < taps; t += LANES) {
        for (int64_t pixel = first, length; pixel < last; pixel += length) {
            const int64_t in_strip = IN_STRIP(strip, pixel);
            const ELEMENT *at = from + in_strip;
            ELEMENT *to = panel + (pixel - first) * pitch;
            length = MIN(MIN(strip->run - pixel % strip->run, last - pixel), LANES);
            if (in_strip + strip->furthest + LANES <= strip->room) {
                NAME(gather)(at, offsets + 2 * t, to + t, pitch, length);
                continue;
            }
            for (int64_t lane = t; lane < MIN(t + LANES, taps); lane++) {
                for (int64_t i = 0; i < length; i++) to[i * pitch + lane] = at[offsets[2 * lane + 1] + i];
            }
        }
    }
}

static void NAME(correlate_weight)(const int64_t *plan, const int64_t *tables, const void *from, const void *factor,
                                   const void *term, void *to, void *workspace, int64_t item) {
    const ELEMENT *source = from, *small = factor;
    ELEMENT *out = to, *space = workspace;
    const fastconv_share share = fastconv_share_of(plan, item);
    const int64_t g = share.g, k0 = share.k0, c0 = share.c0, count_k = share.results, count_c = share.channels;
    const int64_t taps = plan[P_TAPS_A] * plan[P_TAPS_B], block_n = plan[P_BLOCK_IMAGES];
    (void)term;

    /* its tiles, and where it reads */
    enum { height = FULL_ROWS, width = FULL_VECTORS, pitch = FULL_VECTORS * LANES };
    const int copies = plan[P_COPIES] != 0;
    const int64_t ld_a = plan[P_WEIGHT_RESULT], channel = g * plan[P_SOURCE_GROUP] + c0 * plan[P_SOURCE_CHANNEL];
    const int64_t *offsets = tables + plan[P_TAPS], *in_small = tables + plan[P_PANEL_TAPS];
    ELEMENT *field = space + plan[P_FIELD], *panel = space + plan[P_PANEL], *sums = space + plan[P_SUMS];
    ELEMENT *zeros = space + plan[P_START];
    NAME(strip) strip = {0, 0, copies ? plan[P_FIELD_COLS] : plan[P_SOURCE_WIDTH], plan[P_SOURCE_IMAGE], 0, 0};
    if (copies)
        strip.image_pitch = plan[P_PLANES_H] * plan[P_PLANES_W] * plan[P_FIELD_PLANE];
    const int64_t count = count_c * taps, vectors = pieces_of(count, LANES), ld = vectors * LANES;
    NAME(clear)(zeros);
    /* the table goes on for lanes that no tap has; where the source ends they must not be read */
    for (int64_t t = 0; t < ld; t++) strip.furthest = MAX(strip.furthest, offsets[2 * t + 1]);

    /* tiles that are full on both sides are summed in the output */
    out += share.split * plan[P_OUT_IMAGE] + g * plan[P_OUT_GROUP] + k0 * plan[P_OUT_RESULT] + c0 * taps;
    const int64_t ld_out = plan[P_OUT_RESULT], whole_k = count_k / height * height;
    int64_t solid = count / LANES;
    if (solid < vectors) solid = solid / width * width;
    solid *= LANES;

    for (int64_t number = share.first; number < share.end; number++) {
        const fastconv_where at = fastconv_strip_of(plan, number);
        const int64_t n = at.n, i0 = at.i0, j0 = at.j0, count_n = at.images, rows = at.rows, cols = at.cols;
        const int64_t pixels = count_n * rows * cols;
        const ELEMENT *base = field;
        strip.room = INT64_MAX;
        if (copies) {
            NAME(fill)(plan, tables, source, field, n, count_n, channel, count_c, i0, rows, j0, cols);
        } else {
            const int64_t in_source = n * plan[P_SOURCE_IMAGE] + channel + i0 * strip.run_pitch + j0;
            base = source + in_source;
            strip.room = plan[P_SOURCE_SIZE] - in_source;
        }
        strip.run = strip.run_pitch == cols ? rows * cols : cols;
        strip.runs = strip.run_pitch == cols ? 1 : rows;
        const ELEMENT *a = small + n * plan[P_WEIGHT_CHANNEL] + g * plan[P_WEIGHT_GROUP] + k0 * ld_a + i0 * plan[P_COLS] + j0;
        for (int64_t first = 0; first < pixels; first += plan[P_BLOCK_PIXELS]) {
            /* the offsets of several images' pixels are all in the table; of one image's they start anew */
            const int64_t moved_a = block_n == 1 ? first : 0, moved_b = block_n == 1 ? 0 : first * pitch;
            const int64_t *pairs = block_n == 1 ? in_small : in_small + 2 * first;
            const int64_t last = MIN(first + plan[P_BLOCK_PIXELS], pixels);
            const int is_start = number == share.first && first == 0;
            for (int64_t v = 0, most; v < vectors; v += most) {
                most = MIN(width, vectors - v);
                const int64_t t = v * LANES, end = (v + most) * LANES;
                NAME(pack_taps)(&strip, offsets + 2 * t, base, MIN(end, count) - t, panel, pitch, first, last);
                for (int64_t k = 0; k < count_k; k += height) {
                    ELEMENT *sum = sums + k * ld + t;
                    int64_t ld_sum = ld;
                    if (end <= solid && k < whole_k) {
                        sum = out + k * ld_out + t;
                        ld_sum = ld_out;
                    }
                    NAME(multiply)(most, a + k * ld_a + moved_a, ld_a, count_k - k, panel - moved_b, pairs, last - first,
                                   is_start ? zeros : sum, is_start ? 0 : ld_sum, is_start ? 0 : LANES, sum, ld_sum);
                }
            }
        }
    }
    for (int64_t k = 0; k < count_k; k++) {
        const int64_t done = k < whole_k ? solid : 0;
        NAME(copy)(out + k * ld_out + done, sums + k * ld + done, count - done, 0);
    }
}

#undef IN_STRIP

/* The sums of `valid` results and `count` taps, as many as LANES at most, to where they belong; `square` is room. */
static void NAME(place_taps)(const ELEMENT *sums, ELEMENT *out, int64_t ld_out, int64_t valid, int64_t count, ELEMENT *square) {
    if (count == LANES) {
        NAME(transpose)(sums, LANES, LANES, out, ld_out, valid);
        return;
    }
    NAME(transpose)(sums, LANES, LANES, square, LANES, valid);
    for (int64_t lane = 0; lane < valid; lane++) NAME(copy)(out + lane * ld_out, square + lane * LANES, count, 0);
}

static void NAME(correlate_results_weight)(const int64_t *plan, const int64_t *tables, const void *from, const void *factor,
                                           const void *term, void *to, void *workspace, int64_t item) {
    const ELEMENT *source = from, *small = factor;
    ELEMENT *out = to, *space = workspace;
    const fastconv_share share = fastconv_share_of(plan, item);
    const int copies = plan[P_COPIES] != 0;
    const int64_t channel = share.g * plan[P_SOURCE_GROUP] + share.c0 * plan[P_SOURCE_CHANNEL], most = plan[P_BLOCK_PIXELS];
    const int64_t taps = plan[P_TAPS_A] * plan[P_TAPS_B], count = share.channels * taps;
    const int64_t size = plan[P_IMAGES] * plan[P_WEIGHT_CHANNEL], ld_small = plan[P_WEIGHT_RESULT];
    out += share.split * plan[P_OUT_IMAGE] + share.g * plan[P_OUT_GROUP] + share.k0 * plan[P_OUT_RESULT] + share.c0 * taps;
    const int64_t hop_h = plan[P_STEP_H], hop = plan[P_STEP_W];
    const int64_t run_pitch = hop_h * (copies ? plan[P_FIELD_COLS] : plan[P_SOURCE_WIDTH]);
    const int64_t image_pitch = copies ? plan[P_PLANES_H] * plan[P_PLANES_W] * plan[P_FIELD_PLANE] : plan[P_SOURCE_IMAGE];
    ELEMENT *field = space + plan[P_FIELD], *panel = space + plan[P_PANEL], *sums = space + plan[P_SUMS];
    ELEMENT *zeros = space + plan[P_START], *square = space + plan[P_EXTRA];
    _Static_assert(RUN == 3, "a table for each length of a run");
    static void (*const kernels[VECTOR_KINDS][RUN][MOST_TAPS + 1])(TAPS_ARGUMENTS) = {
        {{FOR_RUNS_1(ONE_TAPS) 0}, {FOR_RUNS_2(ONE_TAPS) 0}, {FOR_RUNS_3(ONE_TAPS) 0}},
        {{FOR_RUNS_1(HALF_TAPS) 0}, {FOR_RUNS_2(HALF_TAPS) 0}, {FOR_RUNS_3(HALF_TAPS) 0}},
        {{FOR_RUNS_1(PAIR_TAPS) 0}}};
    (void)term;
    NAME(clear)(zeros);

    for (int64_t number = share.first; number < share.end; number++) {
        const fastconv_where strip = fastconv_strip_of(plan, number);
        const ELEMENT *base = field;
        if (copies)
            NAME(fill)(plan, tables, source, field, strip.n, strip.images, channel, share.channels, strip.i0 * hop_h,
                       plan[P_BLOCK_ROWS] - (plan[P_BLOCK_ROWS] - strip.rows) * hop_h, strip.j0 * hop,
                       plan[P_BLOCK_COLS] - (plan[P_BLOCK_COLS] - strip.cols) * hop);
        else
            base = source + strip.n * plan[P_SOURCE_IMAGE] + channel + strip.i0 * run_pitch + strip.j0 * hop;
        const ELEMENT *from_small = small + strip.n * plan[P_WEIGHT_CHANNEL] + share.g * plan[P_WEIGHT_GROUP];
        from_small += share.k0 * ld_small + strip.i0 * plan[P_COLS] + strip.j0;
        /* a panel is some images, some rows of one, or a part of a row */
        const int64_t run = strip.cols, runs = strip.rows;
        const int64_t block_n = MAX(1, most / (run * runs)), block_i = MAX(1, most / run);
        const int64_t block_j = pieces_of(run, pieces_of(run, most));
        for (int64_t n = 0; n < strip.images; n += block_n) {
            const int64_t images = MIN(block_n, strip.images - n);
            for (int64_t i = 0; i < runs; i += block_i) {
                const int64_t rows = MIN(block_i, runs - i);
                for (int64_t j = 0; j < run; j += block_j) {
                    const int64_t cols = MIN(block_j, run - j);
                    const int is_start = number == share.first && n == 0 && i == 0 && j == 0;
                    const int is_last = number == share.end - 1 && n + images == strip.images && i + rows == runs && j + cols == run;
                    const ELEMENT *const x = base + n * image_pitch + i * run_pitch + j * hop;
                    /* one vector of results, or two that share what is read of the source */
                    for (int64_t k = 0, end_k; k < share.results; k = end_k) {
                        const int which = fastconv_vectors_for(plan, share.results - k);
                        end_k = MIN(share.results, k + (which == TWO_VECTORS ? 2 * LANES : LANES));
                        ELEMENT *const sum = sums + k * count, *const there = out + k * plan[P_OUT_RESULT];
                        const int64_t at = from_small - small + n * plan[P_WEIGHT_CHANNEL] + i * run + j;
                        for (int64_t of = k; of < end_k; of += LANES) {
                            for (int64_t m = 0; m < images; m++)
                                NAME(to_lanes)(small, size, at + m * plan[P_WEIGHT_CHANNEL] + of * ld_small, ld_small,
                                               MIN(LANES, end_k - of), 1, 0,
                                               panel + (of > k) * plan[P_NEXT_PANEL] + m * rows * cols * LANES, NULL,
                                               rows * cols);
                        }
                        int64_t passed = 0;
                        for (int64_t bundle = 0; bundle < plan[P_BUNDLES]; bundle++) {
                            const int64_t *const described = tables + plan[P_BUNDLE_TABLE] + 9 * bundle;
                            const int64_t *const offsets = tables + described[0], bundled = share.channels * described[1];
                            /* the outputs of the panel that its taps meet */
                            const int64_t top = MAX(0, described[2] - strip.i0 - i), left = MAX(0, described[4] - strip.j0 - j);
                            const int64_t met_i = MIN(rows, described[3] - strip.i0 - i) - top;
                            const int64_t met_j = MIN(cols, described[5] - strip.j0 - j) - left;
                            const int64_t first = top * met_j + left - described[7];
                            const int is_met = met_i > 0 && met_j > 0;
                            const int64_t beside = described[8], in_runs = bundled / beside;
                            const int64_t chunks = pieces_of(in_runs, MOST_TAPS / beside);
                            for (int64_t chunk = 0, t = 0, end; chunk < chunks; chunk++, passed += end - t, t = end) {
                                end = in_runs * (chunk + 1) / chunks * beside;
                                /* where these sums go will have come by the time that they are whole */
                                for (int64_t lane = 0; is_last && lane < end_k - k; lane++)
                                    PREFETCH_TO_WRITE(there + lane * plan[P_OUT_RESULT] + passed);
                                if (is_met)
                                    kernels[which][beside - 1][(end - t) / beside - 1](
                                        panel, plan[P_NEXT_PANEL], rows * cols * LANES, x, image_pitch, offsets + 2 * t, images,
                                        tables + described[6] + 2 * first, met_i * met_j, is_start ? zeros : sum,
                                        is_start ? 0 : 1, sum, LANES * count);
                                for (int64_t tap = t; is_start && !is_met && tap < end; tap++) {
                                    for (int64_t of = 0; of < end_k - k; of += LANES)
                                        NAME(clear)(sum + of * count + offsets[2 * tap]);
                                }
                            }
                        }
                        for (int64_t of = k; is_last && of < end_k; of += LANES) {
                            for (int64_t t = 0; t < count; t += LANES)
                                NAME(place_taps)(sums + of * count + t * LANES, out + of * plan[P_OUT_RESULT] + t,
                                                 plan[P_OUT_RESULT], MIN(LANES, end_k - of), MIN(LANES, count - t), square);
                        }
                    }
                }
            }
        }
    }
}
