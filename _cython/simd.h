/* SIMD operations on a vector register of LANES elements, in which the micro-kernels are written.
 *
 * With GCC and Clang a vector is a vector extension; with other compilers it is a structure, computed lane by lane.
 * This file is included once for each element type and instruction set. The include guard is around what is the same
 * for all of them. */
#ifndef FASTCONV_SIMD_H
#define FASTCONV_SIMD_H

#include <string.h>

#if (defined(__GNUC__) || defined(__clang__)) && !defined(FASTCONV_PORTABLE)
#define HAS_VECTORS 1
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#define PREFETCH(address) __builtin_prefetch(address)
#define PREFETCH_FAR(address) __builtin_prefetch(address, 0, 2) /* for the second-level cache */
#define PREFETCH_TO_WRITE(address) __builtin_prefetch(address, 1)
/* GCC takes a function that only prefetches for one without effect and drops its calls. This is an effect. */
#define HAS_EFFECT __asm__ volatile("")
#else
#define INLINE static inline
#define NOINLINE static
#define PREFETCH(address) (void)(address)
#define PREFETCH_FAR(address) (void)(address)
#define PREFETCH_TO_WRITE(address) (void)(address)
#define HAS_EFFECT (void)0
#endif

/* Elements of a cache line, and how far ahead of a load to prefetch where a kernel reads more streams than hardware prefetchers
 * track. */
#define LINE (64 / (int)sizeof(ELEMENT))
#define PREFETCH_AHEAD (4 * LINE)

/* Loops over the sums of a register tile must be unrolled, as only then the sums are kept in registers. */
#define MAX_UNROLLED 32
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLLED _Pragma("GCC unroll 32")
#else
#define UNROLLED
#endif

/* Fails to compile if a tile of the tables in kernels/abi.py exceeds a micro-kernel's buffers or the unrolling. */
#define FITS(extent, most) _Static_assert((extent) <= (most), "a tile is too large for its micro-kernel: " #extent)

/* whether there are micro-kernels for half a register */
#if defined(HAS_VECTORS) && VECTOR_BYTES == HALVED
#define HALVES 1
#else
#define HALVES 0
#endif

/* whether there are enough registers for micro-kernels of two vectors of results */
#if REGISTERS >= PAIRED
#define PAIRS 1
#else
#define PAIRS 0
#endif

/* Keeps a vector in a register: without it GCC loads it again for each use, and loads are what these kernels wait for. */
#if defined(HAS_VECTORS) && (defined(__x86_64__) || defined(__i386__))
#define IN_REGISTER(value) __asm__("" : "+v"(value))
#elif defined(HAS_VECTORS) && defined(__aarch64__)
#define IN_REGISTER(value) __asm__("" : "+w"(value))
#else
#define IN_REGISTER(value) (void)(value)
#endif
/* Moves a pointer: without it GCC computes all addresses of an unrolled loop before it, and has no registers for them. */
#if defined(HAS_VECTORS)
#define MOVE_POINTER(pointer, step) \
    do {                            \
        (pointer) += (step);        \
        __asm__("" : "+r"(pointer)); \
    } while (0)
#else
#define MOVE_POINTER(pointer, step) ((pointer) += (step))
#endif

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* f(lane, d) for each lane of a register: the mask of a shuffle */
#define EACH_OF_2(f, d) f(0, d), f(1, d)
#define EACH_OF_4(f, d) EACH_OF_2(f, d), f(2, d), f(3, d)
#define EACH_OF_8(f, d) EACH_OF_4(f, d), f(4, d), f(5, d), f(6, d), f(7, d)
#define EACH_OF_16(f, d) EACH_OF_8(f, d), f(8, d), f(9, d), f(10, d), f(11, d), f(12, d), f(13, d), f(14, d), f(15, d)

/* Masks of shuffles of registers a and b, whose lanes are numbered from 0 and from LANES on. Of blocks of d lanes, KEPT takes
 * the even ones and TAKEN the odd ones of both registers; EVEN and ODD do so with single lanes. */
#define KEPT(lane, d) (((lane) & (d) ? LANES + (lane) - (d) : (lane)) & (2 * LANES - 1))
#define TAKEN(lane, d) (((lane) & (d) ? LANES + (lane) : (lane) + (d)) & (2 * LANES - 1))
#define EVEN(lane, d) (2 * (lane))
#define ODD(lane, d) (2 * (lane) + 1)
/* lanes of a and b in turn: of their first halves, or with d = 1 of their second halves */
#define INTERLEAVED(lane, d) ((lane) % 2 * LANES + (lane) / 2 + (d) * LANES / 2)
#define LANE_NUMBER(lane, d) (lane)

/* one lane of a register; its number is a constant */
#if !defined(HAS_VECTORS)
#define LANE_OF(a, number) (a).lane[number]
#else
#define LANE_OF(a, number) (a)[number]
#endif

#if !defined(HAS_VECTORS)
#define SHUFFLE(a, b, f, d) NAME(shuffle)(a, b, (const int[]){PAIR(EACH_OF_, LANES)(f, d)})
#elif defined(__clang__)
#define SHUFFLE(a, b, f, d) __builtin_shufflevector(a, b, PAIR(EACH_OF_, LANES)(f, d))
#else
#define SHUFFLE(a, b, f, d) __builtin_shuffle(a, b, (NAME(lanes)){PAIR(EACH_OF_, LANES)(f, d)})
#endif

#endif

#if defined(HAS_VECTORS)

typedef ELEMENT vector __attribute__((vector_size(VECTOR_BYTES)));
typedef ELEMENT NAME(unaligned) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(ELEMENT)), may_alias));
typedef INTEGER NAME(lanes) __attribute__((vector_size(VECTOR_BYTES)));

