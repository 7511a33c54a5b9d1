/* The solve of obs.py in C: the same steps, with one pass over the matrix for each block.

   Rows lie in panels of T: a panel holds T rows of one level, column after column, so that one
   vector instruction works on LANES rows at once. For each block of columns, over all panels:
     1. catch up   W = weights - E[before the block] U[before the block, block]
     2. choose     the count-th lowest score (W_j / U_jj)^2 of each level, by radix selection
     3. mend       column by column inside the block (SparseGPT, algorithm 1)
   A panel is worked on by one thread alone, so results do not depend on their number. A weight
   that goes leaves an error, one that stays leaves itself: both live in one array of the size of
   the result, with a bit for each to tell them apart, and 4. unpack makes it the result in place.

   Legend: W weights of a panel in the block [BLOCK][T]; U upper Cholesky factor of the inverse
   Hessian; E errors (w_j - q_j) / U_jj; V of a panel [columns][T], E where a weight went and W
   where it stayed; j the column that goes, k one to its right; l lane (row in the panel), v vector
   of lanes. */

#include <omp.h>
#include <stdint.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define BLOCK 128
#define VALUES 2048 /* of one radix digit of 11 bits */
#define DEPTH 192   /* columns of E multiplied at a time: DEPTH * T floats stay in the L1 cache */
#define GROUP 8     /* columns of U multiplied at a time: GROUP * 2 sums stay in registers */
#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#define T (2 * LANES)

typedef float lanes __attribute__((vector_size(LANES * 4)));
typedef uint32_t words __attribute__((vector_size(LANES * 4)));
typedef lanes column[2]; /* T rows */

/* A weight goes if its score is below `score`, or equal to it and its index below `ties_end`. */
typedef struct { uint32_t score, ties_end; } Threshold;

typedef struct {
    int64_t rows, columns, levels, panels; /* panels of one level */
    const float *weights;                  /* [rows][columns] */
    const float *upper;                    /* [columns][columns] */
    column *panelled;                      /* V, in the end [levels][panels * T rows][columns] */
    uint32_t *gone;                        /* [levels * panels][columns], a bit for each lane */
    column *block;                         /* [levels * panels][BLOCK] */
    float *slab;                           /* [BLOCK / GROUP][columns][GROUP] */
    uint32_t *scores;                      /* [levels][rows * BLOCK] */
    float *spare;                          /* [threads][columns * T] */
    int64_t keep, group;                   /* N:M, keep N of M; 0 where thresholds choose */
} Task;

