"""Exporters: forms that a pruned model is written in, one file each.

To add one:
1. Write slimsearch/exporters/<name>.py with one class derived from contracts.Exporter.
2. `fill` writes into <folder>/<name>/ of an export that is being made; artefact.py does the rest,
   and what goes wrong on the way leaves nothing behind.
3. Keep zeros exact; take tensors one by one where the form allows it. Graphs come from graphs/.
4. Refuse what the form cannot hold, and say why; choices are fields, named as in exporting.Choices.
5. `make test`: tests/contracts/ finds the file and tries it on tiny models.
"""
