/* A sparse matrix times tokens. Few tokens: each row's dot products as its values come by, in fp32
   (INT8: in whole numbers). More: tiles of the matrix are unpacked into a thread's own memory and
   multiplied densely. There a group of 32 bits of a row (1 float, 2 bf16, 4 bytes) is multiplied
   with the same group of 16 tokens at once. So given tokens are packed [panels][groups][tokens of a
   panel], a panel being up to PANEL times 16 tokens that the tiles of a column read together.

   BFLOAT16 rounds given tokens to bf16 there, as dense engines do; up to SHORT tokens it adds what
   rounding left as a second product, so that short prompts are read as exactly as single tokens. */

#define FEW 16          /* tokens whose dot products are taken as values come by, */
#define TOGETHER 4      /* so many at a time; with AMX no more than these */
#define SHORT 64
#define ROWS 6          /* rows and vectors of 16 tokens of a tile in registers */
#define PANEL 4
#define CHUNK 128       /* groups of a row unpacked at a time: 8 vectors */
#define TALL 192        /* rows of a task with many tokens at most, */
#define SMALL 96        /* and where there would be too few tasks */
#define AHEAD 2048      /* bytes ahead of which values are asked for */
#define MIDDLE 128      /* what stands for zero among given bytes */

enum { MOST = 4 }; /* matrices that read the same input */

typedef struct {
    const Matrix *matrix[MOST];
    float *made[MOST];         /* [tokens][rows] */
    int64_t first[MOST + 1];   /* task at which each begins */
    int64_t count, tokens, tall;
    int64_t groups, padded;    /* of a row; tokens in whole vectors */
    const float *given;        /* [tokens][columns] */
    void *packed;              /* few: [tokens][groups * 4 bytes]; many: [halves][panels][groups][..] */
    float *scale;              /* [padded]: what a step of each given token is worth */
    int64_t halves;
    Work *work;
} Product;

INLINE int64_t words_of(const Matrix *m) { return (m->columns + 63) / 64; }
INLINE int64_t size_of(int64_t kind) { return kind == FLOAT32 ? 4 : kind == BFLOAT16 ? 2 : 1; }
INLINE int64_t vectors_of(const Matrix *m) { return words_of(m) * size_of(m->kind); }

INLINE const char *row_of(const Matrix *m, int64_t row) {
    int64_t first = m->mask ? m->starts[row] : row * words_of(m) * 64;
    return (const char *)m->values + first * size_of(m->kind);
}

/* 16 columns as floats; `values` moves on. */
INLINE lanes next_lanes(int kind, int dense, uint16_t bits, const char **values) {
    const char *from = *values;
    if (dense) bits = 0xffff;
    *values += __builtin_popcount(bits) * (kind == FLOAT32 ? 4 : 2);
    return kind == FLOAT32 ? spread_floats(bits, from) : spread_shorts(bits, from);
}

INLINE words next_bytes(int dense, uint64_t bits, const char **values) {
    const char *from = *values;
    if (dense) bits = ~0ull;
    *values += __builtin_popcountll(bits);
    return spread_bytes(bits, from);
}

