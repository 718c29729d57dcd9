/* The micro-kernels: loops over taps (or pixels) whose sums stay in registers.
 *
 * Each is a template, written once and inlined into a kernel of fixed extents, so that all loops over the tile unroll.
 * Lengths and offsets count elements; `offsets` are pairs.
 */

/* Elements of a line of the caches; and from what is read to what is asked for then, where there are more runs than a processor
 * finds out by itself. */
#define LINE (64 / (int)sizeof(ELEMENT))
#define AHEAD (4 * LINE)

/* The micro-kernel for matrices: a tile of `height` rows times `width` vectors,
 *
 *     sums[m, v] = start[m, v] + sum over t of a[m * ld_a + offsets[2 * t]] * b[offsets[2 * t + 1] + v]
 *
 * with 0 <= t < count, m < height, v < width * LANES; a vector of `start` is at m * ld_start + its number * step. Of `a` the
 * first `valid` rows exist; the tile's further rows repeat the last of them, so that nothing beyond is read. `a` is read
 * one element at a time, so it need not be packed. `start` may be `sums`.
 * With `prefetch` it prefetches what the next tile reads: there are more runs then than a processor foresees.
 */
#define MULTIPLY_ARGUMENTS                                                                                        \
    const ELEMENT *a, int64_t ld_a, int64_t valid, const ELEMENT *b, const int64_t *offsets, int64_t count,       \
        const ELEMENT *start, int64_t ld_start, int64_t step, ELEMENT *sums, int64_t ld_sums

WORD void NAME(multiply_tile)(const int height, const int width, const int prefetch, MULTIPLY_ARGUMENTS) {
    const ELEMENT *rows[MOST_ROWS];
    vector acc[MOST_ROWS][MOST_VECTORS];
    UNROLLED for (int m = 0; m < height; m++) {
        rows[m] = a + (m < valid ? m : valid - 1) * ld_a;
        UNROLLED for (int v = 0; v < width; v++) acc[m][v] = NAME(read)(start + m * ld_start + v * step);
    }
    for (int64_t t = 0; t < count; t++) {
        const int64_t in_a = offsets[2 * t];
        const ELEMENT *base = b + offsets[2 * t + 1];
        for (int v = 0; prefetch && v < width * LANES; v += LINE) PREFETCH_FAR(base + MAX(AHEAD, width * LANES) + v);
        /* beside the sums, registers hold the shorter side of the tile, and one element of the longer */
        vector held[MOST_SIDE];
        if (height < width) {
            UNROLLED for (int m = 0; m < height; m++) held[m] = NAME(spread)(rows[m][in_a]);
            UNROLLED for (int v = 0; v < width; v++) {
                const vector x = NAME(read)(base + v * LANES);
                UNROLLED for (int m = 0; m < height; m++) acc[m][v] = NAME(fma)(held[m], x, acc[m][v]);
            }
        } else {
            UNROLLED for (int v = 0; v < width; v++) held[v] = NAME(read)(base + v * LANES);
            UNROLLED for (int m = 0; m < height; m++) {
                const vector factor = NAME(spread)(rows[m][in_a]);
                UNROLLED for (int v = 0; v < width; v++) acc[m][v] = NAME(fma)(factor, held[v], acc[m][v]);
            }
        }
    }
    UNROLLED for (int m = 0; m < height; m++) {
        UNROLLED for (int v = 0; v < width; v++) NAME(write)(acc[m][v], sums + m * ld_sums + v * LANES);
    }
}

