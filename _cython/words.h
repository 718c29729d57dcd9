/* The words that the kernels are written in: a vector register of LANES elements.
 *
 * With GCC and Clang they are vector extensions; elsewhere a structure, one lane after the other. Included once for each
 * type of elements and each instruction set, so that the guard is around what no type changes.
 */
#ifndef FASTCONV_WORDS_H
#define FASTCONV_WORDS_H

#include <string.h>

#if (defined(__GNUC__) || defined(__clang__)) && !defined(FASTCONV_PORTABLE)
#define HAS_VECTORS 1
#define WORD static inline __attribute__((always_inline))
#define KERNEL static __attribute__((noinline))
#define PREFETCH(address) __builtin_prefetch(address)
#define PREFETCH_FAR(address) __builtin_prefetch(address, 0, 2) /* for the second-level cache */
#define PREFETCH_TO_WRITE(address) __builtin_prefetch(address, 1)
/* GCC takes a function that only prefetches for one without effect, and drops its calls. This is an effect. */
#define HAS_EFFECT __asm__ volatile("")
#else
#define WORD static inline
#define KERNEL static
#define PREFETCH(address) (void)(address)
#define PREFETCH_FAR(address) (void)(address)
#define PREFETCH_TO_WRITE(address) (void)(address)
#define HAS_EFFECT (void)0
#endif

/* a loop over a tile's accumulators must be unrolled: only then they are registers */
#define UNROLLED_MOST 32
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLLED _Pragma("GCC unroll 32")
#else
#define UNROLLED
#endif

/* A tile of the table in backends/abi.py that is larger than a micro-kernel's buffers, or than what is unrolled, does not compile. */
#define FITS(extent, most) _Static_assert((extent) <= (most), "a tile is too large for its micro-kernel: " #extent)

/* whether there are words for half a register */
#if defined(HAS_VECTORS) && VECTOR_BYTES == HALVED
#define HALVES 1
#else
#define HALVES 0
#endif

/* whether registers are enough for the sums of two vectors of results */
#if REGISTERS >= PAIRED
#define PAIRS 1
#else
#define PAIRS 0
#endif

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* f(lane, d) of each lane of a register, for masks of shuffles */
#define OF_2(f, d) f(0, d), f(1, d)
#define OF_4(f, d) OF_2(f, d), f(2, d), f(3, d)
#define OF_8(f, d) OF_4(f, d), f(4, d), f(5, d), f(6, d), f(7, d)
#define OF_16(f, d) OF_8(f, d), f(8, d), f(9, d), f(10, d), f(11, d), f(12, d), f(13, d), f(14, d), f(15, d)

/* lanes of two registers a, b, b's counted on behind a's: blocks of d lanes, those with the d-bit from b */
#define KEEP(lane, d) (((lane) & (d) ? LANES + (lane) - (d) : (lane)) & (2 * LANES - 1))
#define TAKE(lane, d) (((lane) & (d) ? LANES + (lane) : (lane) + (d)) & (2 * LANES - 1))
#define EVEN(lane, d) (2 * (lane))
#define ODD(lane, d) (2 * (lane) + 1)
/* both registers' lanes by turns: their first half, or with d the second */
#define ZIPPED(lane, d) ((lane) % 2 * LANES + (lane) / 2 + (d) * LANES / 2)
#define NUMBER(lane, d) (lane)

/* one lane of a register, of a constant number */
#if !defined(HAS_VECTORS)
#define LANE_OF(a, number) (a).lane[number]
#else
#define LANE_OF(a, number) (a)[number]
#endif

#if !defined(HAS_VECTORS)
#define SHUFFLE(a, b, f, d) NAME(shuffle)(a, b, (const int[]){PAIR(OF_, LANES)(f, d)})
#elif defined(__clang__)
#define SHUFFLE(a, b, f, d) __builtin_shufflevector(a, b, PAIR(OF_, LANES)(f, d))
#else
#define SHUFFLE(a, b, f, d) __builtin_shuffle(a, b, (NAME(lanes)){PAIR(OF_, LANES)(f, d)})
#endif

#endif

#if defined(HAS_VECTORS)

typedef ELEMENT vector __attribute__((vector_size(VECTOR_BYTES)));
typedef ELEMENT NAME(anywhere) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(ELEMENT)), may_alias));
typedef INTEGER NAME(lanes) __attribute__((vector_size(VECTOR_BYTES)));

WORD vector NAME(zero)(void) { return (vector){0}; }
WORD vector NAME(read)(const ELEMENT *from) { return *(const NAME(anywhere) *)from; }
WORD void NAME(write)(vector value, ELEMENT *to) { *(NAME(anywhere) *)to = value; }
WORD vector NAME(spread)(ELEMENT value) { return value - (vector){0}; } /* minus, as -0 + 0 is no -0 */

WORD vector NAME(plus)(vector a, vector b) { return a + b; }

/* a * b + c, rounded once where the set can: contraction is switched off, nothing else may be fused */
#if FUSED
WORD vector NAME(fma)(vector a, vector b, vector c) { return PAIR(FMA_, TYPE)(a, b, c); }
#else
WORD vector NAME(fma)(vector a, vector b, vector c) { return a * b + c; }
#endif

