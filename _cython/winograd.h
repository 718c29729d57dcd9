/* The transforms of Winograd's convolution, see fastconv/kernels/toom_cook.py, whose matrices toom_cook.h has as functions.
 *
 * A matrix is applied to the columns of a tile of registers, then one to its rows. Each is compiled for each row of
 * abi.WINOGRAD, so that the loops unroll. */
#define COLUMNS(matrix, height, width, address)                                              \
    vector column[MAX_WINOGRAD], across[MAX_WINOGRAD * MAX_WINOGRAD], found[MAX_WINOGRAD];   \
    UNROLLED for (int j = 0; j < (width); j++) {                                             \
        UNROLLED for (int i = 0; i < (height); i++) column[i] = NAME(read)(address);         \
        matrix(column, across + j, width);                                                   \
    }
/* m outputs and r taps on each axis */
#define SIZES(m_h, r_h, m_w, r_w) enum { height = (m_h) + (r_h) - 1, width = (m_w) + (r_w) - 1 };

#define INPUT(number, m_h, r_h, m_w, r_w)                                                                               \
    FITS((m_h) + (r_h) - 1, MAX_UNROLLED);                                                                              \
    NOINLINE void NAME(transform_input_##number)(const ELEMENT *source, int64_t row, ELEMENT *target, int64_t ld) {     \
        SIZES(m_h, r_h, m_w, r_w)                                                                                       \
        COLUMNS(NAME(input_of_##m_h##_##r_h), height, width, source + i * row + j * LANES)                              \
        UNROLLED for (int i = 0; i < height; i++) {                                                                     \
            NAME(input_of_##m_w##_##r_w)(across + i * width, found, 1);                                                 \
            UNROLLED for (int j = 0; j < width; j++) NAME(write)(found[j], target + (i * width + j) * ld);              \
        }                                                                                                               \
    }
FOR_WINOGRAD(INPUT)
#undef INPUT

#define WEIGHT(number, m_h, r_h, m_w, r_w)                                                                              \
    NOINLINE void NAME(transform_weight_##number)(const ELEMENT *source, const int64_t *taps, ELEMENT *target,          \
                                                  int64_t ld) {                                                         \
        SIZES(m_h, r_h, m_w, r_w)                                                                                       \
        COLUMNS(NAME(weight_of_##m_h##_##r_h), r_h, r_w, source + taps[i * (r_w) + j])                                  \
        UNROLLED for (int i = 0; i < height; i++) {                                                                     \
            NAME(weight_of_##m_w##_##r_w)(across + i * (r_w), found, 1);                                                \
            UNROLLED for (int j = 0; j < width; j++) {                                                                  \
                const vector scaled = NAME(scaled)(found[j], NAME(scales_of_##number)[i * width + j]);                  \
                NAME(write)(scaled, target + (i * width + j) * ld);                                                     \
            }                                                                                                           \
        }                                                                                                               \
    }
FOR_WINOGRAD(WEIGHT)
#undef WEIGHT

#define OUTPUT_ARGUMENTS                                                                                                \
    const ELEMENT *source, int64_t ld, const ELEMENT *start, ELEMENT *target, int64_t row, int64_t col, int64_t rows, int64_t cols
#define OUTPUT(number, m_h, r_h, m_w, r_w)                                                                              \
    NOINLINE void NAME(transform_output_##number)(OUTPUT_ARGUMENTS) {                                                   \
        SIZES(m_h, r_h, m_w, r_w)                                                                                       \
        const vector bias = NAME(read)(start);                                                                          \
        COLUMNS(NAME(output_of_##m_h##_##r_h), height, width, source + (i * width + j) * ld)                            \
        UNROLLED for (int i = 0; i < (m_h); i++) {                                                                      \
            if (i >= rows) return;                                                                                      \
            NAME(output_of_##m_w##_##r_w)(across + i * width, found, 1);                                                \
            UNROLLED for (int j = 0; j < (m_w); j++) {                                                                  \
                if (j < cols) NAME(write)(NAME(add)(found[j], bias), target + i * row + j * col);                       \
            }                                                                                                           \
        }                                                                                                               \
    }
FOR_WINOGRAD(OUTPUT)
#undef OUTPUT
#undef COLUMNS
#undef SIZES

#define ROW_OF(kind, number) [number] = NAME(kind##_##number),
#define INPUT_OF(number, m_h, r_h, m_w, r_w) ROW_OF(transform_input, number)
#define WEIGHT_OF(number, m_h, r_h, m_w, r_w) ROW_OF(transform_weight, number)
#define OUTPUT_OF(number, m_h, r_h, m_w, r_w) ROW_OF(transform_output, number)

INLINE void NAME(transform_input)(int64_t number, const ELEMENT *source, int64_t row, ELEMENT *target, int64_t ld) {
    static void (*const kernels[])(const ELEMENT *, int64_t, ELEMENT *, int64_t) = {FOR_WINOGRAD(INPUT_OF)};
    kernels[number](source, row, target, ld);
}
INLINE void NAME(transform_weight)(int64_t number, const ELEMENT *source, const int64_t *offsets, ELEMENT *target,
                                   int64_t ld) {
    static void (*const kernels[])(const ELEMENT *, const int64_t *, ELEMENT *, int64_t) = {FOR_WINOGRAD(WEIGHT_OF)};
    kernels[number](source, offsets, target, ld);
}
INLINE void NAME(transform_output)(int64_t number, OUTPUT_ARGUMENTS) {
    static void (*const kernels[])(OUTPUT_ARGUMENTS) = {FOR_WINOGRAD(OUTPUT_OF)};
    kernels[number](source, ld, start, target, row, col, rows, cols);
}
#undef ROW_OF
#undef INPUT_OF
#undef WEIGHT_OF
#undef OUTPUT_OF
#undef OUTPUT_ARGUMENTS
