/* The micro-kernel of the bias gradient: sums of columns,
 *
 *     target[v] (+)= sum over r of source[r * ld + v]
 *
 * with 0 <= r < rows and 0 <= v < count, 1 <= count <= SUM_VECTORS * LANES. Whole vectors of the target are written. */
INLINE void NAME(sum_vectors)(int vectors, int is_whole, const ELEMENT *source, int64_t ld, int64_t rows, int64_t count,
                              int64_t is_start, ELEMENT *target) {
    const NAME(mask) mask = NAME(lane_mask)(0, count - (vectors - 1) * LANES);
    vector acc[SUM_VECTORS];
    UNROLLED for (int v = 0; v < vectors; v++) acc[v] = is_start ? NAME(zero)() : NAME(read)(target + v * LANES);
    for (; rows > 0; rows--, source += ld) {
        UNROLLED for (int v = 0; v < vectors; v++) {
            const ELEMENT *from = source + v * LANES;
            acc[v] = NAME(add)(acc[v], is_whole || v + 1 < vectors ? NAME(read)(from) : NAME(masked_load)(from, mask));
        }
    }
    UNROLLED for (int v = 0; v < vectors; v++) NAME(write)(acc[v], target + v * LANES);
}

NOINLINE void NAME(sum_rows)(const ELEMENT *source, int64_t ld, int64_t rows, int64_t count, int64_t is_start,
                             ELEMENT *target) {
    _Static_assert(SUM_VECTORS == 8, "a case for each number of vectors");
    if (count == SUM_VECTORS * LANES) {
        NAME(sum_vectors)(SUM_VECTORS, 1, source, ld, rows, count, is_start, target);
        return;
    }
#define CASE(vectors)                                                             \
    case vectors:                                                                 \
        NAME(sum_vectors)(vectors, 0, source, ld, rows, count, is_start, target); \
        break;
    switch ((count + LANES - 1) / LANES) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
}
