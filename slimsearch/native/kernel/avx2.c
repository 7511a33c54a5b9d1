#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt")
#endif
#define HERE for_avx2
#define WIDE 2
#define BF16 0
#define AMX 0
#include "target.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
