"""Architectures: where a model keeps its parts, one file for each model_type.

To add one:
1. Find `model_type` in the model's config.json; the file is slimsearch/architectures/<that>.py.
2. Derive from contracts.Architecture: module paths of decoder, vision tower and projector.
3. Name the matrices in `stages`: those that share an input together, in the order they run.
4. List in `renamed` how keys on disk begin where transformers now calls them otherwise.
5. Add a tiny random model of it to tests/tiny.py and run `make test`.
"""
