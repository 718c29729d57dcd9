/* Passes over channels that have a small kernel each: vectors along the rows of a map, one after the other down a plane.
 *
 *     correlate_rows           out[n, k, i, j] = bias + sum over a, b of weight[k, a, b] * x
 *     spread_rows              out[n, k, i, j] = bias + sum over a, b of weight[k, a, b] * x
 *     correlate_rows_weight    out[k, a, b] = sum over n, i, j of small[n, k, i, j] * x
 *
 * where x is the pixel of image n and channel k / multiple that output (i, j) meets at tap (a, b): in the first and the last
 * the one at (i * hop + a, j * hop + b) from the origin; in the second, a transposed convolution of stride 2, every second
 * tap meets one.
 *
 * A row of the source is read once, in a vector for each tap of a row, and meets every row of the small map that it should,
 * whose sums wait in registers, or in the last pass a vector for each tap does. Maps are read and written as they are: lanes
 * outside are masked.
 */

/* How many rows ahead of time the second-level cache is asked for: the same place of the next plane, while that many
 * elements fit there. The first column of a plane meets each row for the first time, in strides that not every processor
 * foresees; nearer, or asked for by the first-level cache, memory does not keep up. */
#define AHEAD_ELEMENTS (1 << 15)
WORD int64_t NAME(rows_ahead)(int64_t height, int64_t width) { return MIN(height, AHEAD_ELEMENTS / width + 1); }

/* A vector for each tap of a row, from `place` on: every hop-th element, those of the masks; zeros if the row is none. */
WORD void NAME(read_taps)(const int kernel, const int hop, const ELEMENT *place, int exists, const NAME(mask) *near,
                          const NAME(mask) *far, vector *x) {
    if (!exists) {
        UNROLLED for (int b = 0; b < kernel; b++) x[b] = NAME(zero)();
    } else if (hop == 1) {
        UNROLLED for (int b = 0; b < kernel; b++) x[b] = NAME(read_some)(place + b, near[b]);
    } else {
        UNROLLED for (int b = 0; b < kernel; b += 2) {
            const vector some = NAME(read_some)(place + b, near[b]), others = NAME(read_some)(place + b + LANES, far[b]);
            x[b] = SHUFFLE(some, others, EVEN, 0);
            x[b + 1] = SHUFFLE(some, others, ODD, 0);
        }
    }
}

/* How many weights of a kernel stay in registers: up to nine do, of larger kernels as many as `others` leave. Each of the rest is
 * loaded once a row, and loads are what these micro-kernels wait for. */
#define HELD(kernel, others) ((kernel) <= 3 ? (kernel) * (kernel) : MIN((kernel) * (kernel), REGISTERS - (others)))

/* The micro-kernel: a column of vectors, `rows` long, each sum a chain over rows a and columns b of a square kernel.
 *
 * (h, w) of the source is where the first output's first tap is. Rows from `whole` on are written to `cols` elements only. */
#define SLIDE_ARGUMENTS                                                                                          \
    const ELEMENT *weight, const ELEMENT *source, int64_t height, int64_t width, int64_t h, int64_t w, ELEMENT start, \
        ELEMENT *out, int64_t ld_out, int64_t rows, int64_t whole, int64_t cols

