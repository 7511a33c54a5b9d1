"""How long a decoder takes in DeepSparse, foretold: `table` adds up the times of matrices by shape
and sparsity, `stopwatch` measures them, once for a machine, an engine and a decoder's shape.
"""
