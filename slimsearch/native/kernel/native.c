/* The door: engines of a pool and a variant, and the check of a matrix before anything reads it. */

#include "native.h"

#include <stdlib.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "pool.h"
#include "variants.h"

struct Engine {
    Pool *pool;
    int64_t variant;
};

static const Variant *const variants[VARIANTS] = {
    [PORTABLE] = &for_portable,
#if defined(__x86_64__)
    [AVX2] = &for_avx2, [AVX512] = &for_avx512, [AVX512_BF16] = &for_avx512_bf16,
#endif
#if KNOWS_AMX
    [AVX512_AMX] = &for_avx512_amx,
#endif
};

#if KNOWS_AMX
/* Whether the processor has AMX for bf16 and bytes, and Linux lets this process use it. */
static int amx(void) {
    const unsigned has_bf16 = 1u << 22, has_tiles = 1u << 24, has_bytes = 1u << 25;
    const unsigned wanted = has_bf16 | has_tiles | has_bytes;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & wanted) != wanted) return 0;
#if defined(__linux__) && defined(SYS_arch_prctl)
    const long ask_for = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM */
    return !syscall(SYS_arch_prctl, ask_for, tile_data);
#else
    return 0;
#endif
}
#else
#define amx() 0
#endif

int64_t best_variant(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
               __builtin_cpu_supports("avx512vnni");
    if (wide && __builtin_cpu_supports("avx512bf16")) return amx() ? AVX512_AMX : AVX512_BF16;
    if (wide) return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        return AVX2;
#endif
    return PORTABLE;
}

Engine *engine_open(int64_t threads, int64_t variant) {
    int64_t best = best_variant();
    Engine *engine = malloc(sizeof *engine);
    if (!engine) return NULL;
    engine->variant = variant < 0 || variant > best ? best : variant;
    engine->pool = pool_open(threads);
    if (!engine->pool) return free(engine), NULL;
    return engine;
}

void engine_close(Engine *engine) {
    pool_close(engine->pool);
    free(engine);
}

int64_t engine_variant(const Engine *engine) { return engine->variant; }

int64_t multiply(Engine *engine, const Matrix *matrix, const float *given, int64_t tokens, float *made) {
    return variants[engine->variant]->multiply(engine->pool, matrix, given, tokens, made);
}

int64_t step_through(Engine *engine, const Decoder *decoder, const Step *step) {
    return variants[engine->variant]->step(engine->pool, decoder, step);
}

int64_t check_matrix(const Matrix *matrix, int64_t count) {
    int64_t words = (matrix->columns + 63) / 64, next = 0;
    if (!matrix->mask) return count < matrix->rows * words * 64 ? 0 : -1;
    uint64_t behind = matrix->columns % 64 ? ~0ull << matrix->columns % 64 : 0;
    for (int64_t row = 0; row < matrix->rows; row++) {
        const uint64_t *mask = matrix->mask + row * words;
        if (matrix->starts[row] != next || mask[words - 1] & behind) return row;
        for (int64_t i = 0; i < words; i++) next += __builtin_popcountll(mask[i]);
        if (next > count) return row;
    }
    return matrix->starts[matrix->rows] == next && next <= count ? -1 : matrix->rows;
}
