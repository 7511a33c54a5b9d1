/* Vectors of 16 floats and what the compiler cannot guess: how zeros are put between values, and
   products of short numbers. A file that includes this says by WIDE what its target has:
   0 nothing, 2 AVX2, 5 AVX-512 with VBMI2 and VNNI; and by BF16 whether bf16 is multiplied. */

#include <stdint.h>
#include <string.h>
#if WIDE
#include <immintrin.h>
#endif

#define LANES 16
#define UNROLL _Pragma("GCC unroll 16") /* so that what a loop fills stays in registers */
#define INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(64)));
typedef int32_t whole __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));

INLINE lanes load(const float *from) { lanes v; memcpy(&v, from, sizeof v); return v; }
INLINE void store(float *to, lanes v) { memcpy(to, &v, sizeof v); }
INLINE lanes splat(float x) { return (lanes){0} + x; }

/* By halves, in registers, the same for every target. */
INLINE float sum_of(lanes v) {
    typedef float eight __attribute__((vector_size(32)));
    typedef float four __attribute__((vector_size(16)));
    eight halves[2];
    memcpy(halves, &v, sizeof v);
    halves[0] += halves[1];
    four quarters[2];
    memcpy(quarters, halves, sizeof quarters);
    quarters[0] += quarters[1];
    return (quarters[0][0] + quarters[0][2]) + (quarters[0][1] + quarters[0][3]);
}

INLINE float largest_of(lanes v) {
    float largest = v[0];
    for (int l = 1; l < LANES; l++) largest = v[l] > largest ? v[l] : largest;
    return largest;
}

INLINE lanes larger(lanes a, lanes b) {
    words a_is = (words)(a > b);
    return (lanes)(((words)a & a_is) | ((words)b & ~a_is));
}

INLINE float widened(uint16_t short_float) {
    uint32_t bits = (uint32_t)short_float << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE uint16_t shortened(float x) { /* to bf16, the nearest, the even one of two */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#if WIDE == 5

/* An instruction that loads and expands at once is slow; the empty asm keeps the two apart. */
INLINE __m512i loaded(const void *from) {
    __m512i v = _mm512_loadu_si512(from);
    __asm__("" : "+v"(v));
    return v;
}

INLINE lanes spread_floats(uint16_t bits, const void *from) {
    return (lanes)_mm512_maskz_expand_epi32(bits, loaded(from));
}

INLINE lanes spread_shorts(uint16_t bits, const void *from) {
    const __m512i each = _mm512_set_epi32(
        0xf000f, 0xe000e, 0xd000d, 0xc000c, 0xb000b, 0xa000a, 0x90009, 0x80008,
        0x70007, 0x60006, 0x50005, 0x40004, 0x30003, 0x20002, 0x10001, 0);
    __m256i v = _mm256_loadu_si256(from);
    __asm__("" : "+v"(v));
    __m512i high = _mm512_maskz_permutexvar_epi16(0xaaaaaaaa, each, _mm512_castsi256_si512(v));
    return (lanes)_mm512_maskz_expand_epi32(bits, high);
}

INLINE words spread_bytes(uint64_t bits, const void *from) {
    return (words)_mm512_maskz_expand_epi8(bits, loaded(from));
}

INLINE whole add_bytes(whole sum, words given, words steps) {
    return (whole)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)given, (__m512i)steps);
}

#else

#if WIDE == 2

/* Eight lanes: for each mask which of the values in a row a lane takes. */
INLINE __m256i places_of(uint8_t bits) {
    uint64_t apart = _pdep_u64(bits, 0x0101010101010101) * 0xff;
    uint64_t packed = _pdep_u64(0x0706050403020100, apart);
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)packed));
}

INLINE __m256i chosen(uint8_t bits) { /* all bits set in the lanes that take one */
    const __m256i lane = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), lane), lane);
}

INLINE __m256i spread_eight(uint8_t bits, __m256i values) {
    return _mm256_and_si256(_mm256_permutevar8x32_epi32(values, places_of(bits)), chosen(bits));
}

INLINE lanes joined(__m256i low, __m256i high) {
    __m256i both[2] = {low, high};
    lanes v;
    memcpy(&v, both, sizeof v);
    return v;
}

