"""Solvers choose which weights of one matrix go, and may mend those that stay.

Adding one, in five steps:
1. A new file here; its name is the solver's name in settings, its first line what `--help` shows.
2. One frozen dataclass derived from `contracts.Solver`; its fields are names of settings.
3. `prune` returns one `Pruned` for each level: float32 weights with exactly round(level * size)
   zeros (level 0: the weights as they came), and half tr(dW H dW^T) as the error.
4. `masks` picks the lowest scores exactly; `hessian.half_trace` measures a change.
5. Run tests/solvers: every file here is found and held against the contract.
"""
