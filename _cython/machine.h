/* What the C compiler knows: its own name, and what the processor that runs this reports. */
#ifndef FASTCONV_MACHINE_H
#define FASTCONV_MACHINE_H

#define FASTCONV_TEXT_OF(x) #x
#define FASTCONV_TEXT(x) FASTCONV_TEXT_OF(x)

#if defined(__clang__)
#define FASTCONV_COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define FASTCONV_COMPILER "gcc " __VERSION__
#elif defined(_MSC_VER)
#define FASTCONV_COMPILER "msvc " FASTCONV_TEXT(_MSC_VER)
#else
#define FASTCONV_COMPILER "unknown"
#endif

/* __builtin_cpu_supports takes a literal, and also checks that the operating system saves the registers */
#if (defined(__GNUC__) || defined(__clang__)) && (defined(__x86_64__) || defined(__i386__))
static int fastconv_has_avx2_fma(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int fastconv_has_avx512(void) { return __builtin_cpu_supports("avx512f"); }
#else
static int fastconv_has_avx2_fma(void) { return 0; }
static int fastconv_has_avx512(void) { return 0; }
#endif

#if defined(__aarch64__) || defined(_M_ARM64)
#define FASTCONV_HAS_NEON 1
#else
#define FASTCONV_HAS_NEON 0
#endif

#endif
