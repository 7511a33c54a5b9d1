"""Exporters: forms that a pruned model is written in, one file each.

To add one:
1. Write slimsearch/exporters/<name>.py with one class derived from contracts.Exporter.
2. Write into files.new_folder: the whole artefact appears at once, or nothing does.
3. Keep zeros exact; take tensors one by one where the form allows it.
4. Refuse what the form cannot hold, and say why.
5. `make test`: tests/contracts/ finds the file and tries it on tiny models.
"""
