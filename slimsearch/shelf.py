"""Finds a policy or a calibration recipe by name or path.

Looked up in this order: a path, ./policies/ (or ./calibration/) where the user stands, the shelf
that the installed package carries, the folder beside the package in a checkout.
"""

from pathlib import Path

from slimsearch import files
from slimsearch.errors import InputError, did_you_mean

PACKAGE = Path(__file__).parent


def find(kind: str, name: str) -> Path:
    """The TOML file that `name` stands for; `kind` is 'policies' or 'calibration'."""
    given = Path(name).expanduser()
    if given.suffix == ".toml" or len(given.parts) > 1:
        if given.is_file():
            return given
        raise InputError(
            f"There is no file {given}. Give an existing path or a name: {', '.join(names(kind))}."
        )
    for shelf in _shelves(kind):
        found = shelf / f"{name}.toml"
        if found.is_file():
            return found
    raise InputError(f"There is no '{name}' in {kind}/.{did_you_mean(name, names(kind))}")


def names(kind: str) -> list[str]:
    """Every name on every shelf of this kind."""
    return sorted({file.stem for shelf in _shelves(kind) for file in shelf.glob("*.toml")})


def about(kind: str, name: str) -> str:
    """What a file says of itself in its `about`."""
    try:
        return str(files.read_toml(find(kind, name)).get("about", ""))
    except (OSError, ValueError):
        return "cannot be read"


def _shelves(kind: str) -> list[Path]:
    return [Path.cwd() / kind, PACKAGE / "shelf_data" / kind, PACKAGE.parent / kind]
