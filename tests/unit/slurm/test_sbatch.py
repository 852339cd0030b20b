"""What the suite uses of submitit, some of it private: a version that changes it is noticed here, on no cluster."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from pathlib import Path

import pytest
from slurm_plans import ACCEPTS, cells, profile_of, scheduler

from experiments.config.sweep import Sweep
from slurm import plan, sbatch, submit
from slurm.plan import Place

ROOT = Path(__file__).parents[3]


def test_the_private_functions_take_what_they_are_given(tmp_path: Path) -> None:
    from submitit.slurm.slurm import _make_sbatch_string

    known = inspect.signature(_make_sbatch_string).parameters
    keys = {"partition": "p", "account": "a", "qos": "q", "constraint": "c", "gpus_per_rank": 1}
    profile = profile_of(tmp_path, **keys, cpus_per_rank=2, mem_per_rank_gb=1.0)
    place = Place(tmp_path, tmp_path, tmp_path, "python", tmp_path)
    (array,) = plan.plan(cells(tmp_path, 1), profile, place, name="x", array_size=10)
    assert array.held({}).keys() | {"folder", "map_count"} <= known.keys()
    assert next(iter(known)) == "command"


@pytest.mark.parametrize("count", [1, 3])
def test_a_dry_run_prints_what_sbatch_gets(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scheduler(tmp_path, monkeypatch, sbatch=f'cat "$1" > {tmp_path}/script; {ACCEPTS}')
    sweep = Sweep("table", None, None, None, [], {}, cells(tmp_path, count))
    listed = submit.dry_run(sweep, tmp_path / "runs", "default").splitlines()
    done = submit.submit(sweep, tmp_path / "runs", "default")
    identifier = done.arrays[0].name.split("-")[2]
    sent = (tmp_path / "script").read_text().replace(identifier, "DRY-RUN").splitlines()
    assert sent == listed[1:-1][: len(sent)]
    assert any("-m submitit.core._submit" in line for line in sent)


def test_no_number_is_told_in_the_schedulers_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler(tmp_path, monkeypatch, sbatch="echo 'sbatch: error: no' >&2; exit 1")
    with pytest.raises(sbatch.NotAccepted, match=r"^no$"):
        sbatch.call(tmp_path, "python", [print], {"time": 5})
    scheduler(tmp_path, monkeypatch, sbatch="echo 55952051")
    with pytest.raises(sbatch.NotAccepted, match="55952051"):
        sbatch.call(tmp_path, "python", [print], {"time": 5})


def test_it_is_pinned_and_used_in_one_place() -> None:
    (pin,) = re.findall(r'"(submitit[^"]*)"', (ROOT / "pyproject.toml").read_text())
    assert re.fullmatch(r"submitit>=[\d.]+,<[\d.]+", pin)
    assert importlib.metadata.version("submitit").startswith("1.5.")
    private = re.compile(r"submitit[\w.]*\._\w+|import _make_sbatch_string")
    users = [path.name for path in (ROOT / "slurm").rglob("*.py") if private.search(path.read_text())]
    assert users == ["sbatch.py"]
