/* Random shapes, masks and decoders through every variant that this processor runs: products against
   a plain double loop, steps against the portable variant, both the same for any number of threads.
   Compiled with sanitizers; every buffer ends where the kernels may read last. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

#define SLACK 64 /* bytes behind `values` that can be read */

static uint64_t state;

static uint64_t drawn(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}
static double uniform(void) { return (double)(drawn() >> 11) * 0x1p-53; }
static int64_t below(int64_t n) { return (int64_t)(drawn() % (uint64_t)n); }
static float number(void) { return (float)(uniform() + uniform() + uniform() - 1.5); }

static void *room(size_t bytes) {
    void *made = malloc(bytes ? bytes : 1);
    if (!made) abort();
    return made;
}

static float bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = (bits + 0x8000) & 0xffff0000;
    memcpy(&x, &bits, 4);
    return x;
}

static void put(void *values, int64_t at, int64_t kind, double weight) {
    float x = (float)weight;
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (kind == FLOAT32) ((float *)values)[at] = x;
    else if (kind == BFLOAT16) ((uint16_t *)values)[at] = (uint16_t)(bits >> 16);
    else ((int8_t *)values)[at] = (int8_t)weight;
}

/* A matrix and, in `plain`, what it stands for. */
static Matrix matrix_of(int64_t rows, int64_t columns, int64_t kind, double kept, int dense, double *plain) {
    int64_t words = (columns + 63) / 64, count = 0, size = kind == FLOAT32 ? 4 : kind == BFLOAT16 ? 2 : 1;
    uint64_t *mask = calloc((size_t)(rows * words), 8);
    int64_t *starts = room((size_t)(rows + 1) * 8);
    void *values = calloc((size_t)(rows * words * 64 * size) + SLACK, 1);
    float *scale = room((size_t)rows * 4), *bias = room((size_t)rows * 4);
    int32_t *sums = room((size_t)rows * 4);
    for (int64_t r = 0; r < rows; r++) {
        starts[r] = dense ? r * words * 64 : count;
        scale[r] = 0.01f + (float)uniform(), bias[r] = number(), sums[r] = 0;
        for (int64_t c = 0; c < columns; c++) {
            double weight = 0;
            if (uniform() < kept) {
                weight = kind == INT8 ? (double)(below(255) - 127) : bf16(number());
                if (kind == FLOAT32) weight = (float)(weight * 1.1);
                if (!dense) put(values, count++, kind, weight);
                if (!dense) mask[r * words + c / 64] |= 1ull << c % 64;
            }
            if (dense) put(values, r * words * 64 + c, kind, weight);
            if (kind == INT8) sums[r] += (int32_t)weight;
            plain[r * columns + c] = kind == INT8 ? weight * scale[r] : weight;
        }
    }
    starts[rows] = count;
    size_t held = (size_t)((dense ? rows * words * 64 : count) * size) + SLACK;
    void *tight = room(held);
    memcpy(tight, values, held);
    free(values);
    Matrix m = {rows, columns, kind, mask, starts, tight, scale, sums, bias};
    if (dense) free(mask), free(starts), m.mask = NULL, m.starts = NULL;
    if (check_matrix(&m, dense ? rows * words * 64 : count) != -1) abort();
    return m;
}

static void forget(Matrix *m) {
    free((void *)m->mask), free((void *)m->starts), free((void *)m->values);
    free((void *)m->scale), free((void *)m->sums), free((void *)m->bias);
}

static void fail(const char *what, double found, double wanted) {
    fprintf(stderr, "%s: %g where %g should be\n", what, found, wanted);
    exit(1);
}

/* Rounding of a token to bytes or bf16, as a share of its length. */
static double slack_of(int64_t kind, int64_t tokens) {
    return kind == INT8 ? 2e-2 : kind == BFLOAT16 && tokens > 64 ? 8e-3 : 1e-4;
}

