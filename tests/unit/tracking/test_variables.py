"""The configuration and the user's variables together."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from experiments.tracking import environment

MODES = ("online", "offline", "disabled")
STRICTNESS = dict(zip(MODES, range(3), strict=True))


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of W&B's, nobody logged in."""
    for name in [name for name in os.environ if name.startswith("WANDB_") or name == "NETRC"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def tracking(wandb: str, project: str | None = None, entity: str | None = None) -> dict[str, Any]:
    return {"wandb": wandb, "project": project, "entity": entity}


@pytest.mark.parametrize(
    ("variables", "login", "mode"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": "0" * 40}, "", "online"),
        ({}, "machine api.wandb.ai login user password secret", "online"),
        ({}, "machine other.org login user password secret", "offline"),
        ({"WANDB_BASE_URL": "https://other.org/path"}, "machine other.org login user password secret", "online"),
        ({}, "this is no netrc file", "offline"),
        ({"WANDB_MODE": "dryrun", "WANDB_API_KEY": "0" * 40}, "", "offline"),
        ({"WANDB_MODE": "run"}, "", "online"),
    ],
)
def test_auto_is_online_where_credentials_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], login: str, mode: str
) -> None:
    if login:
        (tmp_path / ".netrc").write_text(login)
        (tmp_path / ".netrc").chmod(0o600)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.decide(tracking("auto")).mode == mode


@pytest.mark.parametrize(
    ("wanted", "said", "disabled"), list(itertools.product(("auto", *MODES), (None, *MODES, "nonsense"), (False, True)))
)
def test_nothing_goes_online_against_the_environment(
    monkeypatch: pytest.MonkeyPatch, wanted: str, said: str | None, disabled: bool
) -> None:
    """An explicit key of the configuration comes first in all else, and each disagreement is said once."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    if said is not None:
        monkeypatch.setenv("WANDB_MODE", said)
    if disabled:
        monkeypatch.setenv("WANDB_DISABLED", "true")
    decided = environment.decide(tracking(wanted))
    if said not in (None, "online") or disabled:
        assert decided.mode != "online"
    if wanted in ("offline", "disabled"):
        assert decided.mode == wanted
    allowed = "disabled" if disabled else said
    if wanted == "auto":
        assert decided.mode == {None: "online", "nonsense": "offline"}.get(allowed, allowed)
        assert len(decided.words) == (allowed == "nonsense")
    else:
        assert len(decided.words) == (allowed not in (None, wanted))
        assert all(f"={allowed}" in words or f"={disabled}".lower() in words for words in decided.words)


def test_the_words_name_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    assert environment.decide(tracking("online", project="ours")).words == (
        "tracking.wandb is online, but nothing goes there against WANDB_MODE=offline: it is offline",
        "tracking.project is ours, which comes before WANDB_PROJECT=theirs",
    )


def arguments(**own: Any) -> dict[str, Any]:
    defaults = {"name": "n", "group": "g", "job_type": "train", "dir": "d", "tags": ["a"]}
    return environment.arguments("offline", tracking("offline", **own), **defaults)


def test_what_the_environment_says_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {"project": "ham-suite", "name": "n", "group": "g", "job_type": "train", "dir": "d"}
    assert arguments() == {**usual, "mode": "offline", "tags": ["a"]}
    for name in ("PROJECT", "NAME", "RUN_GROUP", "JOB_TYPE", "DIR", "ENTITY"):
        monkeypatch.setenv(f"WANDB_{name}", "theirs")
    monkeypatch.setenv("WANDB_TAGS", "b, a,")
    assert arguments() == {"mode": "offline", "tags": ["a", "b"]}
    assert arguments(project="ours", entity="us") == {
        "mode": "offline",
        "tags": ["a", "b"],
        "project": "ours",
        "entity": "us",
    }


def test_a_service_of_another_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-x")
    assert "WANDB_SERVICE" not in environment.for_child()


def test_a_server_that_takes_no_connection_is_found_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{there.getsockname()[1]}")
        assert environment.why_unreachable() is None
    assert environment.why_unreachable() == "Connection refused"
    for nonsense in ("http://127.0.0.1:99999999", "nowhere", "http://"):
        monkeypatch.setenv("WANDB_BASE_URL", nonsense)
        assert environment.why_unreachable()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # which may reach what this machine cannot
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert environment.why_unreachable() is None
