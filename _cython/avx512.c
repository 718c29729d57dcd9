/* The kernels for AVX-512, for processors with the extensions F, VL, DQ and BW. */
#include "instructions.h"

#ifdef FASTCONV_X86
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,bmi2")
#endif
#include <immintrin.h>

static int runs_here(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}

#define SET avx512
#define VECTOR_BYTES 64
#define REGISTERS 32
#define FUSED 1
#define LANES_f32 16
#define LANES_f64 8
#define FMA_f32(a, b, c) _mm512_fmadd_ps(a, b, c)
#define FMA_f64(a, b, c) _mm512_fmadd_pd(a, b, c)
#define FMA_HALF_f32(a, b, c) _mm256_fmadd_ps(a, b, c)
#define FMA_HALF_f64(a, b, c) _mm256_fmadd_pd(a, b, c)
#define HAS_MASKED_LOAD 1
#define MASKED_LOAD_f32(from, mask) _mm512_maskz_loadu_ps(_mm512_movepi32_mask((__m512i)(mask)), from)
#define MASKED_LOAD_f64(from, mask) _mm512_maskz_loadu_pd(_mm512_movepi64_mask((__m512i)(mask)), from)
#define MASKED_STORE_f32(to, mask, value) _mm512_mask_storeu_ps(to, _mm512_movepi32_mask((__m512i)(mask)), value)
#define MASKED_STORE_f64(to, mask, value) _mm512_mask_storeu_pd(to, _mm512_movepi64_mask((__m512i)(mask)), value)
#include "instruction_set.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int fastconv_no_avx512; /* a C file must not be empty */
#endif
