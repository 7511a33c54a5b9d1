"""Strategies: how candidates are proposed, one file each; pymoo's only door.

To add one:
1. Write slimsearch/strategies/<name>.py with one class derived from contracts.Strategy; name in its
   `allocations` the rules of searching/allocation.py that it begins with, and `start` is told them.
2. `ask` gives genes that `budget.repair` has put on the target.
3. `tell` takes scores, of survivors too: the projector moves, and old scores go stale.
4. Draw only from the seed: a resumed search tells the same scores and must ask the same genes.
5. `make test`: tests/contracts/ finds the file and replays it.
"""
