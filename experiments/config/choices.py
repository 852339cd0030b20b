"""The settings that a tuning chose, in files: ``NAME.tuning.yaml`` beside a configuration, and in the tuning's folder.

Each entry is one row in one column. Its identity is a hash of all that it was chosen among, so that no choice is used
for a configuration that has changed. Loads no torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from experiments.errors import UserError
from experiments.rundir.files import write_text

from .files import SUFFIX, TUNING
from .problems import Problem, complain, validate
from .schema import Line, Positive, Section, Text
from .yaml_text import Located, dump, read_yaml, shown

Scalar = bool | int | float | str | None
Setting = dict[str, Scalar]
Fraction = Annotated[float, Field(ge=0, le=1)]
_HEAD = """\
# The best setting of each row, by mean accuracy on the part `on`, chosen by `ham tune`. An entry is used as long as
# row, grid, the tuning's seeds and data are those of its identity; `recorded: false`: the accuracies were not kept.
"""


class Rival(Section):
    """The second best setting, and its mean accuracy."""

    chosen: Setting
    accuracy: Fraction


class Choice(Section):
    """The setting chosen for a row in a column.

    Attributes:
        identity: Hash of the runs it was chosen from.
        tried: Key to the values tried, in all combinations.
        data: Hash of the data's content, None if it was not known.
        recorded: Whether the accuracies behind the choice were kept.
        accuracy: Mean over the tuning's seeds, as a fraction.
        error_seeds: Standard error of that mean over seeds; None for one seed.
        error_images: Binomial standard error of an accuracy on that many images.
        images: Images evaluated.
        second: The second best setting.
        close: Settings that the larger standard error does not tell from the best.
        lost: Settings that failed, missed the target sparsity, or found no threshold decay.
        threshold_decay: The calibrated decay with which the setting was tried.
    """

    identity: Text
    row: Line
    column: Setting = {}
    chosen: Annotated[Setting, Field(min_length=1)]
    tried: Annotated[dict[str, Annotated[list[Scalar], Field(min_length=1)]], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    on: Literal["validation", "test"]
    data: Text | None = None
    recorded: bool = True
    accuracy: Fraction | None = None
    error_seeds: Fraction | None = None
    error_images: Fraction | None = None
    images: Positive | None = None
    second: Rival | None = None
    close: Annotated[int, Field(ge=0)] = 0
    lost: Annotated[int, Field(ge=0)] = 0
    threshold_decay: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.chosen not in combinations(self.tried):
            raise ValueError("chosen is not one of the combinations of tried")
        if self.recorded != (self.accuracy is not None):
            raise ValueError("accuracy belongs to what was recorded, and to nothing else")
        return self

    @property
    def settings(self) -> int:
        """How many settings were tried."""
        return math.prod(map(len, self.tried.values()))

    @property
    def edges(self) -> dict[str, str]:
        """Keys whose chosen value lies at an end of those tried, with which: ``smallest`` or ``largest``."""
        found = {key: edge(self.tried[key], value) for key, value in self.chosen.items()}
        return {key: end for key, end in found.items() if end}

    @property
    def undecided(self) -> bool:
        """Whether the second best setting lies within the standard error."""
        return self.close > 0


@dataclass(frozen=True)
class Choices:
    """Choices by identity; of those of one identity the first counts."""

    found: Mapping[str, Choice]

    def of(self, identity: str, data: str | None) -> Choice | None:
        """Return the choice of an identity, unless it was made on data of another content."""
        choice = self.found.get(identity)
        other = choice is not None and None not in (choice.data, data) and choice.data != data
        return None if other else choice

    def names(self, row: str, column: Setting) -> bool:
        """Return whether there is a choice for a row in a column, whatever its identity."""
        return any(choice.row == row and choice.column == column for choice in self.found.values())


def combinations(tried: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Return all combinations of the values tried, in order; none without keys."""
    return [dict(zip(tried, values, strict=True)) for values in itertools.product(*tried.values())] if tried else []


def edge(tried: Iterable[Any], value: Any) -> Literal["", "smallest", "largest"]:
    """Say at which end of three numbers or more a number lies; what has no order, such as null, has no end."""
    values = sorted({number for number in tried if _ordered(number)})
    if len(values) < 3 or not _ordered(value):
        return ""
    return "smallest" if value == values[0] else "largest" if value == values[-1] else ""


def _ordered(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def choices_path(config: Path) -> Path:
    """Return the file of choices of a configuration: ``NAME.tuning.yaml`` beside it."""
    return config.with_name(f"{config.stem}{TUNING}{SUFFIX}")


def stored_paths(files: Sequence[Path]) -> list[Path]:
    """Return the files of choices beside a configuration's own file and those it extends, its own first."""
    return [choices_path(file) for file in reversed(files)]


def read_choices(paths: Iterable[Path]) -> Choices:
    """Read files of choices, those that exist, the most important first.

    Raises:
        UserError: if a file is not a list of choices.
    """
    found: dict[str, Choice] = {}
    for path in paths:
        entries = read_yaml(path) if path.exists() else []
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, Located):
                raise UserError("must be a list of mappings, as `ham tune` writes it", shown(path))
            choice, problems = validate(Choice, entry)
            if choice is None:
                # what is wrong with an entry as a whole is said of its first key
                raise complain([Problem(one.path or tuple(entry)[:1], one.text) for one in problems], entry)
            found.setdefault(choice.identity, choice)
    return Choices(found)


def store(path: Path, new: Iterable[Choice]) -> None:
    """Add choices to a file; they replace those of the same identity."""
    entries = {choice.identity: choice for choice in [*read_choices([path]).found.values(), *new]}
    write_text(path, _HEAD + dump([choice.model_dump(exclude_defaults=True) for choice in entries.values()]))
