/* The floating-point mode of a thread: its rounding, and whether it flushes denormal numbers to zero.
 *
 * The mode is the bits FASTCONV_MODE of the processor's control register; 0 is the default. Each thread has its own register. The
 * masks and flags of exceptions are not part of the mode. On processors without such a register, both constants are 0 and nothing
 * changes.
 */
#ifndef FASTCONV_FLOAT_MODE_H
#define FASTCONV_FLOAT_MODE_H

#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
/* MXCSR: flush to zero 0x8000, rounding 0x6000, denormals are zeros 0x0040 */
enum { FASTCONV_MODE = 0xE040, FASTCONV_FLUSH = 0x8040 };
static inline int64_t fastconv_control(void) { return _mm_getcsr(); }
static inline void fastconv_set_control(int64_t control) { _mm_setcsr((unsigned int)control); }
#elif defined(__aarch64__) || defined(_M_ARM64)
/* FPCR: flush to zero, operands and results, 1 << 24; rounding 3 << 22 */
enum { FASTCONV_MODE = 7 << 22, FASTCONV_FLUSH = 1 << 24 };
#if defined(__aarch64__)
static inline int64_t fastconv_control(void) {
    int64_t control;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(control));
    return control;
}
static inline void fastconv_set_control(int64_t control) { __asm__ __volatile__("msr fpcr, %0" : : "r"(control) : "memory"); }
#else
#include <intrin.h>
static inline int64_t fastconv_control(void) { return _ReadStatusReg(ARM64_FPCR); }
static inline void fastconv_set_control(int64_t control) { _WriteStatusReg(ARM64_FPCR, control); }
#endif
#else
enum { FASTCONV_MODE = 0, FASTCONV_FLUSH = 0 };
static inline int64_t fastconv_control(void) { return 0; }
static inline void fastconv_set_control(int64_t control) { (void)control; }
#endif

/* Sets the mode of this thread to (mode & kept) | added; returns the mode before. A write to the register is slow, so it is
 * written only if the mode changes. */
static inline int64_t fastconv_switch(int64_t kept, int64_t added) {
    const int64_t control = fastconv_control(), before = control & FASTCONV_MODE;
    const int64_t after = ((before & kept) | added) & FASTCONV_MODE;
    if (after != before) fastconv_set_control((control ^ before) | after);
    return before;
}

#endif
