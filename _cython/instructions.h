/* The passes of an instruction set, and the sets that this compiler can generate code for.
 *
 * avx512.c, avx2.c and baseline.c compile every kernel, each for its set, from the same headers. Which set runs is chosen when the
 * module is loaded, by what the processor reports, so that the build does not depend on the machine that builds.
 */
#ifndef FASTCONV_INSTRUCTIONS_H
#define FASTCONV_INSTRUCTIONS_H

#include <stdint.h>

#include "structures.h"

/* A pass for one work item: plan, tables, source, factor, bias or NULL, out, a `Finish` or NULL, workspace, number of the work
 * item. */
typedef void (*fastconv_pass_function)(const int64_t *, const int64_t *, const void *, const void *, const void *, void *,
                                       const void *, void *, int64_t);

/* A pass, and how many integers its structure of arguments has. */
typedef struct {
    fastconv_pass_function compute;
    int64_t fields;
} fastconv_pass;

typedef struct {
    const char *name;
    int (*runs_here)(void);
    fastconv_pass passes[2][PASS_COUNT]; /* of float and of double */
} fastconv_instruction_set;

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define FASTCONV_X86 1
extern const fastconv_instruction_set fastconv_avx512, fastconv_avx2;
#endif
extern const fastconv_instruction_set fastconv_baseline;

/* Set `number`, where number 0 is the one of the widest registers; NULL beyond the last. */
static inline const fastconv_instruction_set *fastconv_set(int number) {
    const fastconv_instruction_set *const sets[] = {
#ifdef FASTCONV_X86
        &fastconv_avx512, &fastconv_avx2,
#endif
        &fastconv_baseline,
    };
    return number < (int)(sizeof sets / sizeof *sets) ? sets[number] : 0;
}

/* Increments the integer at `counter` atomically; returns the value before. */
#if defined(__GNUC__) || defined(__clang__)
static inline int64_t fastconv_fetch_add(int64_t *counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }
#else
#include <intrin.h>
static inline int64_t fastconv_fetch_add(int64_t *counter) { return _InterlockedExchangeAdd64(counter, 1); }
#endif

#endif
