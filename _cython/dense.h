/* A pass over matrices: the correlation of groups of several channels.
 *
 *     correlate     out[n, g, k, i, j] = bias + sum over c, a, b of weight[g, k, c, a, b] * x
 *
 * where x is the pixel of image n and channel c of group g that output (i, j) meets at tap (a, b).
 *
 * A row of the tile is a result k, its vectors are pixels and its sum runs over taps (c, a, b). Each element is one chain of
 * multiply-adds in the order of the definition, wherever the blocks are cut: results do not depend on blocks, threads, or the
 * other images of a batch.
 */

/* How the pixels of a strip lie in what is read: runs of `run` pixels, `runs` of them an image. */
typedef struct {
    int64_t run, runs, run_pitch, image_pitch;
    int64_t room;     /* elements that may be read from the strip's first pixel on */
    int64_t furthest; /* the largest offset of a tap */
} NAME(strip);

#define IN_STRIP(strip, pixel)                                                                  \
    ((pixel) / (strip)->run / (strip)->runs * (strip)->image_pitch +                            \
     (pixel) / (strip)->run % (strip)->runs * (strip)->run_pitch + (pixel) % (strip)->run)

/* The pixels first <= pixel < last at each of `count` taps: a row of the panel a tap. */
static void NAME(pack_pixels)(const NAME(strip) *strip, const int64_t *offsets, const ELEMENT *from, int64_t count,
                              ELEMENT *panel, int64_t pitch, int64_t first, int64_t last) {
    for (int64_t pixel = first, length; pixel < last; pixel += length) {
        const int64_t in_strip = IN_STRIP(strip, pixel);
        const ELEMENT *at = from + in_strip;
        ELEMENT *to = panel + pixel - first;
        length = MIN(strip->run - pixel % strip->run, last - pixel);
        /* a vector more than the run is read where there is room; the next run, or the next tap, is written over it */
        if (in_strip + strip->furthest + length + LANES > strip->room) {
            for (int64_t t = 0; t < count; t++) NAME(copy)(to + t * pitch, at + offsets[2 * t + 1], length, 0);
        } else if (length <= LANES) {
            for (int64_t t = 0; t < count; t++) NAME(move)(to + t * pitch, at + offsets[2 * t + 1]);
        } else if (length <= 2 * LANES) {
            for (int64_t t = 0; t < count; t++) {
                NAME(move)(to + t * pitch, at + offsets[2 * t + 1]);
                NAME(move)(to + t * pitch + LANES, at + offsets[2 * t + 1] + LANES);
            }
        } else {
            for (int64_t t = 0; t < count; t++) NAME(copy)(to + t * pitch, at + offsets[2 * t + 1], length, 1);
        }
    }
}

/* One result's pixels from row i0 on, from the workspace to where they belong; the first `solid` of a line are there. `start` is
 * what pixels hold that nobody writes. */
static void NAME(place)(const int64_t *plan, int64_t i0, ELEMENT start, const ELEMENT *sums, int64_t pitch, ELEMENT *out,
                        int64_t rows, int64_t cols, int64_t images, int by_rows, int64_t solid) {
    const int64_t out_row = plan[P_OUT_ROW], out_col = plan[P_OUT_COL];
    const int is_one_line = out_col == 1 && pitch == cols && !by_rows && (out_row == cols || rows == 1);
    /* nothing is touched before a row's first pixel of this plan, or behind its last; what the next plan will write between
     * them is cleared first, as reading it from memory would take long */
    const int weaves = plan[P_WEAVES] && cols > LANES, clears = plan[P_WEAVES] == 1;
    const int64_t end = i0 + rows == plan[P_ROWS] ? plan[P_OUT_RESULT] : (i0 + rows) * out_row;
    for (int64_t image = 0; image < images; image++, out += plan[P_OUT_IMAGE], sums += rows * pitch) {
        if (plan[P_FILLS]) NAME(repeat)(out, start, end - i0 * out_row);
        if (is_one_line) {
            NAME(copy)(out + solid, sums + solid, rows * cols - solid, 0);
            continue;
        }
        for (int64_t i = 0; i < rows; i++) {
            ELEMENT *to = out + i * out_row;
            const ELEMENT *from = sums + i * pitch;
            if (out_col == 1) {
                NAME(copy)(to + solid, from + solid, cols - solid, 0);
            } else if (weaves) {
                for (int64_t j = 0; j + LANES < cols; j += LANES) {
                    if (clears) NAME(zeros)(to + 2 * j, 2 * LANES);
                    NAME(weave)(to + 2 * j, from + j);
                }
            } else {
                for (int64_t j = 0; j < cols; j++) to[j * out_col] = from[j];
            }
        }
        /* the rows' ends, once what they overlap has left the processor's buffers */
        for (int64_t i = 0; weaves && i < rows; i++) {
            ELEMENT *to = out + i * out_row + 2 * (cols - LANES) - 1;
            if (clears) NAME(zeros)(to, 2 * LANES);
            NAME(weave_odd)(to, sums + i * pitch + cols - LANES);
        }
    }
}

