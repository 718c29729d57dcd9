/* The micro-kernels of depthwise convolution of maps whose channels are neighbours, which are read and written as they are. */

/* A row of the source for rows `first` <= i < `end` of a register tile, whose row of taps is at a + i * next. With `is_inside`, no
 * column is outside of the source. */
INLINE void NAME(add_row)(const int first, const int end, const int width, const int taps, const int stride,
                          const int is_inside, vector acc[TALL_ROWS][LONG_COLS], const ELEMENT *a, int64_t next,
                          const ELEMENT *b, int64_t col, int64_t first_col, int64_t end_col) {
    vector factor[TALL_ROWS][MAX_TAP_ROWS];
    UNROLLED for (int i = first; i < end; i++) {
        UNROLLED for (int s = 0; s < taps; s++) {
            factor[i][s] = NAME(read)(a + i * next + s * LANES);
            if (REGISTERS >= PAIRED) IN_REGISTER(factor[i][s]);
        }
    }
    UNROLLED for (int x = 0; x < (width - 1) * stride + taps; x++) {
        if (is_inside || (x >= first_col && x < end_col)) {
            vector pixel = NAME(read)(b);
            IN_REGISTER(pixel);
            UNROLLED for (int i = first; i < end; i++) {
                UNROLLED for (int s = 0; s < taps; s++) {
                    const int j = (x - s) / stride;
                    if (x >= s && j * stride == x - s && j < width) acc[i][j] = NAME(fma)(factor[i][s], pixel, acc[i][j]);
                }
            }
        }
        MOVE_POINTER(b, col);
    }
}

/* All rows of the source for a square kernel, with load instructions of their own for each row. Some hardware prefetchers learn
 * the stride of each load instruction. In a loop over rows one instruction reads all rows, so it has no constant stride. With
 * `is_inside`, no column is outside of the source. */
#define MAX_OWN_LOADS 3 /* taps */
INLINE void NAME(add_square)(const int width, const int size, const int stride, const int is_inside,
                             vector acc[TALL_ROWS][LONG_COLS], const ELEMENT *a, const ELEMENT *b, int64_t row, int64_t col,
                             int64_t first_row, int64_t end_row, int64_t first_col, int64_t end_col) {
    UNROLLED for (int r = 0; r < size + stride; r++) {
        if (r < first_row || r >= end_row) continue;
        NAME(add_row)(r < size ? 0 : 1, r < stride ? 1 : TALL_ROWS, width, size, stride, is_inside, acc, a + r * size * LANES,
                      -stride * size * LANES, b + r * row, col, first_col, end_col);
    }
}

/* A register tile of height x width pixels,
 *
 *     out[i * ld_out + j * step] = start + sum over r, s of a[r * S + s] * b[(i * stride + r) * row + (j * T + s) * col]
 *
 * with 0 <= r < taps, 0 <= s < S. Each term is a vector of channels. Taps on the padding are left out. The first `rows` x `cols` pixels are written. */
#define RECTANGLE_ARGUMENTS                                                                                                 \
    const ELEMENT *a, const ELEMENT *b, int64_t row, int64_t col, int64_t stride, int64_t taps, int64_t first_row,          \
        int64_t end_row, int64_t first_col, int64_t end_col, const ELEMENT *start, ELEMENT *out, int64_t ld_out, int64_t step, \
        int64_t rows, int64_t cols

INLINE void NAME(rectangle_of)(const int height, const int width, const int across, const int stride_across,
                               RECTANGLE_ARGUMENTS) {
    vector acc[TALL_ROWS][LONG_COLS];
    UNROLLED for (int i = 0; i < height; i++) {
        UNROLLED for (int j = 0; j < width; j++) acc[i][j] = NAME(read)(start);
    }
    if (height > 1 && across <= MAX_OWN_LOADS && taps == across && stride == stride_across) {
        if (first_col <= 0 && end_col >= (width - 1) * stride_across + across) {
            NAME(add_square)(width, across, stride_across, 1, acc, a, b, row, col, first_row, end_row, first_col, end_col);
        } else {
            NAME(add_square)(width, across, stride_across, 0, acc, a, b, row, col, first_row, end_row, first_col, end_col);
        }
    } else {
        for (int64_t r = first_row; r < end_row; r++) {
            const ELEMENT *of_row = a + r * across * LANES, *read = b + r * row;
            const int64_t next = -stride * across * LANES;
            if (height == 1 || r < stride) {
                NAME(add_row)(0, 1, width, across, stride_across, 0, acc, of_row, next, read, col, first_col, end_col);
            } else if (r < taps) {
                NAME(add_row)(0, TALL_ROWS, width, across, stride_across, 0, acc, of_row, next, read, col, first_col, end_col);
            } else {
                NAME(add_row)(1, TALL_ROWS, width, across, stride_across, 0, acc, of_row, next, read, col, first_col, end_col);
            }
        }
    }
    UNROLLED for (int i = 0; i < height; i++) {
        UNROLLED for (int j = 0; j < width; j++) {
            if (i < rows && j < cols) NAME(write)(acc[i][j], out + i * ld_out + j * step);
        }
    }
}
_Static_assert(TALL_ROWS == 2, "add_row is called for the first row, for both, and for the second");

