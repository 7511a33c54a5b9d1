/* The decoder around its matrices: norms, rotary positions, attention over the cache, the gated MLP.

   Everything is in fp32, but for the cache of a decoder in INT8, which is kept in bf16: of a long one
   a token reads as many bytes as of the weights. Attention goes by key head and up to QUERIES queries
   that share it; keys lie turned in the cache, 16 places side by side, so that 16 scores come out of a
   multiplication without a sum across lanes. */

#include <math.h>

#define QUERIES 8

typedef struct {
    Pool *pool;
    const Decoder *decoder;
    const Step *step;
    const Block *block;
    const float *scale;             /* RMSNorm's */
    int64_t index;                  /* of the block */
    float *normed, *q, *k, *v;      /* [tokens][..] */
    float *attended, *gate, *up;    /* [tokens][..] */
    char *space;
    int64_t longest;                /* places of the longest row, in whole vectors */
} Pass;

static void norm_one(const Decoder *d, const float *x, const float *scale, float *made) {
    int64_t i = 0;
    lanes squares = {0};
    for (; i + LANES <= d->width; i += LANES) squares += load(x + i) * load(x + i);
    float sum = sum_of(squares);
    for (; i < d->width; i++) sum += x[i] * x[i];
    float by = 1 / sqrtf(sum / (float)d->width + (float)d->epsilon);
    for (i = 0; i < d->width; i++) made[i] = x[i] * by * scale[i];
}

static void norm_token(void *about, int64_t token, void *own) {
    const Pass *p = about;
    (void)own;
    int64_t at = token * p->decoder->width;
    norm_one(p->decoder, p->step->hidden + at, p->scale, p->normed + at);
}

static void rotate(const Decoder *d, float *head, int64_t position, float by) {
    const float *cos = d->cos + position * d->head_width, *sin = d->sin + position * d->head_width;
    int64_t half = d->head_width / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = head[i], b = head[half + i];
        head[i] = (a * cos[i] - b * sin[i]) * by;
        head[half + i] = (b * cos[half + i] + a * sin[half + i]) * by;
    }
}

/* Which row a new token is of, and its place in that row's cache. */
INLINE int64_t row_of_token(const Step *step, int64_t token, int64_t *place) {
    int64_t row = 0;
    while (token >= step->counts[row]) token -= step->counts[row++];
    *place = step->filled[row] + token;
    return row;
}

/* Rotates a token's queries and keys and puts keys and values into the cache. */
static void keep_token(void *about, int64_t token, void *own) {
    const Pass *p = about;
    const Decoder *d = p->decoder;
    const Step *step = p->step;
    int64_t place, row = row_of_token(step, token, &place), wide = d->head_width;
    (void)own;
    for (int64_t h = 0; h < d->heads; h++)
        rotate(d, p->q + (token * d->heads + h) * wide, step->positions[token],
               1 / sqrtf((float)wide));
    for (int64_t h = 0; h < d->key_heads; h++) {
        float *key = p->k + (token * d->key_heads + h) * wide;
        const float *value = p->v + (token * d->key_heads + h) * wide;
        int64_t cache = (row * d->key_heads + h) * step->room * wide;
        rotate(d, key, step->positions[token], 1);
        int64_t turned = cache + place / LANES * LANES * wide + place % LANES;
        int64_t straight = cache + place * wide;
        if (p->block->q.kind == INT8) {
            uint16_t *keys = step->keys[p->index], *values = step->values[p->index];
            for (int64_t i = 0; i < wide; i++) keys[turned + i * LANES] = shortened(key[i]);
            for (int64_t i = 0; i < wide; i++) values[straight + i] = shortened(value[i]);
        } else {
            float *keys = step->keys[p->index], *values = step->values[p->index];
            for (int64_t i = 0; i < wide; i++) keys[turned + i * LANES] = key[i];
            memcpy(values + straight, value, (size_t)wide * sizeof *value);
        }
    }
}

