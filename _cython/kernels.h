/* All kernels of one instruction set for one element type; instruction_set.h includes this once for each. */
#define LANES PAIR(LANES_, TYPE)
#define vector NAME(vector)

#include "simd.h"
#include "transpose.h"
#include "pad_rows.h"

#include "pixel_lanes.h"
#define vec vector
#define VEC(kind) NAME(kind)
#include "channel_lanes.h"
#include "weight_grad.h"
#undef vec
#undef VEC
#if HALVES
#define IS_HALF
#define vec NAME(half)
#define VEC(kind) NAME(half_##kind)
#include "channel_lanes.h"
#include "weight_grad.h"
#undef vec
#undef VEC
#undef IS_HALF
#endif
#include "weight_grad_pixel_lanes.h"
#include "depthwise_channelwise.h"
#include "depthwise_in_place.h"
#include "depthwise_rowwise.h"
#include "bias_grad.h"
#include "toom_cook.h"
#include "winograd.h"
#include "spectra.h"

#include "finish.h"

#include "primitives.h"
#include "drivers.h"

#undef SIZE
#undef LANES
#undef vector
