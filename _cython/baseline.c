/* The kernels for what every processor of the platform has: NEON on 64-bit ARM, SSE2 on x86-64, which multiplies and adds
 * in two roundings. A compiler without vector extensions gets the same lanes one by one (words.h). */
#include "instructions.h"

static int runs_here(void) { return 1; }

#define VECTOR_BYTES 16
#define LANES_f32 4
#define LANES_f64 2

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#if !defined(__clang__)
/* GCC would move loads up past the point where the sums still have their registers */
#pragma GCC optimize("no-schedule-insns")
#endif
#include <arm_neon.h>
#define SET neon
#define REGISTERS 32
#define FUSED 1
#define FMA_f32(a, b, c) vfmaq_f32(c, a, b)
#define FMA_f64(a, b, c) vfmaq_f64(c, a, b)
#else
#define SET baseline
#define REGISTERS 16
#define FUSED 0
#endif

/* by whatever name, it is this platform's last resort */
#define EXPORTED fastconv_baseline
#include "instruction_set.h"
