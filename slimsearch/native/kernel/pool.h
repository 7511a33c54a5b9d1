/* Threads that wait for work, and memory that each of them keeps for it. */

#ifndef POOL_H
#define POOL_H

#include <stddef.h>
#include <stdint.h>

typedef struct Pool Pool;
typedef void Work(void *about, int64_t task, void *own); /* `own` memory of the thread it is on */

Pool *pool_open(int64_t threads);
void pool_close(Pool *pool);
int64_t pool_threads(const Pool *pool);
int pool_reserve(Pool *pool, size_t own, size_t shared); /* bytes; 0 where there is no memory */
void *pool_shared(const Pool *pool);

/* Does tasks 0 .. count, each on one thread alone; returns when all are done. */
void pool_run(Pool *pool, Work *work, void *about, int64_t count);

#endif