/* One row with T tokens from `first` on, T a constant. */
INLINE void dot(
    const Product *p, int which, int64_t row, int64_t first, int kind, int dense, const int T
) {
    const Matrix *m = p->matrix[which];
    const char *values = row_of(m, row);
    int64_t count = words_of(m);
    const uint64_t *mask = dense ? NULL : m->mask + row * count;
    float found[TOGETHER];
    if (kind == INT8) {
        const uint8_t *given = (const uint8_t *)p->packed + first * count * 64;
        whole sum[TOGETHER] = {0};
        for (int64_t i = 0; i < count; i++) {
            __builtin_prefetch(values + AHEAD);
            words steps = next_bytes(dense, dense ? 0 : mask[i], &values);
            UNROLL for (int t = 0; t < T; t++) {
                words x;
                memcpy(&x, given + (t * count + i) * 64, sizeof x);
                sum[t] = add_bytes(sum[t], x, steps);
            }
        }
        UNROLL for (int t = 0; t < T; t++) {
            int32_t all = -MIDDLE * m->sums[row];
            for (int l = 0; l < LANES; l++) all += sum[t][l];
            found[t] = (float)all * m->scale[row] * p->scale[first + t];
        }
    } else {
        const float *given = (const float *)p->packed + first * count * 64;
        lanes sum[TOGETHER][4] = {0};
        for (int64_t i = 0; i < count; i++) {
            __builtin_prefetch(values + AHEAD);
            if (kind == FLOAT32) __builtin_prefetch(values + AHEAD + 64);
            uint64_t bits = dense ? 0 : mask[i];
            UNROLL for (int part = 0; part < 4; part++, bits >>= 16) {
                lanes weights = next_lanes(kind, dense, (uint16_t)bits, &values);
                UNROLL for (int t = 0; t < T; t++)
                    sum[t][part] += weights * load(given + (t * count + i) * 64 + part * LANES);
            }
        }
        UNROLL for (int t = 0; t < T; t++)
            found[t] = sum_of((sum[t][0] + sum[t][1]) + (sum[t][2] + sum[t][3]));
    }
    UNROLL for (int t = 0; t < T; t++)
        p->made[which][(first + t) * m->rows + row] = found[t] + (m->bias ? m->bias[row] : 0);
}

/* A row stays in the cache for all tokens. */
#define BY_TOKENS(kind, dense) \
    for (; row < last; row++) \
        for (int64_t t = 0; t < p->tokens; t += TOGETHER) switch (p->tokens - t) { \
            case 1: dot(p, which, row, t, kind, dense, 1); break; \
            case 2: dot(p, which, row, t, kind, dense, 2); break; \
            case 3: dot(p, which, row, t, kind, dense, 3); break; \
            default: dot(p, which, row, t, kind, dense, TOGETHER); \
            } \
    return;

INLINE int which_of(const Product *p, int64_t task) {
    int which = 0;
    while (task >= p->first[which + 1]) which++;
    return which;
}

static void few_rows(void *about, int64_t task, void *own) {
    const Product *p = about;
    int which = which_of(p, task);
    const Matrix *m = p->matrix[which];
    int64_t row = (task - p->first[which]) * p->tall;
    int64_t last = row + p->tall < m->rows ? row + p->tall : m->rows;
    (void)own;
    switch (m->kind * 2 + !m->mask) {
    case FLOAT32 * 2: BY_TOKENS(FLOAT32, 0)
    case FLOAT32 * 2 + 1: BY_TOKENS(FLOAT32, 1)
    case BFLOAT16 * 2: BY_TOKENS(BFLOAT16, 0)
    case BFLOAT16 * 2 + 1: BY_TOKENS(BFLOAT16, 1)
    case INT8 * 2: BY_TOKENS(INT8, 0)
    default: BY_TOKENS(INT8, 1)
    }
}

/* The next `vectors` vectors of 64 bytes of a row, of which `mask` holds the bits. */
INLINE const char *unpack(
    int kind, int dense, const uint64_t *mask, const char *values, int64_t vectors, char *to
) {
    for (int64_t v = 0; v < vectors; v++) {
        words made;
        if (kind == INT8) {
            made = next_bytes(dense, dense ? 0 : mask[v], &values);
        } else if (kind == FLOAT32) {
            uint64_t bits = dense ? 0 : mask[v / 4] >> (v % 4 * 16);
            made = (words)next_lanes(kind, dense, (uint16_t)bits, &values);
        } else {
            uint32_t bits = dense ? ~0u : (uint32_t)(mask[v / 2] >> (v % 2 * 32));
            made = spread_pairs(bits, values);
            values += 2 * __builtin_popcount(bits);
        }
        memcpy(to + v * 64, &made, sizeof made);
    }
    return values;
}

/* Tokens of the panel that a token is in. */
INLINE int64_t panel_of(const Product *p, int64_t token) {
    int64_t wide = PANEL * LANES, first = token / wide * wide;
    return p->padded - first < wide ? p->padded - first : wide;
}

