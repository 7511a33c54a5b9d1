/* Attention of many new tokens in AMX tiles, in bf16 as their products with weights are: queries of a
   key head, ASKING at a time, with keys and values that are packed once for all of them. Words hold two
   numbers: of a key two columns, of values two places. */

#define ASKING 32

/* Words of one key head's keys or values. */
INLINE int64_t words_kept(const Pass *p) { return p->longest * p->decoder->head_width / 2; }

INLINE size_t asking_bytes(const Decoder *d, int64_t longest) {
    return ASKING * (size_t)(d->head_width * 6 + longest * 6);
}

INLINE words paired(lanes low, lanes high) {
    return ((words)shortened_lanes(low) >> 16) | (words)shortened_lanes(high);
}

/* Keys [16 places together][wide / 2][16], values [16 columns together][places / 2][16]. */
INLINE void pack_cache_of(const Pass *p, int64_t row, int64_t head, uint32_t *to, const int narrow) {
    const Decoder *d = p->decoder;
    const int64_t wide = d->head_width, places = p->filled[row] + p->counts[row];
    const int64_t begin = (row * d->key_heads + head) * p->step->room * wide * (narrow ? 2 : 4);
    const char *keys = (const char *)p->step->keys[p->index] + begin;
    const char *values = (const char *)p->step->values[p->index] + begin;
    for (int64_t place = 0; place < places; place += LANES)
        for (int64_t i = 0; i < wide; i += 2) {
            int64_t at = place * wide + i * LANES;
            words made = paired(cached(keys, at, narrow), cached(keys, at + LANES, narrow));
            memcpy(to + (place * wide + i * LANES) / 2, &made, sizeof made);
        }
    to += words_kept(p);
    for (int64_t i = 0; i < wide; i += LANES)
        for (int64_t place = 0; place < p->longest; place += 2) {
            lanes two[2] = {0};
            for (int n = 0; n < 2 && place + n < places; n++)
                two[n] = cached(values, (place + n) * wide + i, narrow);
            words made = paired(two[0], two[1]);
            memcpy(to + (i * p->longest + place * LANES) / 2, &made, sizeof made);
        }
}

static void pack_cache(void *about, int64_t task, void *own) {
    const Pass *p = about;
    int64_t row = task / p->decoder->key_heads, head = task % p->decoder->key_heads;
    uint32_t *to = p->kept + task * 2 * words_kept(p);
    (void)own;
    if (!p->counts[row]) return;
    if (p->block->q.kind == INT8) pack_cache_of(p, row, head, to, 1);
    else pack_cache_of(p, row, head, to, 0);
}

/* A row of numbers as two bf16 a word. */
INLINE void shorten_row(const float *from, int64_t wide, uint32_t *to) {
    for (int64_t i = 0; i < wide; i += 2 * LANES) {
        words made = rounded_pairs(load(from + i), load(from + i + LANES));
        memcpy(to + i / 2, &made, sizeof made);
    }
}

/* 32 rows by 32 columns of sums; `a` has rows `apart` bytes apart, the second 16 columns of `b` lie
   `further` bytes behind the first. */
INLINE void whole_square(
    const char *a, int64_t apart, const char *b, int64_t further, int64_t groups, char *sums, int64_t wide
) {
    EACH_SUM(CLEAR, 2);
    for (int64_t g = 0; g < groups; g += LANES) {
        _tile_loadd(4, a + g * 4, apart);
        _tile_loadd(5, a + 16 * apart + g * 4, apart);
        _tile_loadd(6, b + g * 64, 64);
        _tile_loadd(7, b + further + g * 64, 64);
        EACH_SUM(ADD_SHORTS, 2);
    }
    EACH_SUM(KEEP, 2);
}

static void attend_tiled(void *about, int64_t task, void *own) {
    const Pass *p = about;
    const Decoder *d = p->decoder;
    const int64_t group = d->heads / d->key_heads, wide = d->head_width, longest = p->longest;
    int64_t first, query, head, row = asker(p, task, ASKING, &first, &head, &query);
    int64_t count = p->counts[row] * group - query;
    if (count > ASKING) count = ASKING;
    const uint32_t *keys = p->kept + (row * d->key_heads + head) * 2 * words_kept(p);
    const uint32_t *values = keys + words_kept(p);
    uint32_t *asked = own, *weights = asked + ASKING * wide / 2;
    float *scores = (float *)(weights + ASKING * longest / 2), *made = scores + ASKING * longest;
    int64_t last = p->filled[row] + (query + count - 1) / group + 1;
    int64_t places = (last + 2 * LANES - 1) / (2 * LANES) * (2 * LANES);
    memset(asked, 0, ASKING * (size_t)wide * 2);
    memset(weights, 0, ASKING * (size_t)longest * 2);
    for (int64_t i = 0; i < count; i++) {
        int64_t token = first + (query + i) / group, h = head * group + (query + i) % group;
        shorten_row(p->q + (token * d->heads + h) * wide, wide, asked + i * wide / 2);
    }
    tiles_begin();
    for (int64_t place = 0; place < places; place += 2 * LANES)
        whole_square((const char *)asked, wide * 2, (const char *)(keys + place * wide / 2), wide * 32,
                     wide / 2, (char *)(scores + place), longest * 4);
    for (int64_t i = 0; i < count; i++) {
        soften(scores + i * longest, p->filled[row] + (query + i) / group + 1, places);
        shorten_row(scores + i * longest, places, weights + i * longest / 2);
    }
    for (int64_t i = 0; i < wide; i += 2 * LANES)
        whole_square((const char *)weights, longest * 2, (const char *)(values + i * longest / 2),
                     longest * 32, places / 2, (char *)(made + i), wide * 4);
    tiles_end();
    for (int64_t i = 0; i < count; i++) {
        int64_t token = first + (query + i) / group, h = head * group + (query + i) % group;
        memcpy(p->attended + (token * d->heads + h) * wide, made + i * wide, (size_t)wide * 4);
    }
}
