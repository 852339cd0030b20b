"""The files of a sweep: what its manifest and the records of its submissions can hold."""

from __future__ import annotations

import unicodedata
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def one_line(text: str) -> str:
    """Return a text in one line, without what steers a terminal, turns the direction of writing, or is no text."""
    text = text.encode(errors="replace").decode()  # names of files may be any bytes
    kept = (" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text)
    return " ".join("".join(char for char in kept if unicodedata.bidirectional(char) not in _TURNING).split())


_TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def _inside(path: str) -> str:
    if PurePath(path).is_absolute() or ".." in PurePath(path).parts or not path:
        raise ValueError(f"{path!r} is not a folder inside the sweep's")
    return path


Inside = Annotated[str, AfterValidator(_inside)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Scalar = bool | int | float | str | None


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class ManifestCell(_Record):
    """One run's place in the table."""

    row: str
    column: dict[str, Scalar] = {}
    seed: Annotated[int, Field(ge=0)]
    identity: str = ""
    path: Inside


class Unsolved(_Record):
    """A setting without a run, since no threshold decay is known for it."""

    row: str
    column: dict[str, Scalar] = {}


class Tunes(_Record):
    """What a tuning stage chooses: settings by the part `on`, for each row and value of `columns`."""

    columns: list[str]
    on: Literal["validation", "test"]
    unsolved: list[Unsolved] = []


class Manifest(_Record):
    """The content of ``sweep.json``."""

    name: str | None = None
    title: str | None = None
    column_keys: list[str] = []
    baselines: dict[str, str] = {}
    tuning_cells: Annotated[int, Field(ge=1)] | None = None
    notes: str | None = None
    overrides: list[str] = []
    tuning: dict[str, Any] | None = None
    tunes: Tunes | None = None
    cells: list[ManifestCell]
    specs: dict[str, dict[str, Any]] = {}


class EpochLine(_Record):
    """What a curve takes of an epoch's line in ``metrics.jsonl``."""

    epoch: Annotated[int, Field(ge=1, le=10**7)]
    validation_accuracy: Fraction | None = None
    sign_flips_initial: Fraction | None = None
    overlap_initial: Fraction | None = None


class SubmittedArray(_Record):
    """One job array of a submission: its name, its number once it is known, and the runs of each task.

    `width` of its jobs may run at once (None: all); with `waits`, they begin after those of other arrays.
    """

    name: str
    job: str | int | None = None
    width: Annotated[int, Field(ge=1)] | None = None
    waits: bool = False
    tasks: list[list[Inside]]


class KeptRun(_Record):
    """One run of a submission, with its specification as ``spec.yaml`` has it."""

    row: str
    column: dict[str, Scalar]
    identity: str
    path: Inside
    spec: dict[str, Any]


class KeptRuns(_Record):
    """The content of ``submissions/<id>/runs.json``: runs, and the folders of the user's own modules."""

    folders: list[str]
    runs: list[KeptRun]


class Submission(_Record):
    """The content of ``submissions/<id>.json``."""

    id: Inside
    time: Annotated[float, Field(ge=0)]
    snapshot: str | None = None
    arrays: list[SubmittedArray]


class Cancellation(_Record):
    """The content of ``submissions/cancelled/<time>-<id>.json``: when, which jobs, and the runs of these jobs."""

    time: Annotated[float, Field(ge=0)]
    jobs: list[str]
    runs: list[Inside]
