"""Our own CPU engine: a decoder of sparse matrices, read from memory as they lie on disk.

`kernel/` is a small C library of `sources`, `library` loads and calls it, `parts` says which
tensors an export holds and how a matrix is packed, `form` writes and checks the files, `mapped` is
a decoder as it lies in them, `cache` what it remembers, `session` a model in the engine, `eyes` the
picture side in torch, `unpack` makes a model folder of it.
"""
