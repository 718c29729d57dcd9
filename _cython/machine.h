/* The name and version of the C compiler. */
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

#endif
