/* Micro-kernels for channels that have a small kernel each: vectors along the rows of a map, one after the other down a plane.
 *
 * A row of the source is read once, in a vector for each tap of a row, and is multiplied for every row of the small map that
 * reads it. Maps are read and written as they are: lanes outside are masked.
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
#define ROW_KERNEL_ARGUMENTS                                                                                          \
    const ELEMENT *weight, const ELEMENT *source, int64_t height, int64_t width, int64_t h, int64_t w, ELEMENT start, \
        ELEMENT *out, int64_t ld_out, int64_t rows, int64_t whole, int64_t cols

WORD void NAME(row_kernel_of)(const int kernel, const int hop, ROW_KERNEL_ARGUMENTS) {
    /* outputs that wait: a source row meets so many */
    const int waiting = (kernel + hop - 1) / hop;
    const int64_t ahead = NAME(rows_ahead)(height, width);
    const vector first = NAME(spread)(start);
    vector acc[MOST_ROW_KERNELS], x[MOST_ROW_KERNELS + 1], held[REGISTERS];
    /* beside sums and taps there is what they start from, and what shuffles taps; five taps with a stride leave no room */
    const int holds = hop > 1 && kernel > 4 ? 0 : HELD(kernel, waiting + kernel + (hop > 1 ? 9 : 3));
    UNROLLED for (int t = 0; t < holds; t++) held[t] = NAME(spread)(weight[t]);
    NAME(mask) near[MOST_ROW_KERNELS], far[MOST_ROW_KERNELS];
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

#define ROW_KERNEL(kernel, hop)                                                                                       \
    FITS(kernel, MOST_ROW_KERNELS);                                                                                    \
    FITS(hop, 2); /* what `read_taps` can */                                                                     \
    KERNEL void NAME(row_kernel_##kernel##_##hop)(ROW_KERNEL_ARGUMENTS) {                                                  \
        NAME(row_kernel_of)(kernel, hop, weight, source, height, width, h, w, start, out, ld_out, rows, whole, cols);    \
    }
FOR_ROW_KERNELS(ROW_KERNEL)
#undef ROW_KERNEL

/* The micro-kernel of stride 2: columns of two vectors, the rows first_row <= i < end_row of a map `out_width` wide.
 *
 * Output row i meets tap a of the kernel at source row (i + pad - a) / 2 where that is whole. `odd` is pad % 2, and (h, w)
 * are pad / 2 of both axes. A source row u meets two kinds of output rows, even and odd ones, each with the taps of one
 * parity; likewise the columns, so that a column of the source, and its neighbours, makes two columns of the output from
 * `col` on. */
#define TRANSPOSED_ARGUMENTS                                                                                          \
    const ELEMENT *weight, const ELEMENT *source, int64_t height, int64_t width, int64_t h, int64_t w, int64_t col,   \
        ELEMENT start, ELEMENT *out, int64_t out_width, int64_t first_row, int64_t end_row

