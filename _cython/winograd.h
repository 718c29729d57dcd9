/* The transforms of Winograd's convolution, see fastconv/kernels/toom_cook.py, whose matrices toom_cook.h has as functions.
 *
 * A matrix is applied to the columns of a square of registers, then to its rows. Each is compiled for each row of
 * abi.WINOGRAD, so that the loops unroll. */
#define COLUMNS(matrix, extent, address)                                                     \
    vector column[MAX_WINOGRAD], across[MAX_WINOGRAD * MAX_WINOGRAD], found[MAX_WINOGRAD];   \
    UNROLLED for (int j = 0; j < (extent); j++) {                                            \
        UNROLLED for (int i = 0; i < (extent); i++) column[i] = NAME(read)(address);         \
        matrix(column, across + j, extent);                                               \
    }

#define INPUT(number, outputs, taps)                                                                                    \
    FITS((outputs) + (taps) - 1, MAX_UNROLLED);                                                                         \
    NOINLINE void NAME(transform_input_##number)(const ELEMENT *source, int64_t row, ELEMENT *target, int64_t ld) {     \
        enum { size = (outputs) + (taps) - 1 };                                                                         \
        COLUMNS(NAME(input_of_##number), size, source + i * row + j * LANES)                                            \
        UNROLLED for (int i = 0; i < size; i++) {                                                                       \
            NAME(input_of_##number)(across + i * size, found, 1);                                                    \
            UNROLLED for (int j = 0; j < size; j++) NAME(write)(found[j], target + (i * size + j) * ld);                \
        }                                                                                                               \
    }
FOR_WINOGRAD(INPUT)
#undef INPUT

#define WEIGHT(number, outputs, taps)                                                                                   \
    NOINLINE void NAME(transform_weight_##number)(const ELEMENT *source, const int64_t *offsets, ELEMENT *target,       \
                                                  int64_t ld) {                                                         \
        enum { size = (outputs) + (taps) - 1 };                                                                         \
        const ELEMENT *const scales = NAME(scales_of_##number);                                                         \
        COLUMNS(NAME(weight_of_##number), taps, source + offsets[i * taps + j])                                         \
        UNROLLED for (int i = 0; i < size; i++) {                                                                       \
            NAME(weight_of_##number)(across + i * taps, found, 1);                                                   \
            UNROLLED for (int j = 0; j < size; j++) {                                                                   \
                const vector scaled = NAME(scaled)(found[j], scales[i * size + j])        ;          \
                NAME(write)(scaled, target + (i * size + j) * ld);                                                      \
            }                                                                                                           \
        }                                                                                                               \
    }
FOR_WINOGRAD(WEIGHT)
#undef WEIGHT

#define OUTPUT_ARGUMENTS                                                                                                \
    const ELEMENT *source, int64_t ld, const ELEMENT *start, ELEMENT *target, int64_t row, int64_t col, int64_t rows, int64_t cols
#define OUTPUT(number, outputs, taps)                                                                                   \
    NOINLINE void NAME(transform_output_##number)(OUTPUT_ARGUMENTS) {                                                   \
        enum { size = (outputs) + (taps) - 1 };                                                                         \
        const vector bias = NAME(read)(start);                                                                          \
        COLUMNS(NAME(output_of_##number), size, source + (i * size + j) * ld)                                           \
        UNROLLED for (int i = 0; i < outputs; i++) {                                                                    \
            if (i >= rows) return;                                                                                      \
            NAME(output_of_##number)(across + i * size, found, 1);                                                   \
            UNROLLED for (int j = 0; j < outputs; j++) {                                                                \
                if (j < cols) NAME(write)(NAME(add)(found[j], bias), target + i * row + j * col);                       \
            }                                                                                                           \
        }                                                                                                               \
    }
FOR_WINOGRAD(OUTPUT)
#undef OUTPUT
#undef COLUMNS

#define ROW_OF(kind, number) [number] = NAME(kind##_##number),
#define INPUT_OF(number, outputs, taps) ROW_OF(transform_input, number)
#define WEIGHT_OF(number, outputs, taps) ROW_OF(transform_weight, number)
#define OUTPUT_OF(number, outputs, taps) ROW_OF(transform_output, number)

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
