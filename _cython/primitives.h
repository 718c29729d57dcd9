/* The primitives of fastconv/kernels/primitives.py, as the printed drivers call them. */
#define SIZE ((int64_t)sizeof(ELEMENT))

WORD int64_t NAME(floor_div)(int64_t a, int64_t b) { return a / b - (a % b < 0); }
WORD int64_t NAME(ceil_div)(int64_t a, int64_t b) { return (a + b - 1) / b; }
WORD int64_t NAME(entry)(const int64_t *table, int64_t index) { return table[index]; }
WORD ELEMENT NAME(load)(const ELEMENT *source) { return *source; }
WORD void NAME(splat)(ELEMENT value, ELEMENT *target) { NAME(write)(NAME(spread)(value), target); }
WORD void NAME(prefetch_to_write)(const ELEMENT *target) {
    PREFETCH_TO_WRITE(target);
    HAS_EFFECT;
}
WORD void NAME(store)(ELEMENT value, ELEMENT *target) { *target = value; }

/* Every second element, a vector at a time where a set has masked stores that are as fast as others. */
static void NAME(store_alternate)(const ELEMENT *source, ELEMENT *target, int64_t count) {
    int64_t i = 0;
#if defined(WRITE_SOME_f32)
    const NAME(lanes) number = {PAIR(OF_, LANES)(NUMBER, 0)};
    const NAME(mask) even = (number & 1) == 0;
    for (; i < count; i += LANES, source += LANES, target += 2 * LANES) {
        const int64_t rest = count - i;
        NAME(mask) some = even, others = even;
        vector all;
        if (rest >= LANES) {
            all = NAME(read)(source);
        } else {
            all = NAME(read_some)(source, NAME(between)(0, rest));
            some &= NAME(between)(0, 2 * rest);
            others &= NAME(between)(0, 2 * rest - LANES);
        }
        PAIR(WRITE_SOME_, TYPE)(target, some, SHUFFLE(all, all, ZIPPED, 0));
        if (2 * rest > LANES) PAIR(WRITE_SOME_, TYPE)(target + LANES, others, SHUFFLE(all, all, ZIPPED, 1));
    }
#else
    for (; i < count; i++) target[2 * i] = source[i];
#endif
}

/* Vectors in runs of `run` elements, which is a constant in each of them. */
#define LOAD_RUNS_ARGUMENTS                                                                                              \
    const ELEMENT *source, const int64_t *starts, const int64_t *offsets, int64_t valid, ELEMENT *target, int64_t count
WORD void NAME(load_runs_of)(const int run, LOAD_RUNS_ARGUMENTS) {
    for (int64_t i = 0; i < count; i++, target += LANES) {
        const ELEMENT *const vector_at = source + starts[i];
        NAME(clear)(target);
        for (int64_t lane = 0; lane < valid; lane += run)
            memcpy(target + lane, vector_at + offsets[lane], run * sizeof(ELEMENT));
    }
}
#define STORE_RUNS_ARGUMENTS                                                                                             \
    const ELEMENT *source, const int64_t *offsets, int64_t valid, ELEMENT *target, int64_t step, int64_t count
WORD void NAME(store_runs_of)(const int run, STORE_RUNS_ARGUMENTS) {
    for (int64_t i = 0; i < count; i++, source += LANES, target += step) {
        for (int64_t lane = 0; lane < valid; lane += run)
            memcpy(target + offsets[lane], source + lane, run * sizeof(ELEMENT));
    }
}
#define RUNS(kind, parameters, ...)                                                                                      \
    static void NAME(kind)(int64_t run, parameters) {                                                                    \
        switch (run) {                                                                                                   \
        case 1: NAME(kind##_of)(1, __VA_ARGS__); break;                                                                  \
        case 2: NAME(kind##_of)(2, __VA_ARGS__); break;                                                                  \
        case 4: NAME(kind##_of)(MIN(4, LANES), __VA_ARGS__); break;                                                      \
        case 8: NAME(kind##_of)(MIN(8, LANES), __VA_ARGS__); break;                                                      \
        default: NAME(kind##_of)(LANES, __VA_ARGS__);                                                                    \
        }                                                                                                                \
    }
RUNS(load_runs, LOAD_RUNS_ARGUMENTS, source, starts, offsets, valid, target, count)
RUNS(store_runs, STORE_RUNS_ARGUMENTS, source, offsets, valid, target, step, count)
#undef RUNS

WORD void NAME(span)(int64_t kind, int64_t width, SPAN_ARGUMENTS) {
    static void (*const kernels[VECTOR_KINDS][MOST_SPAN])(SPAN_ARGUMENTS) = {
        {FOR_SPAN(ONE_SPAN)}, {FOR_SPAN(HALF_SPAN)}, {FOR_SPAN(PAIR_SPAN)}};
    kernels[kind][width - 1](a, next_a, b, offsets, count, start, next_start, step, sums, next_sums, ld_sums, asks);
}

static void NAME(sum_taps)(int64_t kind, int64_t run, int64_t runs, TAPS_ARGUMENTS) {
    _Static_assert(RUN == 3, "a table for each length of a run");
    static void (*const kernels[VECTOR_KINDS][RUN][MOST_TAPS + 1])(TAPS_ARGUMENTS) = {
        {{FOR_RUNS_1(ONE_TAPS) 0}, {FOR_RUNS_2(ONE_TAPS) 0}, {FOR_RUNS_3(ONE_TAPS) 0}},
        {{FOR_RUNS_1(HALF_TAPS) 0}, {FOR_RUNS_2(HALF_TAPS) 0}, {FOR_RUNS_3(HALF_TAPS) 0}},
        {{FOR_RUNS_1(PAIR_TAPS) 0}}};
    kernels[kind][run - 1][runs - 1](a, next_a, image_a, b, image_b, offsets, images, pixels, count, start, step, sums,
                                     next_sums);
}

WORD ELEMENT NAME(bias_at)(const ELEMENT *bias, int64_t number) { return bias ? bias[number] : 0; }

static int64_t NAME(along_width)(int64_t pixels) {
    static const int64_t widths[] = {ALONG_A, ALONG_B, ALONG_C, ALONG_D, ALONG_E};
    int which = 0;
    while (widths[which] > pixels) which++;
    return widths[which];
}
static void NAME(along)(int64_t width, const ELEMENT *a, const ELEMENT *b, const int64_t *offsets, int64_t count,
                        const ELEMENT *start, int64_t start_step, ELEMENT *sums, int64_t step) {
    void (*const kernel)(ALONG_ARGUMENTS) = width == ALONG_A   ? NAME(along_a)
                                            : width == ALONG_B ? NAME(along_b)
                                            : width == ALONG_C ? NAME(along_c)
                                            : width == ALONG_D ? NAME(along_d)
                                                               : NAME(along_e);
    kernel(a, b, 0, offsets, count, start, 0, start_step, sums, 0, step);
}
static void NAME(along_square)(const ELEMENT *a, const ELEMENT *b, int64_t row, const int64_t *offsets, int64_t count,
                               ELEMENT *sums, int64_t ld_sums, int64_t step) {
    NAME(along_3x3)(a, b, row, offsets, count, sums, ld_sums, step, sums, ld_sums, step);
}

#define BAND_LONG BAND_A
#define BAND_SHORT BAND_B
static void NAME(band)(int64_t is_long, BAND_ARGUMENTS) {
    (is_long ? NAME(band_a) : NAME(band_b))(a, b, offsets, rows, taps, first, end, start, start_step, sums, step, valid);
}
