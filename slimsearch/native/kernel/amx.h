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

/* 32 rows of weights, `apart` bytes from one to the next, with V times 16 tokens, V a constant, whose
   groups are `spread` bytes apart; a row of sums takes `wide` bytes. */
INLINE void square(
    int kind, const char *weights, int64_t apart, const char *given, int64_t spread, int64_t groups,
    char *sums, int64_t wide, int first, const int V
) {
    if (first) EACH_SUM(CLEAR, V);
    else EACH_SUM(FETCH, V);
    for (int64_t g = 0; g < groups; g += LANES) {
        _tile_loadd(4, weights + g * 4, apart);
        _tile_loadd(5, weights + 16 * apart + g * 4, apart);
        _tile_loadd(6, given + g * spread, spread);
        if (V > 1) _tile_loadd(7, given + g * spread + 64, spread);
        if (kind == INT8) EACH_SUM(ADD_BYTES, V);
        else EACH_SUM(ADD_SHORTS, V);
    }
    EACH_SUM(KEEP, V);
}
