"""What a submission sees is one moment; folders, profiles and runs that jobs would refuse are refused before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from slurm_plans import calls, cells, finish, profile_of, scheduler

from experiments.config.sweep import Sweep
from experiments.config.yaml_text import dump
from experiments.errors import UserError
from experiments.launch import elsewhere
from experiments.run import runner
from slurm import foresee, records, submit
from slurm import look as look_module
from slurm.plan import resources_of


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.chdir(tmp_path)
    return Sweep("table", None, None, None, [], {}, cells(tmp_path, 3))


@pytest.fixture
def ending(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that ends while the queue is asked: nobody works on it any more, and its result is there."""
    fake = scheduler(tmp_path, monkeypatch)
    submit.submit(sweep, tmp_path / "runs", "default")
    asked = look_module.status

    def slow(folder: Path) -> Any:
        report = asked(folder)
        for cell in sweep.cells:
            finish(tmp_path / "runs", cell)
        return report

    monkeypatch.setattr(look_module, "status", slow)
    return fake


def test_a_run_that_ends_meanwhile_is_done(sweep: Sweep, tmp_path: Path, ending: Path) -> None:
    again = submit.submit(sweep, tmp_path / "runs", "default")
    assert str(again) == "0 runs in 0 jobs submitted; 3 have a result, 0 were under way"
    assert len(calls(ending, "sbatch")) == 1


def test_nor_is_it_submitted_again_by_its_path(sweep: Sweep, tmp_path: Path, ending: Path) -> None:
    again = submit.resubmit(tmp_path / "runs/table", [cell.path for cell in sweep.cells])
    assert (again.jobs, again.seen.done) == ([], 3)


def test_a_dry_run_sees_the_same(sweep: Sweep, tmp_path: Path, ending: Path) -> None:
    assert "0 of 3 runs in 0 jobs (3 have a result" in submit.dry_run(sweep, tmp_path / "runs", "default")