WORD void NAME(slide)(const int kernel, const int hop, SLIDE_ARGUMENTS) {
    /* outputs that wait: a source row meets so many */
    const int waiting = (kernel + hop - 1) / hop;
    const int64_t ahead = NAME(rows_ahead)(height, width);
    const vector first = NAME(spread)(start);
    vector acc[MOST_SLIDE], x[MOST_SLIDE + 1], held[REGISTERS];
    /* beside sums and taps there is what they start from, and what shuffles taps; five taps with a stride leave no room */
    const int holds = hop > 1 && kernel > 4 ? 0 : HELD(kernel, waiting + kernel + (hop > 1 ? 9 : 3));
    UNROLLED for (int t = 0; t < holds; t++) held[t] = NAME(spread)(weight[t]);
    NAME(mask) near[MOST_SLIDE], far[MOST_SLIDE];
    UNROLLED for (int b = 0; b < kernel; b++) {
        near[b] = NAME(between)(-(w + b), width - (w + b));
        far[b] = NAME(between)(-(w + b) - LANES, width - (w + b) - LANES);
    }
    UNROLLED for (int m = 0; m < waiting; m++) acc[m] = first;
    for (int64_t u = 1 - waiting; u < rows; u++) {
        UNROLLED for (int plane = 0; plane < hop; plane++) {
            const int64_t at = h + (u + waiting - 1) * hop + plane;
            UNROLLED for (int half = 0; half < hop; half++) PREFETCH_FAR(source + (at + ahead) * width + w + half * LANES);
            NAME(read_taps)(kernel, hop, source + at * width + w, at >= 0 && at < height, near, far, x);
            UNROLLED for (int m = 0; m < waiting; m++) {
                const int a = (waiting - 1 - m) * hop + plane;
                UNROLLED for (int t = a * kernel; t < MIN(a + 1, kernel) * kernel; t++)
                    acc[m] = NAME(fma)(t < holds ? held[t] : NAME(spread)(weight[t]), x[t - a * kernel], acc[m]);
            }
        }
        if (u >= 0) {
            if (u < whole)
                NAME(write)(acc[0], out + u * ld_out);
            else
                NAME(write_some)(acc[0], out + u * ld_out, cols);
        }
        UNROLLED for (int m = 0; m + 1 < waiting; m++) acc[m] = acc[m + 1];
        acc[waiting - 1] = first;
    }
}

#define SLIDE(kernel, hop)                                                                                       \
    FITS(kernel, MOST_SLIDE);                                                                                    \
    FITS(hop, 2); /* what `read_taps` can */                                                                     \
    KERNEL void NAME(slide_##kernel##_##hop)(SLIDE_ARGUMENTS) {                                                  \
        NAME(slide)(kernel, hop, weight, source, height, width, h, w, start, out, ld_out, rows, whole, cols);    \
    }
FOR_SLIDES(SLIDE)
#undef SLIDE

static void NAME(correlate_rows)(const int64_t *plan, const int64_t *tables, const void *from, const void *factor,
                                 const void *term, void *to, void *workspace, int64_t item) {
    const ELEMENT *source = from, *weight = factor, *bias = term;
    ELEMENT *out = to, *turned = (ELEMENT *)workspace + plan[P_PANEL];
    const int64_t results = plan[P_RESULTS], kernel = plan[P_WEIGHT_RESULT], cols = plan[P_COLS], ld = plan[P_OUT_ROW];
    const int64_t height = plan[P_SOURCE_HEIGHT], width = plan[P_SOURCE_WIDTH], hop = plan[P_HOP_W];
#define SLIDE(kernel, hop) NAME(slide_##kernel##_##hop),
    static void (*const kernels[])(SLIDE_ARGUMENTS) = {FOR_SLIDES(SLIDE)};
#undef SLIDE
    void (*const slide)(SLIDE_ARGUMENTS) = kernels[plan[P_TILE]];

    /* which piece it is */
    const int64_t strips = pieces_of(plan[P_ROWS], plan[P_BLOCK_ROWS]), blocks = pieces_of(results, plan[P_BLOCK_RESULTS]);
    const int64_t i0 = item % strips * plan[P_BLOCK_ROWS];
    item /= strips;
    const int64_t k0 = item % blocks * plan[P_BLOCK_RESULTS], n = item / blocks;
    const int64_t rows = MIN(plan[P_BLOCK_ROWS], plan[P_ROWS] - i0), end = MIN(k0 + plan[P_BLOCK_RESULTS], results);
    const int64_t h = tables[plan[P_ORIGINS_H]] + i0 * plan[P_HOP_H], w = tables[plan[P_ORIGINS_W]];
    /* what a row writes beyond its end is written over by the next ones; the last ones end where they should */
    const int64_t whole = cols >= LANES ? rows : MAX(0, floored(rows * cols - LANES, cols) + 1);

    for (int64_t k = k0; k < end; k++) {
        const ELEMENT *plane = source + n * plan[P_SOURCE_IMAGE] + k / plan[P_MULTIPLE] * plan[P_SOURCE_CHANNEL];
        const ELEMENT *taps = weight + k * kernel;
        if (plan[P_TURNS]) {
            for (int64_t t = 0; t < kernel; t++) turned[t] = taps[kernel - 1 - t];
            taps = turned;
        }
        ELEMENT *sums = out + n * plan[P_OUT_IMAGE] + k * plan[P_OUT_RESULT] + i0 * ld;
        for (int64_t j = 0;; j = MIN(j + LANES, cols - LANES)) {
            slide(taps, plane, height, width, h, w + j * hop, bias ? bias[k] : 0, sums + j, ld, rows, whole, cols);
            if (j + LANES >= cols) break;
        }
    }
}

