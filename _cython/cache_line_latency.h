/* Two threads that take turns to count up a number in memory, which measures how long its cache line takes between processors. */
#ifndef FASTCONV_CACHE_LINE_LATENCY_H
#define FASTCONV_CACHE_LINE_LATENCY_H

/* Reads after which a thread gives up waiting for the other: some tenths of a second. */
#define FASTCONV_MAX_READS (1 << 28)

/* `count` turns of thread `me`, 0 or 1; returns 0 if the other thread did not come. The number must be 0 at first. */
static int fastconv_take_turns(volatile long long *number, int me, long long count) {
    for (long long i = 0; i < count; i++) {
        for (long long read = 0; *number != 2 * i + me; read++) {
            if (read == FASTCONV_MAX_READS) return 0;
        }
        *number = 2 * i + me + 1;
    }
    return 1;
}

#endif
