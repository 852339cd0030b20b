"""Sign changes of weights per epoch, counted in real runs of the suite."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from torch import Tensor

from experiments.config.identity import identity_with_data
from experiments.config.resolve import load, resolve
from experiments.config.schema import Section, Spec
from experiments.ranks.distributed import ALONE
from experiments.run.final import carry_out
from experiments.run.numerics import switches
from experiments.run.training import Training
from experiments.rundir import attempts


class RunsSettings(Section):
    """Settings of the runs: `config` with `overrides` and then those of a row, once per seed.

    An override is ``KEY=VALUE``.
    """

    config: str
    overrides: list[str]
    rows: dict[str, list[str]]
    seeds: list[int]


class Kept(NamedTuple):
    """The weights at the end of an epoch, and the masks of active weights."""

    weights: dict[str, Tensor]
    masks: dict[str, Tensor]


def specs(settings: RunsSettings) -> list[tuple[str, Spec]]:
    """Return the specifications of all runs, by row and then by seed.

    Raises:
        UserError: for an override that is not allowed.
    """
    return [
        (row, resolve(load(settings.config, [*settings.overrides, *overrides, f"seed={seed}"])))
        for row, overrides in settings.rows.items()
        for seed in settings.seeds
    ]


def count(spec: Spec) -> dict[str, Any]:
    """Train once, in a temporary folder.

    Returns:
        ``flips``: per epoch, the fraction of weights whose sign differs between the start and the end of the epoch,
        among those active at both; ``accuracy``: on the test part.
    """
    with TemporaryDirectory() as folder:
        return _Watched(spec, Path(folder)).carry_out()


class _Watched:
    """A training that counts the sign changes of its weights after each epoch."""

    def __init__(self, spec: Spec, folder: Path):
        self._spec = spec
        self._folder = folder
        self._flips: list[float] = []

    def carry_out(self) -> dict[str, Any]:
        with switches(self._spec.runtime):
            held = attempts.claim(self._folder)
            with attempts.held(held):
                hashed = identity_with_data(self._spec)
                self._training = Training(self._spec, held, hashed, self._look, lambda: False, ALONE)
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
    """Return the fraction of weights whose sign has changed, among those active both times; a zero has no sign."""
    changed = common = 0
    for name, weight in now.weights.items():
        both = before.masks[name] & now.masks[name]
        changed += int((both & (before.weights[name].sign() * weight.sign() < 0)).sum())
        common += int(both.sum())
    return changed / common
