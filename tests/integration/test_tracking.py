"""W&B mirrors a run and can neither change it nor stop it."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from commands import Ham
from small_runs import differing, records, resumptions, tiny_spec, train, train_in_pieces, weights, write_config

from experiments.config.identity import identity_with_data
from experiments.config.schema import Spec
from experiments.launch import local
from experiments.run import tracking

RIGL = "topology={name: rigl, sparsity: 0.9, update_every: 4}"


class FakeRun:
    """Takes records as a W&B run does."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}
        self.exit_codes: list[int] = []

    def log(self, numbers: dict[str, Any], step: int) -> None:
        self.logged.append((step, numbers))

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


class FakeWandb(types.ModuleType):
    """Stands in for the package; `runs` are those it has handed out."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[FakeRun] = []
        self.asked: list[dict[str, Any]] = []
        self.Settings = dict

    def init(self, **asked: Any) -> FakeRun:
        self.asked.append(asked)
        self.runs.append(FakeRun())
        return self.runs[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def tracked(folder: Path, *overrides: str) -> Spec:
    return tiny_spec(folder, RIGL, "tracking.wandb=offline", *overrides)


def warnings(folder: Path) -> list[str]:
    return [line for line in (folder / "log.txt").read_text().splitlines() if "WARNING" in line]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The same run without W&B."""
    train(tiny_spec(tmp_path, RIGL), tmp_path / "plain")
    return tmp_path / "plain"


def written(folders: list[Path]) -> bytes:
    return b"".join(path.read_bytes() for folder in folders for path in folder.glob("run-*.wandb"))


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The real package, whose own process and the address of it in the environment are gone afterwards."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_SERVICE", raising=False)
    yield
    wandb.teardown()


@pytest.mark.usefixtures("real")
def test_an_offline_run_has_a_stable_id_and_changes_nothing(tmp_path: Path, plain: Path) -> None:
    """The real package: its file has the run's id (a folder may end in a count) and holds the names of the metrics."""
    spec = tracked(tmp_path)
    train_in_pieces(spec, tmp_path / "run", [10])
    assert resumptions(tmp_path / "run") == [10]
    assert warnings(tmp_path / "run") == []
    folders = list((tmp_path / "run/wandb").glob("offline-run-*"))
    assert len(folders) == 2
    wanted_id = f"{identity_with_data(spec)[:32]}-s0"
    assert [path.stem for folder in folders for path in folder.glob("*.wandb")] == [f"run-{wanted_id}"] * 2
    wanted = {b"validation_accuracy", b"event/update/changed", b"train_flops_fraction", b"inference_flops_fraction"}
    deadline = time.monotonic() + 150  # W&B's own process writes the file, in its own time
    while (missing := {name for name in wanted if name not in written(folders)}) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert missing == set()
    assert differing(weights(tmp_path / "run"), weights(plain)) == []
    assert records(tmp_path / "run") == records(plain)


def test_every_record_is_mirrored_at_its_step(tmp_path: Path, fake: FakeWandb) -> None:
    spec = tracked(tmp_path, "seed=4", "tracking.project=mine", "tracking.entity=us")
    result = train(spec, tmp_path / "run", group="RiGL")
    (asked,), (run,) = fake.asked, fake.runs
    assert asked["id"] == f"{identity_with_data(spec)[:32]}-s4"
    assert asked["mode"] == "offline"
    assert (asked["entity"], asked["project"], asked["group"], asked["name"]) == ("us", "mine", "RiGL", "run")
    assert asked["config"]["topology"]["update_every"] == 4
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in run.logged] == [line["step"] for line in lines]
    for (_, numbers), line in zip(run.logged, lines, strict=True):
        prefix = f"event/{line['event']}/" if line["kind"] == "event" else ""
        expected = {f"{prefix}{key}": value for key, value in line.items() if key not in ("kind", "event", "step")}
        assert numbers == {key: value for key, value in expected.items() if value is not None}
    assert run.summary["accuracy"] == result["accuracy"]
    assert run.exit_codes == [0]


def test_an_interrupted_run_is_closed_as_unfinished(tmp_path: Path, fake: FakeWandb) -> None:
    train_in_pieces(tracked(tmp_path), tmp_path / "run", [10])
    assert [run.exit_codes for run in fake.runs] == [[1], [0]]
    assert fake.asked[0]["id"] == fake.asked[1]["id"]
    steps = [step for run in fake.runs for step, _ in run.logged]
    assert steps == sorted(steps)


def raising(*_: Any, **__: Any) -> None:
    raise RuntimeError("no network [/x]")


def hanging(*_: Any, **__: Any) -> None:
    Event().wait(20)


