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
