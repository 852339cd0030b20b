"""Thousands of damaged files in folders of runs: no traceback, no wrong number without a word, no run that is stuck.

``HAM_FUZZ_SEED`` repeats the damages of another day; a failure names the seed and the damage.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import command
from damage import DAMAGES
from small_runs import result, tiny_spec, train, train_until

from experiments.config.identity import identity_with_data
from experiments.errors import SuiteError
from experiments.run import runner
from results.table.formats import render

pytestmark = [pytest.mark.robust, pytest.mark.timeout(600)]

SEED = int(os.environ.get("HAM_FUZZ_SEED", "0"))
CHUNKS, UNFINISHED, FINISHED = 10, 70, 130  # 2,000 in all
PATIENCE = 150  # seconds that anything may take
OVERRIDES = [
    *("model.name=mlp_bn_small", "data.train_limit=100", "data.batch_size=20", "schedule.epochs=3"),
    *("topology={name: rigl, sparsity: 0.8, update_every: 3}", "optimizer.ham={alpha: 5.0}", "optimizer.ema_decay=0.9"),
]
NUMBERS = ("accuracy", "loss", "average_accuracy", "train_loss", "best_validation_accuracy", "best_validation_epoch")


class Heard(logging.Handler):
    """Everything that is said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


@contextmanager
def listening() -> Iterator[list[str]]:
    handler = Heard()
    logging.getLogger().addHandler(handler)
    try:
        yield handler.words
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def in_time() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise AssertionError(f"stuck for {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped in mid-epoch, the same run whole, and a sweep of four finished runs."""
    home = tmp_path_factory.mktemp("templates")
    spec = tiny_spec(home, *OVERRIDES)
    train(spec, home / "whole/run")
    for cut in (7, 12):
        train_until(spec, home / "half/run", cut)
    config = home / "table.yaml"
    rows = {"A": {}, "B": {"optimizer.lr": 0.05}}
    config.write_text(json.dumps({"extends": "tiny", "sweep": {"rows": rows, "seeds": [0, 1]}}))
    sections = [f"schedule.epochs={1}", *OVERRIDES[:3], "tracking.wandb=disabled"]
    assert command("sweep", config, *sections, "--out", home / "sweeps", "--jobs", 1) == 0
    return home


def chosen(folder: Path, draw: random.Random) -> Path:
    return draw.choice(sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size))


def damaged(folder: Path, draw: random.Random) -> str:
    """Damage one file, sometimes two; what was done."""
    done = []
    for _ in range(draw.choice([1, 1, 1, 2])):
        path, damage = chosen(folder, draw), draw.choice(DAMAGES)
        damage(path, draw)
        done.append(f"{damage.__name__} {path.relative_to(folder)}")
    return ", ".join(done)


def clear(folder: Path) -> None:
    """Do what the messages advise: remove what is no file, the claim of a process, and checkpoints that do not fit."""
    for path in list(folder.rglob("*")):
        if path.name not in ("attempts", "checkpoints") and not path.is_file():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        elif path.is_symlink():
            path.unlink()
    for name in ("attempts", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_an_unfinished_run_comes_to_its_end(templates: Path, tmp_path: Path, chunk: int) -> None:
    """At once, or after what its message advises, with the numbers of a run that nothing happened to, or with words."""
    spec, whole = tiny_spec(tmp_path, *OVERRIDES), result(templates / "whole/run")
    silent = 0
    for number in range(UNFINISHED):
        seed = f"{SEED}/unfinished/{chunk}/{number}"
        draw, home = random.Random(seed), tmp_path / str(number)
        shutil.copytree(templates / "half", home)
        what = f"seed {seed}: {damaged(home / 'run', draw)}"
        with listening() as words, in_time():
            try:
                runner.run(spec, home / "run", identity_with_data(spec), patience=None)
            except SuiteError as error:
                words.append(str(error))
                if str(home) not in str(error):
                    pytest.fail(f"{what}: {error} names no file")
                clear(home / "run")
                runner.run(spec, home / "run", identity_with_data(spec), patience=None)
        found = result(home / "run")
        assert [found[name] for name in NUMBERS] == [whole[name] for name in NUMBERS], what
        silent += not words
        shutil.rmtree(home)
    print(f"HAM_FUZZ_SEED={SEED}: {UNFINISHED} damages, of which {silent} changed nothing that anything rests on")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_finished_table_has_no_wrong_number(
    templates: Path, tmp_path: Path, chunk: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each number of the table is the one that was written, or it is not there and something was said."""
    right = render(templates / "sweeps/table", "csv")
    known = {field for line in csv.DictReader(right.splitlines()) for field in line["accuracies"].split()}
    for number in range(FINISHED):
        seed = f"{SEED}/finished/{chunk}/{number}"
        draw, home = random.Random(seed), tmp_path / str(number)
        shutil.copytree(templates / "sweeps/table", home / "table")
        what = f"seed {seed}: {damaged(home / 'table', draw)}"
        with listening() as words, in_time():
            for arguments in (("table", "--format", "csv"), ("status",), ("best",), ("logs", "s1"), ("report",)):
                if arguments[0] == "report" and number % 20:
                    continue  # it takes seconds
                name, *more = arguments
                code = command(name, home / "table", *more)
                said = capsys.readouterr()
                assert code in (0, 1, 2), what
                assert "Traceback" not in said.err, what
                words += [said.err] if said.err else []
                if name == "table" and code == 0 and said.out != right:
                    lines = list(csv.DictReader(said.out.splitlines()))
                    assert words or any(line["missing"] + line["failed"] != "00" for line in lines), what
                    shown = {field for line in lines for field in line["accuracies"].split()}
                    assert shown <= known, what
        shutil.rmtree(home)
    print(f"HAM_FUZZ_SEED={SEED}: {FINISHED} damages")
