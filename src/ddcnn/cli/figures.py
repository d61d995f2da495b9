"""Write a figure to a file that the user names, and replace none but those that the same command drew."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ddcnn.errors import DdcnnError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KEYS = {".png": "Software", ".svg": "Creator", ".pdf": "Creator"}  # under which a file says what made it
_MOST = 2**26  # bytes that are searched for it


def check_figure(path: Path, option: str, made_by: str, error: type[DdcnnError]) -> None:
    """Raise an error if a figure cannot be written to a file, or something else would be lost."""
    if path.suffix.lower() not in _KEYS:
        raise error(f"{option} {path} should end in {', '.join(_KEYS)}")
    if not path.parent.is_dir():
        raise error(f"{path.parent} is not a folder; make it, or choose another {option}")
    if path.exists() and not _is_made_by(path, made_by):
        raise error(f"{path} exists and was not drawn by {made_by}; choose another {option}")


def write_figure(figure: Figure, path: Path, made_by: str, error: type[DdcnnError]) -> None:
    """Write a figure as the ending of the file says, whole or not at all."""
    from ddcnn.atomic import advice, write_atomic

    file, form = io.BytesIO(), path.suffix.lower()
    figure.savefig(file, format=form[1:], dpi=150, metadata={_KEYS[form]: made_by})
    try:
        write_atomic(path, file.getvalue())
    except OSError as reason:
        raise error(f"{path} cannot be written: {advice(reason)}") from None


def _is_made_by(path: Path, made_by: str) -> bool:
    from ddcnn.data.files import open_regular

    try:
        with open_regular(path) as file:
            return made_by.encode() in file.read(_MOST)
    except OSError:
        return False
