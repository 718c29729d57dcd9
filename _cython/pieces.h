/* Where a piece of work lies, for the passes over matrices; the same for all types of elements. */
#ifndef FASTCONV_PIECES_H
#define FASTCONV_PIECES_H

/* So many images from n on of group g, results from k0 on, rows from i0 on and columns from j0 on. */
typedef struct {
    int64_t n, g, k0, i0, j0, images, results, rows, cols;
} fastconv_where;

static inline fastconv_where fastconv_piece_of(const int64_t *plan, int64_t item) {
    fastconv_where at;
    const int64_t parts = pieces_of(plan[P_RESULTS], plan[P_BLOCK_RESULTS]);
    const int64_t strips_h = pieces_of(plan[P_ROWS], plan[P_BLOCK_ROWS]);
    const int64_t strips_w = pieces_of(plan[P_COLS], plan[P_BLOCK_COLS]);
    at.k0 = item % parts * plan[P_BLOCK_RESULTS];
    item /= parts;
    at.j0 = item % strips_w * plan[P_BLOCK_COLS];
    item /= strips_w;
    at.i0 = item % strips_h * plan[P_BLOCK_ROWS];
    item /= strips_h;
    at.g = item % plan[P_GROUPS];
    at.n = item / plan[P_GROUPS] * plan[P_BLOCK_IMAGES];
    at.images = MIN(plan[P_BLOCK_IMAGES], plan[P_IMAGES] - at.n);
    at.results = MIN(plan[P_BLOCK_RESULTS], plan[P_RESULTS] - at.k0);
    at.rows = MIN(plan[P_BLOCK_ROWS], plan[P_ROWS] - at.i0);
    at.cols = MIN(plan[P_BLOCK_COLS], plan[P_COLS] - at.j0);
    return at;
}

/* Of a weight's gradient: partial sum `split` of group g, results from k0 on and channels from c0 on, over the strips
 * first <= strip < end. */
typedef struct {
    int64_t split, g, k0, c0, results, channels, first, end;
} fastconv_share;

static inline int64_t fastconv_strips_of(const int64_t *plan) {
    return pieces_of(plan[P_IMAGES], plan[P_BLOCK_IMAGES]) * pieces_of(plan[P_ROWS], plan[P_BLOCK_ROWS]) *
           pieces_of(plan[P_COLS], plan[P_BLOCK_COLS]);
}

static inline fastconv_share fastconv_share_of(const int64_t *plan, int64_t item) {
    fastconv_share at;
    const int64_t parts_k = pieces_of(plan[P_RESULTS], plan[P_BLOCK_RESULTS]), strips = fastconv_strips_of(plan);
    const int64_t parts_c = pieces_of(plan[P_CHANNELS], plan[P_BLOCK_CHANNELS]);
    at.k0 = item % parts_k * plan[P_BLOCK_RESULTS];
    item /= parts_k;
    at.c0 = item % parts_c * plan[P_BLOCK_CHANNELS];
    item /= parts_c;
    at.g = item % plan[P_GROUPS];
    at.split = item / plan[P_GROUPS];
    at.results = MIN(plan[P_BLOCK_RESULTS], plan[P_RESULTS] - at.k0);
    at.channels = MIN(plan[P_BLOCK_CHANNELS], plan[P_CHANNELS] - at.c0);
    at.first = strips * at.split / plan[P_SPLITS];
    at.end = strips * (at.split + 1) / plan[P_SPLITS];
    return at;
}

/* Where a strip of it lies; what it says of groups and results is not to be used. */
static inline fastconv_where fastconv_strip_of(const int64_t *plan, int64_t strip) {
    fastconv_where at = {0};
    const int64_t strips_h = pieces_of(plan[P_ROWS], plan[P_BLOCK_ROWS]);
    const int64_t strips_w = pieces_of(plan[P_COLS], plan[P_BLOCK_COLS]);
    at.j0 = strip % strips_w * plan[P_BLOCK_COLS];
    at.i0 = strip / strips_w % strips_h * plan[P_BLOCK_ROWS];
    at.n = strip / (strips_w * strips_h) * plan[P_BLOCK_IMAGES];
    at.images = MIN(plan[P_BLOCK_IMAGES], plan[P_IMAGES] - at.n);
    at.rows = MIN(plan[P_BLOCK_ROWS], plan[P_ROWS] - at.i0);
    at.cols = MIN(plan[P_BLOCK_COLS], plan[P_COLS] - at.j0);
    return at;
}

#endif
