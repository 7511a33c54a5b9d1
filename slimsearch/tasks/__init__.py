"""Tasks: what a model can do, measured on data that was not calibrated on, one file each.

To add one:
1. Write slimsearch/tasks/<name>.py with one class derived from contracts.Task.
2. `measure(vlm, held_out)` returns figures by name; an empty dict where there is no such data.
3. Name a new figure in display.FIGURES to see it in tables.
4. Add the task to assembly.TASKS if every run should show it.
5. `make test`: tests/contracts/ finds the file and tries it.
"""