static void try_product(int64_t kind) {
    const int64_t widths[] = {1, 63, 64, 65, 100, 128, 200, 513}, counts[] = {1, 2, 3, 4, 5, 16, 17, 64, 65, 130};
    int64_t rows = 1 + below(210), columns = widths[below(8)], tokens = counts[below(10)];
    double kept = (double[]){0, 0.1, 0.5, 0.9, 1}[below(5)];
    double *plain = room((size_t)(rows * columns) * 8);
    Matrix m = matrix_of(rows, columns, kind, kept, below(4) == 0, plain);
    float *given = room((size_t)(tokens * columns) * 4), *first = room((size_t)(tokens * rows) * 4);
    float *made = room((size_t)(tokens * rows) * 4);
    for (int64_t i = 0; i < tokens * columns; i++) given[i] = below(9) ? number() : 0;
    for (int64_t variant = 0; variant <= best_variant(); variant++)
        for (int64_t threads = 1; threads <= 3; threads++) {
            Engine *engine = engine_open(threads, variant);
            if (!engine || multiply(engine, &m, given, tokens, threads == 1 ? first : made)) abort();
            engine_close(engine);
            if (threads > 1 && memcmp(first, made, (size_t)(tokens * rows) * 4))
                fail("threads change a product", (double)threads, 1);
            for (int64_t t = 0; threads == 1 && t < tokens; t++)
                for (int64_t r = 0; r < rows; r++) {
                    double wanted = m.bias[r], length = 1e-3;
                    for (int64_t c = 0; c < columns; c++) {
                        double product = plain[r * columns + c] * (double)given[t * columns + c];
                        wanted += product, length += product * product;
                    }
                    double found = first[t * rows + r], slack = slack_of(kind, tokens);
                    if (kind == INT8) slack *= sqrt((double)columns);
                    if (!(fabs(found - wanted) <= slack * (sqrt(length) + fabs(wanted))))
                        fail("a product", found, wanted);
                }
        }
    forget(&m);
    free(plain), free(given), free(first), free(made);
}

enum { MOST_ROWS = 3, VOCABULARY = 70 };

/* Prompts and a few tokens after them; logits of every step, [steps][rows][vocabulary]. */
static void converse(
    const Decoder *d, int64_t threads, int64_t variant, uint64_t seed, int64_t rows, int64_t longest,
    float *logits
) {
    int64_t room_places = 64, key = d->key_heads * room_places * d->head_width;
    float *keys[2], *values[2], *hidden = room((size_t)(rows * longest * d->width) * 4);
    int64_t counts[MOST_ROWS], read[MOST_ROWS] = {0}, filled[2 * MOST_ROWS] = {0}, *positions = room((size_t)(rows * longest) * 8);
    uint8_t *kinds = room((size_t)(rows * longest)), *pictured = calloc((size_t)(2 * rows * room_places), 1);
    Engine *engine = engine_open(threads, variant);
    state = seed;
    for (int b = 0; b < 2; b++) keys[b] = calloc((size_t)(rows * key), 4), values[b] = calloc((size_t)(rows * key), 4);
    for (int pass = 0; pass < 4; pass++) {
        int64_t tokens = 0;
        for (int64_t r = 0; r < rows; r++) {
            counts[r] = pass ? below(3) : 1 + below(longest);
            for (int64_t i = 0; i < counts[r]; i++) {
                kinds[tokens] = pass ? TEXT : below(2) ? PICTURE : PROMPT;
                positions[tokens++] = read[r] + i;
            }
        }
        for (int64_t i = 0; i < tokens * d->width; i++) hidden[i] = number();
        Step step = {tokens, rows, room_places, 0, counts, filled, positions, kinds, hidden, keys, values,
                     pictured, logits + pass * rows * VOCABULARY};
        if (tokens && step_through(engine, d, &step)) abort();
        if (!tokens) memset(step.logits, 0, (size_t)(rows * VOCABULARY) * 4);
        for (int64_t r = 0; r < rows; r++) read[r] += counts[r];
    }
    engine_close(engine);
    for (int b = 0; b < 2; b++) free(keys[b]), free(values[b]);
    free(hidden), free(positions), free(kinds), free(pictured);
}

