/* Copies rows of a map into rows of a padded tile. */

/* A vector of a row of each of the first `planes` of `hop` planes, which lie `block` apart, from `hop` vectors of a map, whose
 * elements go to the planes in turn. `masks` say which are there, or are NULL if all are. What lies `ahead` is prefetched:
 * short rows are no stream that a processor would foresee. */
WORD void NAME(unzip)(const int hop, const int planes, const ELEMENT *from, const NAME(mask) *masks, int64_t ahead, ELEMENT *to,
                     int64_t block) {
    vector all[4], split[4];
    UNROLLED for (int i = 0; i < hop; i++) {
        PREFETCH(from + ahead + i * LANES);
        all[i] = masks ? NAME(read_some)(from + i * LANES, masks[i]) : NAME(read)(from + i * LANES);
    }
    UNROLLED for (int apart = 2; apart <= hop; apart *= 2) { /* every second lane, and of those again */
        UNROLLED for (int i = 0; i < hop / 2; i++) {
            split[i] = SHUFFLE(all[2 * i], all[2 * i + 1], EVEN, 0);
            split[i + hop / 2] = SHUFFLE(all[2 * i], all[2 * i + 1], ODD, 0);
        }
        UNROLLED for (int i = 0; i < hop; i++) all[i] = split[i];
    }
    UNROLLED for (int plane = 0; plane < planes; plane++) NAME(write)(all[plane], to + plane * block);
}

/* Rows of a map into rows of a padded tile, `last` elements and up to a vector; only their first and last vector, for which there
 * are masks, reach the padding. */
WORD void NAME(pad_rows_of)(const int hop, const int planes, const ELEMENT *from, int64_t ld_from, ELEMENT *to, int64_t block,
                          int64_t ld_to, int64_t rows, int64_t last, const NAME(mask) *near, const NAME(mask) *far,
                          int64_t ahead) {
    for (int64_t u = 0; u < rows; u++, from += ld_from, to += ld_to) {
        NAME(unzip)(hop, planes, from, near, ahead, to, block);
        if (last == 0) continue;
        const ELEMENT *at = from + LANES * hop;
        for (int64_t v = LANES; v < last; v += LANES, at += LANES * hop)
            NAME(unzip)(hop, planes, at, NULL, ahead, to + v, block);
        NAME(unzip)(hop, planes, at, far, ahead, to + last, block);
    }
}

WORD void NAME(zeros)(ELEMENT *to, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) NAME(clear)(to + i);
}

/* The masks are those of all channels: small maps have few rows for each. */
#define PAD_ROWS(kind, hop, planes)                                                                                 \
    static void NAME(kind)(const ELEMENT *source, int64_t ld_source, int64_t source_channel, ELEMENT *target,       \
                           int64_t plane, int64_t ld_target, int64_t target_channel, int64_t channels, int64_t top, \
                           int64_t rows, int64_t bottom, int64_t last, int64_t w, int64_t width, int64_t ahead) {   \
        NAME(mask) near[hop], far[hop];                                                                             \
        for (int part = 0; part < hop; part++) {                                                                    \
            const int64_t first = w + part * LANES, final = first + last * hop;                                     \
            near[part] = NAME(between)(-first, width - first);                                                      \
            far[part] = NAME(between)(-final, width - final);                                                       \
        }                                                                                                           \
        for (int64_t c = 0; c < channels; c++, source += source_channel, target += target_channel) {                \
            ELEMENT *const inside = target + top * ld_target, *const below = inside + rows * ld_target;             \
            UNROLLED for (int p = 0; p < planes; p++) NAME(zeros)(target + p * plane, top * ld_target);             \
            NAME(pad_rows_of)(hop, planes, source, ld_source, inside, plane, ld_target, rows, last, near, far,      \
                              ahead);                                                                               \
            UNROLLED for (int p = 0; p < planes; p++) NAME(zeros)(below + p * plane, bottom * ld_target);           \
        }                                                                                                           \
    }
PAD_ROWS(pad_rows, 1, 1)
PAD_ROWS(pad_rows_of_2, 2, 1)
PAD_ROWS(pad_2_rows, 2, 2)
PAD_ROWS(pad_4_rows, 4, 4)
#undef PAD_ROWS
