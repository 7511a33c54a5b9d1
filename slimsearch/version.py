"""The version, where both the package and its build can read it, and those of what it rests on."""

import platform

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Of everything whose change may change a number."""
    import torch
    import transformers

    return {
        "slimsearch": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
