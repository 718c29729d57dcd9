/* All kernels of one instruction set, for both types of elements, and the table entry that names them.
 *
 * Wants SET, VECTOR_BYTES, REGISTERS, FUSED, LANES_f32, LANES_f64, FMA_f32, FMA_f64 where FUSED, FMA_HALF_f32 and
 * FMA_HALF_f64 where VECTOR_BYTES == HALVED; and a function runs_here().
 */
#include "plans.h"
#include "structures.h"

#define JOIN_(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define PAIR_(a, b) a##b
#define PAIR(a, b) PAIR_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

/* multiply_full, say, becomes multiply_full_f32_avx512: a kind, its elements, its instruction set */
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

#define PIECES(type)                                                        \
    {                                                                       \
        JOIN(correlate, type, SET), JOIN(weight_grad_tap_lanes_pass, type, SET),      \
            JOIN(depthwise_channelwise_pass, type, SET),                            \
            JOIN(depthwise_channelwise_weight_grad_pass, type, SET),                     \
            JOIN(depthwise_rowwise_pass, type, SET), JOIN(depthwise_rowwise_transposed_pass, type, SET),  \
            JOIN(channel_lanes_pass, type, SET),                            \
            JOIN(weight_grad_channel_lanes_pass, type, SET),                      \
            JOIN(depthwise_rowwise_weight_grad_pass, type, SET),                         \
            JOIN(weight_grad_pixel_lanes_pass, type, SET),                       \
            JOIN(bias_grad_pass, type, SET)                                 \
    }

const fastconv_instruction_set EXPORTED = {
    TEXT(SET), runs_here, {PIECES(f32), PIECES(f64)},
};