/* The micro-kernel of stride 2: columns of two vectors, the rows first_row <= i < end_row of a map `out_width` wide.
 *
 * Output row i meets tap a of the kernel at source row (i + pad - a) / 2 where that is whole. `odd` is pad % 2, and (h, w)
 * are pad / 2 of both axes. A source row u meets two kinds of output rows, even and odd ones, each with the taps of one
 * parity; likewise the columns, so that a column of the source, and its neighbours, makes two columns of the output from
 * `col` on. */
#define SPREAD_ARGUMENTS                                                                                          \
    const ELEMENT *weight, const ELEMENT *source, int64_t height, int64_t width, int64_t h, int64_t w, int64_t col,   \
        ELEMENT start, ELEMENT *out, int64_t out_width, int64_t first_row, int64_t end_row

WORD void NAME(spread_out)(const int kernel, const int odd, SPREAD_ARGUMENTS) {
    const int waiting = (kernel + 1) / 2;
    const int64_t ahead = NAME(rows_ahead)(height, width);
    const vector first = NAME(spread)(start);
    vector acc[2][2][(MOST_SPREAD + 1) / 2], x[(MOST_SPREAD + 1) / 2 + 1], held[REGISTERS];
    /* beside sums and taps there is what they start from, and what shuffles sums */
    const int holds = HELD(kernel, 5 * waiting + odd + 7);
    UNROLLED for (int t = 0; t < holds; t++) held[t] = NAME(spread)(weight[t]);
    NAME(mask) masks[(MOST_SPREAD + 1) / 2 + 1];
    /* x[v] is what stands v - (waiting - 1) columns from the source's column */
    const int64_t left = col / 2 + w - (waiting - 1);
    UNROLLED for (int v = 0; v < waiting + odd; v++) masks[v] = NAME(between)(-(left + v), width - (left + v));
    UNROLLED for (int qf = 0; qf < 4; qf++) {
        UNROLLED for (int m = 0; m < waiting; m++) acc[qf / 2][qf % 2][m] = first;
    }
    for (int64_t u = first_row / 2 + h - (waiting - 1); u < (end_row + 1) / 2 + h + odd; u++) {
        PREFETCH_FAR(source + (u + ahead) * width + left);
        UNROLLED for (int v = 0; v < waiting + odd; v++) {
            if (u < 0 || u >= height)
                x[v] = NAME(zero)();
            else
                x[v] = NAME(read_some)(source + u * width + left + v, masks[v]);
        }
        /* a parity of output rows q, of which row i + m has the taps 2 * m + its own parity; likewise columns f */
        UNROLLED for (int qf = 0; qf < 4; qf++) {
            const int q = qf / 2, f = qf % 2, down = (q + odd) % 2, across = (f + odd) % 2;
            UNROLLED for (int m = 0; m < waiting; m++) {
                UNROLLED for (int n = waiting - 1; n >= 0; n--) {
                    const int a = 2 * m + down, b = 2 * n + across, v = f * odd - n + waiting - 1, t = a * kernel + b;
                    if (a < kernel && b < kernel)
                        acc[q][f][m] = NAME(fma)(t < holds ? held[t] : NAME(spread)(weight[t]), x[v], acc[q][f][m]);
                }
            }
        }
        UNROLLED for (int q = 0; q < 2; q++) {
            const int64_t i = 2 * (u - h - q * odd) + q;
            if (i >= first_row && i < end_row) {
                ELEMENT *to = out + i * out_width + col;
                const vector some = SHUFFLE(acc[q][0][0], acc[q][1][0], ZIPPED, 0);
                const vector others = SHUFFLE(acc[q][0][0], acc[q][1][0], ZIPPED, 1);
                if (col + 2 * LANES <= out_width) {
                    NAME(write)(some, to);
                    NAME(write)(others, to + LANES);
                } else {
                    NAME(write_some)(some, to, out_width - col);
                    NAME(write_some)(others, to + LANES, out_width - col - LANES);
                }
            }
            UNROLLED for (int f = 0; f < 2; f++) {
                UNROLLED for (int m = 0; m + 1 < waiting; m++) acc[q][f][m] = acc[q][f][m + 1];
                acc[q][f][waiting - 1] = first;
            }
        }
    }
}

