"""Everything slimsearch can refuse or fail at, one tree:

SlimsearchError            exit 1   our own fault if it surfaces bare
├── SettingsError          exit 2   what was asked for cannot be (a ratio of 1.2, an unknown key)
├── InputError             exit 3   what was given cannot be read or used
│   ├── CalibrationError            a text, picture or recipe file
│   ├── ModelError                  a model folder
│   ├── LengthError                 a prompt that the model cannot read whole
│   ├── TaskError                   a task's data, or answers to it
│   ├── PolicyError                 a policy or space file, an impossible target
│   └── SolverError                 a matrix that cannot be solved; a finalist scores infinity
├── RunError               exit 4   a run folder is locked, damaged or of another search
└── ResourceError          exit 5   disk, memory or every candidate gone; the run can be resumed
    └── EngineError                 an engine that runs exports is missing, refused or has died

Stopped                    exit 130 or 143   Ctrl-C or SIGTERM; the run can be resumed

A message says what was asked, what was found, and what to do; it names the file and the key.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class SlimsearchError(Exception):
    exit_code = 1


class SettingsError(SlimsearchError):
    exit_code = 2


class InputError(SlimsearchError):
    exit_code = 3


class CalibrationError(InputError):
    pass


class ModelError(InputError):
    pass


class LengthError(InputError):
    pass


class TaskError(InputError):
    pass


class PolicyError(InputError):
    pass


class RunError(SlimsearchError):
    exit_code = 4


class ResourceError(SlimsearchError):
    exit_code = 5


class EngineError(ResourceError):
    pass


class SolverError(InputError):
    """Nothing was calibrated on a matrix, or its numbers are not finite."""


class Stopped(BaseException):
    """Raised by a signal, past every `except Exception`; `exit_code` is 128 plus its number."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch on a GPU or torch's allocator for a CPU ran out of memory."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'sparsegpt'? Known: a, b.' for the end of a message."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(names)}."
