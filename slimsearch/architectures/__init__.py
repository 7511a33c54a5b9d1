"""Architectures: what is particular to a family of models, one file for each model_type.

To add one:
1. Find `model_type` in the model's config.json; the file is slimsearch/architectures/<that>.py.
2. Derive from contracts.Architecture. Name the matrices of a decoder block in `stages`: those that
   share an input together, in the order they run (_blocks.py has the usual ones); None where
   `text_config` names a language model that has a file here.
3. For a model that sees, say in `projectors` what stands between vision tower and decoder, and in
   `marks` which further inputs with a number for each token its processor makes.
4. Add a tiny random model of it to tests/tiny_families.py.
5. `make test`: it is pruned, searched, saved and loaded again, and README's table says so.
"""