INLINE lanes spread_floats(uint16_t bits, const void *from) {
    const char *second = (const char *)from + 4 * __builtin_popcount(bits & 255);
    return joined(spread_eight((uint8_t)bits, _mm256_loadu_si256(from)),
                  spread_eight((uint8_t)(bits >> 8), _mm256_loadu_si256((const void *)second)));
}

INLINE __m256i eight_shorts(const void *from) {
    return _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(from)), 16);
}

INLINE lanes spread_shorts(uint16_t bits, const void *from) {
    const char *second = (const char *)from + 2 * __builtin_popcount(bits & 255);
    return joined(spread_eight((uint8_t)bits, eight_shorts(from)),
                  spread_eight((uint8_t)(bits >> 8), eight_shorts(second)));
}

INLINE words spread_bytes(uint64_t bits, const void *from) {
    const char *next = from;
    uint64_t made[8];
    for (int part = 0; part < 8; part++, bits >>= 8) {
        uint64_t values;
        memcpy(&values, next, 8);
        made[part] = _pdep_u64(values, _pdep_u64(bits & 255, 0x0101010101010101) * 0xff);
        next += __builtin_popcount(bits & 255);
    }
    words v;
    memcpy(&v, made, sizeof v);
    return v;
}

#else

INLINE lanes spread_floats(uint16_t bits, const void *from) {
    float values[LANES], made[LANES];
    memcpy(values, from, sizeof values);
    for (int l = 0, next = 0; l < LANES; l++) {
        made[l] = bits >> l & 1 ? values[next] : 0;
        next += bits >> l & 1;
    }
    return load(made);
}

INLINE lanes spread_shorts(uint16_t bits, const void *from) {
    uint16_t values[LANES];
    float made[LANES];
    memcpy(values, from, sizeof values);
    for (int l = 0, next = 0; l < LANES; l++) {
        made[l] = bits >> l & 1 ? widened(values[next]) : 0;
        next += bits >> l & 1;
    }
    return load(made);
}

INLINE words spread_bytes(uint64_t bits, const void *from) {
    uint8_t values[64], made[64];
    memcpy(values, from, sizeof values);
    for (int l = 0, next = 0; l < 64; l++) {
        made[l] = bits >> l & 1 ? values[next] : 0;
        next += (int)(bits >> l & 1);
    }
    words v;
    memcpy(&v, made, sizeof v);
    return v;
}

#endif

/* Four unsigned times four signed bytes in each lane. */
INLINE whole add_bytes(whole sum, words given, words steps) {
    for (int byte = 0; byte < 4; byte++)
        sum += (whole)(given >> (8 * byte) & 255) * ((whole)(steps << (24 - 8 * byte)) >> 24);
    return sum;
}

#endif

/* Two bf16 times two bf16 in each lane. */
INLINE lanes add_shorts(lanes sum, words given, words weights) {
#if BF16
    return (lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)given, (__m512bh)weights);
#else
    const words high = (words){0} + 0xffff0000;
    sum += (lanes)(given << 16) * (lanes)(weights << 16);
    return sum + (lanes)(given & high) * (lanes)(weights & high);
#endif
}

