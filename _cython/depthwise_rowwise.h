/* The micro-kernels of depthwise convolution with vectors along the rows of a map, going down a plane.
 *
 * A row of the source is read once, in a vector for each tap of a kernel row, and is multiplied for every row of the small map
 * that it is linked to. Maps are read and written as they are: lanes outside a map are masked.
 */

/* A vector for each tap of a kernel row, at `from`: every `stride`-th element under the masks, or zeros if the row is
 * outside the map. */
INLINE void NAME(read_taps)(const int kernel, const int stride, const ELEMENT *from, int exists, const NAME(mask) *low,
                            const NAME(mask) *high, vector *x) {
    if (!exists) {
        UNROLLED for (int b = 0; b < kernel; b++) x[b] = NAME(zero)();
    } else if (stride == 1) {
        UNROLLED for (int b = 0; b < kernel; b++) x[b] = NAME(masked_load)(from + b, low[b]);
    } else {
        UNROLLED for (int b = 0; b < kernel; b += 2) {
            const vector first_half = NAME(masked_load)(from + b, low[b]);
            const vector second_half = NAME(masked_load)(from + b + LANES, high[b]);
            x[b] = SHUFFLE(first_half, second_half, EVEN, 0);
            x[b + 1] = SHUFFLE(first_half, second_half, ODD, 0);
        }
    }
}

/* How many weights of a kernel stay in registers: all of up to 3 x 3, of larger kernels as many as there are registers beside
 * the `used` ones. The others are loaded once for each row, and loads are the bottleneck here. */
#define HELD(kernel, used) ((kernel) <= 3 ? (kernel) * (kernel) : MIN((kernel) * (kernel), REGISTERS - (used)))

/* A column of `rows` vectors; each sum is a chain of multiply-adds over rows a and columns b of a square kernel.
 *
 * (h, w) is the source position that the first output reads at the first tap. Rows from `whole` on are written to `cols` elements
 * only. */
#define ROW_KERNEL_ARGUMENTS                                                                                          \
    const ELEMENT *weight, const ELEMENT *source, int64_t height, int64_t width, int64_t ahead, int64_t h, int64_t w, \
        ELEMENT start, ELEMENT *out, int64_t ld_out, int64_t rows, int64_t whole, int64_t cols

INLINE void NAME(row_kernel_of)(const int kernel, const int stride, ROW_KERNEL_ARGUMENTS) {
    /* output rows that a source row is linked to, so many unfinished sums */
    const int waiting = (kernel + stride - 1) / stride;
    const vector first = NAME(broadcast)(start);
    vector acc[MAX_ROW_KERNELS], x[MAX_ROW_KERNELS + 1], held[REGISTERS];
    /* Registers also hold the sums, the taps' pixels, the bias, and with a stride the masks of shuffles, which leave none for the
     * weights of five taps. */
    const int holds = stride > 1 && kernel > 4 ? 0 : HELD(kernel, waiting + kernel + (stride > 1 ? 9 : 3));
    UNROLLED for (int t = 0; t < holds; t++) held[t] = NAME(broadcast)(weight[t]);
    NAME(mask) low[MAX_ROW_KERNELS], high[MAX_ROW_KERNELS];
    UNROLLED for (int b = 0; b < kernel; b++) {
        low[b] = NAME(lane_mask)(-(w + b), width - (w + b));
        high[b] = NAME(lane_mask)(-(w + b) - LANES, width - (w + b) - LANES);
    }
    UNROLLED for (int m = 0; m < waiting; m++) acc[m] = first;
    for (int64_t u = 1 - waiting; u < rows; u++) {
        UNROLLED for (int plane = 0; plane < stride; plane++) {
            const int64_t at = h + (u + waiting - 1) * stride + plane;
            UNROLLED for (int half = 0; half < stride; half++) PREFETCH_FAR(source + (at + ahead) * width + w + half * LANES);
            NAME(read_taps)(kernel, stride, source + at * width + w, at >= 0 && at < height, low, high, x);
            UNROLLED for (int m = 0; m < waiting; m++) {
                const int a = (waiting - 1 - m) * stride + plane;
                UNROLLED for (int t = a * kernel; t < MIN(a + 1, kernel) * kernel; t++)
                    acc[m] = NAME(fma)(t < holds ? held[t] : NAME(broadcast)(weight[t]), x[t - a * kernel], acc[m]);
            }
        }
        if (u >= 0) {
            if (u < whole)
                NAME(write)(acc[0], out + u * ld_out);
            else
                NAME(masked_store)(acc[0], out + u * ld_out, cols);
        }
        UNROLLED for (int m = 0; m + 1 < waiting; m++) acc[m] = acc[m + 1];
        acc[waiting - 1] = first;
    }
}

