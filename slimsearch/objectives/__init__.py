"""Objective terms: numbers that a candidate is scored by, one file each; lower is better.

To add one:
1. Write slimsearch/objectives/<name>.py with one class derived from contracts.Term.
2. `measure(vlm, calibrated)` looks at the model as it stands and returns a float.
3. Set `needs_pairs` if it reads pictures: it is then measured again when the projector moves.
   Set `is_cost` if it falls as more is removed: a front over it then leaves the ratio free.
4. Use it: `--objective 'text_loss + 2*<name>'`; a preset goes into searching/objective.py.
5. `make test`: tests/contracts/ finds the file and tries it.
"""
