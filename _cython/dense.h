/* What passes over matrices have in common. */

/* How the pixels of a strip lie in what is read: runs of `run` pixels, `runs` of them an image. */
typedef struct {
    int64_t run, runs, run_pitch, image_pitch;
    int64_t room;     /* elements that may be read from the strip's first pixel on */
    int64_t furthest; /* the largest offset of a tap */
} NAME(strip);

#define IN_STRIP(strip, pixel)                                                                  \
    ((pixel) / (strip)->run / (strip)->runs * (strip)->image_pitch +                            \
     (pixel) / (strip)->run % (strip)->runs * (strip)->run_pitch + (pixel) % (strip)->run)

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
