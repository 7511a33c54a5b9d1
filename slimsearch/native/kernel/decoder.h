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
    int64_t tokens;                 /* those that go through this half of it, */
    const int64_t *at, *counts;     /* which of the step's they are, or NULL for all; of each row */
    int64_t *filled;                /* of each row of the block's cache */
    int64_t *live, *live_counts;    /* room for `at` and `counts` */
    const float *source;            /* what is normed: [step's tokens][width] */
    uint32_t *kept;                 /* keys and values as tiles take them, where they are taken */
    float *input, *aside;           /* what the block read; what the block before did beside it */
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

INLINE int64_t token_of(const Pass *p, int64_t live) { return p->at ? p->at[live] : live; }

static void norm_token(void *about, int64_t live, void *own) {
    const Pass *p = about;
    (void)own;
    int64_t width = p->decoder->width;
    norm_one(p->decoder, p->source + token_of(p, live) * width, p->scale, p->normed + live * width);
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
INLINE int64_t row_of_token(const Pass *p, int64_t live, int64_t *place) {
    int64_t row = 0;
    while (live >= p->counts[row]) live -= p->counts[row++];
    *place = p->filled[row] + live;
    return row;
}

/* Which places of a row's cache are pictures'; NULL where that is not known. */
INLINE uint8_t *pictured_in(const Pass *p, int64_t row) {
    const Step *step = p->step;
    return step->pictured ? step->pictured + (p->index * step->rows + row) * step->room : NULL;
}

/* Rotates a token's queries and keys and puts keys and values into the cache. */
static void keep_token(void *about, int64_t token, void *own) {
    const Pass *p = about;
    const Decoder *d = p->decoder;
    const Step *step = p->step;
    int64_t place, row = row_of_token(p, token, &place), wide = d->head_width;
    int64_t position = step->positions[token_of(p, token)];
    (void)own;
    if (step->pictured) pictured_in(p, row)[place] = step->kinds[token_of(p, token)] == PICTURE;
    for (int64_t h = 0; h < d->heads; h++)
        rotate(d, p->q + (token * d->heads + h) * wide, position, 1 / sqrtf((float)wide));
    for (int64_t h = 0; h < d->key_heads; h++) {
        float *key = p->k + (token * d->key_heads + h) * wide;
        const float *value = p->v + (token * d->key_heads + h) * wide;
        int64_t cache = (row * d->key_heads + h) * step->room * wide;
        rotate(d, key, position, 1);
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

/* What Q queries attend to, by their scores with the places that they see. */
INLINE void mix_all(
    const Pass *p, float *const *made, const int64_t *seen, const void *values, float *scores,
    const int narrow, const int Q
) {
    int64_t wide = p->decoder->head_width, places = seen[Q - 1], i = 0;
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

/* `keys` and `values` begin where a row's and a key head's do. */
INLINE void attend_some(
    const Pass *p, const float *const *queries, float *const *made, const int64_t *seen,
    const void *keys, const void *values, float *scores, const int narrow, const int Q
) {
    int64_t wide = p->decoder->head_width;
    score(queries, keys, seen[Q - 1], wide, p->longest, scores, narrow, Q);
    mix_all(p, made, seen, values, scores, narrow, Q);
}

/* The same for a picture's token whose attention is cut: it sees itself and `window` of its kind
   before it. */
INLINE void attend_near(
    const Pass *p, const float *query, float *made, int64_t seen, const char *keys,
    const char *values, const uint8_t *pictured, float *scores, const int narrow
) {
    int64_t wide = p->decoder->head_width, first = seen - 1;
    for (int64_t left = p->block->window; left && first; left -= pictured[first]) first--;
    int64_t begin = first / LANES * LANES, skipped = begin * wide * (narrow ? 2 : 4);
    seen -= begin, first -= begin, pictured += begin;
    score(&query, keys + skipped, seen, wide, p->longest, scores, narrow, 1);
    for (int64_t i = 0; i < seen; i++)
        if (i < first || !pictured[i]) scores[i] = -INFINITY;
    mix_all(p, &made, &seen, values + skipped, scores, narrow, 1);
}

/* Tasks go through rows, key heads and, within them, queries, `most` at a time: a token's heads side
   by side. */
INLINE int64_t sets_of(const Decoder *d, int64_t tokens, int64_t most) {
    return (tokens * (d->heads / d->key_heads) + most - 1) / most;
}

/* The row of a task, its first token, the key head and the first of the row's queries. */
INLINE int64_t asker(
    const Pass *p, int64_t task, int64_t most, int64_t *first, int64_t *head, int64_t *query
) {
    const Decoder *d = p->decoder;
    int64_t row = 0;
    for (*first = 0; task >= sets_of(d, p->counts[row], most) * d->key_heads; *first += p->counts[row++])
        task -= sets_of(d, p->counts[row], most) * d->key_heads;
    int64_t sets = sets_of(d, p->counts[row], most);
    *head = task / sets, *query = task % sets * most;
    return row;
}

INLINE void attend_to(const Pass *p, int64_t task, void *own, const int narrow) {
    const Decoder *d = p->decoder;
    const Step *step = p->step;
    const int64_t group = d->heads / d->key_heads, wide = d->head_width;
    int64_t first, head, query, row = asker(p, task, QUERIES, &first, &head, &query);
    int64_t count = p->counts[row] * group - query;
    if (count > QUERIES) count = QUERIES;
    const float *queries[QUERIES];
    float *made[QUERIES];
    int64_t seen[QUERIES], cache = (row * d->key_heads + head) * step->room * wide, near = 0;
    const uint8_t *pictured = p->block->window < 0 ? NULL : pictured_in(p, row);
    for (int64_t i = 0; i < count; i++) {
        int64_t token = (query + i) / group, h = head * group + (query + i) % group;
        queries[i] = p->q + ((first + token) * d->heads + h) * wide;
        made[i] = p->attended + ((first + token) * d->heads + h) * wide;
        seen[i] = p->filled[row] + token + 1;
        if (pictured) near += pictured[seen[i] - 1];
    }
    int64_t begin = cache * (narrow ? 2 : 4);
    const char *keys = (const char *)step->keys[p->index] + begin;
    const char *values = (const char *)step->values[p->index] + begin;
    if (count == QUERIES && !near) {
        attend_some(p, queries, made, seen, keys, values, own, narrow, QUERIES);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        if (pictured && pictured[seen[i] - 1])
            attend_near(p, queries[i], made[i], seen[i], keys, values, pictured, own, narrow);
        else attend_some(p, queries + i, made + i, seen + i, keys, values, own, narrow, 1);
}

static void attend(void *about, int64_t task, void *own) {
    const Pass *p = about;
    if (p->block->q.kind == INT8) attend_to(p, task, own, 1);
    else attend_to(p, task, own, 0);
}

#if AMX
#include "amx_attention.h"
#else
enum { ASKING = QUERIES };
INLINE int64_t words_kept(const Pass *p) { return (void)p, 0; }
INLINE size_t asking_bytes(const Decoder *d, int64_t longest) { return (void)d, (void)longest, 0; }
static void pack_cache(void *about, int64_t task, void *own) { (void)about, (void)task, (void)own; }
static void attend_tiled(void *about, int64_t task, void *own) { attend(about, task, own); }
#endif

/* Whether tiles take a block's attention. */
INLINE int tiled(const Decoder *d, const Block *b, int64_t tokens) {
    return AMX && b->q.kind != FLOAT32 && b->window < 0 && d->head_width % (2 * LANES) == 0 && tokens > SHORT;
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

static void add_token(void *about, int64_t live, void *own) {
    const Pass *p = about;
    float *hidden = p->step->hidden + token_of(p, live) * p->decoder->width;
    const float *more = p->normed + live * p->decoder->width;
    (void)own;
    for (int64_t i = 0; i < p->decoder->width; i++) hidden[i] += more[i];
}

/* Work on each token: by all threads where there are many. */
static void each_token(Pass *p, Work *work) {
    if (p->tokens > FEW) pool_run(p->pool, work, p, p->tokens);
    else for (int64_t t = 0; t < p->tokens; t++) work(p, t, NULL);
}

static void normed_by(Pass *p, const float *scale) {
    p->scale = scale;
    each_token(p, norm_token);
}

/* Has those tokens go on whose kind is none of `idle`, a bit for each; whether there are any. */
static int choose(Pass *p, int64_t idle) {
    const Step *step = p->step;
    p->at = NULL, p->counts = step->counts, p->tokens = step->tokens;
    if (idle) {
        int64_t token = 0, live = 0;
        for (int64_t row = 0; row < step->rows; row++) {
            int64_t before = live;
            for (int64_t i = 0; i < step->counts[row]; i++, token++)
                if (!(idle >> step->kinds[token] & 1)) p->live[live++] = token;
            p->live_counts[row] = live - before;
        }
        if (live < token) p->at = p->live, p->counts = p->live_counts, p->tokens = live;
    }
    return p->tokens > 0;
}

static void through_attention(Pass *p) {
    const Decoder *d = p->decoder;
    const Block *b = p->block;
    int64_t tasks = 0;
    if (!choose(p, b->idle_attention)) return;
    const int tiles = tiled(d, b, p->tokens);
    for (int64_t row = 0; row < p->step->rows; row++)
        tasks += sets_of(d, p->counts[row], tiles ? ASKING : QUERIES) * d->key_heads;
    normed_by(p, b->before_attention);
    multiply_each(p->pool, (const Matrix *[]){&b->q, &b->k, &b->v}, 3, p->normed, p->tokens,
                  (float *[]){p->q, p->k, p->v}, p->space);
    each_token(p, keep_token);
    if (tiles) pool_run(p->pool, pack_cache, p, p->step->rows * d->key_heads);
    pool_run(p->pool, tiles ? attend_tiled : attend, p, tasks);
    multiply_each(p->pool, (const Matrix *[]){&b->o}, 1, p->attended, p->tokens,
                  (float *[]){p->normed}, p->space);
    each_token(p, add_token);
    for (int64_t row = 0; row < p->step->rows; row++) p->filled[row] += p->counts[row];
}

static void through_ffn(Pass *p) {
    const Block *b = p->block;
    if (!choose(p, b->idle_ffn)) return;
    normed_by(p, b->before_mlp);
    multiply_each(p->pool, (const Matrix *[]){&b->gate, &b->up}, 2, p->normed, p->tokens,
                  (float *[]){p->gate, p->up}, p->space);
    each_token(p, gate_token);
    multiply_each(p->pool, (const Matrix *[]){&b->down}, 1, p->gate, p->tokens,
                  (float *[]){p->normed}, p->space);
    each_token(p, add_token);
}

static void through_block(Pass *p) {
    const Block *b = p->block;
    const int64_t beside = p->index ? b[-1].parallel_next : 0;
    int64_t numbers = p->step->tokens * p->decoder->width;
    float *hidden = p->step->hidden;
    p->source = hidden;
    if (beside || b->parallel_next || b->parallel_ffn)
        memcpy(p->input, hidden, (size_t)numbers * sizeof *hidden);
    through_attention(p);
    if (b->parallel_ffn) p->source = p->input;
    through_ffn(p);
    for (int64_t i = 0; beside && i < numbers; i++) {
        hidden[i] += p->aside[i];
        if (beside == MEAN) hidden[i] = p->input[i] + (hidden[i] - p->input[i]) / 2;
    }
    for (int64_t i = 0; b->parallel_next && i < numbers; i++) {
        p->aside[i] = hidden[i] - p->input[i];
        hidden[i] = p->input[i];
    }
}

/* Logits of each row's last token, or of every token. */
static void say(Pass *p) {
    const Decoder *d = p->decoder;
    const Step *step = p->step;
    int64_t end = 0, real = 0;
    if (step->every) {
        p->source = step->hidden;
        choose(p, 0);
        normed_by(p, d->norm);
        multiply_each(p->pool, (const Matrix *[]){&d->head}, 1, p->normed, step->tokens,
                      (float *[]){step->logits}, p->space);
        return;
    }
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

/* The next part of a memory that is given out line by line. */
INLINE void *taken(char **memory, size_t bytes) {
    char *part = *memory;
    *memory += line(bytes);
    return part;
}

static int64_t step_here(Pool *pool, const Decoder *d, const Step *step) {
    size_t tokens = (size_t)step->tokens;
    int64_t longest = 0, widest = d->width, beside = 0;
    for (int64_t i = 0; i < d->blocks * step->rows; i++) {
        int64_t places = step->filled[i] + step->counts[i % step->rows];
        if (places > longest) longest = places;
    }
    int tiles = 0;
    for (int64_t i = 0; i < d->blocks; i++) {
        beside |= d->block[i].parallel_next | d->block[i].parallel_ffn;
        tiles |= tiled(d, &d->block[i], step->tokens);
    }
    if (d->inner > widest) widest = d->inner;
    if (d->heads * d->head_width > widest) widest = d->heads * d->head_width;
    longest = (longest + 2 * LANES - 1) / (2 * LANES) * (2 * LANES);
    size_t width = tokens * (size_t)d->width * 4, inner = tokens * (size_t)d->inner * 4;
    size_t query = tokens * (size_t)(d->heads * d->head_width) * 4;
    size_t key = tokens * (size_t)(d->key_heads * d->head_width) * 4;
    size_t most = tokens > (size_t)step->rows ? tokens : (size_t)step->rows;
    size_t space = packed_bytes(widest, (int64_t)most), set_aside = beside ? width : 0;
    size_t own = own_bytes((int64_t)most), scores = (size_t)longest * QUERIES * 4;
    Pass p = {.pool = pool, .decoder = d, .step = step, .longest = longest};
    size_t kept = tiles ? (size_t)(step->rows * d->key_heads * words_kept(&p)) * 8 : 0;
    if (tiles && asking_bytes(d, longest) > scores) scores = asking_bytes(d, longest);
    size_t all = line(width) + 2 * line(query) + 2 * line(key) + 2 * line(inner) +
                 2 * line(set_aside) + line(tokens * 8) + line((size_t)step->rows * 8) + line(kept) + line(space);
    if (!pool_reserve(pool, own > scores ? own : scores, all)) return -1;
    char *memory = pool_shared(pool);
    p.normed = taken(&memory, width);
    p.q = taken(&memory, query), p.attended = taken(&memory, query);
    p.k = taken(&memory, key), p.v = taken(&memory, key);
    p.gate = taken(&memory, inner), p.up = taken(&memory, inner);
    p.input = taken(&memory, set_aside), p.aside = taken(&memory, set_aside);
    p.live = taken(&memory, tokens * 8), p.live_counts = taken(&memory, (size_t)step->rows * 8);
    p.kept = taken(&memory, kept);
    p.space = taken(&memory, space);
    for (p.index = 0; p.index < d->blocks; p.index++) {
        p.block = &d->block[p.index];
        p.filled = step->filled + p.index * step->rows;
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
