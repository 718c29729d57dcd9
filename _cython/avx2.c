/* The kernels for AVX2 with fused multiply-add. */
#include "instructions.h"

#ifdef FASTCONV_X86
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi2")
#endif
#include <immintrin.h>

static int runs_here(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

#define SET avx2
#define VECTOR_BYTES 32
#define REGISTERS 16
#define FUSED 1
#define LANES_f32 8
#define LANES_f64 4
#define FMA_f32(a, b, c) _mm256_fmadd_ps(a, b, c)
#define FMA_f64(a, b, c) _mm256_fmadd_pd(a, b, c)
#define HAS_MASKED_LOAD 1
#define MASKED_LOAD_f32(from, mask) _mm256_maskload_ps(from, (__m256i)(mask))
#define MASKED_LOAD_f64(from, mask) _mm256_maskload_pd(from, (__m256i)(mask))
#include "instruction_set.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int fastconv_no_avx2; /* a C file must not be empty */
#endif
