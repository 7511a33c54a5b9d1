"""Families: kinds of removal, one file each. A policy file has one table for each.

To add one:
1. Write slimsearch/families/<name>.py with one class derived from contracts.Family.
2. `genes` turns the table's lines into choices, `edits` turns chosen numbers into edits.
3. `apply` puts edits on the model, touching only what differs; `restore` takes them all off.
4. Ship a space that uses it: policies/<name>.toml with a table [<name>].
5. `make test`: tests/contracts/ finds the file and tries it.
"""