/* The first half of its lanes. */
#if HALVES
typedef ELEMENT NAME(half) __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef ELEMENT NAME(half_anywhere) __attribute__((vector_size(VECTOR_BYTES / 2), aligned(sizeof(ELEMENT)), may_alias));

WORD NAME(half) NAME(half_read)(const ELEMENT *from) { return *(const NAME(half_anywhere) *)from; }
WORD void NAME(half_write)(NAME(half) value, ELEMENT *to) { *(NAME(half_anywhere) *)to = value; }
WORD NAME(half) NAME(half_spread)(ELEMENT value) { return value - (NAME(half)){0}; }
WORD NAME(half) NAME(half_fma)(NAME(half) a, NAME(half) b, NAME(half) c) { return PAIR(FMA_HALF_, TYPE)(a, b, c); }
#endif

#else

typedef struct { ELEMENT lane[LANES]; } vector;

WORD vector NAME(spread)(ELEMENT value) {
    vector result;
    for (int i = 0; i < LANES; i++) result.lane[i] = value;
    return result;
}
WORD vector NAME(zero)(void) { return NAME(spread)(0); }
WORD vector NAME(read)(const ELEMENT *from) {
    vector result;
    memcpy(&result, from, sizeof result);
    return result;
}
WORD void NAME(write)(vector value, ELEMENT *to) { memcpy(to, &value, sizeof value); }
WORD vector NAME(fma)(vector a, vector b, vector c) {
    for (int i = 0; i < LANES; i++) {
        const ELEMENT product = a.lane[i] * b.lane[i];
        c.lane[i] = product + c.lane[i];
    }
    return c;
}
WORD vector NAME(plus)(vector a, vector b) {
    for (int i = 0; i < LANES; i++) a.lane[i] += b.lane[i];
    return a;
}
WORD vector NAME(shuffle)(vector a, vector b, const int *mask) {
    vector result;
    for (int i = 0; i < LANES; i++) result.lane[i] = mask[i] < LANES ? a.lane[mask[i]] : b.lane[mask[i] - LANES];
    return result;
}

#endif

/* One vector, from anywhere to anywhere. */
WORD void NAME(move)(ELEMENT *to, const ELEMENT *from) { NAME(write)(NAME(read)(from), to); }
WORD void NAME(clear)(ELEMENT *to) { NAME(write)(NAME(zero)(), to); }

/* The lanes first <= lane < end of a vector, and reading those alone: the others are 0, and not touched. */
#if defined(MASKED)
typedef NAME(lanes) NAME(mask);
WORD NAME(mask) NAME(between)(int64_t first, int64_t end) {
    const NAME(lanes) number = {PAIR(OF_, LANES)(NUMBER, 0)}, none = {0};
    return (number >= none + (INTEGER)MAX(0, MIN(first, LANES))) & (number < none + (INTEGER)MAX(0, MIN(end, LANES)));
}
WORD vector NAME(read_some)(const ELEMENT *from, NAME(mask) mask) { return PAIR(READ_SOME_, TYPE)(from, mask); }
#else
typedef struct {
    int64_t first, end;
} NAME(mask);
WORD NAME(mask) NAME(between)(int64_t first, int64_t end) {
    return (NAME(mask)){MAX(0, first), MIN(end, LANES)};
}
WORD vector NAME(read_some)(const ELEMENT *from, NAME(mask) mask) {
    if (mask.first == 0 && mask.end == LANES) return NAME(read)(from);
    vector some = NAME(zero)();
    UNROLLED for (int lane = 0; lane < LANES; lane++) {
        if (lane >= mask.first && lane < mask.end) LANE_OF(some, lane) = from[lane];
    }
    return some;
}
#endif

/* The first `count` lanes, if there are so many. */
WORD void NAME(write_some)(vector value, ELEMENT *to, int64_t count) {
#if defined(WRITE_SOME_f32)
    PAIR(WRITE_SOME_, TYPE)(to, NAME(between)(0, count), value);
#else
    ELEMENT all[LANES];
    if (count >= LANES) {
        NAME(write)(value, to);
        return;
    }
    NAME(write)(value, all);
    for (int64_t lane = 0; lane < count; lane++) to[lane] = all[lane];
#endif
}

/* A square of vectors with rows and columns exchanged: at each distance d, blocks of d x d change places. */
#define EXCHANGE(d)                                                         \
    UNROLLED for (int i = 0; i < LANES; i++) {                              \
        if (!(i & (d))) {                                                   \
            const vector a = rows[i], b = rows[(i | (d)) % LANES];          \
            rows[i] = SHUFFLE(a, b, KEEP, d);                               \
            rows[(i | (d)) % LANES] = SHUFFLE(a, b, TAKE, d);               \
        }                                                                   \
    }
WORD void NAME(exchange)(vector *rows) {
    if (LANES > 8) EXCHANGE(8)
    if (LANES > 4) EXCHANGE(4)
    if (LANES > 2) EXCHANGE(2)
    EXCHANGE(1)
}
#undef EXCHANGE
