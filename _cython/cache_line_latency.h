/* Two threads that count a number in memory up by turns: how long its cache line takes from one processor to the other. */
#ifndef FASTCONV_CACHE_LINE_LATENCY_H
#define FASTCONV_CACHE_LINE_LATENCY_H

/* Reads, after which the other one is taken to have gone: some tenths of a second. */
#define FASTCONV_PATIENCE (1 << 28)

/* `count` turns of thread `me`, 0 or 1; 0 if the other one stayed away. The number is 0 at first. */
static int fastconv_take_turns(volatile long long *number, int me, long long count) {
    for (long long i = 0; i < count; i++) {
        for (long long read = 0; *number != 2 * i + me; read++) {
            if (read == FASTCONV_PATIENCE) return 0;
        }
        *number = 2 * i + me + 1;
    }
    return 1;
}

#endif