#define SPREAD(kernel, odd)                                                                                       \
    FITS(kernel, MOST_SPREAD);                                                                                    \
    FITS(odd, 1);                                                                                                 \
    KERNEL void NAME(spread_##kernel##_##odd)(SPREAD_ARGUMENTS) {                                                 \
        NAME(spread_out)(kernel, odd, weight, source, height, width, h, w, col, start, out, out_width, first_row, \
                         end_row);                                                                                \
    }
FOR_SPREADS(SPREAD)
#undef SPREAD

static void NAME(spread_rows)(const int64_t *plan, const int64_t *tables, const void *from, const void *factor,
                              const void *term, void *to, void *workspace, int64_t item) {
    const ELEMENT *source = from, *weight = factor, *bias = term;
    ELEMENT *out = to;
    const int64_t results = plan[P_RESULTS], cols = plan[P_COLS];
#define SPREAD(kernel, odd) NAME(spread_##kernel##_##odd),
    static void (*const kernels[])(SPREAD_ARGUMENTS) = {FOR_SPREADS(SPREAD)};
#undef SPREAD
    void (*const spread)(SPREAD_ARGUMENTS) = kernels[plan[P_TILE]];
    (void)workspace;

    /* which piece it is */
    const int64_t strips = pieces_of(plan[P_ROWS], plan[P_BLOCK_ROWS]), blocks = pieces_of(results, plan[P_BLOCK_RESULTS]);
    const int64_t i0 = item % strips * plan[P_BLOCK_ROWS];
    item /= strips;
    const int64_t k0 = item % blocks * plan[P_BLOCK_RESULTS], n = item / blocks;
    const int64_t i1 = MIN(i0 + plan[P_BLOCK_ROWS], plan[P_ROWS]), end = MIN(k0 + plan[P_BLOCK_RESULTS], results);

    for (int64_t k = k0; k < end; k++) {
        const ELEMENT *plane = source + n * plan[P_SOURCE_IMAGE] + k * plan[P_SOURCE_CHANNEL];
        for (int64_t j = 0; j < cols; j += 2 * LANES)
            spread(weight + k * plan[P_WEIGHT_RESULT], plane, plan[P_SOURCE_HEIGHT], plan[P_SOURCE_WIDTH],
                   tables[plan[P_ORIGINS_H]], tables[plan[P_ORIGINS_W]], j, bias ? bias[k] : 0,
                   out + n * plan[P_OUT_IMAGE] + k * plan[P_OUT_RESULT], cols, i0, i1);
    }
}

/* The micro-kernel: a column of vectors of the small map, `rows` long, of which `cols` elements exist; for each tap a vector
 * of sums, where those of other columns and images are already. (h, w) of the source is where its first output's first tap
 * is. */
#define MEETING_ARGUMENTS                                                                                         \
    const ELEMENT *source, int64_t height, int64_t width, int64_t h, int64_t w, const ELEMENT *small, int64_t ld_small, \
        int64_t rows, int64_t cols, ELEMENT *sums

