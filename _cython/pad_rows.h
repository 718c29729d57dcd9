/* Copies rows of a map into rows of a padded tile. */

/* Split `stride` vectors of a map into one vector for each residue of the column modulo `stride`, and store the first `planes`
 * of them, in planes of `plane_size` elements each. `masks` tell which elements are inside the map; NULL: all are. The
 * memory `ahead` elements further is prefetched, because hardware prefetchers do not follow short rows. */
INLINE void NAME(deinterleave)(const int stride, const int planes, const ELEMENT *from, const NAME(mask) *masks, int64_t ahead,
                               ELEMENT *to, int64_t plane_size) {
    vector all[4], split[4];
    UNROLLED for (int i = 0; i < stride; i++) {
        PREFETCH(from + ahead + i * LANES);
        all[i] = masks ? NAME(masked_load)(from + i * LANES, masks[i]) : NAME(read)(from + i * LANES);
    }
    UNROLLED for (int distance = 2; distance <= stride; distance *= 2) { /* even and odd lanes; for stride 4, twice */
        UNROLLED for (int i = 0; i < stride / 2; i++) {
            split[i] = SHUFFLE(all[2 * i], all[2 * i + 1], EVEN, 0);
            split[i + stride / 2] = SHUFFLE(all[2 * i], all[2 * i + 1], ODD, 0);
        }
        UNROLLED for (int i = 0; i < stride; i++) all[i] = split[i];
    }
    UNROLLED for (int plane = 0; plane < planes; plane++) NAME(write)(all[plane], to + plane * plane_size);
}

/* Copy rows of a map into rows of a padded tile: `last` elements and up to a vector more. Only the first and the last vector of a
 * row can reach the padding, so only they have masks. */
INLINE void NAME(pad_rows_of)(const int stride, const int planes, const ELEMENT *from, int64_t ld_from, ELEMENT *to,
                              int64_t plane_size, int64_t ld_to, int64_t rows, int64_t last, const NAME(mask) *head, const NAME(mask) *tail,
                              int64_t ahead) {
    for (int64_t u = 0; u < rows; u++, from += ld_from, to += ld_to) {
        NAME(deinterleave)(stride, planes, from, head, ahead, to, plane_size);
        if (last == 0) continue;
        const ELEMENT *at = from + LANES * stride;
        for (int64_t v = LANES; v < last; v += LANES, at += LANES * stride)
            NAME(deinterleave)(stride, planes, at, NULL, ahead, to + v, plane_size);
        NAME(deinterleave)(stride, planes, at, tail, ahead, to + last, plane_size);
    }
}

INLINE void NAME(zeros)(ELEMENT *to, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) NAME(clear)(to + i);
}

/* The masks are made once for all channels, because small maps have few rows for each. */
#define PAD_ROWS(kind, stride, planes)                                                                              \
    static void NAME(kind)(const ELEMENT *source, int64_t ld_source, int64_t source_channel, ELEMENT *target,       \
                           int64_t plane, int64_t ld_target, int64_t target_channel, int64_t channels, int64_t top, \
                           int64_t rows, int64_t bottom, int64_t last, int64_t w, int64_t width, int64_t ahead) {   \
        NAME(mask) head[stride], tail[stride];                                                                      \
        for (int i = 0; i < stride; i++) {                                                                          \
            const int64_t first = w + i * LANES, final = first + last * stride;                                     \
            head[i] = NAME(lane_mask)(-first, width - first);                                                       \
            tail[i] = NAME(lane_mask)(-final, width - final);                                                       \
        }                                                                                                           \
        for (int64_t c = 0; c < channels; c++, source += source_channel, target += target_channel) {                \
            ELEMENT *const inside = target + top * ld_target, *const below = inside + rows * ld_target;             \
            UNROLLED for (int p = 0; p < planes; p++) NAME(zeros)(target + p * plane, top * ld_target);             \
            NAME(pad_rows_of)(stride, planes, source, ld_source, inside, plane, ld_target, rows, last, head, tail,  \
                              ahead);                                                                               \
            UNROLLED for (int p = 0; p < planes; p++) NAME(zeros)(below + p * plane, bottom * ld_target);           \
        }                                                                                                           \
    }
PAD_ROWS(pad_rows, 1, 1)
PAD_ROWS(pad_rows_of_2, 2, 1)
PAD_ROWS(pad_2_rows, 2, 2)
PAD_ROWS(pad_4_rows, 4, 4)
#undef PAD_ROWS