#undef IN_STRIP

static void NAME(correlate)(const int64_t *plan, const int64_t *tables, const void *from, const void *factor,
                            const void *term, void *to, void *workspace, int64_t item) {
    const ELEMENT *source = from, *weight = factor, *bias = term;
    ELEMENT *out = to, *space = workspace;
    const int64_t channels = plan[P_CHANNELS], results = plan[P_RESULTS], taps = plan[P_TAPS_A] * plan[P_TAPS_B];

    const fastconv_where where = fastconv_piece_of(plan, item);
    const int64_t images = where.images, rows = where.rows, cols = where.cols, count_k = where.results;
    const int64_t n = where.n, g = where.g, i0 = where.i0, j0 = where.j0, k0 = where.k0;

    /* its tile, and where it reads */
    static const int heights[] = {FULL_ROWS, FEW_ROWS, ONE_ROWS}, widths[] = {FULL_VECTORS, FEW_VECTORS, ONE_VECTORS};
    static const NAME(multiply_kernel) kernels[] = {NAME(multiply_full), NAME(multiply_few), NAME(multiply_one)};
    static const NAME(multiply_kernel) asking[] = {NAME(multiply_asking), NAME(multiply_few_asking), NAME(multiply_one)};
    const int kind = (int)plan[P_TILE], height = heights[kind], width = widths[kind];
    const int copies = plan[P_COPIES] != 0, packs = plan[P_PIXELS] == PACKED, by_rows = plan[P_PIXELS] == BY_ROWS;
    const int asks = plan[P_ASKS] && !copies;
    const int64_t panel_pitch = (width + 1) * LANES;
    ELEMENT *field = space + plan[P_FIELD], *panel = space + plan[P_PANEL];
    ELEMENT *sums = space + plan[P_SUMS], *starts = space + plan[P_START];
    NAME(strip) strip = {cols, rows, copies ? plan[P_FIELD_COLS] : plan[P_SOURCE_WIDTH], plan[P_SOURCE_IMAGE], 0, 0};
    if (copies)
        strip.image_pitch = plan[P_PLANES_H] * plan[P_PLANES_W] * plan[P_FIELD_PLANE];
    if (strip.run_pitch == cols) {
        strip.run = rows * cols;
        strip.runs = 1;
    }

    /* the sums' pixels: packed, with the field's columns between two rows, or each row in vectors of its own */
    const int64_t sums_pitch = packs ? cols : by_rows ? pieces_of(cols, LANES) * LANES : strip.run_pitch;
    const int64_t pixels = images * rows * sums_pitch - (sums_pitch - cols);
    const int64_t lines = by_rows ? rows : 1, line = by_rows ? sums_pitch : pixels;
    int64_t vectors = pieces_of(line, LANES);
    if (kind) vectors = pieces_of(vectors, width) * width;
    const int64_t ld = (pieces_of(pixels, LANES) + width) * LANES;

    out += plan[P_OUT_START] + n * plan[P_OUT_IMAGE] + g * plan[P_OUT_GROUP];
    out += i0 * plan[P_OUT_ROW] + j0 * plan[P_OUT_COL] + k0 * plan[P_OUT_RESULT];
    /* where a line of sums is a line of the output, tiles that are full on both sides are summed in it; a sum that comes in
     * many parts is read and written many times, which the output's long strides make slow */
    const int64_t ld_out = plan[P_OUT_RESULT], whole_k = count_k / height * height;
    int64_t solid = 0;
    if (plan[P_OUT_COL] == 1 && channels <= 2 * plan[P_BLOCK_CHANNELS]) {
        if (by_rows)
            solid = cols;
        else if (images == 1 && sums_pitch == cols && (plan[P_OUT_ROW] == cols || rows == 1))
            solid = pixels;
    }
    solid /= LANES;
    if (kind || solid < vectors) solid = solid / width * width;
    solid *= LANES;

    for (int64_t k = 0; k < pieces_of(count_k, height) * height; k++) {
        const ELEMENT start = bias && k < count_k ? bias[g * results + k0 + k] : 0;
        NAME(write)(NAME(spread)(start), starts + k * LANES);
    }
    for (int64_t c0 = 0; c0 < channels; c0 += plan[P_BLOCK_CHANNELS]) {
        const int64_t count_c = MIN(plan[P_BLOCK_CHANNELS], channels - c0), count = count_c * taps;
        const int64_t channel = g * plan[P_SOURCE_GROUP] + c0 * plan[P_SOURCE_CHANNEL];
        const int64_t *offsets = tables + plan[P_TAPS];
        const ELEMENT *base = field;
        strip.room = INT64_MAX; /* a field goes on behind its end */
        if (copies) {
            if (plan[P_COPIES] == 1) NAME(fill)(plan, tables, source, field, n, images, channel, count_c, i0, rows, j0, cols);
        } else {
            const int64_t in_source = n * strip.image_pitch + channel + i0 * strip.run_pitch + j0;
            base = source + in_source;
            strip.room = plan[P_SOURCE_SIZE] - in_source;
        }
        strip.furthest = 0;
        for (int64_t t = count - taps; t < count; t++) strip.furthest = MAX(strip.furthest, offsets[2 * t + 1]);
        const ELEMENT *a = weight + g * plan[P_WEIGHT_GROUP] + k0 * plan[P_WEIGHT_RESULT] + c0 * plan[P_WEIGHT_CHANNEL];
        for (int64_t i = 0; i < lines; i++) {
            for (int64_t v = 0, most; v < vectors; v += most) {
                most = MIN(width, vectors - v);
                const int64_t pixel = v * LANES, last = (v + most) * LANES;
                const NAME(multiply_kernel) multiply = kind ? kernels[kind] : NAME(multiply_of)(most);
                const ELEMENT *b = base + i * strip.run_pitch + pixel;
                const int64_t *pairs = offsets;
                /* the last pixels of a source, beyond which nothing may be read, are packed too */
                if (packs || (!copies && last > line)) {
                    NAME(pack_pixels)(&strip, offsets, base, count, panel, panel_pitch, pixel, MIN(last, pixels));
                    b = panel;
                    pairs = tables + plan[P_PANEL_TAPS];
                }
                for (int64_t k = 0; k < count_k; k += height) {
                    ELEMENT *sum = sums + k * ld + i * line + pixel;
                    int64_t ld_sum = ld;
                    if (last <= solid && k < whole_k) {
                        sum = out + k * ld_out + i * plan[P_OUT_ROW] + pixel;
                        ld_sum = ld_out;
                        /* the sums will go there when they are whole; by then it will have come, or if memory brings it by the
                         * time that the next tile's are, which may be the next piece's */
                        for (int64_t m = 0; c0 == 0 && m < height; m++) {
                            for (int64_t lane = 0; lane < most * LANES; lane += LANES)
                                PREFETCH_TO_WRITE(sum + m * ld_out + asks * most * LANES + lane);
                        }
                    }
                    const ELEMENT *start = c0 ? sum : starts + k * LANES;
                    const int is_first = k == 0 && b != panel && most == width;
                    (asks && is_first ? asking[kind] : multiply)(
                        a + k * plan[P_WEIGHT_RESULT], plan[P_WEIGHT_RESULT], count_k - k, b, pairs, count, start,
                        c0 ? ld_sum : LANES, c0 ? LANES : 0, sum, ld_sum);
                }
            }
        }
    }
    for (int64_t k = 0; k < count_k; k++)
        NAME(place)(plan, i0, starts[k * LANES], sums + k * ld, sums_pitch, out + k * ld_out, rows, cols, images, by_rows,
                    k < whole_k ? solid : 0);
}
