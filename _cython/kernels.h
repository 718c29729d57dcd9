/* All kernels of one instruction set for one type of elements; included once for each, see instruction_set.h. */
#define LANES PAIR(LANES_, TYPE)
#define vector NAME(vector)

#include "words.h"
#include "pieces.h"
#include "tiles.h"
#include "fields.h"
#include "dense.h"
#include "rows.h"

#define part vector
#define PART(kind) NAME(kind)
#include "spans.h"
#undef part
#undef PART
#if HALVES
#define HALF_PARTS
#define part NAME(half)
#define PART(kind) NAME(half_##kind)
#include "spans.h"
#undef part
#undef PART
#undef HALF_PARTS
#endif

#include "dots.h"
#include "bias_grad.h"
#include "primitives.h"

/* functions of drivers, of the same name as those of passes that are written in C only */
#define fill driver_fill
#define to_lanes driver_to_lanes
#include "drivers.h"
#undef fill
#undef to_lanes

#undef SIZE
#undef LANES
#undef vector
