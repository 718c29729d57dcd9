/* The micro-kernels of depthwise convolution with a lane for each channel. */

/* A register tile of height x width pixels,
 *
 *     sums[i, j] = start[i, j] + sum over t of a[offsets[2 * t]] * b[offsets[2 * t + 1] + i * row + j * LANES]
 *
 * where each term is a vector of channels. Pixel (i, j) of `sums` and of `start` is at i * ld + j * step.
 */
#define SQUARE 3 /* rows and columns of the tile for the weight gradient of 3 x 3 kernels */
#define ALONG_ARGUMENTS                                                                                           \
    const ELEMENT *a, const ELEMENT *b, int64_t row, const int64_t *offsets, int64_t count, const ELEMENT *start, \
        int64_t ld_start, int64_t start_step, ELEMENT *sums, int64_t ld_sums, int64_t step

INLINE void NAME(along_of)(const int height, const int width, ALONG_ARGUMENTS) {
    vector acc[SQUARE][MAX_ALONG];
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

#define ALONG(kind, height, width)                                                                                  \
    FITS(height, SQUARE);                                                                                           \
    FITS(width, MAX_ALONG);                                                                                         \
    NOINLINE void NAME(along_##kind)(ALONG_ARGUMENTS) {                                                             \
        NAME(along_of)(height, width, a, b, row, offsets, count, start, ld_start, start_step, sums, ld_sums, step); \
    }
ALONG(a, 1, ALONG_A)
ALONG(b, 1, ALONG_B)
ALONG(c, 1, ALONG_C)
ALONG(d, 1, ALONG_D)
ALONG(e, 1, ALONG_E)
ALONG(3x3, SQUARE, SQUARE)
#undef ALONG
FITS(MAX_ALONG, MAX_UNROLLED);

/* A register tile of `width` pixels of a row, for kernels with long rows of taps,
 *
 *     sums[j] = start[j] + sum over i, t of a[offsets[2 * (i * taps + t)]] * b[offsets[2 * i * taps + 1] + (j + t) * LANES]
 *
 * with 0 <= i < rows, 0 <= t < taps and first <= j + t < end. The sums of a row are a row of the source times a banded Toeplitz
 * matrix, each of whose diagonals is one tap. The matrix is taken in squares of `width` sums by `width` pixels, all in registers,
 * so that only one vector for each diagonal is loaded. The first `valid` sums exist; the number of pixels read is rounded up to
 * a multiple of `width`.
 */
#define BAND_ARGUMENTS                                                                                     \
    const ELEMENT *a, const ELEMENT *b, const int64_t *offsets, int64_t rows, int64_t taps, int64_t first, \
        int64_t end, const ELEMENT *start, int64_t start_step, ELEMENT *sums, int64_t step, int64_t valid

INLINE void NAME(band_of)(const int width, BAND_ARGUMENTS) {
    vector acc[MAX_BAND];
    UNROLLED for (int j = 0; j < width; j++) {
        acc[j] = NAME(read)(start);
        start += j + 1 < valid ? start_step : 0;
    }
    for (; rows > 0; rows--, offsets += 2 * taps) {
        for (int64_t x = first; x < end; x += width) {
            const ELEMENT *base = b + offsets[1] + x * LANES;
            vector held[MAX_BAND];
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

#define BAND(kind, width)                                                                                  \
    FITS(width, MAX_BAND);                                                                                 \
    FITS(2 * (width) - 1, MAX_UNROLLED); /* its diagonals */                                               \
    NOINLINE void NAME(band_##kind)(BAND_ARGUMENTS) {                                                      \
        NAME(band_of)(width, a, b, offsets, rows, taps, first, end, start, start_step, sums, step, valid); \
    }
BAND(a, BAND_A)
BAND(b, BAND_B)
#undef BAND

/* The micro-kernels by their width. */
static int64_t NAME(along_width)(int64_t pixels) {
    static const int64_t widths[] = {ALONG_A, ALONG_B, ALONG_C, ALONG_D, ALONG_E};
    int which = 0;
    while (widths[which] > pixels) which++;
    return widths[which];
}
static void NAME(along)(int64_t width, const ELEMENT *a, const ELEMENT *b, const int64_t *offsets, int64_t count,
                        const ELEMENT *start, int64_t start_step, ELEMENT *sums, int64_t step) {
    void (*const kernel)(ALONG_ARGUMENTS) = width == ALONG_A   ? NAME(along_a)
                                            : width == ALONG_B ? NAME(along_b)
                                            : width == ALONG_C ? NAME(along_c)
                                            : width == ALONG_D ? NAME(along_d)
                                                               : NAME(along_e);
    kernel(a, b, 0, offsets, count, start, 0, start_step, sums, 0, step);
}
static void NAME(along_square)(const ELEMENT *a, const ELEMENT *b, int64_t row, const int64_t *offsets, int64_t count,
                               ELEMENT *sums, int64_t ld_sums, int64_t step) {
    NAME(along_3x3)(a, b, row, offsets, count, sums, ld_sums, step, sums, ld_sums, step);
}

#define BAND_LONG BAND_A
#define BAND_SHORT BAND_B
static void NAME(band)(int64_t is_long, BAND_ARGUMENTS) {
    (is_long ? NAME(band_a) : NAME(band_b))(a, b, offsets, rows, taps, first, end, start, start_step, sums, step, valid);
}
