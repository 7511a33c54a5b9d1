"""DeepSparse as a guest: an ended engine in a process of its own, so that its crashes, its prints,
its telemetry and its old Python stay there. `host.py` is our end of the pipes, `inside.py` theirs.
"""

LICENCE = (
    "DeepSparse 1.8.0 is licensed for evaluation, not for production, and its makers ended it in "
    "June 2025."
)