@pytest.mark.parametrize(
    ("method", "fault"),
    # logging hands a record to another process and waits for nothing, so it can only raise
    [("init", raising), ("log", raising), ("finish", raising), ("init", hanging), ("finish", hanging)],
)
def test_what_it_does_wrong_is_said_once_and_stops_no_run(
    tmp_path: Path, plain: Path, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch, method: str, fault: Any
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE", 0.2)
    monkeypatch.setattr(FakeWandb if method == "init" else FakeRun, method, fault)
    assert train(tracked(tmp_path), tmp_path / "run")["status"] == "done"
    (warning,) = warnings(tmp_path / "run")
    reason = "RuntimeError: no network [/x]" if fault is raising else "TimeoutError: no answer in 0.2 s"
    assert f"W&B is off for this run ({reason}); metrics.jsonl has everything" in warning
    assert records(tmp_path / "run") == records(plain)
    assert differing(weights(tmp_path / "run"), weights(plain)) == []


def test_a_package_that_cannot_be_imported_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert train(tracked(tmp_path), tmp_path / "run")["status"] == "done"
    assert len(warnings(tmp_path / "run")) == 1


def test_nothing_is_imported_when_it_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    train(tiny_spec(tmp_path), tmp_path / "run")
    assert "wandb" not in sys.modules
    assert not (tmp_path / "run/wandb").exists()


def test_a_sweep_imports_it_ahead_only_if_a_run_is_tracked(
    ham: Ham, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preloads: list[Any] = []

    def run_all(tasks: Any, jobs: int, listener: Any, *, preload: Any) -> dict[str, Any]:
        preloads.append(list(preload))
        return {}

    monkeypatch.setattr(local, "run_all", run_all)
    for mode in ("disabled", "offline"):
        config = write_config(tmp_path / f"{mode}.yaml", tracking={"wandb": mode}, sweep={"seeds": [0]})
        assert ham("sweep", config, "--out", tmp_path / "runs").code == 0
    assert preloads == [[], ["wandb"]]


def test_a_sweep_mirrors_from_its_workers(ham: Ham, tmp_path: Path) -> None:
    """The group is the row, so that dashboards average over seeds."""
    pytest.importorskip("wandb")
    config = write_config(
        tmp_path / "small.yaml", schedule__epochs=1, tracking={"wandb": "offline"}, sweep={"seeds": [0, 1]}
    )
    assert ham("sweep", config, "--out", tmp_path / "runs", "--jobs", 2).code == 0
    folders = sorted((tmp_path / "runs/small").glob("small-*"))
    assert len(folders) == 2
    for folder in folders:
        (offline,) = (folder / "wandb").glob("offline-run-*")
        assert re.search(rf"{folder.name.removeprefix('small')[:9]}[0-9a-f]{{24}}{folder.name[-3:]}$", offline.name)


@pytest.mark.parametrize(
    ("variables", "login", "mode"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": "0" * 40}, "", "online"),
        ({}, "machine api.wandb.ai login user password secret", "online"),
        ({}, "machine other.org login user password secret", "offline"),
        ({"WANDB_BASE_URL": "https://other.org/path"}, "machine other.org login user password secret", "online"),
        ({}, "this is no netrc file", "offline"),
    ],
)
def test_auto_is_online_where_credentials_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], login: str, mode: str
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    if login:
        (tmp_path / ".netrc").write_text(login)
        (tmp_path / ".netrc").chmod(0o600)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracking.resolve_mode("auto") == mode
    assert [tracking.resolve_mode(wanted) for wanted in ("online", "offline", "disabled")] == [
        "online",
        "offline",
        "disabled",
    ]


def test_the_log_of_a_run_is_its_own(tmp_path: Path) -> None:
    """The handler goes with the run, so that two runs of one process do not write into each other's log."""
    for name in ("a", "b"):
        train(tiny_spec(tmp_path, "schedule.epochs=1"), tmp_path / name)
    logging.getLogger("experiments").warning("nobody's")
    texts = [(tmp_path / name / "log.txt").read_text() for name in ("a", "b")]
    assert all(text.count("started") == text.count("done: accuracy") == 1 for text in texts)


@pytest.mark.parametrize("mode", ["offline", "disabled", "online"])
def test_the_users_variables_come_before_the_suites_defaults(
    tmp_path: Path, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    for name in ("PROJECT", "NAME", "RUN_GROUP", "DIR", "SILENT", "CONSOLE"):
        monkeypatch.setenv(f"WANDB_{name}", "mine")
    train(tracked(tmp_path, "tracking.wandb=auto"), tmp_path / "run")
    if mode == "disabled":
        assert fake.asked == []
        return
    (asked,) = fake.asked
    assert asked.keys().isdisjoint({"mode", "project", "name", "group", "dir"})
    assert asked["resume"] == ("allow" if mode == "online" else None)


def test_the_configuration_comes_before_the_users_variables(
    tmp_path: Path, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    train(tracked(tmp_path, "tracking.wandb=offline", "tracking.project=ours"), tmp_path / "run")
    assert (fake.asked[0]["mode"], fake.asked[0]["project"]) == ("offline", "ours")