WORD void NAME(meet)(const int kernel, const int hop, MEETING_ARGUMENTS) {
    /* rows of the small map that a source row meets */
    const int met = (kernel + hop - 1) / hop;
    vector acc[MOST_MEETING][MOST_MEETING], x[MOST_MEETING + 1];
    NAME(mask) near[MOST_MEETING], far[MOST_MEETING];
    const int64_t ahead = NAME(rows_ahead)(height, width);
    const NAME(mask) these = NAME(between)(0, cols);
    /* what meets none of these columns is not read: it need not be finite */
    UNROLLED for (int b = 0; b < kernel; b++) {
        const int64_t end = MIN(width - (w + b), hop * cols);
        near[b] = NAME(between)(-(w + b), end);
        far[b] = NAME(between)(-(w + b) - LANES, end - LANES);
    }
    UNROLLED for (int a = 0; a < kernel; a++) {
        UNROLLED for (int b = 0; b < kernel; b++) acc[a][b] = NAME(read)(sums + (a * kernel + b) * LANES);
    }
    for (int64_t i = 0; i < rows + met - 1; i++) {
        PREFETCH_FAR(small + (i + ahead / hop) * ld_small);
        UNROLLED for (int plane = 0; plane < hop; plane++) {
            const int64_t at = h + i * hop + plane;
            UNROLLED for (int half = 0; half < hop; half++) PREFETCH_FAR(source + (at + ahead) * width + w + half * LANES);
            NAME(read_taps)(kernel, hop, source + at * width + w, at >= 0 && at < height, near, far, x);
            /* a row that is none is not multiplied: the source need not be finite */
            UNROLLED for (int m = 0; m < met; m++) {
                const int a = m * hop + plane;
                if (a >= kernel || i < m || i >= rows + m) continue;
                const vector factor = NAME(read_some)(small + (i - m) * ld_small, these);
                UNROLLED for (int b = 0; b < kernel; b++) acc[a][b] = NAME(fma)(factor, x[b], acc[a][b]);
            }
        }
    }
    UNROLLED for (int a = 0; a < kernel; a++) {
        UNROLLED for (int b = 0; b < kernel; b++) NAME(write)(acc[a][b], sums + (a * kernel + b) * LANES);
    }
}

#define MEETING(kernel, hop)                                                                        \
    FITS(kernel, MOST_MEETING);                                                                     \
    FITS(hop, 2);                                                                                   \
    KERNEL void NAME(meet_##kernel##_##hop)(MEETING_ARGUMENTS) {                                    \
        NAME(meet)(kernel, hop, source, height, width, h, w, small, ld_small, rows, cols, sums);    \
    }
FOR_MEETINGS(MEETING)
#undef MEETING

static void NAME(correlate_rows_weight)(const int64_t *plan, const int64_t *tables, const void *from, const void *factor,
                                        const void *term, void *to, void *workspace, int64_t item) {
    const ELEMENT *source = from, *small = factor;
    ELEMENT *out = to, *sums = (ELEMENT *)workspace + plan[P_SUMS], *turned = (ELEMENT *)workspace + plan[P_EXTRA];
    const int64_t results = plan[P_RESULTS], cols = plan[P_COLS], taps = plan[P_OUT_RESULT];
    const int64_t k0 = item * plan[P_BLOCK_RESULTS], end = MIN(k0 + plan[P_BLOCK_RESULTS], results);
    /* of a channel's sums: whole squares are transposed */
    const int64_t room = pieces_of(taps, LANES) * LANES * LANES;
#define MEETING(kernel, hop) NAME(meet_##kernel##_##hop),
    static void (*const kernels[])(MEETING_ARGUMENTS) = {FOR_MEETINGS(MEETING)};
#undef MEETING
    void (*const meet)(MEETING_ARGUMENTS) = kernels[plan[P_TILE]];
    (void)term;

    /* channels lie one behind the other, images far apart */
    for (int64_t t = 0; t < (end - k0) * room; t += LANES) NAME(clear)(sums + t);
    for (int64_t n = 0; n < plan[P_IMAGES]; n++) {
        for (int64_t k = k0; k < end; k++) {
            for (int64_t j = 0; j < cols; j += LANES)
                meet(source + n * plan[P_SOURCE_IMAGE] + k * plan[P_SOURCE_CHANNEL], plan[P_SOURCE_HEIGHT],
                     plan[P_SOURCE_WIDTH], tables[plan[P_ORIGINS_H]], tables[plan[P_ORIGINS_W]] + j * plan[P_HOP_W],
                     small + n * plan[P_WEIGHT_CHANNEL] + k * plan[P_WEIGHT_RESULT] + j, cols, plan[P_ROWS], cols - j,
                     sums + (k - k0) * room);
        }
    }
    for (int64_t k = k0; k < end; k++) {
        for (int64_t t = 0; t < taps; t += LANES)
            NAME(total)(sums + (k - k0) * room + t * LANES, turned, out + k * taps + t, taps - t);
    }
}