INLINE vector NAME(zero)(void) { return (vector){0}; }
INLINE vector NAME(read)(const ELEMENT *from) { return *(const NAME(unaligned) *)from; }
INLINE void NAME(write)(vector value, ELEMENT *to) { *(NAME(unaligned) *)to = value; }
INLINE vector NAME(broadcast)(ELEMENT value) { return value - (vector){0}; } /* -0 - 0 is -0, but -0 + 0 is 0 */

INLINE vector NAME(add)(vector a, vector b) { return a + b; }
INLINE vector NAME(subtract)(vector a, vector b) { return a - b; }
INLINE vector NAME(scaled)(vector a, ELEMENT factor) { return a * factor; }

/* a * b + c, with one rounding if the instruction set has a fused multiply-add, and two otherwise. The compiler may fuse
 * nothing else, as contraction is switched off. */
#if FUSED
INLINE vector NAME(fma)(vector a, vector b, vector c) { return PAIR(FMA_, TYPE)(a, b, c); }
#else
INLINE vector NAME(fma)(vector a, vector b, vector c) { return a * b + c; }
#endif

/* Vectors of half a register. */
#if HALVES
typedef ELEMENT NAME(half) __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef ELEMENT NAME(half_unaligned) __attribute__((vector_size(VECTOR_BYTES / 2), aligned(sizeof(ELEMENT)), may_alias));

INLINE NAME(half) NAME(half_read)(const ELEMENT *from) { return *(const NAME(half_unaligned) *)from; }
INLINE void NAME(half_write)(NAME(half) value, ELEMENT *to) { *(NAME(half_unaligned) *)to = value; }
INLINE NAME(half) NAME(half_broadcast)(ELEMENT value) { return value - (NAME(half)){0}; }
INLINE NAME(half) NAME(half_fma)(NAME(half) a, NAME(half) b, NAME(half) c) { return PAIR(FMA_HALF_, TYPE)(a, b, c); }
#endif

#else

typedef struct { ELEMENT lane[LANES]; } vector;

INLINE vector NAME(broadcast)(ELEMENT value) {
    vector result;
    for (int i = 0; i < LANES; i++) result.lane[i] = value;
    return result;
}
INLINE vector NAME(zero)(void) { return NAME(broadcast)(0); }
INLINE vector NAME(read)(const ELEMENT *from) {
    vector result;
    memcpy(&result, from, sizeof result);
    return result;
}
INLINE void NAME(write)(vector value, ELEMENT *to) { memcpy(to, &value, sizeof value); }
INLINE vector NAME(fma)(vector a, vector b, vector c) {
    for (int i = 0; i < LANES; i++) {
        const ELEMENT product = a.lane[i] * b.lane[i];
        c.lane[i] = product + c.lane[i];
    }
    return c;
}
INLINE vector NAME(add)(vector a, vector b) {
    for (int i = 0; i < LANES; i++) a.lane[i] += b.lane[i];
    return a;
}
INLINE vector NAME(subtract)(vector a, vector b) {
    for (int i = 0; i < LANES; i++) a.lane[i] -= b.lane[i];
    return a;
}
INLINE vector NAME(scaled)(vector a, ELEMENT factor) {
    for (int i = 0; i < LANES; i++) a.lane[i] *= factor;
    return a;
}
INLINE vector NAME(shuffle)(vector a, vector b, const int *mask) {
    vector result;
    for (int i = 0; i < LANES; i++) result.lane[i] = mask[i] < LANES ? a.lane[mask[i]] : b.lane[mask[i] - LANES];
    return result;
}

#endif

/* Copy a vector, store a vector of zeros. Addresses need not be aligned. */
INLINE void NAME(move)(ELEMENT *to, const ELEMENT *from) { NAME(write)(NAME(read)(from), to); }
INLINE void NAME(clear)(ELEMENT *to) { NAME(write)(NAME(zero)(), to); }

/* A mask of the lanes first <= lane < end, and a load under a mask: the other lanes are 0 and their memory is not accessed. */
#if defined(HAS_MASKED_LOAD)
typedef NAME(lanes) NAME(mask);
INLINE NAME(mask) NAME(lane_mask)(int64_t first, int64_t end) {
    const NAME(lanes) number = {PAIR(EACH_OF_, LANES)(LANE_NUMBER, 0)}, none = {0};
    return (number >= none + (INTEGER)MAX(0, MIN(first, LANES))) & (number < none + (INTEGER)MAX(0, MIN(end, LANES)));
}
INLINE vector NAME(masked_load)(const ELEMENT *from, NAME(mask) mask) { return PAIR(MASKED_LOAD_, TYPE)(from, mask); }
#else
typedef struct {
    int64_t first, end;
} NAME(mask);
INLINE NAME(mask) NAME(lane_mask)(int64_t first, int64_t end) {
    return (NAME(mask)){MAX(0, first), MIN(end, LANES)};
}
INLINE vector NAME(masked_load)(const ELEMENT *from, NAME(mask) mask) {
    if (mask.first == 0 && mask.end == LANES) return NAME(read)(from);
    vector result = NAME(zero)();
    UNROLLED for (int lane = 0; lane < LANES; lane++) {
        if (lane >= mask.first && lane < mask.end) LANE_OF(result, lane) = from[lane];
    }
    return result;
}
#endif

/* Store the first `count` lanes, or all if there are fewer. */
INLINE void NAME(masked_store)(vector value, ELEMENT *to, int64_t count) {
#if defined(MASKED_STORE_f32)
    PAIR(MASKED_STORE_, TYPE)(to, NAME(lane_mask)(0, count), value);
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

