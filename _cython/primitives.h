/* The primitives of fastconv/kernels/primitives.py, as the printed drivers call them. */
#define SIZE ((int64_t)sizeof(ELEMENT))

WORD int64_t NAME(floor_div)(int64_t a, int64_t b) { return a / b - (a % b < 0); }
WORD int64_t NAME(ceil_div)(int64_t a, int64_t b) { return (a + b - 1) / b; }
WORD int64_t NAME(entry)(const int64_t *table, int64_t index) { return table[index]; }
WORD ELEMENT NAME(load)(const ELEMENT *source) { return *source; }
WORD void NAME(splat)(ELEMENT value, ELEMENT *target) { NAME(write)(NAME(spread)(value), target); }
WORD void NAME(prefetch_to_write)(const ELEMENT *target) { PREFETCH_TO_WRITE(target); }
WORD void NAME(store)(ELEMENT value, ELEMENT *target) { *target = value; }

#define PAD_ROWS(kind, hop, planes)                                                                               \
    static void NAME(kind)(const ELEMENT *source, int64_t ld_source, ELEMENT *target, int64_t plane, int64_t ld_target, \
                           int64_t rows, int64_t last, int64_t w, int64_t width, int64_t ahead) {                 \
        NAME(mask) near[hop], far[hop];                                                                           \
        for (int part = 0; part < hop; part++) {                                                                  \
            const int64_t first = w + part * LANES, final = first + last * hop;                                   \
            near[part] = NAME(between)(-first, width - first);                                                    \
            far[part] = NAME(between)(-final, width - final);                                                     \
        }                                                                                                         \
        NAME(fill_rows)(hop, planes, source, ld_source, target, plane, ld_target, rows, last, near, far, ahead);  \
    }
PAD_ROWS(pad_rows, 1, 1)
PAD_ROWS(pad_rows_of_2, 2, 1)
PAD_ROWS(pad_2_rows, 2, 2)
PAD_ROWS(pad_4_rows, 4, 4)
#undef PAD_ROWS

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

#define LONGEST_SPAN MOST_SPAN
WORD void NAME(span)(int64_t kind, int64_t width, SPAN_ARGUMENTS) {
    static void (*const kernels[VECTOR_KINDS][MOST_SPAN])(SPAN_ARGUMENTS) = {
        {FOR_SPAN(ONE_SPAN)}, {FOR_SPAN(HALF_SPAN)}, {FOR_SPAN(PAIR_SPAN)}};
    kernels[kind][width - 1](a, next_a, b, offsets, count, start, next_start, step, sums, next_sums, ld_sums, asks);
}