/* 16 numbers of a cache, in bf16 where it is narrow. */
INLINE lanes cached(const void *cache, int64_t at, const int narrow) {
    return narrow ? load_shorts((const uint16_t *)cache + at) : load((const float *)cache + at);
}

/* Scores of Q queries with all places, [Q][longest]; Q a constant, as narrow is. */
INLINE void score(
    const float *const *queries, const void *keys, int64_t places, int64_t wide, int64_t longest,
    float *scores, const int narrow, const int Q
) {
    for (int64_t place = 0; place < places; place += LANES) {
        lanes sum[QUERIES] = {0};
        for (int64_t i = 0; i < wide; i++) {
            lanes key = cached(keys, place * wide + i * LANES, narrow);
            UNROLL for (int q = 0; q < Q; q++) sum[q] += key * queries[q][i];
        }
        UNROLL for (int q = 0; q < Q; q++) store(scores + q * longest + place, sum[q]);
    }
}

/* Scores become weights of the first `seen` places, which add up to 1; behind them are zeros. */
INLINE void soften(float *scores, int64_t seen, int64_t places) {
    lanes most = splat(-INFINITY), sum = {0};
    for (int64_t i = seen; i < (places + LANES - 1) / LANES * LANES; i++) scores[i] = -INFINITY;
    for (int64_t i = 0; i < places; i += LANES) most = larger(most, load(scores + i));
    float largest = largest_of(most);
    for (int64_t i = 0; i < places; i += LANES) {
        lanes weight = power(load(scores + i) - largest);
        sum += weight;
        store(scores + i, weight);
    }
    float by = 1 / sum_of(sum); /* what stands behind `seen` adds 1e-38 */
    for (int64_t i = 0; i < seen; i += LANES) store(scores + i, load(scores + i) * by);
    for (int64_t i = seen; i < places; i++) scores[i] = 0;
}

/* Two vectors of what Q queries attend to. */
INLINE void mix(
    const float *weights, const void *values, int64_t places, int64_t wide, int64_t longest,
    float *const *made, int64_t first, const int narrow, const int Q, const int V
) {
    lanes sum[QUERIES][2] = {0};
    for (int64_t place = 0; place < places; place++) {
        lanes value[2];
        UNROLL for (int v = 0; v < V; v++)
            value[v] = cached(values, place * wide + first + v * LANES, narrow);
        UNROLL for (int q = 0; q < Q; q++)
            UNROLL for (int v = 0; v < V; v++) sum[q][v] += value[v] * weights[q * longest + place];
    }
    UNROLL for (int q = 0; q < Q; q++)
        UNROLL for (int v = 0; v < V; v++) store(made[q] + first + v * LANES, sum[q][v]);
}

/* `keys` and `values` begin where a row's and a key head's do. */
INLINE void attend_some(
    const Pass *p, const float *const *queries, float *const *made, const int64_t *seen,
    const void *keys, const void *values, float *scores, const int narrow, const int Q
) {
    int64_t wide = p->decoder->head_width, places = seen[Q - 1], i = 0;
    score(queries, keys, places, wide, p->longest, scores, narrow, Q);
    UNROLL for (int q = 0; q < Q; q++) soften(scores + q * p->longest, seen[q], places);
    for (; i + 2 * LANES <= wide; i += 2 * LANES)
        mix(scores, values, places, wide, p->longest, made, i, narrow, Q, 2);
    for (; i + LANES <= wide; i += LANES)
        mix(scores, values, places, wide, p->longest, made, i, narrow, Q, 1);
    for (; i < wide; i++)
        UNROLL for (int q = 0; q < Q; q++) {
            float sum = 0;
            for (int64_t place = 0; place < places; place++) {
                int64_t at = place * wide + i;
                float value = narrow ? widened(((const uint16_t *)values)[at])
                                     : ((const float *)values)[at];
                sum += scores[q * p->longest + place] * value;
            }
            made[q][i] = sum;
        }
}

/* Tasks go through rows, key heads and, within them, queries: a token's heads side by side. */
INLINE int64_t sets_of(const Decoder *d, int64_t tokens) {
    return (tokens * (d->heads / d->key_heads) + QUERIES - 1) / QUERIES;
}

