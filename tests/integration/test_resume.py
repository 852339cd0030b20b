"""A run in pieces equals the run in one piece, bit for bit, wherever it was cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from small_runs import STEPS, STEPS_PER_EPOCH, assert_same_run, events, resumptions, tiny_spec, train, train_in_pieces

from experiments.config.schema import Spec
from experiments.rundir import checkpoint

HAM = "optimizer.ham={alpha: 20.0, beta: 1.0e-3}"
COMBINATIONS = {
    "acdc, sign_in, sgd": [
        "topology={name: acdc, allocation: erk, sparsity: 0.9}",
        "representation.name=sign_in",
        "model.name=resnet8",
        "runtime.channels_last=true",
    ],
    "rigl, ham": ["topology={name: rigl, sparsity: 0.9, update_every: 4}", HAM, "optimizer.clip_grad_norm=1.0"],
    "str, ham": [
        "representation={name: str, initial_threshold: -4.0, threshold_decay: 0.1}",
        "topology.sparsity=0.5",
        HAM,
    ],
    "random, adamw, ham": [
        "topology={name: random, sparsity: 0.9}",
        "optimizer.name=adamw",
        "optimizer.lr=0.01",
        "schedule.warmup_epochs=1.5",
        HAM,
    ],
    "pilot": [
        "representation={name: pilot, penalty: 1.0e-3, multiplier: 1.5, cut_at: 0.75}",
        "topology.sparsity=0.9",
        "optimizer.lr=0.05",
    ],
    # four levels of one epoch
    "wr, sign_in, ema": [
        "topology={name: wr, sparsity: 0.875, prune_fraction: 0.5, rewind: 0.5}",
        "representation.name=sign_in",
        "optimizer.lr=0.05",
        "optimizer.ema_decay=0.9",
        "schedule.epochs=1",
    ],
    "imp, adamw": [
        "topology={name: imp, sparsity: 0.875, prune_fraction: 0.5}",
        "optimizer.name=adamw",
        "optimizer.lr=0.01",
        "schedule.epochs=1",
    ],
}
# kinds of events each must show, or the cuts would not fall on anything
ACTS = {
    "acdc, sign_in, sgd": ["compress", "decompress", "reset"],
    "rigl, ham": ["update"],
    "str, ham": ["threshold"],
    "random, adamw, ham": ["initial"],
    "pilot": ["penalty", "cut"],
    "wr, sign_in, ema": ["prune", "reset"],
    "imp, adamw": ["prune"],
}


class KilledError(BaseException):
    """Ends a run as SIGKILL would: nothing of the suite handles it."""


@dataclass(frozen=True)
class Whole:
    spec: Spec
    folder: Path
    event_steps: list[int]


FEW = ("acdc, sign_in, sgd", "rigl, ham")
ALL = [pytest.param(name, marks=() if name in FEW else pytest.mark.robust) for name in COMBINATIONS]


@pytest.fixture(scope="module", params=ALL)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    spec = tiny_spec(folder, *COMBINATIONS[request.param])
    train(spec, folder / "run")
    acted = [events(folder / "run", kind) for kind in ACTS[request.param]]
    assert all(acted)
    return Whole(spec, folder / "run", sorted({event["step"] for found in acted for event in found}))


@pytest.mark.robust
def test_stopped_after_every_single_step(whole: Whole, tmp_path: Path) -> None:
    train_in_pieces(whole.spec, tmp_path / "run", range(1, STEPS))
    assert resumptions(tmp_path / "run") == list(range(1, STEPS))
    assert_same_run(tmp_path / "run", whole.folder)


def test_cut_once_or_twice(whole: Whole, tmp_path: Path) -> None:
    last_event = max(step for step in whole.event_steps if step < STEPS)
    for cut in {(STEPS_PER_EPOCH,), (4, 15), (max(last_event, 1),), (last_event + 1,), (STEPS - 1,)}:
        folder = tmp_path / "-".join(map(str, cut))
        train_in_pieces(whole.spec, folder, cut)
        assert resumptions(folder) == list(cut)
        assert_same_run(folder, whole.folder)


def test_killed_between_checkpoints(whole: Whole, tmp_path: Path) -> None:
    """What was written after the last checkpoint, a torn line too, is written once again."""
    often = {"checkpoint": whole.spec.checkpoint.model_copy(update={"every_steps": 4})}
    spec = whole.spec.model_copy(update=often)

    def kill_at(step: int) -> None:
        def progress(done: int, total: int) -> None:
            if done == step:
                raise KilledError

        with pytest.raises(KilledError):
            train(spec, tmp_path / "run", progress=progress)
        with (tmp_path / "run/metrics.jsonl").open("a") as file:
            file.write('{"kind": "epoch", "epo')

    for step in (3, 11, 14, STEPS):
        kill_at(step)
    train(spec, tmp_path / "run")
    # a checkpoint every four steps and at the end of an epoch, which has six
    assert resumptions(tmp_path / "run") == [8, 12, 20]
    assert_same_run(tmp_path / "run", whole.folder)


def test_killed_after_the_last_step(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is over and checkpointed, the result is not written yet."""
    save = checkpoint.write

    def killed(path: Path, *arguments: object) -> None:
        if path.name == "weights.pt":
            raise KilledError
        save(path, *arguments)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", killed)
        with pytest.raises(KilledError):
            train(whole.spec, tmp_path / "run")
    train(whole.spec, tmp_path / "run")
    assert resumptions(tmp_path / "run") == [STEPS]
    assert_same_run(tmp_path / "run", whole.folder)


def test_a_finished_run_is_not_touched(whole: Whole) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.folder.iterdir()}

    def stepped(done: int, total: int) -> None:
        raise AssertionError("a finished run was trained")

    train(whole.spec, whole.folder, progress=stepped)
    assert {path: path.stat().st_mtime_ns for path in whole.folder.iterdir()} == before
    assert not (whole.folder / "checkpoints").exists()
