/* What Python and the kernels share: a matrix, a decoder of such matrices, a step through it.

   A sparse matrix is a bit for each weight (`mask`, columns in order, the low bit first) and those
   that are not zero (`values`, row after row). A row takes whole words of 64 columns; the bits
   behind its last column are zero. A dense matrix has no mask, and its rows take as many values
   as a mask's would, zeros behind the last column. Behind `values` 64 more bytes can be read. */

#ifndef NATIVE_H
#define NATIVE_H

#include <stdint.h>

enum { FLOAT32, BFLOAT16, INT8 };                      /* Matrix.kind */
enum { PADDING, PROMPT, TEXT, PICTURE };               /* Step.kinds */
enum { APART, MEAN, SUM };                             /* Block.parallel_next */
enum { SILU, GELU, GELU_TANH, RELU };                  /* Decoder.activation */
enum { PORTABLE, AVX2, AVX512, AVX512_BF16, AVX512_AMX, VARIANTS }; /* what the code is compiled for */

typedef struct {
    int64_t rows, columns, kind;
    const uint64_t *mask;  /* [rows][words of 64 columns], or NULL */
    const int64_t *starts; /* [rows + 1]: which of the values is a row's first; NULL without mask */
    const void *values;
    const float *scale;    /* [rows]: what a step of INT8 is worth, or NULL */
    const int32_t *sums;   /* [rows]: the sum of a row's steps, or NULL */
    const float *bias;     /* [rows], or NULL */
} Matrix;

typedef struct {
    const float *before_attention, *before_mlp; /* RMSNorm's scales, [width] */
    Matrix q, k, v, o, gate, up, down;
    int64_t idle_attention, idle_ffn; /* kinds of tokens that pass by that half, a bit for each */
    int64_t window;                   /* how many of its kind a picture's token sees before it; < 0 all */
    int64_t parallel_ffn;             /* 1: the FFN reads what the block reads */
    int64_t parallel_next;            /* MEAN, SUM: the next block reads the same, and how they are joined */
} Block;

typedef struct {
    int64_t blocks, width, heads, key_heads, head_width, inner, activation;
    double epsilon;
    const Block *block;
    const float *norm;       /* [width] */
    Matrix head;             /* [vocabulary, width] */
    const float *cos, *sin;  /* [positions][head_width] */
} Decoder;

/* New tokens of several rows, a row's tokens one after another. A row's cache holds for each block
   and key head [room][head_width] values, and keys turned: [room / 16][head_width][16]; in bf16 where
   the block's matrices are INT8, in floats otherwise. */
typedef struct {
    int64_t tokens, rows, room, every;
    const int64_t *counts;    /* [rows]: new tokens of each row */
    int64_t *filled;          /* [blocks][rows]: places of a cache that are taken; grows here */
    const int64_t *positions; /* [tokens] */
    const uint8_t *kinds;     /* [tokens] */
    float *hidden;            /* [tokens][width], embeddings on the way in */
    void *const *keys;        /* [blocks]: [rows][key_heads][room * head_width] */
    void *const *values;      /* the same */
    uint8_t *pictured;        /* [blocks][rows][room]: 1 where a picture's token is; NULL without windows */
    float *logits;            /* [rows][vocabulary] of each row's last token; zeros without one; where
                                 `every` is 1, [tokens][vocabulary] */
} Step;

typedef struct Engine Engine;

/* threads > 0; variant < 0 takes the best that the processor runs. NULL without memory. */
Engine *engine_open(int64_t threads, int64_t variant);
void engine_close(Engine *engine);
int64_t engine_variant(const Engine *engine);
int64_t best_variant(void);

/* The first row whose bits, starts and values do not fit together, or -1. `count` values are there. */
int64_t check_matrix(const Matrix *matrix, int64_t count);

/* made [tokens][rows] = given [tokens][columns] times the matrix turned. 0, or -1 without memory. */
int64_t multiply(Engine *engine, const Matrix *matrix, const float *given, int64_t tokens, float *made);
int64_t step_through(Engine *engine, const Decoder *decoder, const Step *step);

#endif
