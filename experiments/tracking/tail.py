"""The lines of a file that grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.rundir.reading import Unreadable, parse_json


class Tail:
    """Reads whole lines of JSON as they come.

    Attributes:
        count: Lines read so far.
    """

    def __init__(self, path: Path):
        self._path, self._at, self.count = path, 0, 0

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the lines that have come since the last call, with their number from 0; none if there is no file.

        Raises:
            Unreadable: with the number of a line that is no JSON object.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                lines = file.read().split(b"\n")[:-1]  # what follows the last end of a line is being written
        except FileNotFoundError:
            return
        for line in lines:
            try:
                found = parse_json(line)
            except Unreadable as error:
                raise Unreadable(f"{self._path}, line {self.count + 1}: {error}") from None
            if not isinstance(found, dict):
                raise Unreadable(f"{self._path}, line {self.count + 1}: is no object")
            self._at += len(line) + 1
            self.count += 1
            yield self.count - 1, found