INLINE uint32_t *packed_at(const Product *p, int64_t half, int64_t token, int64_t group) {
    int64_t wide = PANEL * LANES, first = token / wide * wide;
    uint32_t *panel = (uint32_t *)p->packed + (half * p->padded + first) * p->groups;
    return panel + group * panel_of(p, token) + token - first;
}

/* Rows that are unpacked a chunk of groups at a time, and a row at a time while others are multiplied. */
typedef struct {
    const Matrix *matrix;
    int64_t row, rows;       /* of the matrix; of the task */
    int64_t group, groups;   /* the chunk to come */
    int64_t done;            /* rows of it that are there */
    uint32_t *to;            /* [TALL][CHUNK] */
    const char *values[TALL];
} Feed;

INLINE void feed_one(Feed *f, int kind, int dense) {
    const Matrix *m = f->matrix;
    int64_t r = f->done++, word = f->group / (16 * size_of(kind));
    const uint64_t *mask = dense ? NULL : m->mask + (f->row + r) * words_of(m) + word;
    const char *begin = f->values[r];
    const char *end = unpack(kind, dense, mask, begin, f->groups / LANES, (char *)(f->to + r * CHUNK));
    /* The chunk after this one will be about as long. */
    for (const char *next = end; next < end + (end - begin); next += 64) __builtin_prefetch(next);
    if (!dense) __builtin_prefetch(mask + CHUNK / (16 * size_of(kind)));
    f->values[r] = end;
}

INLINE lanes add_group(int kind, lanes sum, words given, uint32_t group) {
    words weights = (words){0} + group;
    if (kind == INT8) return (lanes)add_bytes((whole)sum, given, weights);
    if (kind == BFLOAT16) return add_shorts(sum, given, weights);
    return sum + (lanes)given * (lanes)weights;
}

/* ROWS rows, CHUNK groups apart, with V vectors of tokens; `sums` [rows][padded], added to unless
   these groups are the first. */
INLINE void tile(
    int kind, const uint32_t *weights, const uint32_t *given, int64_t groups, int64_t padded,
    float *sums, int first, const int V
) {
    lanes sum[ROWS][PANEL] = {0};
    if (!first) {
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int v = 0; v < V; v++) sum[r][v] = load(sums + r * padded + v * LANES);
    }
    for (int64_t g = 0; g < groups; g++, given += V * LANES) {
        words x[PANEL];
        UNROLL for (int v = 0; v < V; v++) memcpy(&x[v], given + v * LANES, sizeof x[v]);
        UNROLL for (int r = 0; r < ROWS; r++)
            UNROLL for (int v = 0; v < V; v++)
                sum[r][v] = add_group(kind, sum[r][v], x[v], weights[r * CHUNK + g]);
    }
    UNROLL for (int r = 0; r < ROWS; r++)
        UNROLL for (int v = 0; v < V; v++) store(sums + r * padded + v * LANES, sum[r][v]);
}

#if AMX
#include "amx.h"
#else
INLINE void tiles_begin(void) {}
INLINE void tiles_end(void) {}
#endif

/* `groups` groups from `group` on of `rows` rows with all tokens of a half. */
INLINE void tiles(
    int kind, int dense, const Product *p, int64_t half, const uint32_t *weights, int64_t group,
    int64_t groups, int64_t rows, float *sums, Feed *feed
) {
    int64_t padded = p->padded;
    int new = !half && !group;
    for (int64_t token = 0; token < padded; token += PANEL * LANES) {
        int64_t vectors = panel_of(p, token) / LANES;
        const uint32_t *x = packed_at(p, half, token, group);
#if AMX
        if (kind != FLOAT32) {
            squares(kind, dense, weights, x, vectors, groups, rows, padded, sums + token, new, feed);
            continue;
        }
#endif
        (void)dense, (void)feed;
        for (int64_t r = 0; r < rows; r += ROWS) {
            const uint32_t *from = weights + r * CHUNK;
            float *to = sums + r * padded + token;
            switch (vectors) {
            case 1: tile(kind, from, x, groups, padded, to, new, 1); break;
            case 2: tile(kind, from, x, groups, padded, to, new, 2); break;
            case 3: tile(kind, from, x, groups, padded, to, new, 3); break;
            default: tile(kind, from, x, groups, padded, to, new, PANEL);
            }
        }
    }
}

