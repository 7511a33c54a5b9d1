"""Tasks: what a model can do, by questions out of a dataset's own files, one file each.

To add one:
1. Write slimsearch/tasks/<name>.py with one class derived from contracts.Task (JudgedTask where
   another model grades the answers). What it can be told are fields of a dataclass.
2. `questions(data, words)` reads the official files; official.py finds them, or says what is
   missing.
3. `mark(question, answer)` gives addends by name, and `figures(sums)` what papers print of their
   sums; sums are numbers, or arrays over resamples. `read` says what counts of an answer.
4. Write its official form, small, in tests/official.py; `slimsearch eval --task <name>` has it.
5. `make test`: tests/contracts/ finds the file and tries it.

`measure` is another door: perplexity and pairs are measured on what a run keeps back, in its table.
"""
