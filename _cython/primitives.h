/* The small primitives of fastconv/kernels/primitives.py, as the printed drivers call them, and those that choose a micro-kernel
 * for whole or half vectors. The micro-kernels' headers have the others. */
#define SIZE ((int64_t)sizeof(ELEMENT))

INLINE int64_t NAME(floor_div)(int64_t a, int64_t b) { return a / b - (a % b < 0); }
INLINE int64_t NAME(ceil_div)(int64_t a, int64_t b) { return (a + b - 1) / b; }
INLINE int64_t NAME(entry)(const int64_t *table, int64_t index) { return table[index]; }
INLINE ELEMENT NAME(load)(const ELEMENT *source) { return *source; }
INLINE void NAME(move_lanes)(ELEMENT *target, const ELEMENT *source, int64_t count) {
    NAME(masked_store)(NAME(masked_load)(source, NAME(lane_mask)(0, count)), target, count);
}
INLINE void NAME(splat)(ELEMENT value, ELEMENT *target) { NAME(write)(NAME(broadcast)(value), target); }
INLINE void NAME(prefetch_to_write)(const ELEMENT *target) {
    PREFETCH_TO_WRITE(target);
    HAS_EFFECT;
}
INLINE void NAME(prefetch_lines)(const ELEMENT *source, int64_t count) {
    for (int64_t line = 0; line < count; line++) PREFETCH_FAR(source + line * LINE);
    HAS_EFFECT;
}
INLINE void NAME(store)(ELEMENT value, ELEMENT *target) { *target = value; }

/* Every second element, a vector at a time where masked stores are as fast as plain ones. */
static void NAME(store_alternate)(const ELEMENT *source, ELEMENT *target, int64_t count) {
    int64_t i = 0;
#if defined(MASKED_STORE_f32)
    const NAME(lanes) number = {PAIR(EACH_OF_, LANES)(LANE_NUMBER, 0)};
    const NAME(mask) even_lanes = (number & 1) == 0;
    for (; i < count; i += LANES, source += LANES, target += 2 * LANES) {
        const int64_t rest = count - i;
        NAME(mask) near = even_lanes, far = even_lanes;
        vector all;
        if (rest >= LANES) {
            all = NAME(read)(source);
        } else {
            all = NAME(masked_load)(source, NAME(lane_mask)(0, rest));
            near &= NAME(lane_mask)(0, 2 * rest);
            far &= NAME(lane_mask)(0, 2 * rest - LANES);
        }
        PAIR(MASKED_STORE_, TYPE)(target, near, SHUFFLE(all, all, INTERLEAVED, 0));
        if (2 * rest > LANES) PAIR(MASKED_STORE_, TYPE)(target + LANES, far, SHUFFLE(all, all, INTERLEAVED, 1));
    }
#else
    for (; i < count; i++) target[2 * i] = source[i];
#endif
}

/* Vectors gathered from, or scattered to, runs of `run` neighbouring elements. `run` is a constant in each copy. */
#define LOAD_RUNS_ARGUMENTS                                                     \
    const ELEMENT *source, const int64_t *starts, const int64_t *offsets, int64_t valid, ELEMENT *target, int64_t count
INLINE void NAME(load_runs_of)(const int run, LOAD_RUNS_ARGUMENTS) {
    for (int64_t i = 0; i < count; i++, target += LANES) {
        const ELEMENT *const vector_at = source + starts[i];
        NAME(clear)(target);
        for (int64_t lane = 0; lane < valid; lane += run)
            memcpy(target + lane, vector_at + offsets[lane], run * sizeof(ELEMENT));
    }
}
#define STORE_RUNS_ARGUMENTS                                                    \
    const ELEMENT *source, const int64_t *offsets, int64_t valid, ELEMENT *target, int64_t step, int64_t count
INLINE void NAME(store_runs_of)(const int run, STORE_RUNS_ARGUMENTS) {
    for (int64_t i = 0; i < count; i++, source += LANES, target += step) {
        for (int64_t lane = 0; lane < valid; lane += run)
            memcpy(target + offsets[lane], source + lane, run * sizeof(ELEMENT));
    }
}
#define RUNS(kind, parameters, ...)                                             \
    static void NAME(kind)(int64_t run, parameters) {                           \
        switch (run) {                                                          \
        case 1: NAME(kind##_of)(1, __VA_ARGS__); break;                         \
        case 2: NAME(kind##_of)(2, __VA_ARGS__); break;                         \
        case 4: NAME(kind##_of)(MIN(4, LANES), __VA_ARGS__); break;             \
        case 8: NAME(kind##_of)(MIN(8, LANES), __VA_ARGS__); break;             \
        default: NAME(kind##_of)(LANES, __VA_ARGS__);                           \
        }                                                                       \
    }
RUNS(load_runs, LOAD_RUNS_ARGUMENTS, source, starts, offsets, valid, target, count)
RUNS(store_runs, STORE_RUNS_ARGUMENTS, source, offsets, valid, target, step, count)
#undef RUNS

INLINE ELEMENT NAME(bias_at)(const ELEMENT *bias, int64_t number) { return bias ? bias[number] : 0; }


/* The micro-kernels of channel_lanes.h and weight_grad.h by kind and size. */
INLINE void NAME(span)(int64_t kind, int64_t width, SPAN_ARGUMENTS) {
    static void (*const kernels[][MAX_SPAN])(SPAN_ARGUMENTS) = {
        [ONE_VECTOR] = {FOR_SPAN(ONE_SPAN)},
        [HALF_VECTOR] = {FOR_SPAN(HALF_SPAN)},
        [TWO_VECTORS] = {FOR_SPAN(PAIR_SPAN)},
    };
    kernels[kind][width - 1](a, next_a, b, ld_b, offsets, count, start, next_start, step, sums, next_sums, ld_sums, prefetch,
                            ahead, fetched, fetches, fetch_count);
}

static void NAME(sum_taps)(int64_t kind, int64_t run, int64_t runs, TAPS_ARGUMENTS) {
    _Static_assert(RUN == 3, "a table for each length of a run");
    static void (*const kernels[][RUN][MAX_TAPS + 1])(TAPS_ARGUMENTS) = {
        [ONE_VECTOR] = {{FOR_RUNS_1(ONE_TAPS) 0}, {FOR_RUNS_2(ONE_TAPS) 0}, {FOR_RUNS_3(ONE_TAPS) 0}},
        [HALF_VECTOR] = {{FOR_RUNS_1(HALF_TAPS) 0}, {FOR_RUNS_2(HALF_TAPS) 0}, {FOR_RUNS_3(HALF_TAPS) 0}},
        [TWO_VECTORS] = {{FOR_RUNS_1(PAIR_TAPS) 0}},
    };
    kernels[kind][run - 1][runs - 1](a, next_a, image_a, b, image_b, offsets, images, pixels, count, start, step, sums,
                                     next_sums);
}