/* Sums of 16 rows and 16 tokens, or of as many as there are, to where they belong. */
INLINE void give(
    const Product *p, int which, int kind, int64_t row, int64_t rows, int64_t token,
    const float *sums
) {
    const Matrix *m = p->matrix[which];
    int64_t tokens = p->tokens - token < LANES ? p->tokens - token : LANES;
    if (rows > LANES) rows = LANES;
    words made[LANES] = {0};
    for (int64_t r = 0; r < rows; r++) {
        lanes found = load(sums + r * p->padded);
        if (kind == INT8) {
            whole all = (whole)found - MIDDLE * m->sums[row + r];
            found = __builtin_convertvector(all, lanes) * m->scale[row + r] * load(p->scale + token);
        }
        made[r] = (words)(m->bias ? found + m->bias[row + r] : found);
    }
    turn(made);
    for (int64_t t = LANES; t < 2 * LANES && token + t < p->tokens; t++)
        __builtin_prefetch(p->made[which] + (token + t) * m->rows + row, 1);
    for (int64_t t = 0; t < tokens; t++)
        memcpy(p->made[which] + (token + t) * m->rows + row, &made[t], (size_t)rows * 4);
}

INLINE void tall_rows(const Product *p, int which, int64_t row, int kind, int dense, void *own) {
    const Matrix *m = p->matrix[which];
    int64_t rows = row + p->tall < m->rows ? p->tall : m->rows - row;
    uint32_t *weights = own;                             /* 2 of [TALL][CHUNK] */
    float *sums = (float *)(weights + 2 * TALL * CHUNK); /* [TALL][padded] */
    Feed feed = {.matrix = m, .row = row, .rows = rows, .to = weights};
    if (rows % (2 * LANES * ROWS)) memset(own, 0, 2 * TALL * CHUNK * 4); /* tiles read behind the last */
    for (int64_t r = 0; r < rows; r++) feed.values[r] = row_of(m, row + r);
    feed.groups = p->groups < CHUNK ? p->groups : CHUNK;
    if (AMX && kind != FLOAT32) tiles_begin();
    for (int64_t group = 0; group < p->groups; group += CHUNK) {
        while (feed.done < rows) feed_one(&feed, kind, dense);
        const uint32_t *here = feed.to;
        int64_t groups = feed.groups, left = p->groups - group - groups;
        feed.group = group + groups, feed.groups = left < CHUNK ? left : CHUNK;
        feed.to = weights + (here == weights) * TALL * CHUNK, feed.done = left ? 0 : rows;
        for (int64_t half = 0; half < p->halves; half++)
            tiles(kind, dense, p, half, here, group, groups, rows, sums, &feed);
    }
    if (AMX && kind != FLOAT32) tiles_end();
    for (int64_t t = 0; t < p->tokens; t += LANES)
        for (int64_t r = 0; r < rows; r += LANES)
            give(p, which, kind, row + r, rows - r, t, sums + r * p->padded + t);
}

static void many_rows(void *about, int64_t task, void *own) {
    const Product *p = about;
    int which = which_of(p, task);
    const Matrix *m = p->matrix[which];
    int64_t row = (task - p->first[which]) * p->tall;
    switch (m->kind * 2 + !m->mask) {
    case FLOAT32 * 2: tall_rows(p, which, row, FLOAT32, 0, own); return;
    case FLOAT32 * 2 + 1: tall_rows(p, which, row, FLOAT32, 1, own); return;
    case BFLOAT16 * 2: tall_rows(p, which, row, BFLOAT16, 0, own); return;
    case BFLOAT16 * 2 + 1: tall_rows(p, which, row, BFLOAT16, 1, own); return;
    case INT8 * 2: tall_rows(p, which, row, INT8, 0, own); return;
    default: tall_rows(p, which, row, INT8, 1, own);
    }
}

