"""How the settings of a table's rows were chosen, as its manifest says it. Loaded by tables alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from experiments.config.choices import Choice
from experiments.errors import UserError
from experiments.rundir import names, reading
from experiments.rundir.reading import Unreadable

from .kinds import Scalar
from .schema import SweepResults


class TuningRecord(BaseModel):
    """The choices of a table: by the part `on`, over `seeds`; `at` are columns that stand for all of their key."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    on: Literal["validation", "test"]
    seeds: list[Annotated[int, Field(ge=0)]]
    at: dict[str, Scalar] = {}
    choices: list[Choice]
    untuned: list[str] = []


def tuning_of(sweep: SweepResults) -> TuningRecord | None:
    """Return how a sweep's rows were tuned, or None if its manifest says nothing of it.

    Raises:
        UserError: if that part of the manifest is damaged.
    """
    if sweep.tuning is None:
        return None
    try:
        return reading.typed(TuningRecord, dict(sweep.tuning))
    except Unreadable as error:
        text = f"damaged manifest: tuning: {error}; run `ham sweep` again to rewrite it"
        raise UserError(text, where=str(sweep.directory / names.MANIFEST)) from error
