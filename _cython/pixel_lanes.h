/* The micro-kernel with a lane for each pixel.
 *
 * It is a template, inlined into a function for each tile size, so that all loops over the tile unroll and the sums stay in
 * registers. Lengths and offsets count elements; `offsets` are pairs. */

/* A register tile of `height` rows times `width` vectors,
 *
 *     sums[m, v] = start[m, v] + sum over t of a[m * ld_a + offsets[2 * t]] * b[offsets[2 * t + 1] + v]
 *
 * with 0 <= t < count, m < height, v < width * LANES. Vectors of `start` are `step` elements from one to the next, rows
 * `ld_start`; `start` may be `sums`. Of `a` the first `valid` rows exist; the tile's further rows repeat the last of them, so
 * that nothing beyond is read. `a` is read one element at a time, so it need not be packed. With `prefetch` the tile prefetches
 * what the next one reads.
 */
#define MULTIPLY_ARGUMENTS                                                                                  \
    const ELEMENT *a, int64_t ld_a, int64_t valid, const ELEMENT *b, const int64_t *offsets, int64_t count, \
        const ELEMENT *start, int64_t ld_start, int64_t step, ELEMENT *sums, int64_t ld_sums

INLINE void NAME(multiply_tile)(const int height, const int width, const int prefetch, MULTIPLY_ARGUMENTS) {
    const ELEMENT *rows[MAX_ROWS];
    vector acc[MAX_ROWS][MAX_VECTORS];
    UNROLLED for (int m = 0; m < height; m++) {
        rows[m] = a + (m < valid ? m : valid - 1) * ld_a;
        UNROLLED for (int v = 0; v < width; v++) acc[m][v] = NAME(read)(start + m * ld_start + v * step);
    }
    for (int64_t t = 0; t < count; t++) {
        const int64_t in_a = offsets[2 * t];
        const ELEMENT *base = b + offsets[2 * t + 1];
        for (int v = 0; prefetch && v < width * LANES; v += LINE) PREFETCH_FAR(base + MAX(PREFETCH_AHEAD, width * LANES) + v);
        /* beside the sums, registers hold the shorter side of the tile and one element of the longer */
        vector held[MAX_SIDE];
        if (height < width) {
            UNROLLED for (int m = 0; m < height; m++) held[m] = NAME(broadcast)(rows[m][in_a]);
            UNROLLED for (int v = 0; v < width; v++) {
                const vector x = NAME(read)(base + v * LANES);
                UNROLLED for (int m = 0; m < height; m++) acc[m][v] = NAME(fma)(held[m], x, acc[m][v]);
            }
        } else {
            UNROLLED for (int v = 0; v < width; v++) held[v] = NAME(read)(base + v * LANES);
            UNROLLED for (int m = 0; m < height; m++) {
                const vector factor = NAME(broadcast)(rows[m][in_a]);
                UNROLLED for (int v = 0; v < width; v++) acc[m][v] = NAME(fma)(factor, held[v], acc[m][v]);
            }
        }
    }
    UNROLLED for (int m = 0; m < height; m++) {
        UNROLLED for (int v = 0; v < width; v++) NAME(write)(acc[m][v], sums + m * ld_sums + v * LANES);
    }
}

#define MULTIPLY(kind, height, width, prefetch)                                                                \
    FITS(height, MAX_ROWS);                                                                                    \
    FITS(width, MAX_VECTORS);                                                                                  \
    FITS(MIN(height, width), MAX_SIDE);                                                                        \
    NOINLINE void NAME(multiply_##kind)(MULTIPLY_ARGUMENTS) {                                                  \
        NAME(multiply_tile)(height, width, prefetch, a, ld_a, valid, b, offsets, count, start, ld_start, step, \
                            sums, ld_sums);                                                                    \
    }
MULTIPLY(full, FULL_ROWS, FULL_VECTORS, 0)
MULTIPLY(full_prefetch, FULL_ROWS, FULL_VECTORS, 1)
MULTIPLY(narrow, FULL_ROWS, 1, 0)
MULTIPLY(few, FEW_ROWS, FEW_VECTORS, 0)
MULTIPLY(few_prefetch, FEW_ROWS, FEW_VECTORS, 1)
MULTIPLY(one, ONE_ROWS, ONE_VECTORS, 0)
#if FULL_VECTORS > 2
MULTIPLY(two, FULL_ROWS, 2, 0)
#endif
#undef MULTIPLY

FITS(MAX_ROWS, MAX_UNROLLED);
FITS(MAX_VECTORS, MAX_UNROLLED);

/* The micro-kernel `number`, see `multiply` in fastconv/kernels/primitives.py. */
_Static_assert(FULL_VECTORS == 2 || FULL_VECTORS == 3, "a kernel for each number of vectors");
INLINE void NAME(multiply)(int64_t number, MULTIPLY_ARGUMENTS) {
    static void (*const kernels[])(MULTIPLY_ARGUMENTS) = {
        [1] = NAME(multiply_narrow),
#if FULL_VECTORS > 2
        [2] = NAME(multiply_two),
#endif
        [FULL_VECTORS] = NAME(multiply_full),
        [FEW_ROWS_TILE] = NAME(multiply_few),
        [ONE_ROW_TILE] = NAME(multiply_one),
        [FULL_VECTORS + PREFETCHING] = NAME(multiply_full_prefetch),
        [FEW_ROWS_TILE + PREFETCHING] = NAME(multiply_few_prefetch),
    };
    kernels[number](a, ld_a, valid, b, offsets, count, start, ld_start, step, sums, ld_sums);
}

