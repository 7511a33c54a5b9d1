"""Every socket of slimsearch on one page. A plug-in derives from one of these, nothing else.

searching    Family, Solver, Architecture, Term, Strategy, Executor
running      Exporter, Runtime and its Session
asking       Task with its Question and Examinee

A plug-in that has choices is a dataclass whose field names are names of settings; `assembly` fills
them in. Types are in modules of their names; Gene is in policy.py, Score in record/candidate.py.
"""

from slimsearch.contracts.asking import Examinee, JudgedTask, Question, Task, Words
from slimsearch.contracts.running import Exporter, Runtime, Session
from slimsearch.contracts.searching import (
    Architecture,
    Edits,
    Executor,
    Family,
    Pruned,
    Solver,
    Strategy,
    Term,
)

__all__ = [
    "OF_KIND", "Architecture", "Edits", "Examinee", "Executor", "Exporter", "Family", "JudgedTask",
    "Pruned", "Question", "Runtime", "Session", "Solver", "Strategy", "Task", "Term", "Words",
]  # fmt: skip

OF_KIND: dict[str, type] = {
    "families": Family, "solvers": Solver, "architectures": Architecture, "objectives": Term,
    "strategies": Strategy, "executors": Executor, "exporters": Exporter, "runtimes": Runtime,
    "tasks": Task,
}  # fmt: skip
