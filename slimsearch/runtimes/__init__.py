"""Runtimes: engines that run an exported model, one file each.

To add one:
1. Write slimsearch/runtimes/<name>.py with a class derived from contracts.Runtime.
2. `forms` names the exporters whose files it reads; `absent` says why the engine is not here.
3. `open(folder)` gives a contracts.Session: see, embed, step, forget. The loop around it, chat
   templates, padding and text are there already (model/decoding.py, api/generating.py).
4. Import the engine inside, so that its absence costs only those who ask for it; nothing may use
   the network. Say in machine.py what its absence costs and how to get it.
5. `make test`: tests/contracts/ compares its greedy tokens with transformers'.
"""
