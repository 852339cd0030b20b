"""The tuning of a configuration as the commands use it: what is chosen, what is left to do, and how it is done.

Imports inside the functions load torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import RunFailure

from . import planned
from .loading import check_cells_here, chooser, content_hash, tuning_folder

if TYPE_CHECKING:
    from experiments.config.choices import Choice
    from experiments.config.resolve import Loaded
    from experiments.config.stage import Stage, TunedPlace
    from experiments.config.sweep import Sweep
    from results.numbers.best import Ranking


@dataclass
class TuningFolder:
    """The tuning stage of a configuration and its folder."""

    loaded: Loaded
    out: Path
    folder: Path
    stage: Stage = field(init=False)

    @classmethod
    def of(cls, loaded: Loaded, out: Path) -> TuningFolder | None:
        """Return the tuning of a configuration, or None if it has none."""
        folder = tuning_folder(loaded, out)
        if folder is None:
            return None
        tuning = cls(loaded, out, folder)
        tuning.reload()
        return tuning

    def reload(self) -> None:
        """Look again at what is chosen and calibrated."""
        from experiments.config.stage import known_decays, stage
        from experiments.rundir import names

        decays = known_decays(self.loaded.files, self.folder / names.DECAYS)
        found = stage(self.loaded, chooser(self.loaded, self.out), decays, content_hash)
        assert found is not None, "the folder is that of a tuning"
        self.stage = found

    def check(self) -> None:
        """Make sure that each run of both stages can be carried out, before anything starts."""
        from experiments.config.grid import at
        from experiments.config.resolve import with_threshold_decay
        from experiments.config.stage import wants_decay
        from experiments.config.sweep import expand
        from experiments.config.tuning import first
        from experiments.run.check import check_all

        table = expand(self.loaded, calibrate=False, choose=first)
        cells = [*self.stage.cells, *self.stage.unsolved, *table.runs]
        check_all(
            # any decay will do: it changes no shape
            (
                f"{self.loaded.config}: row {cell.row!r}{at(cell.column)}",
                with_threshold_decay(cell.spec, 0.0) if wants_decay(cell.spec) else cell.spec,
            )
            for cell in cells
        )

    def runs_of_table(self) -> int:
        """Count the runs of the table that the settings are chosen for."""
        from experiments.config.sweep import expand
        from experiments.config.tuning import first

        return len(expand(self.loaded, calibrate=False, choose=first).runs)

    def say_stale(self, places: Sequence[TunedPlace]) -> None:
        """Name the rows whose choice was made under another configuration, so that it is not used."""
        from experiments.config.choices import read_choices, stored_paths
        from experiments.rundir import names

        choices = read_choices([*stored_paths(self.loaded.files), self.folder / names.CHOICES])
        stale = [str(place) for place in places if choices.names(place.row, place.column)]
        if stale:
            some = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more" if len(stale) > 3 else "")
            text = "was made with another row, grid, seeds or data, and is not used: it is tuned anew"
            print(f"the stored choice for {some} {text} (sweep.tuning=null trains rows as they stand)", file=sys.stderr)

    def say_lost(self, places: Sequence[TunedPlace]) -> None:
        """Say what the tuning's folder will no longer show.

        Raises:
            UserError: if it shows the tuning of another configuration, or of this one with other settings.
        """
        from experiments.launch import table
        from experiments.launch.tune import kept

        if (lost := table.check(kept(self.stage, places, self.folder), self.folder)) is not None:
            print(lost, file=sys.stderr)

    def say_plan(self, places: Sequence[TunedPlace], again: bool = False, *, as_json: bool = False) -> None:
        """Print the runs that are left to do."""
        from experiments.launch import tune as stages

        sweep = stages.kept(self.stage, places, self.folder)
        todo = stages.pending(sweep, self.stage.of(places), self.folder, again=again)
        if as_json:
            print(planned.as_json("tuning", self.folder, sweep.runs, set(todo), {}))
            return
        searches = len(stages.unsolved(self.stage, places))
        for path in todo:
            print(self.folder / path)
        settings = sum(len(self.stage.tuning.specs(place.row, place.column)) for place in places)
        more = f"; {searches} settings have their threshold decay searched for first" if searches else ""
        print(f"{len(todo)} runs to do, to tune {len(places)} rows and columns: {settings} settings in all{more}")

    def carry_out(self, places: Sequence[TunedPlace], jobs: int | None, again: bool = False) -> None:
        """Train the settings of some places on this machine, as far as that is not done."""
        from experiments.cores import usable_cores
        from experiments.launch import tune as stages

        from .terminal import shown

        self.check()
        check_cells_here(self.loaded.config, self.stage.of(places))
        self.say_lost(places)
        workers = jobs or usable_cores()
        with shown(len(stages.unsolved(self.stage, places)), unit="searches") as listener:
            stages.solve(self.stage, places, self.folder, workers, listener)
        self.reload()
        sweep = stages.kept(self.stage, places, self.folder)
        todo = stages.pending(sweep, self.stage.of(places), self.folder, again=again)
        with shown(len(todo), unit="tuning runs") as listener:
            stages.train(sweep, self.out, todo, jobs=workers, listener=listener)

    def shown(self) -> Sweep:
        """Return what the folder shows now, as a sweep."""
        from experiments.launch.tune import kept

        return kept(self.stage, [], self.folder)

    def is_over(self, place: TunedPlace) -> bool:
        """Return whether nothing of a place is left to be searched or trained."""
        from experiments.launch.tune import unsolved

        return not unsolved(self.stage, [place]) and self.ranking(place).over

    def ranking(self, place: TunedPlace) -> Ranking:
        """Rank the settings of a place by what their folders hold now."""
        from experiments.run import reuse
        from results.numbers.best import rank
        from results.runs.kinds import Tunes
        from results.runs.schema import RunEntry, SweepResults
        from results.runs.store import outcomes

        stage = self.stage
        sweep = reuse.placed(stage.sweep([place]), self.folder)
        tunes = Tunes.model_validate(sweep.tunes)
        entries = [
            RunEntry(cell.row, cell.column, cell.seed, cell.identity, self.folder / cell.path) for cell in sweep.cells
        ]
        planned = SweepResults(
            self.folder, stage.name, stage.name, tuple(sweep.column_keys), {}, None, None, tuple(entries), tunes=tunes
        )
        (ranking,) = rank(outcomes(planned))
        return ranking

    def settle(self, places: Sequence[TunedPlace]) -> list[Choice]:
        """Choose for some places whose settings are all over, and write it into the tuning's folder.

        Raises:
            RunFailure: if no setting of a row can be chosen; what was chosen for others is written.
        """
        from experiments.config.choices import store
        from experiments.rundir import names

        ranked = [(place, self.ranking(place)) for place in places]
        found = [self._choice(place, ranking) for place, ranking in ranked if ranking.fit]
        if found:
            store(self.folder / names.CHOICES, found)
        lost = [(place, ranking) for place, ranking in ranked if not ranking.fit]
        if lost:
            lines = [f"no setting can be chosen for {place}: {_why(ranking)}" for place, ranking in lost]
            way = "give them other settings in sweep.tuning, or try again with `ham tune --again`"
            raise RunFailure("; ".join(lines) + f"; {way}", str(self.folder))
        return found

    def _choice(self, place: TunedPlace, ranking: Ranking) -> Choice:
        from experiments.config.choices import Choice, Rival
        from experiments.config.identity import THRESHOLD_DECAY
        from experiments.config.stage import wants_decay

        section, best = self.stage.tuning.section, ranking.fit[0]
        chosen = dict(best.setting)
        asked = next(spec for setting, spec in self.stage.tuning.specs(place.row, place.column) if setting == chosen)
        cell = next(cell for cell in self.stage.of([place]) if cell.column == {**place.column, **chosen})
        decay = getattr(cell.spec.representation.options, THRESHOLD_DECAY) if wants_decay(asked) else None
        second = ranking.fit[1] if len(ranking.fit) > 1 else None
        return Choice(
            identity=place.identity,
            row=place.row,
            column=place.column,
            chosen=chosen,
            tried=self.stage.tuning.tried(place.row),
            seeds=section.seeds,
            on=section.on,
            data=content_hash(cell.spec),
            accuracy=best.mean,
            error_seeds=ranking.error_seeds,
            error_images=ranking.error_images,
            images=ranking.images,
            second=Rival(chosen=dict(second.setting), accuracy=second.mean) if second else None,
            close=ranking.close,
            lost=len(ranking.settings) - len(ranking.fit),
            threshold_decay=decay,
        )

    def words(self, places: Sequence[TunedPlace]) -> str:
        """Return a line for each place: its best setting, and how surely it is the best."""
        from results.numbers.best import words

        return words([self.ranking(place) for place in places])


def _why(ranking: Ranking) -> str:
    """Say why no setting is fit, with the first error."""
    errors = [run.error for one in ranking.settings for run in one.runs if run.error]
    number = len(ranking.settings)
    first = f" (such as: {errors[0].splitlines()[0]})" if errors else ""
    return f"none of {number} settings has all its seeds done and on target{first}"
