#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,avx512vnni,avx2,fma,bmi,bmi2,popcnt,avx512bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,avx512vnni,avx2,fma,bmi,bmi2,popcnt,avx512bf16")
#endif
#define HERE for_avx512_bf16
#define WIDE 5
#define BF16 1
#define AMX 0
#include "target.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
