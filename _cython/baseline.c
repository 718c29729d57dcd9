/* The kernels for what every processor of the platform has: NEON on 64-bit ARM; SSE2 on x86-64, whose multiply-add rounds twice.
 * With a compiler without vector extensions, the same lanes are computed one by one (simd.h). */
#include "instructions.h"

static int runs_here(void) { return 1; }

#define VECTOR_BYTES 16
#define LANES_f32 4
#define LANES_f64 2

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#if !defined(__clang__)
/* GCC would move loads up to where the sums still occupy their registers */
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

/* this set is the last resort, whatever its name */
#define EXPORTED fastconv_baseline
#include "instruction_set.h"
