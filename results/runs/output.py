"""Where commands write what they make of results, and what they say if they cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import UserError, way_out


def place_for(directory: str | Path, name: str, suffix: str) -> Path:
    """Return where something is written unless another place is asked for.

    Args:
        directory: What results are read from.
        name: Its name in a folder.
        suffix: What takes the place of ``.zip``, beside an archive: its own folder is gone when the command ends.
    """
    directory = Path(directory)
    return directory.with_suffix(suffix) if directory.is_file() else directory.resolve() / name


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn an error of the system within the block into one that says what could not be written, and where.

    Raises:
        UserError: in place of it.
    """
    try:
        yield
    except OSError as error:
        text = f"{what} cannot be written: {error.strerror or error}{way_out(error)}"
        raise UserError(text, where=str(path)) from error
