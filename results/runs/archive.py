"""A sweep in one file, without its weights, to lie beside a paper: written the same each time, read with suspicion."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zipfile
import zlib
from functools import cache
from pathlib import Path, PurePosixPath

from experiments.errors import UserError
from experiments.rundir import names
from experiments.rundir.files import atomic
from experiments.rundir.reading import MOST_BYTES, Unreadable, read_regular

from .schema import SweepResults

SUFFIX = ".ham.zip"
KEPT = (
    *(names.SPEC, names.ENVIRONMENT, names.METRICS, names.RESULT, names.FAILURE, names.LEDGER),
    *(names.LOG, names.PREDICTIONS),
)
MOST_FILES, MOST_TOTAL = 200_000, 20 * MOST_BYTES
_NO_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, FileExistsError, NotADirectoryError, IsADirectoryError),  # names that are none, or of two kinds
)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time of a zip file


def write(sweep: SweepResults, path: Path) -> int:
    """Write a sweep's manifest and what its runs left except weights and checkpoints; return the number of files.

    Equal files give equal bytes, whenever and wherever they are archived (with one version of zlib).

    Raises:
        UserError: if a file of a run cannot be read.
    """
    files = [Path(names.MANIFEST)] if (sweep.directory / names.MANIFEST).is_file() else []
    folders = sorted({run.path.relative_to(sweep.directory) for run in sweep.runs})
    files += [folder / name for folder in folders for name in KEPT if (sweep.directory / folder / name).is_file()]
    with atomic(path) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in files:
            head = zipfile.ZipInfo(name.as_posix(), _EPOCH)
            head.external_attr, head.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
            try:
                archive.writestr(head, read_regular(sweep.directory / name))
            except (Unreadable, FileNotFoundError) as error:
                raise UserError(f"cannot be archived: {error}", where=str(sweep.directory / name)) from error
    return len(files)


@cache
def unpacked(path: Path) -> Path:
    """Unpack an archive into a temporary folder of this process, which is removed at its end.

    Raises:
        UserError: if it is no archive, or holds what `write` cannot have written: other names, links, too much.
    """
    home = Path(tempfile.mkdtemp(prefix="ham-archive-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    folder = home / path.name.removesuffix(SUFFIX).removesuffix(".zip")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check(members)
            for member in members:
                target = folder / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)
    except _NO_ARCHIVE as error:
        shutil.rmtree(home, ignore_errors=True)
        raise UserError(f"is no archive of `ham archive`: {error}", where=str(path)) from error
    return folder


def _check(members: list[zipfile.ZipInfo]) -> None:
    """Refuse by names and sizes, before anything is written; zipfile itself reads no more than a size stated."""
    if len(members) > MOST_FILES or sum(member.file_size for member in members) > MOST_TOTAL:
        raise Unreadable(f"it holds more than {MOST_FILES:,} files or {MOST_TOTAL:,} bytes")
    seen = set()
    for member in members:
        parts = PurePosixPath(member.filename).parts
        allowed = parts == (names.MANIFEST,) or (len(parts) == 2 and parts[1] in KEPT) or parts[0:] in _SINGLE
        plain = not {".", "..", ""} & set(member.filename.split("/")) and "\\" not in member.filename
        if not allowed or not plain or not member.filename.isprintable():
            raise Unreadable(f"it holds {member.filename!r}, which is no file of a run")
        if member.external_attr >> 16 & 0o170000 not in (0, 0o100000):
            raise Unreadable(f"{member.filename} is no regular file")
        if member.file_size > MOST_BYTES:
            raise Unreadable(f"{member.filename} has {member.file_size:,} bytes, and at most {MOST_BYTES:,} are read")
        if member.filename in seen:
            raise Unreadable(f"it holds {member.filename} twice")
        seen.add(member.filename)


_SINGLE = tuple((name,) for name in KEPT)  # the files of a single run's folder
