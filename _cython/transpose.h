/* Transposes of squares of LANES x LANES elements, between memory whose lanes are channels and memory whose lanes are pixels. */

/* Transpose a square of vectors: for d = LANES / 2, ..., 1, blocks of d x d elements are exchanged. */
#define EXCHANGE_BLOCKS(d)                                                      \
    UNROLLED for (int i = 0; i < LANES; i++) {                                  \
        if (!(i & (d))) {                                                       \
            const vector a = rows[i], b = rows[(i | (d)) % LANES];              \
            rows[i] = SHUFFLE(a, b, KEPT, d);                                   \
            rows[(i | (d)) % LANES] = SHUFFLE(a, b, TAKEN, d);                  \
        }                                                                       \
    }
INLINE void NAME(transpose_square)(vector *rows) {
    if (LANES > 8) EXCHANGE_BLOCKS(8)
    if (LANES > 4) EXCHANGE_BLOCKS(4)
    if (LANES > 2) EXCHANGE_BLOCKS(2)
    EXCHANGE_BLOCKS(1)
}
#undef EXCHANGE_BLOCKS

/* Transpose a square of which the first `valid` rows exist; the last of them is read again in place of the others. Of the first
 * `limit` columns, `count` are written: one after the other, or column i at offset positions[i]. With half the columns as the
 * limit, half the shuffles are enough. */
INLINE void NAME(transpose_columns)(const int limit, const ELEMENT *from, int64_t ld_from, int64_t valid, ELEMENT *to,
                                    int64_t ld_to, const int64_t *positions, int64_t count) {
    vector rows[LANES];
    UNROLLED for (int i = 0; i < LANES; i++) {
        rows[i] = NAME(read)(from);
        from += i + 1 < valid ? ld_from : 0;
    }
    NAME(transpose_square)(rows);
    UNROLLED for (int i = 0; i < limit; i++) {
        if (i < count) NAME(write)(rows[i], to + (positions ? positions[i] : i * ld_to));
    }
}
NOINLINE void NAME(transpose_full)(const ELEMENT *from, int64_t ld_from, int64_t valid, ELEMENT *to, int64_t ld_to, int64_t count) {
    NAME(transpose_columns)(LANES, from, ld_from, valid, to, ld_to, NULL, count);
}
NOINLINE void NAME(transpose_half)(const ELEMENT *from, int64_t ld_from, int64_t valid, ELEMENT *to, int64_t ld_to, int64_t count) {
    NAME(transpose_columns)(LANES / 2, from, ld_from, valid, to, ld_to, NULL, count);
}
NOINLINE void NAME(scatter)(const ELEMENT *from, int64_t ld_from, int64_t valid, ELEMENT *to, const int64_t *positions,
                            int64_t count) {
    NAME(transpose_columns)(LANES, from, ld_from, valid, to, 0, positions, count);
}
static void NAME(transpose)(const ELEMENT *from, int64_t ld_from, int64_t valid, ELEMENT *to, int64_t ld_to, int64_t count) {
    (count > LANES / 2 ? NAME(transpose_full) : NAME(transpose_half))(from, ld_from, valid, to, ld_to, count);
}

/* The sum over the lanes of each of LANES vectors, as the first `count` lanes of one vector. `square` is workspace for a square. */
static void NAME(total)(const ELEMENT *sums, ELEMENT *square, ELEMENT *to, int64_t count) {
    NAME(transpose)(sums, LANES, LANES, square, LANES, LANES);
    vector total = NAME(read)(square);
    for (int64_t lane = 1; lane < LANES; lane++) total = NAME(fma)(NAME(broadcast)(1), NAME(read)(square + lane * LANES), total);
    NAME(masked_store)(total, to, count);
}

/* Row i of the target is element i of each of LANES rows, which start at from + offsets[2 * lane + 1]. LANES elements of each are
 * read; 1 <= count <= LANES rows are written. */
NOINLINE void NAME(gather)(const ELEMENT *from, const int64_t *offsets, ELEMENT *to, int64_t ld_to, int64_t count) {
    vector rows[LANES];
    UNROLLED for (int i = 0; i < LANES; i++) {
        rows[i] = NAME(read)(from + offsets[2 * i + 1]);
        PREFETCH_FAR(from + offsets[2 * i + 1] + PREFETCH_AHEAD);
    }
    NAME(transpose_square)(rows);
    UNROLLED for (int i = 0; i < LANES; i++) {
        if (i < count) NAME(write)(rows[i], to + i * ld_to);
    }
}
