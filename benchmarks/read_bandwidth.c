/* Reads memory on several threads and does nothing else: seconds of one pass. */

#include <pthread.h>
#include <stdint.h>
#include <time.h>

typedef uint64_t line __attribute__((vector_size(64)));
typedef struct { const line *from; int64_t lines; uint64_t seen; } Share;

static void *look(void *argument) {
    Share *share = argument;
    line found[4] = {0};
    for (int64_t i = 0; i + 4 <= share->lines; i += 4)
        for (int j = 0; j < 4; j++) found[j] ^= share->from[i + j];
    found[0] ^= found[1] ^ found[2] ^ found[3];
    for (int l = 0; l < 8; l++) share->seen ^= found[0][l];
    return 0;
}

double read_once(const void *from, int64_t bytes, int64_t threads, uint64_t *seen) {
    struct timespec began, ended;
    pthread_t others[64];
    Share shares[64];
    int64_t each = bytes / 64 / threads;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int64_t t = 0; t < threads; t++) {
        shares[t] = (Share){(const line *)from + t * each, each, 0};
        if (t) pthread_create(&others[t], 0, look, &shares[t]);
    }
    look(&shares[0]);
    for (int64_t t = 1; t < threads; t++) pthread_join(others[t], 0);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    for (int64_t t = 0; t < threads; t++) *seen ^= shares[t].seen;
    return (double)(ended.tv_sec - began.tv_sec) + 1e-9 * (double)(ended.tv_nsec - began.tv_nsec);
}
