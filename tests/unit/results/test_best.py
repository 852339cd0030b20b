"""The chooser of `ham best` and `ham tune`: by mean validation accuracy, what loses, what is not told apart."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import UserError
from results.numbers.best import Ranking, rank, render, words
from results.runs.kinds import Tunes, Unsolved
from results.runs.schema import RunEntry, SweepResults

SEEDS = (100, 101)


def run(
    row: str, column: Mapping[str, Any], seed: int, accuracy: float | None, *, unexpected: bool = False, **result: Any
) -> RunEntry:
    done = {"accuracy": accuracy, "accuracy_on": "validation", "evaluated": 1000, **result}
    return RunEntry(
        row,
        column,
        seed,
        "",
        Path("-".join([row, str(column), str(seed)])),
        "done" if accuracy is not None else "failed",
        done if accuracy is not None else {},
        None if accuracy is not None else "the loss is not finite",
        unexpected,
    )


def tuning(
    accuracies: Mapping[str, Mapping[tuple[Any, ...], tuple[float | None, ...]]], **changes: Any
) -> SweepResults:
    """A stage over rate and decay at one sparsity."""
    keys = ("topology.sparsity", "optimizer.lr", "optimizer.weight_decay")
    entries = [
        run(row, dict(zip(keys, (0.9, *setting), strict=True)), seed, accuracy)
        for row, settings in accuracies.items()
        for setting, values in settings.items()
        for seed, accuracy in zip(SEEDS, values, strict=True)
    ]
    plan = SweepResults(Path("t-tuning"), "t", "t", keys, {}, None, None, tuple(entries))
    return replace(plan, tunes=Tunes(columns=["topology.sparsity"], on="validation"))


def best(sweep: SweepResults, row: str = "A") -> tuple[Any, ...]:
    return tuple(next(one for one in rank(sweep) if one.row == row).fit[0].setting.values())


def only(sweep: SweepResults) -> Ranking:
    (ranking,) = rank(sweep)
    return ranking


def test_the_best_mean_over_all_seeds_wins_and_not_the_best_seed() -> None:
    sweep = tuning({"A": {(0.1, 0.0): (0.80, 0.80), (0.2, 0.0): (0.95, 0.60), (0.4, 0.0): (0.70, 0.85)}})
    assert best(sweep) == (0.1, 0.0)
    assert only(sweep).fit[0].mean == statistics.mean((0.80, 0.80))


def test_the_validation_part_decides_whatever_else_is_known() -> None:
    entries = [
        run("A", {"optimizer.lr": lr}, seed, on_validation, test_accuracy=on_test, best_validation_accuracy=on_test)
        for lr, on_validation, on_test in ((0.1, 0.8, 0.1), (0.2, 0.7, 0.9))
        for seed in SEEDS
    ]
    sweep = SweepResults(Path("t"), "t", "t", ("optimizer.lr",), {}, None, None, tuple(entries))
    assert best(sweep) == (0.1,)
    on_test = replace(sweep, entries=tuple(replace(e, result={**e.result, "accuracy_on": "test"}) for e in entries))
    with pytest.raises(UserError, match="nothing may be chosen"):
        rank(on_test)
    allowed = replace(on_test, tunes=Tunes(columns=[], on="test"))
    assert best(allowed) == (0.1,)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_settings_rows_and_seeds_changes_no_choice(seed: int) -> None:
    draw = random.Random(seed)
    settings = [(lr, wd) for lr in (0.1, 0.2, 0.4) for wd in (0.0, 1e-3)]
    accuracies = {row: {s: (draw.random(), draw.random()) for s in settings} for row in ("A", "B")}
    sweep = tuning(accuracies)
    shuffled = replace(sweep, entries=tuple(draw.sample(sweep.entries, len(sweep.entries))))
    for row in ("A", "B"):
        hand = max(settings, key=lambda setting, row=row: statistics.mean(accuracies[row][setting]))
        assert best(sweep, row) == best(shuffled, row) == hand


def test_a_tie_goes_to_the_setting_tried_first_whatever_the_sum_rounds_to() -> None:
    # 0.1 + 0.7 and 0.3 + 0.5 differ in the last bit
    sweep = tuning({"A": {(0.1, 0.0): (0.1, 0.7), (0.2, 0.0): (0.3, 0.5)}})
    assert best(sweep) == (0.1, 0.0)
    assert best(tuning({"A": {(0.2, 0.0): (0.3, 0.5), (0.1, 0.0): (0.1, 0.7)}})) == (0.2, 0.0)
    assert "equal at 40.00%" in words(rank(sweep))


def test_a_setting_that_failed_or_missed_its_sparsity_loses() -> None:
    sweep = tuning({"A": {(0.1, 0.0): (0.5, 0.5), (0.2, 0.0): (0.9, None), (0.4, 0.0): (0.8, 0.8)}})
    missed = [
        replace(e, result={**e.result, "sparsity": 0.92, "target_sparsity": 0.9})
        if e.column["optimizer.lr"] == 0.4
        else e
        for e in sweep.entries
    ]
    ranking = only(replace(sweep, entries=tuple(missed)))
    assert ranking.fit[0].setting["optimizer.lr"] == 0.1
    assert len(ranking.fit) == 1
    assert ranking.over
    assert ranking.close == 0


def test_what_the_machine_ended_does_not_lose_but_is_not_over() -> None:
    sweep = tuning({"A": {(0.1, 0.0): (0.5, 0.5), (0.2, 0.0): (0.9, None)}})
    ended = [replace(entry, unexpected=entry.status == "failed") for entry in sweep.entries]
    assert only(sweep).over
    assert not only(replace(sweep, entries=tuple(ended))).over
    missing = [replace(entry, status="missing") if entry.status == "failed" else entry for entry in sweep.entries]
    assert not only(replace(sweep, entries=tuple(missing))).over


def test_a_setting_without_a_decay_counts_as_tried_and_loses() -> None:
    sweep = tuning({"A": {(0.1, 0.0): (0.5, 0.5)}})
    lost = Unsolved(row="A", column={"topology.sparsity": 0.9, "optimizer.lr": 0.2, "optimizer.weight_decay": 0.0})
    ranking = only(replace(sweep, tunes=Tunes(columns=["topology.sparsity"], on="validation", unsolved=[lost])))
    assert (len(ranking.settings), len(ranking.fit)) == (2, 1)
    assert "1 of 2 settings complete and on target" in words([ranking])
    alone = only(
        replace(sweep, entries=(), tunes=Tunes(columns=["topology.sparsity"], on="validation", unsolved=[lost]))
    )
    assert words([alone]).startswith("A at topology.sparsity=0.9: none of 1 settings is complete")


def test_a_column_of_the_table_is_never_taken_for_a_setting() -> None:
    entries = [
        run("A", {"topology.sparsity": sparsity, "model.name": model, "optimizer.lr": lr}, seed, accuracy)
        for sparsity, model, lr, accuracy in (
            *((0.5, "mlp", 0.1, 0.9), (0.5, "mlp", 0.2, 0.8), (0.9, "mlp", 0.1, 0.5), (0.9, "mlp", 0.2, 0.6)),
            *((0.5, "cnn", 0.1, 0.3), (0.5, "cnn", 0.2, 0.4)),
        )
        for seed in SEEDS
    ]
    keys = ("topology.sparsity", "model.name", "optimizer.lr")
    sweep = SweepResults(Path("t"), "t", "t", keys, {}, None, None, tuple(entries))
    found = [(tuple(one.column.values()), one.fit[0].setting) for one in rank(sweep)]
    assert found == [
        ((0.5, "mlp"), {"optimizer.lr": 0.1}),
        ((0.9, "mlp"), {"optimizer.lr": 0.2}),
        ((0.5, "cnn"), {"optimizer.lr": 0.2}),
    ]
    with pytest.raises(UserError, match=r"no columns to choose among but topology.sparsity, which is no setting"):
        rank(replace(sweep, column_keys=("topology.sparsity",)))


def test_standard_errors_by_hand() -> None:
    ranking = only(tuning({"A": {(0.1, 0.0): (0.80, 0.82), (0.2, 0.0): (0.79, 0.80), (0.4, 0.0): (0.5, 0.5)}}))
    assert ranking.error_seeds == pytest.approx(0.01)  # |0.82 - 0.80| / 2
    assert ranking.error_images == pytest.approx((0.81 * 0.19 / 1000) ** 0.5)
    assert ranking.close == 0  # 1.5 points apart, 1.24 of error
    assert only(tuning({"A": {(0.1, 0.0): (0.80, 0.82), (0.2, 0.0): (0.79, 0.81)}})).close == 1
    assert "too few images or seeds" in words([only(tuning({"A": {(0.1, 0.0): (0.80, 0.82), (0.2, 0.0): (0.8, 0.8)}}))])


@pytest.mark.parametrize("seed", range(10))
def test_settings_that_are_all_the_same_have_no_sure_winner(seed: int) -> None:
    """Labels permuted: every setting guesses, and nearly always the best is said to be told from none."""
    draw = random.Random(seed)
    guessed = [sum(draw.random() < 0.1 for _ in range(1000)) / 1000 for _ in range(24)]
    accuracies = {(n, 0.0): (guessed[2 * n], guessed[2 * n + 1]) for n in range(12)}
    ranking = only(tuning({"A": accuracies}))
    assert ranking.close >= 1
    assert "too few images or seeds to tell them apart" in words([ranking])


def test_ends_of_ranges_and_unequal_numbers_are_marked() -> None:
    text = words(
        rank(
            tuning(
                {
                    "A": {(lr, 0.0): (lr, lr) for lr in (0.1, 0.2, 0.4)},
                    "B": {(lr, 0.0): (lr, lr) for lr in (0.2, 0.1)},
                }
            )
        )
    )
    assert "A at topology.sparsity=0.9: optimizer.lr=0.4>, optimizer.weight_decay=0.0  40.00%" in text
    assert "B at topology.sparsity=0.9: optimizer.lr=0.2, " in text
    assert "the rows were not given the same number of settings" in text


def test_a_table_without_columns_has_nothing_to_choose(tmp_path: Path) -> None:
    from fake_runs import write_sweep

    with pytest.raises(UserError, match="there are no columns to choose among"):
        render(write_sweep(tmp_path / "t", {"A": [0.5, 0.5, 0.5]}))