#define ROW_KERNEL(kernel, stride)                                                                                       \
    FITS(kernel, MAX_ROW_KERNELS);                                                                                       \
    FITS(stride, 2); /* for `read_taps` */                                                                               \
    NOINLINE void NAME(row_kernel_##kernel##_##stride)(ROW_KERNEL_ARGUMENTS) {                                           \
        NAME(row_kernel_of)(kernel, stride, weight, source, height, width, ahead, h, w, start, out, ld_out, rows, whole, \
                            cols);                                                                                       \
    }
FOR_ROW_KERNELS(ROW_KERNEL)
#undef ROW_KERNEL

/* The micro-kernel of the transposed convolution of stride 2: columns of two vectors, of the rows first_row <= i < end_row of a
 * map `out_width` wide.
 *
 * Output row i is linked by tap a to source row (i + pad - a) / 2, where that is whole. `odd` is pad % 2, and (h, w) are pad / 2 of
 * both axes. Output rows of one parity use the taps of one parity; likewise columns. So a source row adds to even and to odd
 * output rows, and a column of the source with its neighbours makes two columns of the output, from `col` on. */
#define TRANSPOSED_ARGUMENTS                                                                                        \
    const ELEMENT *weight, const ELEMENT *source, int64_t height, int64_t width, int64_t ahead, int64_t h, int64_t w, \
        int64_t col, ELEMENT start, ELEMENT *out, int64_t out_width, int64_t first_row, int64_t end_row

INLINE void NAME(transposed_of)(const int kernel, const int odd, TRANSPOSED_ARGUMENTS) {
    const int waiting = (kernel + 1) / 2;
    const vector first = NAME(broadcast)(start);
    vector acc[2][2][(MAX_ROW_KERNELS_TRANSPOSED + 1) / 2], x[(MAX_ROW_KERNELS_TRANSPOSED + 1) / 2 + 1], held[REGISTERS];
    /* registers also hold the sums, the taps' pixels, the bias and the masks of shuffles */
    const int holds = HELD(kernel, 5 * waiting + odd + 7);
    UNROLLED for (int t = 0; t < holds; t++) held[t] = NAME(broadcast)(weight[t]);
    NAME(mask) masks[(MAX_ROW_KERNELS_TRANSPOSED + 1) / 2 + 1];
    /* x[v] is read v - (waiting - 1) columns from the source's column */
    const int64_t left = col / 2 + w - (waiting - 1);
    UNROLLED for (int v = 0; v < waiting + odd; v++) masks[v] = NAME(lane_mask)(-(left + v), width - (left + v));
    UNROLLED for (int qf = 0; qf < 4; qf++) {
        UNROLLED for (int m = 0; m < waiting; m++) acc[qf / 2][qf % 2][m] = first;
    }
    for (int64_t u = first_row / 2 + h - (waiting - 1); u < (end_row + 1) / 2 + h + odd; u++) {
        PREFETCH_FAR(source + (u + ahead) * width + left);
        UNROLLED for (int v = 0; v < waiting + odd; v++) {
            if (u < 0 || u >= height)
                x[v] = NAME(zero)();
            else
                x[v] = NAME(masked_load)(source + u * width + left + v, masks[v]);
        }
        /* row i + m of the output rows of parity q has the taps 2 * m + down; likewise columns of parity f */
        UNROLLED for (int qf = 0; qf < 4; qf++) {
            const int q = qf / 2, f = qf % 2, down = (q + odd) % 2, across = (f + odd) % 2;
            UNROLLED for (int m = 0; m < waiting; m++) {
                UNROLLED for (int n = waiting - 1; n >= 0; n--) {
                    const int a = 2 * m + down, b = 2 * n + across, v = f * odd - n + waiting - 1, t = a * kernel + b;
                    if (a < kernel && b < kernel)
                        acc[q][f][m] = NAME(fma)(t < holds ? held[t] : NAME(broadcast)(weight[t]), x[v], acc[q][f][m]);
                }
            }
        }
        UNROLLED for (int q = 0; q < 2; q++) {
            const int64_t i = 2 * (u - h - q * odd) + q;
            if (i >= first_row && i < end_row) {
                ELEMENT *to = out + i * out_width + col;
                const vector first_half = SHUFFLE(acc[q][0][0], acc[q][1][0], INTERLEAVED, 0);
                const vector second_half = SHUFFLE(acc[q][0][0], acc[q][1][0], INTERLEAVED, 1);
                if (col + 2 * LANES <= out_width) {
                    NAME(write)(first_half, to);
                    NAME(write)(second_half, to + LANES);
                } else {
                    NAME(masked_store)(first_half, to, out_width - col);
                    NAME(masked_store)(second_half, to + LANES, out_width - col - LANES);
                }
            }
            UNROLLED for (int f = 0; f < 2; f++) {
                UNROLLED for (int m = 0; m + 1 < waiting; m++) acc[q][f][m] = acc[q][f][m + 1];
                acc[q][f][waiting - 1] = first;
            }
        }
    }
}

