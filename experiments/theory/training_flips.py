"""Sign changes of weights in real runs of the suite, counted from epoch to epoch."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from torch import Tensor

from experiments.config.resolve import Spec, load, resolve
from experiments.config.schema import Section
from experiments.ranks.distributed import ALONE
from experiments.run.final import carry_out
from experiments.run.numerics import switches
from experiments.run.training import Training
from experiments.rundir import attempts


class RunsSettings(Section):
    """`config` with `overrides`, then those of a row, once for each seed; an override is ``KEY=VALUE``."""

    config: str
    overrides: list[str]
    rows: dict[str, list[str]]
    seeds: list[int]


class Kept(NamedTuple):
    """The weights at the end of an epoch, and which of them exist."""

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]


def specs(settings: RunsSettings) -> list[tuple[str, Spec]]:
    """All runs, by row and then seed.

    Raises:
        UserError: for an override that is not allowed.
    """
    return [
        (row, resolve(load(settings.config, [*settings.overrides, *overrides, f"seed={seed}"])))
        for row, overrides in settings.rows.items()
        for seed in settings.seeds
    ]


def count(spec: Spec) -> dict[str, Any]:
    """Train once, in a folder that is then removed.

    Returns:
        ``flips``: for each epoch the share of weights with another sign than an epoch before (in the first: than at
        the start), of those that exist at both ends of the epoch; ``accuracy`` on the test part.
    """
    with TemporaryDirectory() as folder:
        return _Watched(spec, Path(folder)).carry_out()


class _Watched:
    """A training with a look at its weights after each epoch."""

    def __init__(self, spec: Spec, folder: Path):
        self._spec = spec
        self._folder = folder
        self._flips: list[float] = []

    def carry_out(self) -> dict[str, Any]:
        with switches(self._spec.runtime):
            held = attempts.claim(self._folder)
            with attempts.ending(held.end):
                self._training = Training(self._spec, held, "", "", self._look, lambda: False, ALONE)
                self._last = self._keep()
                result = carry_out(self._training)
        return {"flips": self._flips, "accuracy": result["accuracy"]}

    def _look(self, done: int, total: int) -> None:
        if done % self._training.objects.data.steps_per_epoch == 0:
            now = self._keep()
            self._flips.append(flips(self._last, now))
            self._last = now

    def _keep(self) -> Kept:
        sparse = self._training.objects.sparse
        return Kept({name: sparse.weight(name).clone() for name in sparse.masks}, dict(sparse.masks))


def flips(before: Kept, now: Kept) -> float:
    """Share of weights whose sign is another one, of those that exist both times; a zero has no sign."""
    changed = common = 0
    for name, weight in now.weights.items():
        both = before.masks[name] & now.masks[name]
        changed += int((both & (before.weights[name].sign() * weight.sign() < 0)).sum())
        common += int(both.sum())
    return changed / common
