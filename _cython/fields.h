/* Copies that the passes over matrices make: rows of elements, and the zero-padded field of a strip. */

/* Bytes, at least, after which rows are asked for: so far away are they when memory has to bring them. */
#define FIELD_AHEAD 16384

/* Copies `count` elements, up to a vector more where that is allowed. */
WORD void NAME(copy)(ELEMENT *to, const ELEMENT *from, int64_t count, int may_exceed) {
    const int64_t whole = may_exceed ? count : count - LANES + 1;
    int64_t i = 0;
    for (; i < whole; i += LANES) NAME(move)(to + i, from + i);
    if (i < count && !may_exceed) {
        if (count >= LANES) {
            NAME(move)(to + count - LANES, from + count - LANES); /* the last vector overlaps the one before */
        } else {
            for (; i < count; i++) to[i] = from[i];
        }
    }
}

/* `value` in `count` elements. */
WORD void NAME(repeat)(ELEMENT *to, ELEMENT value, int64_t count) {
    const vector all = NAME(spread)(value);
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) NAME(write)(all, to + i);
    for (; i < count; i++) to[i] = value;
}

/* Zeros, up to a vector more. */
WORD void NAME(zeros)(ELEMENT *to, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) NAME(clear)(to + i);
}

/* A vector of a row of each of the first `planes` of `hop` planes, which lie `block` apart, from `hop` vectors of a map, whose
 * elements go to the planes in turn. `masks` say which are there, or are NULL if all are. What stands `ahead` is asked for:
 * short rows are no stream that a processor would foresee. */
WORD void NAME(part)(const int hop, const int planes, const ELEMENT *from, const NAME(mask) *masks, int64_t ahead, ELEMENT *to,
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

/* Rows of a map into rows of a field, `last` elements and up to a vector; only their first and last vector, for which there
 * are masks, meet the padding. */
WORD void NAME(fill_rows)(const int hop, const int planes, const ELEMENT *from, int64_t ld_from, ELEMENT *to, int64_t block,
                          int64_t ld_to, int64_t rows, int64_t last, const NAME(mask) *near, const NAME(mask) *far,
                          int64_t ahead) {
    for (int64_t u = 0; u < rows; u++, from += ld_from, to += ld_to) {
        NAME(part)(hop, planes, from, near, ahead, to, block);
        if (last == 0) continue;
        const ELEMENT *at = from + LANES * hop;
        for (int64_t v = LANES; v < last; v += LANES, at += LANES * hop)
            NAME(part)(hop, planes, at, NULL, ahead, to + v, block);
        NAME(part)(hop, planes, at, far, ahead, to + last, block);
    }
}

/* The strip of output rows i0.. and columns j0.. of images n.. and channels `channel`.. (an offset in the source): for each
 * image and plane (a, b) all channels, zero-padded. What a row writes beyond its end is written over by the next one; behind
 * a plane's last there is room. */
static void NAME(fill)(const int64_t *plan, const int64_t *tables, const ELEMENT *source, ELEMENT *field, int64_t n,
                       int64_t images, int64_t channel, int64_t channels, int64_t i0, int64_t rows, int64_t j0,
                       int64_t cols) {
    const int64_t height = plan[P_SOURCE_HEIGHT], width = plan[P_SOURCE_WIDTH], pitch = plan[P_FIELD_COLS];
    const int64_t hop_h = plan[P_HOP_H], hop_w = plan[P_HOP_W], planes_w = plan[P_PLANES_W];
    const int64_t planes = plan[P_PLANES_H] * planes_w, ld_from = hop_h * width;
    const int64_t channel_pitch = plan[P_SOURCE_CHANNEL], ahead = pieces_of(FIELD_AHEAD / sizeof(ELEMENT), channel_pitch) * channel_pitch;
    const int64_t block = plan[P_FIELD_PLANE];
    const int64_t used_rows = rows + plan[P_FIELD_ROWS] - plan[P_BLOCK_ROWS];
    const int64_t used_cols = cols + pitch - plan[P_BLOCK_COLS], last = (used_cols - 1) / LANES * LANES;

    for (int64_t number = 0; number < images * planes; number++) {
        const int64_t ab = number % planes;
        /* the rows and columns inside the map, and where the first ones are */
        const int64_t h = tables[plan[P_ORIGINS_H] + ab / planes_w] + i0 * hop_h;
        const int64_t w = tables[plan[P_ORIGINS_W] + ab % planes_w] + j0 * hop_w;
        const int64_t top = MIN(used_rows, MAX(0, -floored(h, hop_h))), first = MIN(used_cols, MAX(0, -floored(w, hop_w)));
        int64_t bottom = MAX(top, MIN(used_rows, floored(height - 1 - h, hop_h) + 1));
        const int64_t end = MAX(first, MIN(used_cols, floored(width - 1 - w, hop_w) + 1));
        if (first == end) bottom = top; /* nothing is */
        /* the columns of the next planes lie between this one's: all are made at once */
        const int64_t *const origins = tables + plan[P_ORIGINS_W] + ab % planes_w;
        const int64_t rest = planes_w - ab % planes_w;
        const int has_all = first < end && rest >= hop_w && origins[hop_w - 1] == origins[0] + hop_w - 1;
        const int is_usual = (hop_w <= 2 || (hop_w == 4 && has_all)) && first <= LANES && end + (hop_w == 1) > last;
        const int64_t made = is_usual && has_all ? hop_w : 1;
        NAME(mask) near[4], far[4];
        for (int part = 0; part < 4; part++) {
            const int64_t of_near = w + part * LANES, of_far = of_near + last * hop_w;
            near[part] = NAME(between)(-of_near, width - of_near);
            far[part] = NAME(between)(-of_far, width - of_far);
        }
        const ELEMENT *from = source + (n + number / planes) * plan[P_SOURCE_IMAGE] + channel + (h + top * hop_h) * width + w;
        ELEMENT *to = field + number * block;
        number += made - 1;
        for (int64_t c = 0; c < channels; c++, from += channel_pitch, to += plan[P_FIELD_CHANNEL]) {
            ELEMENT *const inside = to + top * pitch;
            for (int64_t plane = 0; plane < made; plane++) NAME(zeros)(to + plane * block, top * pitch);
#define FILL_ROWS(hop, planes) \
    NAME(fill_rows)(hop, planes, from, ld_from, inside, block, pitch, bottom - top, last, near, far, ahead)
            if (is_usual && hop_w == 1) {
                FILL_ROWS(1, 1);
            } else if (is_usual && made == 1) {
                FILL_ROWS(2, 1);
            } else if (is_usual && made == 2) {
                FILL_ROWS(2, 2);
            } else if (is_usual) {
                FILL_ROWS(4, 4);
#undef FILL_ROWS
            } else {
                for (int64_t u = 0; u < bottom - top; u++) {
                    ELEMENT *row = inside + u * pitch;
                    NAME(zeros)(row, first);
                    if (hop_w == 1)
                        NAME(copy)(row + first, from + u * ld_from + first, end - first, 0);
                    else
                        for (int64_t v = first; v < end; v++) row[v] = from[u * ld_from + v * hop_w];
                    NAME(zeros)(row + end, used_cols - end);
                }
            }
            for (int64_t plane = 0; plane < made; plane++)
                NAME(zeros)(to + plane * block + bottom * pitch, (used_rows - bottom) * pitch);
        }
    }
}
