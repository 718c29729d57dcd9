/* Copies that the passes over matrices make: rows of elements, and the zero-padded field of a strip. */

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

/* Zeros, up to a vector more. */
WORD void NAME(zeros)(ELEMENT *to, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) NAME(clear)(to + i);
}

/* Every hop-th element of `from`, of which `room` may be read; up to a vector more is written. */
WORD void NAME(skip)(ELEMENT *to, const ELEMENT *from, int64_t count, int64_t hop, int64_t room) {
    int64_t v = 0;
    if (hop == 2) {
        const int64_t most = MIN(count, room / 2 - LANES + 1);
        for (; v < most; v += LANES) NAME(halve)(to + v, from + 2 * v);
    }
    for (; v < count; v++) to[v] = from[v * hop];
}

/* The strip of output rows i0.. and columns j0.. of images n.. and channels `channel`.. (an offset in the source), each plane
 * of it zero-padded. The next channel's rows are asked for: short ones are no stream that a processor would foresee. What a
 * row writes beyond its end is written over by the next one; behind the last there is room. */
static void NAME(fill)(const int64_t *plan, const int64_t *tables, const ELEMENT *source, ELEMENT *field, int64_t n,
                       int64_t images, int64_t channel, int64_t channels, int64_t i0, int64_t rows, int64_t j0,
                       int64_t cols) {
    const int64_t height = plan[P_SOURCE_HEIGHT], width = plan[P_SOURCE_WIDTH], pitch = plan[P_FIELD_COLS];
    const int64_t plane = plan[P_FIELD_ROWS] * pitch, hop_h = plan[P_HOP_H], hop_w = plan[P_HOP_W];
    const int64_t planes_h = plan[P_PLANES_H], planes_w = plan[P_PLANES_W];
    const int64_t used_rows = rows + plan[P_FIELD_ROWS] - plan[P_BLOCK_ROWS];
    const int64_t used_cols = cols + pitch - plan[P_BLOCK_COLS];

    for (int64_t image = 0; image < images; image++) {
        ELEMENT *target = field + image * plan[P_BLOCK_CHANNELS] * planes_h * planes_w * plane;
        for (int64_t c = 0; c < channels; c++) {
            const int64_t start = (n + image) * plan[P_SOURCE_IMAGE] + channel + c * plan[P_SOURCE_CHANNEL];
            for (int64_t ab = 0; ab < planes_h * planes_w; ab++, target += plane) {
                const int64_t origin = tables[plan[P_ORIGINS_W] + ab % planes_w] + j0 * hop_w;
                const int64_t first = MIN(used_cols, MAX(0, -floored(origin, hop_w)));
                const int64_t end = MAX(first, MIN(used_cols, floored(width - 1 - origin, hop_w) + 1));
                const int64_t length = end - first;
                const int64_t h0 = tables[plan[P_ORIGINS_H] + ab / planes_w] + i0 * hop_h;
                /* whether a vector more than a row's may be read at its last row */
                const int64_t last_row = start + MIN(height - 1, h0 + (used_rows - 1) * hop_h) * width + origin;
                const int may_exceed = last_row + (end - 1) * hop_w + LANES + 1 <= plan[P_SOURCE_SIZE];
                const int is_short = hop_w == 1 && may_exceed && used_cols <= 2 * LANES && first <= LANES;
                for (int64_t u = 0; u < used_rows; u++) {
                    const int64_t h = h0 + u * hop_h;
                    ELEMENT *row = target + u * pitch;
                    if (h < 0 || h >= height || length == 0) {
                        NAME(zeros)(row, used_cols);
                        continue;
                    }
                    const int64_t at = start + h * width + origin + first * hop_w;
                    PREFETCH(source + at + plan[P_SOURCE_CHANNEL]);
                    PREFETCH(source + at + plan[P_SOURCE_CHANNEL] + 16);
                    if (is_short) {
                        /* what is written too far is written over: by the row's end, or by the next row */
                        NAME(clear)(row);
                        NAME(move)(row + first, source + at);
                        if (length > LANES) NAME(move)(row + first + LANES, source + at + LANES);
                        NAME(clear)(row + end);
                        continue;
                    }
                    NAME(zeros)(row, first);
                    if (hop_w == 1)
                        NAME(copy)(row + first, source + at, length, may_exceed);
                    else
                        NAME(skip)(row + first, source + at, length, hop_w, plan[P_SOURCE_SIZE] - at);
                    NAME(zeros)(row + end, used_cols - end);
                }
            }
        }
    }
}
