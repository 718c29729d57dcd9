/* All kernels of one instruction set for one type of elements; included once for each, see instruction_set.h. */
#define LANES PAIR(LANES_, TYPE)
#define vector NAME(vector)

#include "words.h"
#include "tiles.h"
#include "pad_rows.h"
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
#include "drivers.h"

#undef SIZE
#undef LANES
#undef vector