WORD void NAME(transposed_of)(const int kernel, const int odd, TRANSPOSED_ARGUMENTS) {
    const int waiting = (kernel + 1) / 2;
    const int64_t ahead = NAME(rows_ahead)(height, width);
    const vector first = NAME(spread)(start);
    vector acc[2][2][(MOST_ROW_KERNELS_TRANSPOSED + 1) / 2], x[(MOST_ROW_KERNELS_TRANSPOSED + 1) / 2 + 1], held[REGISTERS];
    /* beside sums and taps there is what they start from, and what shuffles sums */
    const int holds = HELD(kernel, 5 * waiting + odd + 7);
    UNROLLED for (int t = 0; t < holds; t++) held[t] = NAME(spread)(weight[t]);
    NAME(mask) masks[(MOST_ROW_KERNELS_TRANSPOSED + 1) / 2 + 1];
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

#define TRANSPOSED(kernel, odd)                                                                                       \
    FITS(kernel, MOST_ROW_KERNELS_TRANSPOSED);                                                                                    \
    FITS(odd, 1);                                                                                                 \
    KERNEL void NAME(row_kernel_transposed_##kernel##_##odd)(TRANSPOSED_ARGUMENTS) {                                                 \
        NAME(transposed_of)(kernel, odd, weight, source, height, width, h, w, col, start, out, out_width, first_row, \
                         end_row);                                                                                \
    }
FOR_ROW_KERNELS_TRANSPOSED(TRANSPOSED)
#undef TRANSPOSED

/* The micro-kernel: a column of vectors of the small map, `rows` long, of which `cols` elements exist; for each tap a vector
 * of sums, where those of other columns and images are already. (h, w) of the source is where its first output's first tap
 * is. */
#define WEIGHT_GRAD_ARGUMENTS                                                                                         \
    const ELEMENT *source, int64_t height, int64_t width, int64_t h, int64_t w, const ELEMENT *small, int64_t ld_small, \
        int64_t rows, int64_t cols, ELEMENT *sums

WORD void NAME(weight_grad_of)(const int kernel, const int hop, WEIGHT_GRAD_ARGUMENTS) {
    /* rows of the small map that a source row meets */
    const int met = (kernel + hop - 1) / hop;
    vector acc[MOST_ROW_KERNELS_WEIGHT_GRAD][MOST_ROW_KERNELS_WEIGHT_GRAD], x[MOST_ROW_KERNELS_WEIGHT_GRAD + 1];
    NAME(mask) near[MOST_ROW_KERNELS_WEIGHT_GRAD], far[MOST_ROW_KERNELS_WEIGHT_GRAD];
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

#define WEIGHT_GRAD(kernel, hop)                                                                        \
    FITS(kernel, MOST_ROW_KERNELS_WEIGHT_GRAD);                                                                     \
    FITS(hop, 2);                                                                                   \
    KERNEL void NAME(row_kernel_weight_grad_##kernel##_##hop)(WEIGHT_GRAD_ARGUMENTS) {                                    \
        NAME(weight_grad_of)(kernel, hop, source, height, width, h, w, small, ld_small, rows, cols, sums);    \
    }
FOR_ROW_KERNELS_WEIGHT_GRAD(WEIGHT_GRAD)
#undef WEIGHT_GRAD

/* The micro-kernels by their numbers. */
static void NAME(row_kernel)(int64_t number, ELEMENT start, const ELEMENT *weight, const ELEMENT *source, int64_t height,
                             int64_t width, int64_t h, int64_t w, ELEMENT *out, int64_t ld_out, int64_t rows, int64_t whole,
                             int64_t cols) {
#define KERNEL_OF(kernel, hop) NAME(row_kernel_##kernel##_##hop),
    static void (*const kernels[])(ROW_KERNEL_ARGUMENTS) = {FOR_ROW_KERNELS(KERNEL_OF)};
#undef KERNEL_OF
    kernels[number](weight, source, height, width, h, w, start, out, ld_out, rows, whole, cols);
}
static void NAME(row_kernel_transposed)(int64_t number, ELEMENT start, const ELEMENT *weight, const ELEMENT *source,
                                        int64_t height, int64_t width, int64_t h, int64_t w, int64_t col, ELEMENT *out,
                                        int64_t out_width, int64_t first_row, int64_t end_row) {
#define KERNEL_OF(kernel, odd) NAME(row_kernel_transposed_##kernel##_##odd),
    static void (*const kernels[])(TRANSPOSED_ARGUMENTS) = {FOR_ROW_KERNELS_TRANSPOSED(KERNEL_OF)};
#undef KERNEL_OF
    kernels[number](weight, source, height, width, h, w, col, start, out, out_width, first_row, end_row);
}
static void NAME(row_kernel_weight_grad)(int64_t number, WEIGHT_GRAD_ARGUMENTS) {
#define KERNEL_OF(kernel, hop) NAME(row_kernel_weight_grad_##kernel##_##hop),
    static void (*const kernels[])(WEIGHT_GRAD_ARGUMENTS) = {FOR_ROW_KERNELS_WEIGHT_GRAD(KERNEL_OF)};
#undef KERNEL_OF
    kernels[number](source, height, width, h, w, small, ld_small, rows, cols, sums);
}
