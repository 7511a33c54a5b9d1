"""Executors: where candidates are scored, one file each.

To add one:
1. Write slimsearch/executors/<name>.py with one class derived from contracts.Executor.
2. Build an Evaluator once for each worker, never once for each candidate.
3. Yield scores in the order in which the candidates were given.
4. Yield each as soon as it is there: it is journalled before the next is waited for.
5. `make test`: tests/contracts/ finds the file and tries it.
"""