#define TRANSPOSED(kernel, odd)                                                                                      \
    FITS(kernel, MAX_ROW_KERNELS_TRANSPOSED);                                                                        \
    FITS(odd, 1);                                                                                                    \
    NOINLINE void NAME(row_kernel_transposed_##kernel##_##odd)(TRANSPOSED_ARGUMENTS) {                               \
        NAME(transposed_of)(kernel, odd, weight, source, height, width, ahead, h, w, col, start, out, out_width,     \
                            first_row, end_row);                                                                     \
    }
FOR_ROW_KERNELS_TRANSPOSED(TRANSPOSED)
#undef TRANSPOSED

/* The micro-kernel of the weight gradient: a column of `rows` vectors of the small map, of which `cols` elements exist. For each tap
 * it adds to a vector of sums, which hold those of other columns and images. (h, w) is the source position that the first pixel
 * reads at the first tap. */
#define WEIGHT_GRAD_ARGUMENTS                                                                                           \
    const ELEMENT *source, int64_t height, int64_t width, int64_t ahead, int64_t h, int64_t w, const ELEMENT *small, \
        int64_t ld_small, int64_t rows, int64_t cols, ELEMENT *sums

INLINE void NAME(weight_grad_of)(const int kernel, const int stride, WEIGHT_GRAD_ARGUMENTS) {
    /* rows of the small map that a source row is linked to */
    const int linked_rows = (kernel + stride - 1) / stride;
    vector acc[MAX_ROW_KERNELS_WEIGHT_GRAD][MAX_ROW_KERNELS_WEIGHT_GRAD], x[MAX_ROW_KERNELS_WEIGHT_GRAD + 1];
    NAME(mask) low[MAX_ROW_KERNELS_WEIGHT_GRAD], high[MAX_ROW_KERNELS_WEIGHT_GRAD];
    const NAME(mask) cols_mask = NAME(lane_mask)(0, cols);
    /* pixels that are linked to none of these columns are not read, as they need not be finite */
    UNROLLED for (int b = 0; b < kernel; b++) {
        const int64_t end = MIN(width - (w + b), stride * cols);
        low[b] = NAME(lane_mask)(-(w + b), end);
        high[b] = NAME(lane_mask)(-(w + b) - LANES, end - LANES);
    }
    UNROLLED for (int a = 0; a < kernel; a++) {
        UNROLLED for (int b = 0; b < kernel; b++) acc[a][b] = NAME(read)(sums + (a * kernel + b) * LANES);
    }
    for (int64_t i = 0; i < rows + linked_rows - 1; i++) {
        PREFETCH_FAR(small + (i + ahead / stride) * ld_small);
        UNROLLED for (int plane = 0; plane < stride; plane++) {
            const int64_t at = h + i * stride + plane;
            UNROLLED for (int half = 0; half < stride; half++) PREFETCH_FAR(source + (at + ahead) * width + w + half * LANES);
            NAME(read_taps)(kernel, stride, source + at * width + w, at >= 0 && at < height, low, high, x);
            /* rows outside the small map are left out, as the source need not be finite */
            UNROLLED for (int m = 0; m < linked_rows; m++) {
                const int a = m * stride + plane;
                if (a >= kernel || i < m || i >= rows + m) continue;
                const vector factor = NAME(masked_load)(small + (i - m) * ld_small, cols_mask);
                UNROLLED for (int b = 0; b < kernel; b++) acc[a][b] = NAME(fma)(factor, x[b], acc[a][b]);
            }
        }
    }
    UNROLLED for (int a = 0; a < kernel; a++) {
        UNROLLED for (int b = 0; b < kernel; b++) NAME(write)(acc[a][b], sums + (a * kernel + b) * LANES);
    }
}