#define RECTANGLE(across, stride_across)                                                                                    \
    FITS((LONG_COLS - 1) * (stride_across) + (across), MAX_UNROLLED);                                                       \
    NOINLINE void NAME(tall_##across##_##stride_across)(RECTANGLE_ARGUMENTS) {                                              \
        NAME(rectangle_of)(TALL_ROWS, TALL_COLS, across, stride_across, a, b, row, col, stride, taps, first_row, end_row,   \
                           first_col, end_col, start, out, ld_out, step, rows, cols);                                       \
    }                                                                                                                       \
    NOINLINE void NAME(long_##across##_##stride_across)(RECTANGLE_ARGUMENTS) {                                              \
        NAME(rectangle_of)(1, LONG_COLS, across, stride_across, a, b, row, col, stride, taps, first_row, end_row, first_col, \
                           end_col, start, out, ld_out, step, rows, cols);                                                  \
    }
FOR_TAP_ROWS(RECTANGLE)
#undef RECTANGLE

/* The weight gradient of `count` neighbouring pixels of a row of the small map,
 *
 *     acc[r][s] += a[j * step] * b[r * row + (j * stride + s) * col]
 *
 * with 0 <= j < count and 0 <= r, s < size. Taps on the padding are left out. */
INLINE void NAME(add_pixels)(const int size, const int stride, const int count, vector acc[MAX_WINDOWS][MAX_WINDOWS],
                             const ELEMENT *a, int64_t step, const ELEMENT *b, int64_t row, int64_t col, int64_t first_row,
                             int64_t end_row, int64_t first_col, int64_t end_col) {
    vector factor[MAX_WINDOW_PIXELS];
    UNROLLED for (int j = 0; j < count; j++) {
        factor[j] = NAME(read)(a + j * step);
        if (REGISTERS >= PAIRED) IN_REGISTER(factor[j]);
    }
    /* the rows of taps at once, as the sums of one row alone would wait for each other */
    UNROLLED for (int x = 0; x < (count - 1) * stride + size; x++) {
        if (x >= first_col && x < end_col) {
            const ELEMENT *read = b;
            UNROLLED for (int r = 0; r < size; r++) {
                if (r >= first_row && r < end_row) {
                    vector pixel = NAME(read)(read);
                    IN_REGISTER(pixel);
                    UNROLLED for (int s = 0; s < size; s++) {
                        const int j = (x - s) / stride;
                        if (x >= s && j * stride == x - s && j < count) acc[r][s] = NAME(fma)(factor[j], pixel, acc[r][s]);
                    }
                }
                MOVE_POINTER(read, row);
            }
        }
        MOVE_POINTER(b, col);
    }
}

/* Adds a row of `cols` pixels of the small map to the weight gradient of a square kernel. */
#define WINDOW_ARGUMENTS                                                                                              \
    const ELEMENT *a, int64_t step, int64_t cols, const ELEMENT *b, int64_t row, int64_t col, int64_t first_row,      \
        int64_t end_row, int64_t first_col, int64_t end_col, ELEMENT *sums

INLINE void NAME(sum_window_of)(const int size, const int stride, const int count, WINDOW_ARGUMENTS) {
    vector acc[MAX_WINDOWS][MAX_WINDOWS];
    UNROLLED for (int r = 0; r < size; r++) {
        UNROLLED for (int s = 0; s < size; s++) acc[r][s] = NAME(read)(sums + (r * size + s) * LANES);
    }
    int64_t j = 0;
    for (; j + count <= cols; j += count) {
        NAME(add_pixels)(size, stride, count, acc, a + j * step, step, b + j * stride * col, row, col, first_row, end_row,
                         first_col - j * stride, end_col - j * stride);
    }
    for (; j < cols; j++) {
        NAME(add_pixels)(size, stride, 1, acc, a + j * step, step, b + j * stride * col, row, col, first_row, end_row,
                         first_col - j * stride, end_col - j * stride);
    }
    UNROLLED for (int r = 0; r < size; r++) {
        UNROLLED for (int s = 0; s < size; s++) NAME(write)(acc[r][s], sums + (r * size + s) * LANES);
    }
}

#define WINDOW(size, stride)                                                                                           \
    FITS((MAX_WINDOW_PIXELS - 1) * (stride) + (size), MAX_UNROLLED);                                                   \
    NOINLINE void NAME(sum_window_##size##_##stride)(WINDOW_ARGUMENTS) {                                               \
        NAME(sum_window_of)(size, stride, WINDOW_PIXELS(size), a, step, cols, b, row, col, first_row, end_row, first_col, \
                            end_col, sums);                                                                            \
    }
FOR_WINDOWS(WINDOW)
#undef WINDOW

/* The micro-kernels by their numbers. */
static void NAME(rectangle)(int64_t number, int64_t is_long, RECTANGLE_ARGUMENTS) {
#define TALL(across, stride) NAME(tall_##across##_##stride),
#define LONG(across, stride) NAME(long_##across##_##stride),
    static void (*const kernels[2][MAX_UNROLLED])(RECTANGLE_ARGUMENTS) = {{FOR_TAP_ROWS(TALL)}, {FOR_TAP_ROWS(LONG)}};
#undef TALL
#undef LONG
    kernels[is_long][number](a, b, row, col, stride, taps, first_row, end_row, first_col, end_col, start, out, ld_out, step, rows,
                             cols);
}
static void NAME(sum_window)(int64_t number, WINDOW_ARGUMENTS) {
#define KERNEL_OF(size, stride) NAME(sum_window_##size##_##stride),
    static void (*const kernels[])(WINDOW_ARGUMENTS) = {FOR_WINDOWS(KERNEL_OF)};
#undef KERNEL_OF
    kernels[number](a, step, cols, b, row, col, first_row, end_row, first_col, end_col, sums);
}