#define MULTIPLY(kind, height, width, prefetch)                                                                       \
    FITS(height, MOST_ROWS);                                                                                      \
    FITS(width, MOST_VECTORS);                                                                                    \
    FITS(MIN(height, width), MOST_SIDE);                                                                          \
    KERNEL void NAME(multiply_##kind)(MULTIPLY_ARGUMENTS) {                                                       \
        NAME(multiply_tile)(height, width, prefetch, a, ld_a, valid, b, offsets, count, start, ld_start, step,    \
                            sums, ld_sums);                                                                       \
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

FITS(MOST_ROWS, UNROLLED_MOST);
FITS(MOST_VECTORS, UNROLLED_MOST);

/* That of this number, see `multiply` in fastconv/kernels/primitives.py. */
_Static_assert(FULL_VECTORS == 2 || FULL_VECTORS == 3, "a kernel for each number of vectors");
WORD void NAME(multiply)(int64_t number, MULTIPLY_ARGUMENTS) {
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

/* The micro-kernel of depthwise convolution, a lane for each channel: a tile of height x width pixels,
 *
 *     sums[i, j] = start[i, j] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + i * row + j * LANES]
 *
 * where each element of `sums`, `start`, `a` and `b` is a vector, pixel (i, j) at i * ld + j * step of its own.
 */
#define SQUARE 3 /* pixels on each side of the kernel for the commonest weight's gradient */
#define ALONG_ARGUMENTS                                                                                           \
    const ELEMENT *a, const ELEMENT *b, int64_t row, const int64_t *offsets, int64_t count, const ELEMENT *start, \
        int64_t ld_start, int64_t start_step, ELEMENT *sums, int64_t ld_sums, int64_t step

WORD void NAME(along_of)(const int height, const int width, ALONG_ARGUMENTS) {
    vector acc[SQUARE][MOST_ALONG];
    UNROLLED for (int i = 0; i < height; i++) {
        UNROLLED for (int j = 0; j < width; j++) acc[i][j] = NAME(read)(start + i * ld_start + j * start_step);
    }
    for (int64_t t = 0; t < count; t++) {
        const vector factor = NAME(read)(a + offsets[2 * t]);
        const ELEMENT *base = b + offsets[2 * t + 1];
        UNROLLED for (int i = 0; i < height; i++) {
            UNROLLED for (int j = 0; j < width; j++)
                acc[i][j] = NAME(fma)(factor, NAME(read)(base + i * row + j * LANES), acc[i][j]);
        }
    }
    UNROLLED for (int i = 0; i < height; i++) {
        UNROLLED for (int j = 0; j < width; j++) NAME(write)(acc[i][j], sums + i * ld_sums + j * step);
    }
}

#define ALONG(kind, height, width)                                                                                \
    FITS(height, SQUARE);                                                                                         \
    FITS(width, MOST_ALONG);                                                                                      \
    KERNEL void NAME(along_##kind)(ALONG_ARGUMENTS) {                                                             \
        NAME(along_of)(height, width, a, b, row, offsets, count, start, ld_start, start_step, sums, ld_sums, step);  \
    }
ALONG(a, 1, ALONG_A)
ALONG(b, 1, ALONG_B)
ALONG(c, 1, ALONG_C)
ALONG(d, 1, ALONG_D)
ALONG(e, 1, ALONG_E)
ALONG(3x3, SQUARE, SQUARE)
#undef ALONG
FITS(MOST_ALONG, UNROLLED_MOST);

/* The same for long rows of taps: `width` pixels of a row,
 *
 *     sums[j] = start[j] + sum over i, t of a[offsets[2 * (i * taps + t)]] * b[offsets[2 * i * taps + 1] + (j + t) * LANES]
 *
 * with 0 <= i < rows, 0 <= t < taps, where first <= j + t < end: neighbouring taps meet neighbouring pixels. A row of sums is
 * a row of the source times a band matrix, each of whose diagonals is one tap (it is a Toeplitz matrix). A square of it links
 * `width` sums and as many pixels, all of them in registers; what is loaded beside them is a vector for each diagonal. Of
 * the sums the first `valid` exist; pixels are read to a multiple of `width`.
 */
#define BAND_ARGUMENTS                                                                                            \
    const ELEMENT *a, const ELEMENT *b, const int64_t *offsets, int64_t rows, int64_t taps, int64_t first,        \
        int64_t end, const ELEMENT *start, int64_t start_step, ELEMENT *sums, int64_t step, int64_t valid

WORD void NAME(band_of)(const int width, BAND_ARGUMENTS) {
    vector acc[MOST_BAND];
    UNROLLED for (int j = 0; j < width; j++) {
        acc[j] = NAME(read)(start);
        start += j + 1 < valid ? start_step : 0;
    }
    for (; rows > 0; rows--, offsets += 2 * taps) {
        for (int64_t x = first; x < end; x += width) {
            const ELEMENT *base = b + offsets[1] + x * LANES;
            vector held[MOST_BAND];
            UNROLLED for (int j = 0; j < width; j++) held[j] = NAME(read)(base + j * LANES);
            UNROLLED for (int d = 1 - width; d < width; d++) {
                const int64_t tap = x + d;
                if ((uint64_t)tap >= (uint64_t)taps) continue;
                const vector factor = NAME(read)(a + offsets[2 * tap]);
                UNROLLED for (int j = MAX(0, -d); j < MIN(width, width - d); j++)
                    acc[j] = NAME(fma)(factor, held[j + d], acc[j]);
            }
        }
    }
    UNROLLED for (int j = 0; j < width; j++) {
        if (j < valid) NAME(write)(acc[j], sums + j * step);
    }
}

#define BAND(kind, width)                                                                                         \
    FITS(width, MOST_BAND);                                                                                       \
    FITS(2 * (width) - 1, UNROLLED_MOST); /* its diagonals */                                                     \
    KERNEL void NAME(band_##kind)(BAND_ARGUMENTS) {                                                               \
        NAME(band_of)(width, a, b, offsets, rows, taps, first, end, start, start_step, sums, step, valid);           \
    }
BAND(a, BAND_A)
BAND(b, BAND_B)
#undef BAND

/* A square of LANES x LANES elements, of which the first `valid` rows exist; further ones repeat the last of them. Its first
 * `count` columns are written, of at most `most`: half of them take half the shuffles. They are written one after the other,
 * or each to its place. */
WORD void NAME(transposed)(const int most, const ELEMENT *from, int64_t ld_from, int64_t valid, ELEMENT *to, int64_t ld_to,
                           const int64_t *places, int64_t count) {
    vector rows[LANES];
    UNROLLED for (int i = 0; i < LANES; i++) {
        rows[i] = NAME(read)(from);
        from += i + 1 < valid ? ld_from : 0;
    }
    NAME(exchange)(rows);
    UNROLLED for (int i = 0; i < most; i++) {
        if (i < count) NAME(write)(rows[i], to + (places ? places[i] : i * ld_to));
    }
}
KERNEL void NAME(transpose_most)(const ELEMENT *from, int64_t ld_from, int64_t valid, ELEMENT *to, int64_t ld_to, int64_t count) {
    NAME(transposed)(LANES, from, ld_from, valid, to, ld_to, NULL, count);
}
KERNEL void NAME(transpose_half)(const ELEMENT *from, int64_t ld_from, int64_t valid, ELEMENT *to, int64_t ld_to, int64_t count) {
    NAME(transposed)(LANES / 2, from, ld_from, valid, to, ld_to, NULL, count);
}
KERNEL void NAME(scatter)(const ELEMENT *from, int64_t ld_from, int64_t valid, ELEMENT *to, const int64_t *places, int64_t count) {
    NAME(transposed)(LANES, from, ld_from, valid, to, 0, places, count);
}
static void NAME(transpose)(const ELEMENT *from, int64_t ld_from, int64_t valid, ELEMENT *to, int64_t ld_to, int64_t count) {
    (count > LANES / 2 ? NAME(transpose_most) : NAME(transpose_half))(from, ld_from, valid, to, ld_to, count);
}

/* The sum over the lanes of each of LANES vectors, of which the first `count` are wanted: one vector of many. `square` is room. */
static void NAME(total)(const ELEMENT *sums, ELEMENT *square, ELEMENT *to, int64_t count) {
    NAME(transpose)(sums, LANES, LANES, square, LANES, LANES);
    vector total = NAME(read)(square);
    for (int64_t lane = 1; lane < LANES; lane++) total = NAME(fma)(NAME(spread)(1), NAME(read)(square + lane * LANES), total);
    NAME(write_some)(total, to, count);
}

/* Row i of the target is element i of each of LANES runs, which start at from + offsets[2 * lane + 1]. Each is read to LANES
 * elements; 1 <= count <= LANES rows are written. */
KERNEL void NAME(gather)(const ELEMENT *from, const int64_t *offsets, ELEMENT *to, int64_t ld_to, int64_t count) {
    vector rows[LANES];
    UNROLLED for (int i = 0; i < LANES; i++) {
        rows[i] = NAME(read)(from + offsets[2 * i + 1]);
        PREFETCH_FAR(from + offsets[2 * i + 1] + AHEAD);
    }
    NAME(exchange)(rows);
    UNROLLED for (int i = 0; i < LANES; i++) {
        if (i < count) NAME(write)(rows[i], to + i * ld_to);
    }
}
