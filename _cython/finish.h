/* The epilogue: a residual is added to finished sums, and an activation is applied, as fastconv/dispatch/finish.py says. */

INLINE ELEMENT NAME(finished)(const int activation, ELEMENT slope, ELEMENT y) {
    ELEMENT gate;
    switch (activation) {
    case RELU: return y <= 0 ? 0 : y;
    case RELU6: return y <= 0 ? 0 : y >= 6 ? 6 : y;
    case HARDSWISH:
        gate = y + 3;
        return y * (gate <= 0 ? 0 : gate >= 6 ? 6 : gate) / 6;
    case SLOPES: return y > 0 ? y : y * slope;
    default: return y;
    }
}

#if defined(HAS_VECTORS)
INLINE vector NAME(select)(NAME(lanes) mask, vector yes, vector no) {
    return (vector)(((NAME(lanes))yes & mask) | ((NAME(lanes))no & ~mask));
}

INLINE vector NAME(finished_vector)(const int activation, vector slope, vector y) {
    const vector zero = NAME(zero)(), three = NAME(broadcast)(3), six = NAME(broadcast)(6);
    vector gate;
    switch (activation) {
    case RELU: return NAME(select)(y <= zero, zero, y);
    case RELU6: return NAME(select)(y <= zero, zero, NAME(select)(y >= six, six, y));
    case HARDSWISH:
        gate = y + three;
        gate = NAME(select)(gate <= zero, zero, NAME(select)(gate >= six, six, gate));
        return y * gate / six;
    case SLOPES: return NAME(select)(y > zero, y, y * slope);
    default: return y;
    }
}
#endif

/* `activation`, and whether there is a residual, are constants in each copy. */
#define FINISH_ARGUMENTS                                                        \
    const ELEMENT *slopes, int64_t slope_step, ELEMENT *sums, const ELEMENT *residual, int64_t rows, int64_t ld, int64_t cols, int64_t step
INLINE void NAME(finish_rows_of)(const int activation, const int adds, FINISH_ARGUMENTS) {
    for (int64_t i = 0; i < rows; i++, sums += ld, residual += adds ? ld : 0) {
        int64_t j = 0;
#if defined(HAS_VECTORS)
        if (step == 1) {
            for (; j + LANES <= cols; j += LANES) {
                vector y = NAME(read)(sums + j);
                if (adds) y = NAME(add)(y, NAME(read)(residual + j));
                const vector slope = activation != SLOPES ? y : slope_step ? NAME(read)(slopes + j) : NAME(broadcast)(*slopes);
                NAME(write)(NAME(finished_vector)(activation, slope, y), sums + j);
            }
        }
#endif
        for (; j < cols; j++) {
            ELEMENT y = sums[j * step];
            if (adds) y += residual[j * step];
            sums[j * step] = NAME(finished)(activation, activation == SLOPES ? slopes[j * slope_step] : 0, y);
        }
    }
}

#define FINISH(activation, adds)                                                \
    NAME(finish_rows_of)(activation, adds, slopes, slope_step, sums, residual, rows, ld, cols, step)
#define FINISH_BY(activation)                                                   \
    case activation:                                                            \
        if (residual) FINISH(activation, 1);                                    \
        else FINISH(activation, 0);                                             \
        break;
NOINLINE void NAME(finish_rows)(int64_t activation, FINISH_ARGUMENTS) {
    switch (activation) {
        FINISH_BY(RELU)
        FINISH_BY(RELU6)
        FINISH_BY(HARDSWISH)
        FINISH_BY(SLOPES)
    default: FINISH(NO_ACTIVATION, 1);
    }
}
#undef FINISH_ARGUMENTS
#undef FINISH
#undef FINISH_BY
