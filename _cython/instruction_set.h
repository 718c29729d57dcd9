/* All kernels of one instruction set, for both element types, and its table of passes.
 *
 * The including file defines SET, VECTOR_BYTES, REGISTERS, FUSED, LANES_f32 and LANES_f64; where FUSED, FMA_f32 and FMA_f64; where
 * VECTOR_BYTES == HALVED, FMA_HALF_f32 and FMA_HALF_f64; and a function runs_here().
 */
#include "plans.h"

#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define PAIR_(a, b) a##b
#define PAIR(a, b) PAIR_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

/* multiply_full, for example, becomes multiply_full_f32_avx512: name, element type, instruction set */
#define NAME(kind) JOIN(kind, TYPE, SET)

#define TYPE f32
#define ELEMENT float
#define INTEGER int32_t
#include "kernels.h"
#undef TYPE
#undef ELEMENT
#undef INTEGER

#define TYPE f64
#define ELEMENT double
#define INTEGER int64_t
#include "kernels.h"
#undef TYPE
#undef ELEMENT
#undef INTEGER

#ifndef EXPORTED
#define EXPORTED PAIR(fastconv_, SET)
#endif

#define PASS_f32(name, structure) {JOIN(name##_pass, f32, SET), sizeof(structure) / 8},
#define PASS_f64(name, structure) {JOIN(name##_pass, f64, SET), sizeof(structure) / 8},

const fastconv_instruction_set EXPORTED = {
    TEXT(SET), runs_here, {{FOR_PASSES(PASS_f32)}, {FOR_PASSES(PASS_f64)}},
};
