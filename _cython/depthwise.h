/* Passes over channels that have a kernel each: a lane of the vectors for each channel, pixels one after the other.
 *
 *     correlate_channels          out[n, c, i, j] = bias + sum over a, b of weight[c, a, b] * x
 *     correlate_channels_weight   out[c, a, b] = sum over n, i, j of small[n, c, i, j] * x
 *
 * where x is the pixel of image n and channel c that output (i, j) meets at tap (a, b).
 *
 * The second is the first with pixels and taps exchanged: the small map is its kernel. With lanes along the channels neither
 * the width of a map nor a stride leaves lanes empty; a square of LANES x LANES numbers is transposed in registers on its way
 * in and out. Long rows of taps are squares of a band matrix, whose taps on the padding are left out: they need no zeros in the
 * field.
 */

/* `count` pixels of `valid` channels, from offset `at` of a map of `size` elements, one after the other or each to its place;
 * further lanes are overwritten. `multiple` results share a channel, of which the first `before` are left out. */
static void NAME(old_to_lanes)(const ELEMENT *map, int64_t size, int64_t at, int64_t pitch, int64_t valid, int64_t multiple,
                           int64_t before, ELEMENT *to, const int64_t *places, int64_t count) {
    for (int64_t v = 0; v < count; v += LANES) {
        if (multiple == 1 && at + (valid - 1) * pitch + v + LANES <= size) {
            if (places)
                NAME(scatter)(map + at + v, pitch, valid, to, places + v, MIN(LANES, count - v));
            else
                NAME(transpose)(map + at + v, pitch, valid, to + v * LANES, LANES, MIN(LANES, count - v));
            continue;
        }
        for (int64_t j = v; j < MIN(v + LANES, count); j++) {
            ELEMENT *there = to + (places ? places[j] : j * LANES);
            NAME(clear)(there);
            for (int64_t lane = 0; lane < valid; lane++) there[lane] = map[at + (before + lane) / multiple * pitch + j];
        }
    }
}

/* A strip's sums, from lanes to maps. */
static void NAME(place_lanes)(const int64_t *plan, const ELEMENT *sums, ELEMENT *out, int64_t valid, int64_t rows,
                              int64_t cols) {
    const int64_t out_result = plan[P_OUT_RESULT], out_row = plan[P_OUT_ROW], out_col = plan[P_OUT_COL];
    int64_t run = cols, runs = rows;
    if (out_col == 1 && out_row == run) {
        run *= rows;
        runs = 1;
    }
    for (int64_t i = 0; i < runs; i++) {
        const ELEMENT *from = sums + i * run * LANES;
        ELEMENT *to = out + i * out_row;
        int64_t j = 0;
        for (; out_col == 1 && run >= LANES && j < run; j += LANES) {
            const int64_t v = MIN(j, run - LANES); /* the last ones once more */
            NAME(transpose)(from + v * LANES, LANES, LANES, to + v, out_result, valid);
        }
        for (; j < run; j++) {
            for (int64_t lane = 0; lane < valid; lane++) {
                to[lane * out_result + j * out_col] = from[j * LANES + lane];
            }
        }
    }
}