INLINE void attend_to(const Pass *p, int64_t task, void *own, const int narrow) {
    const Decoder *d = p->decoder;
    const Step *step = p->step;
    int64_t row = 0, first = 0, group = d->heads / d->key_heads, wide = d->head_width;
    for (; task >= sets_of(d, step->counts[row]) * d->key_heads; first += step->counts[row++])
        task -= sets_of(d, step->counts[row]) * d->key_heads;
    int64_t sets = sets_of(d, step->counts[row]), head = task / sets;
    int64_t query = task % sets * QUERIES, count = step->counts[row] * group - query;
    if (count > QUERIES) count = QUERIES;
    const float *queries[QUERIES];
    float *made[QUERIES];
    int64_t seen[QUERIES], cache = (row * d->key_heads + head) * step->room * wide;
    for (int64_t i = 0; i < count; i++) {
        int64_t token = (query + i) / group, h = head * group + (query + i) % group;
        queries[i] = p->q + ((first + token) * d->heads + h) * wide;
        made[i] = p->attended + ((first + token) * d->heads + h) * wide;
        seen[i] = step->filled[row] + token + 1;
    }
    int64_t begin = cache * (narrow ? 2 : 4);
    const char *keys = (const char *)step->keys[p->index] + begin;
    const char *values = (const char *)step->values[p->index] + begin;
    if (count == QUERIES) {
        attend_some(p, queries, made, seen, keys, values, own, narrow, QUERIES);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        attend_some(p, queries + i, made + i, seen + i, keys, values, own, narrow, 1);
}

static void attend(void *about, int64_t task, void *own) {
    const Pass *p = about;
    if (p->block->q.kind == INT8) attend_to(p, task, own, 1);
    else attend_to(p, task, own, 0);
}

INLINE lanes bent(int64_t kind, lanes x) {
    if (kind == RELU) return larger(x, splat(0));
    if (kind == SILU) return x / (1 + power(-x));
    if (kind == GELU_TANH) return x / (1 + power(-1.5957691216f * (x + 0.044715f * x * x * x)));
    for (int l = 0; l < LANES; l++) x[l] *= 0.5f * (1 + erff(x[l] * 0.70710678f));
    return x;
}

static void gate_token(void *about, int64_t token, void *own) {
    const Pass *p = about;
    const Decoder *d = p->decoder;
    float *gate = p->gate + token * d->inner;
    const float *up = p->up + token * d->inner;
    int64_t i = 0;
    (void)own;
    for (; i + LANES <= d->inner; i += LANES)
        store(gate + i, bent(d->activation, load(gate + i)) * load(up + i));
    for (; i < d->inner; i++) gate[i] = bent(d->activation, splat(gate[i]))[0] * up[i];
}

static void add_token(void *about, int64_t token, void *own) {
    const Pass *p = about;
    float *hidden = p->step->hidden + token * p->decoder->width;
    const float *more = p->normed + token * p->decoder->width;
    (void)own;
    for (int64_t i = 0; i < p->decoder->width; i++) hidden[i] += more[i];
}

/* Work on each token: by all threads where there are many. */
static void each_token(Pass *p, Work *work) {
    int64_t tokens = p->step->tokens;
    if (tokens > FEW) pool_run(p->pool, work, p, tokens);
    else for (int64_t t = 0; t < tokens; t++) work(p, t, NULL);
}

static void normed_by(Pass *p, const float *scale) {
    p->scale = scale;
    each_token(p, norm_token);
}

static void through_block(Pass *p) {
    const Decoder *d = p->decoder;
    const Block *b = p->block;
    int64_t tokens = p->step->tokens, tasks = 0;
    for (int64_t row = 0; row < p->step->rows; row++)
        tasks += sets_of(d, p->step->counts[row]) * d->key_heads;
    normed_by(p, b->before_attention);
    multiply_each(p->pool, (const Matrix *[]){&b->q, &b->k, &b->v}, 3, p->normed, tokens,
                  (float *[]){p->q, p->k, p->v}, p->space);
    each_token(p, keep_token);
    pool_run(p->pool, attend, p, tasks);
    multiply_each(p->pool, (const Matrix *[]){&b->o}, 1, p->attended, tokens,
                  (float *[]){p->normed}, p->space);
    each_token(p, add_token);
    normed_by(p, b->before_mlp);
    multiply_each(p->pool, (const Matrix *[]){&b->gate, &b->up}, 2, p->normed, tokens,
                  (float *[]){p->gate, p->up}, p->space);
    each_token(p, gate_token);
    multiply_each(p->pool, (const Matrix *[]){&b->down}, 1, p->gate, tokens,
                  (float *[]){p->normed}, p->space);
    each_token(p, add_token);
}

/* Logits of each row's last token. */
static void say(Pass *p) {
    const Decoder *d = p->decoder;
    const Step *step = p->step;
    int64_t end = 0, real = 0;
    for (int64_t row = 0; row < step->rows; row++) {
        end += step->counts[row];
        if (!step->counts[row]) continue;
        norm_one(d, step->hidden + (end - 1) * d->width, d->norm, p->normed + real++ * d->width);
    }
    multiply_each(p->pool, (const Matrix *[]){&d->head}, 1, p->normed, real,
                  (float *[]){step->logits}, p->space);
    for (int64_t row = step->rows - 1; row >= 0; row--) { /* to where they belong */
        float *to = step->logits + row * d->head.rows;
        if (!step->counts[row]) memset(to, 0, (size_t)d->head.rows * sizeof *to);
        else if (--real != row)
            memcpy(to, step->logits + real * d->head.rows, (size_t)d->head.rows * sizeof *to);
    }
}

INLINE size_t line(size_t bytes) { return (bytes + 63) / 64 * 64; }

static int64_t step_here(Pool *pool, const Decoder *d, const Step *step) {
    size_t tokens = (size_t)step->tokens;
    int64_t longest = 0, widest = d->width;
    for (int64_t row = 0; row < step->rows; row++) {
        int64_t places = step->filled[row] + step->counts[row];
        if (places > longest) longest = places;
    }
    if (d->inner > widest) widest = d->inner;
    if (d->heads * d->head_width > widest) widest = d->heads * d->head_width;
    longest = (longest + LANES - 1) / LANES * LANES;
    size_t query = line(tokens * (size_t)(d->heads * d->head_width) * 4);
    size_t key = line(tokens * (size_t)(d->key_heads * d->head_width) * 4);
    size_t inner = line(tokens * (size_t)d->inner * 4), width = line(tokens * (size_t)d->width * 4);
    size_t most = tokens > (size_t)step->rows ? tokens : (size_t)step->rows;
    size_t space = packed_bytes(widest, (int64_t)most);
    size_t own = own_bytes((int64_t)most), scores = (size_t)longest * QUERIES * 4;
    if (!pool_reserve(pool, own > scores ? own : scores, width + 2 * query + 2 * key + 2 * inner + space))
        return -1;
    char *memory = pool_shared(pool);
    Pass p = {.pool = pool, .decoder = d, .step = step, .longest = longest};
    p.normed = (float *)memory, memory += width;
    p.q = (float *)memory, memory += query;
    p.attended = (float *)memory, memory += query;
    p.k = (float *)memory, memory += key;
    p.v = (float *)memory, memory += key;
    p.gate = (float *)memory, memory += inner;
    p.up = (float *)memory, memory += inner;
    p.space = memory;
    for (p.index = 0; p.index < d->blocks; p.index++) {
        p.block = &d->block[p.index];
        through_block(&p);
    }
    say(&p);
    return 0;
}

static int64_t multiply_here(
    Pool *pool, const Matrix *matrix, const float *given, int64_t tokens, float *made
) {
    if (!pool_reserve(pool, own_bytes(tokens), packed_bytes(matrix->columns, tokens))) return -1;
    multiply_each(pool, &matrix, 1, given, tokens, &made, pool_shared(pool));
    return 0;
}
