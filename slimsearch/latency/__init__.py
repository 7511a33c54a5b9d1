"""How long a decoder takes in an engine, foretold: `table` adds up the times of matrices by shape
and sparsity; `stopwatch` measures them by the engine's clock (`deepsparse`, `native`), once for a
machine, an engine and a decoder's shape.
"""
