"""slimsearch searches for the best way to prune a vision-language model.

from slimsearch import Settings, search
result = search(Settings(ratio=0.5))
"""

from typing import TYPE_CHECKING, Any

from slimsearch import privacy
from slimsearch.version import __version__

privacy.silence()

if TYPE_CHECKING:
    from slimsearch.api.runs import Result, resume, search
    from slimsearch.settings import Settings

__all__ = ["Result", "Settings", "__version__", "resume", "search"]


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `import slimsearch` and `slimsearch --help` stay instant."""
    if name == "Settings":
        from slimsearch.settings import Settings

        return Settings
    if name in __all__:
        from slimsearch.api import runs

        return getattr(runs, name)
    raise AttributeError(f"module 'slimsearch' has no attribute '{name}'")