static void try_decoder(int64_t kind) {
    const int64_t heads = 1 + below(4) * 2 % 5, groups = heads % 2 ? 1 : 1 + below(2);
    int64_t wide = (int64_t[]){2, 8, 16, 40, 64}[below(5)], width = 1 + below(90), inner = 1 + below(120);
    int64_t key_heads = heads / groups, rows = 1 + below(MOST_ROWS), longest = 2 + below(40);
    double *plain = room(sizeof(double) * 130 * 400), kept = uniform();
    float *norms = room((size_t)width * 4), *turns = room((size_t)(64 * wide) * 4);
    Block blocks[2];
    for (int64_t i = 0; i < width; i++) norms[i] = 1 + 0.1f * number();
    for (int64_t i = 0; i < 64 * wide; i++) turns[i] = number();
    for (int b = 0; b < 2; b++) {
        blocks[b].idle_attention = below(3) ? 0 : below(16);
        blocks[b].idle_ffn = below(3) ? 0 : below(16);
        blocks[b].window = below(2) ? -1 : below(5);
        blocks[b].parallel_ffn = below(3) == 0;
        blocks[b].parallel_next = b ? APART : below(3);
        blocks[b].before_attention = blocks[b].before_mlp = norms;
        blocks[b].q = matrix_of(heads * wide, width, kind, kept, 0, plain);
        blocks[b].k = matrix_of(key_heads * wide, width, kind, kept, 1, plain);
        blocks[b].v = matrix_of(key_heads * wide, width, kind, 1 - kept, 0, plain);
        blocks[b].o = matrix_of(width, heads * wide, kind, kept, 0, plain);
        blocks[b].gate = matrix_of(inner, width, kind, kept, 0, plain);
        blocks[b].up = matrix_of(inner, width, kind, b, 0, plain);
        blocks[b].down = matrix_of(width, inner, kind, kept, 0, plain);
    }
    Decoder d = {2, width, heads, key_heads, wide, inner, below(4), 1e-5, blocks, norms,
                 matrix_of(VOCABULARY, width, FLOAT32, 1, 1, plain), turns, turns};
    float wanted[4 * MOST_ROWS * VOCABULARY], found[4 * MOST_ROWS * VOCABULARY];
    uint64_t seed = drawn() | 1;
    size_t count = (size_t)(4 * rows * VOCABULARY);
    for (int64_t variant = 0; variant <= best_variant(); variant++) {
        converse(&d, 1, variant, seed, rows, longest, found);
        for (size_t i = 0; variant && i < count; i++)
            if (!(fabsf(found[i] - wanted[i]) <= (kind == INT8 ? 2.f : 0.05f) * (1 + fabsf(wanted[i]))))
                fail("a variant's logits", found[i], wanted[i]);
        memcpy(wanted, found, sizeof found);
        converse(&d, 3, variant, seed, rows, longest, found);
        if (memcmp(wanted, found, count * 4)) fail("threads change logits", 3, 1);
    }
    for (int b = 0; b < 2; b++) {
        Matrix *each[] = {&blocks[b].q, &blocks[b].k, &blocks[b].v, &blocks[b].o,
                          &blocks[b].gate, &blocks[b].up, &blocks[b].down};
        for (int i = 0; i < 7; i++) forget(each[i]);
    }
    forget(&d.head);
    free(plain), free(norms), free(turns);
}

int main(int count, char **given) {
    uint64_t seed = count > 1 ? strtoull(given[1], NULL, 10) : 1;
    int64_t rounds = count > 2 ? atoll(given[2]) : 20;
    for (int64_t round = 0; round < rounds; round++)
        for (int64_t kind = FLOAT32; kind <= INT8; kind++) {
            state = (seed * 1000003 + (uint64_t)round) * 3 + (uint64_t)kind + 88172645463325252ull;
            try_product(kind);
            try_decoder(kind);
        }
    printf("%lld rounds, variants up to %lld\n", (long long)rounds, (long long)best_variant());
    return 0;
}