/* 16 floats rounded to bf16, the nearest, the even one of two. */
INLINE lanes shortened_lanes(lanes x) {
    words bits = (words)x;
    return (lanes)((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
}

/* Two vectors of floats that are bf16 already, as one of shorts in the order of the columns. */
INLINE words joined_shorts(lanes low, lanes high) {
#if WIDE == 5
    const __m512i upper = _mm512_set_epi32(
        0x3f003d, 0x3b0039, 0x370035, 0x330031, 0x2f002d, 0x2b0029, 0x270025, 0x230021,
        0x1f001d, 0x1b0019, 0x170015, 0x130011, 0xf000d, 0xb0009, 0x70005, 0x30001);
    return (words)_mm512_permutex2var_epi16((__m512i)low, upper, (__m512i)high);
#else
    uint16_t from[2][2 * LANES], made[2 * LANES];
    memcpy(from[0], &low, sizeof low);
    memcpy(from[1], &high, sizeof high);
    for (int l = 0; l < 2 * LANES; l++) made[l] = from[l / LANES][l % LANES * 2 + 1];
    words v;
    memcpy(&v, made, sizeof v);
    return v;
#endif
}

/* 32 floats rounded to bf16, the nearest, the even one of two. */
INLINE words rounded_pairs(lanes low, lanes high) {
#if BF16
    return (words)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
#else
    return joined_shorts(shortened_lanes(low), shortened_lanes(high));
#endif
}

/* 32 columns of bf16. */
INLINE words spread_pairs(uint32_t bits, const void *from) {
#if WIDE == 5
    return (words)_mm512_maskz_expand_epi16(bits, loaded(from));
#else
    const char *second = (const char *)from + 2 * __builtin_popcount(bits & 0xffff);
    return joined_shorts(spread_shorts((uint16_t)bits, from),
                         spread_shorts((uint16_t)(bits >> 16), second));
#endif
}

/* 16 bf16 as floats. */
INLINE lanes load_shorts(const uint16_t *from) {
    typedef uint16_t shorts __attribute__((vector_size(32)));
    shorts v;
    memcpy(&v, from, sizeof v);
    return (lanes)(__builtin_convertvector(v, words) << 16);
}

/* 16 vectors of 16: the n-th of each becomes the n-th vector. */
INLINE void turn(words *v) {
#if WIDE == 5
    __m512i twos[LANES], fours[LANES];
    UNROLL for (int i = 0; i < LANES; i += 2) {
        twos[i] = _mm512_unpacklo_epi32((__m512i)v[i], (__m512i)v[i + 1]);
        twos[i + 1] = _mm512_unpackhi_epi32((__m512i)v[i], (__m512i)v[i + 1]);
    }
    UNROLL for (int i = 0; i < LANES; i += 4) /* in each quarter, a column of four vectors */
        UNROLL for (int pair = 0; pair < 2; pair++) {
            fours[i + 2 * pair] = _mm512_unpacklo_epi64(twos[i + pair], twos[i + pair + 2]);
            fours[i + 2 * pair + 1] = _mm512_unpackhi_epi64(twos[i + pair], twos[i + pair + 2]);
        }
    UNROLL for (int c = 0; c < 4; c++) {
        __m512i even = _mm512_shuffle_i32x4(fours[c], fours[4 + c], 0x88);
        __m512i odd = _mm512_shuffle_i32x4(fours[c], fours[4 + c], 0xdd);
        __m512i later_even = _mm512_shuffle_i32x4(fours[8 + c], fours[12 + c], 0x88);
        __m512i later_odd = _mm512_shuffle_i32x4(fours[8 + c], fours[12 + c], 0xdd);
        v[c] = (words)_mm512_shuffle_i32x4(even, later_even, 0x88);
        v[4 + c] = (words)_mm512_shuffle_i32x4(odd, later_odd, 0x88);
        v[8 + c] = (words)_mm512_shuffle_i32x4(even, later_even, 0xdd);
        v[12 + c] = (words)_mm512_shuffle_i32x4(odd, later_odd, 0xdd);
    }
#else
    uint32_t from[LANES][LANES], made[LANES][LANES];
    memcpy(from, v, sizeof from);
    for (int i = 0; i < LANES; i++)
        for (int l = 0; l < LANES; l++) made[l][i] = from[i][l];
    memcpy(v, made, sizeof made);
#endif
}

/* e^x: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2], relative error 2e-7. */
INLINE lanes power(lanes x) {
    const words sign = (words){0} + 0x80000000;
    lanes low = splat(-87), high = splat(88);
    x = larger(x, low);
    x = (lanes)((words)larger((lanes)((words)x ^ sign), (lanes)((words)high ^ sign)) ^ sign);
    lanes turns = x * 1.44269504f + 12582912.f; /* rounds to a whole number in the low bits */
    words n = (words)turns - 0x4b400000;
    turns -= 12582912.f;
    lanes rest = x - turns * 0.693359375f + turns * 2.12194440e-4f;
    lanes made = splat(1.9875691500e-4f);
    made = made * rest + 1.3981999507e-3f;
    made = made * rest + 8.3334519073e-3f;
    made = made * rest + 4.1665795894e-2f;
    made = made * rest + 1.6666665459e-1f;
    made = made * rest + 5.0000001201e-1f;
    made = made * rest * rest + rest + 1;
    return (lanes)((words)made + (n << 23));
}