/* What a step of a token is worth, so that its largest number takes 127. */
INLINE float step_of(const float *given, int64_t columns) {
    lanes most = {0};
    int64_t i = 0;
    for (; i + LANES <= columns; i += LANES) {
        lanes x = load(given + i);
        most = larger(most, (lanes)((words)x & 0x7fffffff));
    }
    float largest = largest_of(most);
    for (; i < columns; i++) largest = __builtin_fmaxf(largest, __builtin_fabsf(given[i]));
    return largest / 127;
}

INLINE uint8_t byte_of(float x, float inverse) {
    return (uint8_t)(__builtin_lrintf(x * inverse) + MIDDLE);
}

INLINE void bytes_of(const float *x, float inverse, uint8_t *to) { /* 16 of them */
#if WIDE == 5
    __m512 steps = _mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse));
    __m512i whole_steps = _mm512_add_epi32(_mm512_cvtps_epi32(steps), _mm512_set1_epi32(MIDDLE));
    _mm_storeu_si128((void *)to, _mm512_cvtepi32_epi8(whole_steps));
#else
    for (int i = 0; i < LANES; i++) to[i] = byte_of(x[i], inverse);
#endif
}

/* A group of a token, in one of its halves. */
INLINE uint32_t group_of(int kind, const float *x, int64_t left, float inverse, int64_t half) {
    uint32_t made = 0;
    if (kind == FLOAT32) {
        memcpy(&made, x, sizeof made);
    } else if (kind == BFLOAT16) {
        for (int i = 0; i < 2 && i < left; i++) {
            uint16_t rounded = shortened(x[i]);
            if (half) rounded = shortened(x[i] - widened(rounded));
            made |= (uint32_t)rounded << (16 * i);
        }
    } else {
        for (int i = 0; i < 4; i++)
            made |= (uint32_t)(i < left ? byte_of(x[i], inverse) : MIDDLE) << (8 * i);
    }
    return made;
}

/* 16 groups of a token; `left` are its columns from there on. */
INLINE words groups_of(int kind, const float *x, int64_t left, float inverse, int64_t half) {
    const int64_t each = 4 / size_of(kind);
    if (kind == BFLOAT16 && left >= 2 * LANES) {
        lanes low = load(x), high = load(x + LANES);
        if (half) low -= shortened_lanes(low), high -= shortened_lanes(high);
        return rounded_pairs(low, high);
    }
    if (kind == INT8 && left >= 4 * LANES) {
        uint8_t bytes[4 * LANES];
        for (int part = 0; part < 4; part++) bytes_of(x + part * LANES, inverse, bytes + part * LANES);
        words made;
        memcpy(&made, bytes, sizeof made);
        return made;
    }
    const uint32_t none = kind == INT8 ? MIDDLE * 0x01010101u : 0;
    uint32_t groups[LANES];
    for (int64_t g = 0; g < LANES; g++, x += each, left -= each)
        groups[g] = left > 0 ? group_of(kind, x, left, inverse, half) : none;
    words made;
    memcpy(&made, groups, sizeof made);
    return made;
}

/* Packs 16 tokens of a product with many, 16 groups at a time. */
INLINE void pack_tokens(const Product *p, int64_t first, int kind) {
    const Matrix *m = p->matrix[0];
    int64_t real = p->tokens - first < LANES ? p->tokens - first : LANES, each = 4 / size_of(kind);
    float inverse[LANES] = {0};
    for (int64_t l = 0; l < LANES; l++) {
        const float *x = p->given + (first + l) * m->columns;
        float step = kind == INT8 && l < real ? step_of(x, m->columns) : 0;
        p->scale[first + l] = step;
        inverse[l] = step > 0 ? 1 / step : 0;
    }
    for (int64_t half = 0; half < p->halves; half++)
        for (int64_t group = 0; group < p->groups; group += LANES) {
            words made[LANES] = {0};
            for (int64_t l = 0; l < real; l++) {
                int64_t column = group * each;
                const float *x = p->given + (first + l) * m->columns + column;
                made[l] = groups_of(kind, x, m->columns - column, inverse[l], half);
            }
            turn(made);
            for (int64_t g = 0; g < LANES; g++)
                memcpy(packed_at(p, half, first, group + g), &made[g], sizeof made[g]);
        }
}

