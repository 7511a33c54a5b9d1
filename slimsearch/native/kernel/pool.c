/* The caller works along. A thread without work looks for it a while before it sleeps: within a
   step there is more in microseconds, and waking a sleeper takes tens of them. */

#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define LOOKS 20000
#define IN_A_ROW 2000 /* looks before another thread may have the processor: a tenth of a millisecond */
#define LINE 64
#define HUGE (1 << 21)

typedef struct {
    Pool *pool;
    void *own;
    pthread_t thread;
} Worker;

struct Pool {
    int64_t threads, count;
    Work *work;
    void *about, *shared;
    size_t own_bytes, shared_bytes;
    _Atomic int64_t next, busy;     /* the next task; workers that have not finished */
    _Atomic int64_t round;          /* grows by one with each call of pool_run */
    _Atomic int ending, sleeping;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    Worker *workers;                /* the first is the caller */
};

/* Between two looks. Where a machine is busy, who is waited for may stand behind who waits. */
static void rest(int look) {
    if (look % IN_A_ROW == IN_A_ROW - 1) sched_yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_tasks(Pool *pool, void *own) {
    for (;;) {
        int64_t task = atomic_fetch_add(&pool->next, 1);
        if (task >= pool->count) return;
        pool->work(pool->about, task, own);
    }
}

static int64_t wait_for_round(Pool *pool, int64_t known) {
    for (int look = 0; look < LOOKS; look++) {
        int64_t round = atomic_load(&pool->round);
        if (round != known) return round;
        rest(look);
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleeping, 1);
    while (atomic_load(&pool->round) == known) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->lock);
    return atomic_load(&pool->round);
}

static void next_round(Pool *pool) {
    atomic_fetch_add(&pool->round, 1);
    if (atomic_load(&pool->sleeping)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void *serve(void *argument) {
    Worker *worker = argument;
    Pool *pool = worker->pool;
    for (int64_t round = 0;;) {
        round = wait_for_round(pool, round);
        if (atomic_load(&pool->ending)) return NULL;
        take_tasks(pool, worker->own);
        atomic_fetch_sub(&pool->busy, 1);
    }
}

void pool_run(Pool *pool, Work *work, void *about, int64_t count) {
    if (pool->threads == 1 || count <= 1) {
        for (int64_t task = 0; task < count; task++) work(about, task, pool->workers[0].own);
        return;
    }
    pool->work = work, pool->about = about, pool->count = count;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->busy, pool->threads - 1);
    next_round(pool);
    take_tasks(pool, pool->workers[0].own);
    for (int look = 0; atomic_load(&pool->busy); look = (look + 1) % LOOKS) rest(look);
}

Pool *pool_open(int64_t threads) {
    Pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->workers = calloc((size_t)threads, sizeof *pool->workers);
    if (!pool->workers) return free(pool), NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (pool->threads = 1; pool->threads < threads; pool->threads++) {
        Worker *worker = &pool->workers[pool->threads];
        worker->pool = pool;
        if (pthread_create(&worker->thread, NULL, serve, worker)) break; /* fewer will do */
    }
    return pool;
}

void pool_close(Pool *pool) {
    atomic_store(&pool->ending, 1);
    next_round(pool);
    for (int64_t w = 1; w < pool->threads; w++) pthread_join(pool->workers[w].thread, NULL);
    for (int64_t w = 0; w < pool->threads; w++) free(pool->workers[w].own);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->wake);
    free(pool->shared);
    free(pool->workers);
    free(pool);
}

int64_t pool_threads(const Pool *pool) { return pool->threads; }

void *pool_shared(const Pool *pool) { return pool->shared; }

/* Memory that begins a line, in huge pages where it is large. */
static void *fresh(size_t bytes) {
    size_t unit = bytes >= HUGE ? HUGE : LINE;
    size_t whole = (bytes + unit - 1) / unit * unit;
    void *memory = aligned_alloc(unit, whole ? whole : unit);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (memory && unit == HUGE) madvise(memory, whole, MADV_HUGEPAGE); /* a hint: may fail */
#endif
    return memory;
}

int pool_reserve(Pool *pool, size_t own, size_t shared) {
    if (shared > pool->shared_bytes) {
        free(pool->shared);
        pool->shared = fresh(shared);
        pool->shared_bytes = pool->shared ? shared : 0;
        if (!pool->shared) return 0;
    }
    if (own > pool->own_bytes) {
        pool->own_bytes = 0;
        for (int64_t w = 0; w < pool->threads; w++) {
            free(pool->workers[w].own);
            if (!(pool->workers[w].own = fresh(own))) return 0;
        }
        pool->own_bytes = own;
    }
    return 1;
}