#define WEIGHT_GRAD(kernel, stride)                                                                           \
    FITS(kernel, MAX_ROW_KERNELS_WEIGHT_GRAD);                                                                \
    FITS(stride, 2);                                                                                          \
    NOINLINE void NAME(row_kernel_weight_grad_##kernel##_##stride)(WEIGHT_GRAD_ARGUMENTS) {                   \
        NAME(weight_grad_of)(kernel, stride, source, height, width, ahead, h, w, small, ld_small, rows, cols, \
                             sums);                                                                           \
    }
FOR_ROW_KERNELS_WEIGHT_GRAD(WEIGHT_GRAD)
#undef WEIGHT_GRAD

/* The micro-kernels by their numbers. */
static void NAME(row_kernel)(int64_t number, ELEMENT start, const ELEMENT *weight, const ELEMENT *source, int64_t height,
                             int64_t width, int64_t ahead, int64_t h, int64_t w, ELEMENT *out, int64_t ld_out, int64_t rows,
                             int64_t whole, int64_t cols) {
#define KERNEL_OF(kernel, stride) NAME(row_kernel_##kernel##_##stride),
    static void (*const kernels[])(ROW_KERNEL_ARGUMENTS) = {FOR_ROW_KERNELS(KERNEL_OF)};
#undef KERNEL_OF
    kernels[number](weight, source, height, width, ahead, h, w, start, out, ld_out, rows, whole, cols);
}
static void NAME(row_kernel_transposed)(int64_t number, ELEMENT start, const ELEMENT *weight, const ELEMENT *source,
                                        int64_t height, int64_t width, int64_t ahead, int64_t h, int64_t w, int64_t col,
                                        ELEMENT *out, int64_t out_width, int64_t first_row, int64_t end_row) {
#define KERNEL_OF(kernel, odd) NAME(row_kernel_transposed_##kernel##_##odd),
    static void (*const kernels[])(TRANSPOSED_ARGUMENTS) = {FOR_ROW_KERNELS_TRANSPOSED(KERNEL_OF)};
#undef KERNEL_OF
    kernels[number](weight, source, height, width, ahead, h, w, col, start, out, out_width, first_row, end_row);
}
static void NAME(row_kernel_weight_grad)(int64_t number, WEIGHT_GRAD_ARGUMENTS) {
#define KERNEL_OF(kernel, stride) NAME(row_kernel_weight_grad_##kernel##_##stride),
    static void (*const kernels[])(WEIGHT_GRAD_ARGUMENTS) = {FOR_ROW_KERNELS_WEIGHT_GRAD(KERNEL_OF)};
#undef KERNEL_OF
    kernels[number](source, height, width, ahead, h, w, small, ld_small, rows, cols, sums);
}