static void pack_many(void *about, int64_t task, void *own) {
    const Product *p = about;
    (void)own;
    switch (p->matrix[0]->kind) {
    case FLOAT32: pack_tokens(p, task * LANES, FLOAT32); return;
    case BFLOAT16: pack_tokens(p, task * LANES, BFLOAT16); return;
    default: pack_tokens(p, task * LANES, INT8);
    }
}

static void pack_few(const Product *p) {
    const Matrix *m = p->matrix[0];
    int64_t whole_row = words_of(m) * 64;
    for (int64_t t = 0; t < p->tokens; t++) {
        const float *x = p->given + t * m->columns;
        if (m->kind == INT8) {
            uint8_t *to = (uint8_t *)p->packed + t * whole_row;
            float step = step_of(x, m->columns), inverse = step > 0 ? 1 / step : 0;
            p->scale[t] = step;
            int64_t i = 0;
            for (; i + LANES <= m->columns; i += LANES) bytes_of(x + i, inverse, to + i);
            for (; i < m->columns; i++) to[i] = byte_of(x[i], inverse);
            memset(to + m->columns, MIDDLE, (size_t)(whole_row - m->columns));
        } else {
            float *to = (float *)p->packed + t * whole_row;
            memcpy(to, x, (size_t)m->columns * sizeof *x);
            memset(to + m->columns, 0, (size_t)(whole_row - m->columns) * sizeof *x);
        }
    }
}

/* Rows of a task with few tokens: enough tasks that threads end together, few enough to count. */
INLINE int64_t tall_of(int64_t rows) { return rows < 1024 ? 16 : 64; }

/* Rows of a task with many tokens: of tall ones each reads all tokens, so fewer read less. */
INLINE int64_t tallest_of(int64_t rows, int64_t threads) {
    return rows >= 4 * TALL * threads ? TALL : SMALL;
}

/* made[i] [tokens][rows] for matrices of one kind that read the same `given` [tokens][columns].
   `space` holds packed_bytes. */
static void multiply_each(
    Pool *pool, const Matrix *const *matrices, int64_t count, const float *given, int64_t tokens,
    float *const *made, char *space
) {
    const Matrix *m = matrices[0];
    int few = tokens <= (AMX && m->kind != FLOAT32 ? TOGETHER : FEW);
    Product p = {.count = count, .tokens = tokens, .given = given, .groups = vectors_of(m) * LANES};
    p.padded = (tokens + LANES - 1) / LANES * LANES;
    p.halves = m->kind == BFLOAT16 && tokens <= SHORT ? 2 : 1;
    p.scale = (float *)space;
    p.packed = space + p.padded * 4;
    p.tall = few ? tall_of(m->rows) : tallest_of(m->rows * count, pool_threads(pool));
    for (int64_t i = 0; i < count; i++) {
        p.matrix[i] = matrices[i], p.made[i] = made[i];
        p.first[i + 1] = p.first[i] + (matrices[i]->rows + p.tall - 1) / p.tall;
    }
    if (few) pack_few(&p);
    else pool_run(pool, pack_many, &p, p.padded / LANES);
    pool_run(pool, few ? few_rows : many_rows, &p, p.first[count]);
}

INLINE size_t packed_bytes(int64_t columns, int64_t tokens) {
    size_t padded = (size_t)(tokens + LANES - 1) / LANES * LANES;
    return padded * 4 + padded * (size_t)((columns + 63) / 64 * 64) * 4;
}

INLINE size_t own_bytes(int64_t tokens) {
    return TALL * (2 * CHUNK + (size_t)(tokens + LANES - 1) / LANES * LANES) * 4;
}