int64_t panel_rows(void) { return T; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* U[0 .. start, start .. start + width] in the order in which `catch_up` reads it. */
static void pack(const Task *task, int64_t start, int64_t width, int64_t first) {
    float *out = task->slab + first * task->columns;
    for (int64_t j = 0; j < start; j++)
        for (int64_t g = 0; g < GROUP; g++)
            *out++ = first + g < width ? task->upper[j * task->columns + start + first + g] : 0;
}

/* W of one panel, [rows][columns] to [BLOCK][T], zero where there is no row or column. */
static void load(const Task *task, int64_t panel, int64_t start, int64_t width, float *W) {
    int64_t first = panel % task->panels * T;
    for (int64_t l = 0; l < T; l++) {
        const float *row = task->weights + (first + l) * task->columns + start;
        int64_t filled = first + l < task->rows ? width : 0;
        for (int64_t j = 0; j < filled; j++) W[j * T + l] = row[j];
        for (int64_t j = filled; j < BLOCK; j++) W[j * T + l] = 0;
    }
}

/* All bits set in the lanes of vector v whose bit is set. */
static words spread(uint32_t bits, int v) {
    words lane;
    for (int l = 0; l < LANES; l++) lane[l] = (uint32_t)(v * LANES + l);
    return -((((words){0} + bits) >> lane) & 1);
}

static void catch_up(const Task *task, int64_t panel, int64_t start, column *W) {
    const column *V = task->panelled + panel * task->columns;
    const uint32_t *gone = task->gone + panel * task->columns;
    for (int64_t first = 0; first < start; first += DEPTH) {
        int64_t depth = least(DEPTH, start - first);
        column E[DEPTH];
        for (int64_t j = 0; j < depth; j++)
            for (int v = 0; v < 2; v++)
                E[j][v] = (lanes)((words)V[first + j][v] & spread(gone[first + j], v));
        for (int64_t k = 0; k < BLOCK; k += GROUP) {
            const float *U = task->slab + k * task->columns + first * GROUP;
            column sum[GROUP] = {0};
            for (int64_t j = 0; j < depth; j++)
                for (int g = 0; g < GROUP; g++)
                    for (int v = 0; v < 2; v++) sum[g][v] += E[j][v] * U[j * GROUP + g];
            for (int g = 0; g < GROUP; g++)
                for (int v = 0; v < 2; v++) W[k + g][v] -= sum[g][v];
        }
    }
}

/* Scores are not negative, so that their bits as integers have the order of the numbers. */
static words score(lanes weight, float diagonal) {
    lanes scaled = weight / diagonal;
    return (words)(scaled * scaled);
}

/* The place-th lowest value (from 1) of n, by digits of 11 bits. Overwrites `values`. */
static uint32_t select_lowest(uint32_t *values, int64_t n, int64_t place) {
    uint32_t found = 0;
    for (int digit = 2; digit >= 0; digit--) {
        int64_t histogram[VALUES] = {0}, kept = 0;
        for (int64_t i = 0; i < n; i++) histogram[values[i] >> (11 * digit) & (VALUES - 1)]++;
        uint32_t bin = 0;
        while (place > histogram[bin]) place -= histogram[bin++];
        found |= bin << (11 * digit);
        for (int64_t i = 0; i < n; i++) {
            values[kept] = values[i];
            kept += (values[i] >> (11 * digit) & (VALUES - 1)) == bin;
        }
        n = kept;
    }
    return found;
}

/* Scores of one level's block, row by row, so that a place in the list is a weight's index. */
static void list_scores(const Task *task, int64_t level, int64_t start, int64_t width) {
    uint32_t *out = task->scores + level * task->rows * BLOCK;
    const column *W = task->block + level * task->panels * BLOCK;
    for (int64_t panel = 0; panel < task->panels; panel++, W += BLOCK) {
        column listed[BLOCK];
        for (int64_t j = 0; j < width; j++)
            for (int v = 0; v < 2; v++) {
                words bits = score(W[j][v], task->upper[(start + j) * (task->columns + 1)]);
                listed[j][v] = (lanes)bits;
            }
        for (int64_t l = 0; l < least(T, task->rows - panel * T); l++)
            for (int64_t j = 0; j < width; j++) *out++ = ((const uint32_t *)listed[j])[l];
    }
}

static Threshold choose(
    const Task *task, int64_t level, int64_t start, int64_t width, int64_t count, int whole_ties
) {
    int64_t n = task->rows * width, below = 0, equal = 0;
    if (count <= 0) return (Threshold){0, 0};
    if (count >= n) return (Threshold){UINT32_MAX, 0};
    uint32_t *scores = task->scores + level * task->rows * BLOCK;
    list_scores(task, level, start, width);
    uint32_t limit = select_lowest(scores, n, count);
    if (whole_ties) return (Threshold){limit, UINT32_MAX};
    list_scores(task, level, start, width);
    for (int64_t i = 0; i < n; i++) {
        below += scores[i] < limit;
        equal += scores[i] == limit;
    }
    if (below + equal == count) return (Threshold){limit, UINT32_MAX};
    int64_t index = 0;
    for (int64_t left = count - below; left > 0; index++) left -= scores[index] == limit;
    return (Threshold){limit, (uint32_t)index};
}

/* All bits set where a weight goes, for the columns from j on that are chosen together. */
static void mark(
    const Task *task, const column *W, int64_t start, int64_t width, int64_t j, int64_t row,
    Threshold threshold, words (*gone)[2]
) {
    int64_t last = task->group ? j + task->group : width;
    words lane;
    for (int l = 0; l < LANES; l++) lane[l] = l;
    for (int64_t k = j; k < last; k++)
        for (int v = 0; v < 2; v++) {
            words own = score(W[k][v], task->upper[(start + k) * (task->columns + 1)]), lower = {0};
            if (!task->group) {
                words index = (lane + (uint32_t)(row + v * LANES)) * (uint32_t)width + (uint32_t)k;
                gone[k][v] = (words)(own < threshold.score)
                    | ((words)(own == threshold.score) & (words)(index < threshold.ties_end));
                continue;
            }
            for (int64_t i = j; i < last; i++) { /* how many of the group are lower, or tied before */
                words other = score(W[i][v], task->upper[(start + i) * (task->columns + 1)]);
                lower -= (words)(i < k ? other <= own : other < own);
            }
            gone[k][v] = (words)(lower < (uint32_t)(task->group - task->keep));
        }
}

/* Solves one panel of a block; gives its sum(E^2) / 2. */
static double mend(
    const Task *task, int64_t panel, int64_t start, int64_t width, Threshold threshold
) {
    column *W = task->block + panel * BLOCK, *V = task->panelled + panel * task->columns + start;
    words gone[BLOCK][2];
    column squares = {0};
    double loss = 0;
    for (int64_t j = 0; j < width; j++) {
        const float *U = task->upper + (start + j) * task->columns + start;
        if (j == 0 || (task->group && j % task->group == 0))
            mark(task, W, start, width, j, panel % task->panels * T, threshold, gone);
        column E;
        uint32_t bits = 0;
        for (int v = 0; v < 2; v++) {
            E[v] = (lanes)((words)(W[j][v] / U[j]) & gone[j][v]);
            V[j][v] = (lanes)((words)E[v] | ((words)W[j][v] & ~gone[j][v]));
            squares[v] += E[v] * E[v];
            for (int l = 0; l < LANES; l++) bits |= (gone[j][v][l] & 1) << (v * LANES + l);
        }
        task->gone[panel * task->columns + start + j] = bits;
        for (int64_t k = j + 1; k < width; k++)
            for (int v = 0; v < 2; v++) W[k][v] -= E[v] * U[k];
    }
    for (int l = 0; l < LANES; l++) loss += (double)squares[0][l] + (double)squares[1][l];
    return loss / 2;
}

/* V of a panel [columns][T] becomes its solved rows [T][columns], in the same place. */
static void unpack(const Task *task, int64_t panel, column *spare) {
    column *V = task->panelled + panel * task->columns;
    for (int64_t j = 0; j < task->columns; j++)
        for (int v = 0; v < 2; v++)
            spare[j][v] =
                (lanes)((words)V[j][v] & ~spread(task->gone[panel * task->columns + j], v));
    for (int64_t start = 0; start < task->columns; start += BLOCK)
        for (int64_t l = 0; l < T; l++)
            for (int64_t j = start; j < least(start + BLOCK, task->columns); j++)
                ((float *)V)[l * task->columns + j] = ((const float *)spare)[j * T + l];
}

/* Large and fresh arrays: without this a third of the time goes into the faults of small pages. */
static void use_huge_pages(void *array, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = 1 << 21;
    uintptr_t first = ((uintptr_t)array + page - 1) & ~(page - 1);
    uintptr_t last = ((uintptr_t)array + (uintptr_t)bytes) & ~(page - 1);
    if (first < last) madvise((void *)first, last - first, MADV_HUGEPAGE); /* a hint: may fail */
#else
    (void)array, (void)bytes;
#endif
}

/* counts [levels][blocks]; losses [blocks][levels * panels] of sum(E^2) / 2, all written. */
void solve(const Task *task, const int64_t *counts, int whole_ties, int threads, double *losses) {
    int64_t blocks = (task->columns + BLOCK - 1) / BLOCK, all = task->levels * task->panels;
    Threshold thresholds[task->levels];
    use_huge_pages(task->panelled, all * task->columns * (int64_t)sizeof(column));
    for (int64_t b = 0; b < blocks; b++) {
        int64_t start = b * BLOCK, width = least(BLOCK, task->columns - start);
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(dynamic)
            for (int64_t first = 0; first < BLOCK; first += GROUP) pack(task, start, width, first);
#pragma omp for schedule(dynamic)
            for (int64_t panel = 0; panel < all; panel++) {
                column *W = task->block + panel * BLOCK;
                load(task, panel, start, width, (float *)W);
                catch_up(task, panel, start, W);
            }
#pragma omp for schedule(dynamic)
            for (int64_t level = 0; level < task->levels; level++)
                thresholds[level] = task->group ? (Threshold){0, 0}
                    : choose(task, level, start, width, counts[level * blocks + b], whole_ties);
#pragma omp for schedule(dynamic)
            for (int64_t panel = 0; panel < all; panel++)
                losses[b * all + panel] =
                    mend(task, panel, start, width, thresholds[panel / task->panels]);
        }
    }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t panel = 0; panel < all; panel++)
        unpack(task, panel, (column *)(task->spare + omp_get_thread_num() * task->columns * T));
}
