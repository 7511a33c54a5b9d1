/* Products in AMX tiles of 16 x 16 sums. The layouts of matrices.h are those of its instructions: 16
   rows of 16 groups, and 16 groups of 16 tokens. Tiles 0 to 3 are sums of two by two, 4 and 5 rows,
   6 and 7 tokens. */

typedef struct { /* as LDTILECFG reads it */
    uint8_t palette, start, unused[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} Tiles;

INLINE void tiles_begin(void) {
    Tiles all = {.palette = 1};
    for (int t = 0; t < 8; t++) all.bytes[t] = 64, all.rows[t] = 16;
    _tile_loadconfig(&all);
}

INLINE void tiles_end(void) { _tile_release(); }

/* What each tile of sums is of: its number, its row and column among the tiles, what it multiplies. */
#define EACH_SUM(DO, V) \
    do { \
        DO(0, 0, 0, 4, 6); \
        DO(2, 1, 0, 5, 6); \
        if (V > 1) { DO(1, 0, 1, 4, 7); DO(3, 1, 1, 5, 7); } \
    } while (0)
#define CLEAR(tile, row, column, a, b) _tile_zero(tile)
#define FETCH(tile, row, column, a, b) _tile_loadd(tile, sums + row * 16 * wide + column * 64, wide)
#define KEEP(tile, row, column, a, b) _tile_stored(tile, sums + row * 16 * wide + column * 64, wide)
#define ADD_BYTES(tile, row, column, a, b) _tile_dpbsud(tile, a, b)
#define ADD_SHORTS(tile, row, column, a, b) _tile_dpbf16ps(tile, a, b)

/* 32 rows of weights with V times 16 tokens, V a constant, whose groups are `spread` bytes apart; a row
   of sums takes `wide` bytes. Between the products, rows of the next chunk are unpacked: other ports of
   the processor do that. */
INLINE void square(
    int kind, int dense, const char *weights, const char *given, int64_t spread, int64_t groups,
    char *sums, int64_t wide, int first, Feed *feed, const int V
) {
    const int64_t apart = CHUNK * 4;
    if (first) EACH_SUM(CLEAR, V);
    else EACH_SUM(FETCH, V);
    for (int64_t g = 0; g < groups; g += LANES) {
        _tile_loadd(4, weights + g * 4, apart);
        _tile_loadd(5, weights + 16 * apart + g * 4, apart);
        _tile_loadd(6, given + g * spread, spread);
        if (V > 1) _tile_loadd(7, given + g * spread + 64, spread);
        if (kind == INT8) EACH_SUM(ADD_BYTES, V);
        else EACH_SUM(ADD_SHORTS, V);
        if (feed->done < feed->rows) feed_one(feed, kind, dense);
    }
    EACH_SUM(KEEP, V);
}

/* All rows with the tokens of a panel. */
INLINE void squares(
    int kind, int dense, const uint32_t *weights, const uint32_t *given, int64_t vectors,
    int64_t groups, int64_t rows, int64_t padded, float *sums, int first, Feed *feed
) {
    for (int64_t r = 0; r < rows; r += 2 * LANES)
        for (int64_t v = 0; v < vectors; v += 2) {
            const char *from = (const char *)(weights + r * CHUNK);
            const char *with = (const char *)(given + v * LANES);
            char *to = (char *)(sums + r * padded + v * LANES);
            int64_t spread = vectors * 64, wide = padded * 4;
            if (vectors - v > 1)
                square(kind, dense, from, with, spread, groups, to, wide, first, feed, 2);
            else square(kind, dense, from, with, spread, groups, to, wide, first, feed, 1);
        }
}
