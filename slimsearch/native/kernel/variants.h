/* The same two functions, compiled for several processors. */

#ifndef VARIANTS_H
#define VARIANTS_H

#include "native.h"
#include "pool.h"

typedef struct {
    int64_t (*step)(Pool *pool, const Decoder *decoder, const Step *step);
    int64_t (*multiply)(
        Pool *pool, const Matrix *matrix, const float *given, int64_t tokens, float *made
    );
} Variant;

extern const Variant for_portable;
#if defined(__x86_64__)
extern const Variant for_avx2, for_avx512, for_avx512_bf16;
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11 /* older ones know no AMX */
#define KNOWS_AMX 1
extern const Variant for_avx512_amx;
#endif
#endif

#endif
