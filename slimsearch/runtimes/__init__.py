"""Runtimes: engines that run an exported model, one file each.

To add one:
1. Write slimsearch/runtimes/<name>.py with a class derived from contracts.Runtime.
2. `open(folder)` gives a contracts.Session: prefill, decode, text, end.
3. Import the engine inside, so that its absence costs only those who ask for it.
4. Say in machine.py what its absence costs and how to get it.
5. `make test`: tests/contracts/ compares its greedy tokens with transformers'.
"""
