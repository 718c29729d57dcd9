/* What an instruction set brings, and the sets that this compiler can write for.
 *
 * Every kernel is compiled once for each set, from the same headers, by avx512.c, avx2.c and baseline.c. Which one runs is
 * decided when the module is loaded, by what the processor reports: nothing is compiled for the machine that compiles.
 */
#ifndef FASTCONV_INSTRUCTIONS_H
#define FASTCONV_INSTRUCTIONS_H

#include <stdint.h>

#include "structures.h"

/* A piece of work of a pass: plan, tables, source, factor, bias or NULL, out, workspace, the piece's number. */
typedef void (*fastconv_piece)(const int64_t *, const int64_t *, const void *, const void *, const void *, void *, void *,
                               int64_t);

/* A pass, and how many integers its structure of arguments has. */
typedef struct {
    fastconv_piece run;
    int64_t fields;
} fastconv_pass;

typedef struct {
    const char *name;
    int (*runs_here)(void);
    fastconv_pass passes[2][PASS_COUNT]; /* of float and double */
} fastconv_instruction_set;

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define FASTCONV_X86 1
extern const fastconv_instruction_set fastconv_avx512, fastconv_avx2;
#endif
extern const fastconv_instruction_set fastconv_baseline;

/* The sets, the widest first; NULL beyond the last. */
static inline const fastconv_instruction_set *fastconv_set(int number) {
    const fastconv_instruction_set *const sets[] = {
#ifdef FASTCONV_X86
        &fastconv_avx512, &fastconv_avx2,
#endif
        &fastconv_baseline,
    };
    return number < (int)(sizeof sets / sizeof *sets) ? sets[number] : 0;
}

/* The integer at `counter`, which is one more afterwards; each of several threads gets another one. */
#if defined(__GNUC__) || defined(__clang__)
static inline int64_t fastconv_take(int64_t *counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }
#else
#include <intrin.h>
static inline int64_t fastconv_take(int64_t *counter) { return _InterlockedExchangeAdd64(counter, 1); }
#endif

#endif