def test_what_another_sweep_has_trained_is_not_submitted(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, first = scheduler(tmp_path, monkeypatch), sweep.cells[0]
    runner.run(first.spec, tmp_path / "runs/other" / first.path, first.identity)
    found = elsewhere.find(sweep.cells, tmp_path / "runs/table", [tmp_path / "runs"])
    assert found == {first.path: tmp_path / "runs/other" / first.path}
    part = {cell.path for cell in sweep.cells[:2]}
    assert "1 of 1 runs in 1 jobs" in submit.dry_run(sweep, tmp_path / "runs", "default", only=part - found.keys())
    done = submit.submit(sweep, tmp_path / "runs", "default", part, found=found)
    assert str(done).startswith("1 runs in 1 jobs submitted (101); 1 have a result, 0 were under way")
    assert [array.tasks[0][0].path for array in done.arrays] == [sweep.cells[1].path]
    assert json.loads((tmp_path / "runs/table" / first.path / "result.json").read_text())["reused_from"]
    assert len(json.loads((tmp_path / "runs/table/sweep.json").read_text())["cells"]) == 3
    assert len(calls(fake, "sbatch")) == 1


@pytest.mark.parametrize("name", ["it's", "a\\b", "50%j", "two\nlines", "bell\a", "50%"])
def test_folders_that_a_batch_script_cannot_name_are_refused(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fake = scheduler(tmp_path, monkeypatch)
    for call in (submit.submit, submit.dry_run):
        with pytest.raises(UserError, match="do not take literally") as caught:
            call(sweep, tmp_path / name, "default")
        assert len(str(caught.value).splitlines()) == 1
    assert calls(fake, "sbatch") == []
    assert not (tmp_path / name).exists()


def test_other_folders_are_not(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler(tmp_path, monkeypatch)
    assert submit.submit(sweep, tmp_path / 'my "runs" $(x) `y` & é', "default").jobs == ["101"]


@pytest.mark.parametrize(
    ("overrides", "keys", "says"),
    [
        (["data.batch_size=25"], {"ranks_per_node": 2}, "25 images a step cannot be shared evenly by 2 ranks"),
        (["resources.nodes=3"], {}, "50 images a step cannot be shared evenly by 3 ranks"),
        (["runtime.accumulate=5"], {"nodes": 4}, "by 4 ranks × 5 micro-batches"),
        (["data.drop_last=false", "data.batch_size=299", "data.train_limit=300"], {"nodes": 13}, "the last batch"),
        (["runtime.device=cuda"], {}, "runtime.device: needs a GPU, and the profile asks for none"),
        (["runtime.sync_batch_norm=true"], {}, "runtime.sync_batch_norm: needs a GPU"),
        (
            ["runtime.amp=bf16"],
            {},
            "runtime.amp: bf16 is for GPUs, and the profile asks for none; write gpus_per_rank: 1",
        ),
        (["runtime.amp=fp16", "runtime.device=cpu"], {"gpus_per_rank": 1}, "GPUs, and runtime.device is cpu; to train"),
        (["resources.gpu_type=a100"], {}, "resources.gpu_type: names a GPU, and the profile asks for none"),
        (["resources.mem_per_rank_gb=9.0"], {"sbatch": {"mem": 0}}, "and sbatch.mem of the profile exclude each other"),
    ],
)
def test_what_a_job_would_refuse_is_refused_before(
    tmp_path: Path, overrides: list[str], keys: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError) as caught:
        foresee.check(cells(tmp_path, 2, *overrides), profile_of(tmp_path, **keys))
    assert says in str(caught.value)
    assert str(caught.value).startswith("row 'Row': ")


def test_what_a_job_can_do_is_not(tmp_path: Path) -> None:
    foresee.check(cells(tmp_path, 2, "runtime.device=cuda"), profile_of(tmp_path, gpus_per_rank=1, nodes=2))
    foresee.check(cells(tmp_path, 1, "runtime.device=cuda"), profile_of(tmp_path, sbatch={"gres": "gpu:1"}))
    foresee.check(cells(tmp_path, 1, "runtime.amp=bf16"), profile_of(tmp_path, gpus_per_rank=1))
    foresee.check(cells(tmp_path, 1, "runtime.amp=bf16", "resources.cpu_only=true"), profile_of(tmp_path))


@pytest.mark.parametrize(("hours", "told"), [(0.05, True), (0.06, False), (4.0, False)])
def test_a_warning_at_the_start_is_told(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: float, told: bool
) -> None:
    """A time limit of 3 minutes, of 4 and of many, with a warning 120 s before, which may come 60 s earlier."""
    scheduler(tmp_path, monkeypatch)
    (tmp_path / "short.yaml").write_text(dump({"hours": hours}))
    for text in (submit.dry_run(sweep, tmp_path, "short.yaml"), str(submit.submit(sweep, tmp_path, "short.yaml"))):
        assert ("may be told to stop as they begin" in text) is told


def test_a_resubmission_is_looked_at_as_well(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler(tmp_path, monkeypatch)
    submit.submit(sweep, tmp_path / "runs", "default")
    (tmp_path / "wide.yaml").write_text(dump({"nodes": 3}))
    with pytest.raises(UserError, match="cannot be shared evenly by 3 ranks"):
        submit.resubmit(tmp_path / "runs/table", [sweep.cells[0].path], "wide.yaml")


def test_a_run_is_not_submitted_again_with_other_code_or_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = cells(tmp_path, 1)
    foresee.unchanged([one])
    monkeypatch.setattr("experiments.config.identity.data_hash", lambda name, root: "other")
    with pytest.raises(UserError, match=r"its data \(synthetic\).* are not those it was submitted with") as caught:
        foresee.unchanged([one])
    assert caught.value.where == one.path


def test_records_without_the_resources_of_today_can_be_read(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler(tmp_path, monkeypatch)
    submit.submit(sweep, tmp_path / "runs", "default")
    (path,) = (tmp_path / "runs/table/submissions").glob("*/runs.json")
    kept = json.loads(path.read_text())
    for run in kept["runs"]:
        run["spec"]["resources"] = {"nodes": None, "ranks_per_node": None, "hours": 2.0}
    path.write_text(json.dumps(kept))
    again = records.recorded_runs(tmp_path / "runs/table")
    assert [cell.spec.resources.hours for cell in again.values()] == [2.0] * 3


def test_relative_paths_are_those_of_the_first_submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    fake = scheduler(tmp_path, monkeypatch, sbatch=f'cat "$1" >> {tmp_path}/scripts; echo "Submitted batch job 5"')
    (home / "mine.yaml").write_text(dump({"python": "./env/bin/python", "setup": ["source modules.sh"]}))
    runs = cells(tmp_path, 1, "data.root=images", "model.weights=start.pt", known=False)
    monkeypatch.setattr(foresee, "unchanged", lambda cells: None)
    submit.submit(Sweep("table", None, None, None, [], {}, runs), Path("runs"), "mine.yaml")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    folder = Path("../home/runs/table")
    (cell,) = records.recorded_runs(folder).values()
    assert (cell.spec.data.root, cell.spec.model.weights) == (str(home / "images"), str(home / "start.pt"))
    submit.resubmit(folder, [cell.path])
    scripts = (tmp_path / "scripts").read_text()
    assert scripts.count(f"#SBATCH --chdir={home}\n") == 2
    assert len(calls(fake, "sbatch")) == 2
    assert str(elsewhere) not in scripts


def test_rows_ask_for_resources(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, partition="small", gpus_per_rank=1, gpu_type="t4", mem_per_rank_gb=4.0)
    (plain,) = cells(tmp_path, 1)
    (large,) = cells(
        tmp_path,
        1,
        *("resources.partition=big", "resources.gpu_type=a100", "resources.mem_per_rank_gb=60.0"),
        *("resources.cpus_per_rank=8", "resources.qos=long", "resources.constraint=nvlink"),
    )
    assert str(resources_of(plain, profile)) == "1 × 1 ranks, small, t4, 4 GiB a rank and 240 minutes"
    asked = str(resources_of(large, profile))
    assert asked == "1 × 1 ranks, big, QOS long, nvlink, a100, 8 CPUs a rank, 60 GiB a rank and 240 minutes"
