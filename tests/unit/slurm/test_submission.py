"""Submission against a scheduler made of shell scripts: what it says, when it does not answer, what stays behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from slurm_plans import ACCEPTS, calls, cells, finish, queued, record, scheduler

from experiments.config.sweep import Sweep
from experiments.config.yaml_text import dump
from experiments.errors import SuiteError, UserError
from experiments.launch.estimate import Estimate
from slurm import profile, records, submit
from slurm.scheduler import cluster


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test waits long for a scheduler that will not answer."""
    monkeypatch.setattr(cluster, "PATIENCE", 3.0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep("table", None, None, None, [], {}, cells(tmp_path, 3))


def leftovers(runs: Path) -> list[str]:
    return [path.name for path in (runs / "table" / "submissions").iterdir()]


def test_what_is_submitted_is_on_record(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = scheduler(tmp_path, monkeypatch)
    done = submit.submit(sweep, tmp_path / "runs", "default")
    assert (done.jobs, done.seen.done, done.seen.under_way) == (["101"], 0, [])
    assert str(done) == "3 runs in 3 jobs submitted (101); 0 have a result, 0 were under way"
    written = record(tmp_path / "runs")
    (array,) = written["arrays"]
    told = {"name": f"ham-table-{written['id']}-0", "job": "101", "width": None, "waits": False}
    assert array == {**told, "tasks": [[one.path] for one in sweep.cells]}
    assert Path(written["snapshot"], "slurm", "job", "payload.py").is_file()
    folder = tmp_path / "runs" / "table" / "submissions" / written["id"]
    for task in range(3):
        assert (folder / f"101_{task}_submitted.pkl").is_file()
    assert len(calls(fake, "sbatch")) == 1
    assert sorted(json.loads((tmp_path / "runs/table/sweep.json").read_text())["cells"][0]) == [
        *("column", "identity", "path", "row", "seed")
    ]


def test_the_record_stands_before_sbatch_is_called(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = f"cat {tmp_path}/runs/table/submissions/*.json > {tmp_path}/seen; {ACCEPTS}"
    scheduler(tmp_path, monkeypatch, sbatch=look)
    submit.submit(sweep, tmp_path / "runs", "default")
    seen = json.loads((tmp_path / "seen").read_text())
    (array,) = seen["arrays"]
    assert array["job"] is None
    assert array["name"] == record(tmp_path / "runs")["arrays"][0]["name"]


def test_finished_runs_are_left_out(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler(tmp_path, monkeypatch)
    finish(tmp_path / "runs", sweep.cells[1])
    done = submit.submit(sweep, tmp_path / "runs", "default")
    assert done.seen.done == 1
    assert record(tmp_path / "runs")["arrays"][0]["tasks"] == [[sweep.cells[0].path], [sweep.cells[2].path]]
    only = submit.submit(sweep, tmp_path / "runs", "default", only=[sweep.cells[1].path])
    assert (only.jobs, only.seen.done) == ([], 1)


def test_a_finished_table_calls_nobody(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = scheduler(tmp_path, monkeypatch)
    for cell in sweep.cells:
        finish(tmp_path / "runs", cell)
    assert submit.submit(sweep, tmp_path / "runs", "default").seen.done == 3
    assert calls(fake, "sbatch") == []


def test_runs_in_the_queue_are_not_submitted_again(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = scheduler(tmp_path, monkeypatch)
    submit.submit(sweep, tmp_path / "runs", "default")
    name = record(tmp_path / "runs")["arrays"][0]["name"]
    line = queued("101_0", name)
    scheduler(tmp_path, monkeypatch, squeue=f"echo '{line}'", sbatch=ACCEPTS)
    again = submit.submit(sweep, tmp_path / "runs", "default")
    assert len(again.seen.under_way) == 1
    assert [array.runs for array in again.arrays] == [2]
    assert len(calls(fake, "sbatch")) == 2


@pytest.mark.robust
def test_a_queue_that_cannot_be_asked_stops_a_second_submission(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = scheduler(tmp_path, monkeypatch)
    submit.submit(sweep, tmp_path / "runs", "default")
    scheduler(tmp_path, monkeypatch, squeue="echo 'slurm_load_jobs error: the dog ate it' >&2; exit 1")
    with pytest.raises(SuiteError, match="the dog ate it") as caught:
        submit.submit(sweep, tmp_path / "runs", "default")
    assert caught.value.exit_code == 1
    assert len(calls(fake, "sbatch")) == 1


@pytest.mark.parametrize(
    "words",
    [
        "invalid partition specified: gpuu",
        "Batch job submission failed: Invalid account or account/partition combination specified",
        "Batch job submission failed: Requested node configuration is not available",
    ],
)
def test_a_refusal_is_told_in_the_schedulers_words_and_leaves_nothing(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = scheduler(tmp_path, monkeypatch, sbatch=f"echo 'sbatch: error: {words}' >&2; exit 1")
    with pytest.raises(UserError) as caught:
        submit.submit(sweep, tmp_path / "runs", "default")
    assert str(caught.value) == f"profile default: sbatch refused the job: {words}"
    assert capsys.readouterr() == ("", "")
    assert len(calls(fake, "sbatch")) == 1
    assert leftovers(tmp_path / "runs") == []


def test_without_slurm_there_is_one_message(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch on the PATH"):
        submit.submit(sweep, tmp_path / "runs", "default")
    assert not (tmp_path / "runs").exists()


def test_a_scheduler_that_answers_late_gets_each_run_once(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call times out after the job was taken: it is cancelled before the second."""
    silent = (
        'n=$(wc -l < "$(dirname "$0")/sbatch.calls"); if [ "$n" = 1 ]; then touch "$(dirname "$0")/taken"; '
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1; fi; "
        "echo Submitted batch job 102"
    )
    line = queued("101_0", "NAME")
    fake = scheduler(
        tmp_path,
        monkeypatch,
        sbatch=silent,
        squeue=f"""if [ -e "$(dirname "$0")/taken" ]; then echo '{line}'; fi""",
        scancel='rm "$(dirname "$0")/taken"',
    )
    done = submit.submit(sweep, tmp_path / "runs", "default")
    assert done.jobs == ["102"]
    assert [call.split("_")[0] for call in calls(fake, "scancel")] == ["101"]
    assert f"--name {record(tmp_path / 'runs')['arrays'][0]['name']}" in " ".join(calls(fake, "squeue"))
    assert len(calls(fake, "sbatch")) == 2


@pytest.mark.robust
def test_a_scheduler_that_never_answers_is_given_up(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = "echo 'sbatch: error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    scheduler(tmp_path, monkeypatch, sbatch=silent, squeue=silent)
    with pytest.raises(SuiteError, match="Unable to contact slurm controller") as caught:
        submit.submit(sweep, tmp_path / "runs", "default")
    assert caught.value.exit_code == 1
    (array,) = record(tmp_path / "runs")["arrays"]  # by its name it is found if it entered the queue after all
    assert array["job"] is None
    assert array["name"] in str(caught.value)


def test_what_was_accepted_before_a_refusal_stays_on_record(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = 'n=$(wc -l < "$(dirname "$0")/sbatch.calls"); [ "$n" = 1 ] || { echo "no more jobs" >&2; exit 1; }'
    scheduler(tmp_path, monkeypatch, sbatch=f"{second}; {ACCEPTS}", scontrol="echo 'MaxArraySize = 2'")
    with pytest.raises(SuiteError) as caught:
        submit.submit(sweep, tmp_path / "runs", "default")
    assert caught.value.exit_code == 1
    assert str(caught.value) == (
        "profile default: 2 runs in 2 jobs submitted (101); 0 have a result, 0 were under way; sbatch refused the job: "
        "no more jobs; the same command, given again later, goes on with the 1 runs that were not accepted"
    )
    (array,) = record(tmp_path / "runs")["arrays"]
    assert array["job"] == "101"
    assert array["tasks"] == [[sweep.cells[0].path], [sweep.cells[1].path]]


def test_runs_are_submitted_again_as_they_were(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = scheduler(tmp_path, monkeypatch)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text(dump({"hours": 7.0}))
    submit.submit(sweep, tmp_path / "runs", "mine")
    (tmp_path / "profiles" / "mine.yaml").unlink()
    (kept_profile,) = (tmp_path / "runs/table/submissions").glob("*/profile.yaml")
    assert profile.load(str(kept_profile)) == profile.load("default").model_copy(update={"hours": 7.0})
    folder = tmp_path / "runs" / "table"
    kept = records.recorded_runs(folder)
    assert kept == {cell.path: cell for cell in sweep.cells}
    done = submit.resubmit(folder, [sweep.cells[2].path])
    assert [array.runs for array in done.arrays] == [1]
    assert done.arrays[0].parameters["time"] == 7 * 60
    assert len(calls(fake, "sbatch")) == 2
    with pytest.raises(UserError, match="was never submitted"):
        submit.resubmit(folder, ["other-0a1b2c3d-s0"])


def test_the_last_submission_is_the_one_whose_record_says_so(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the folder has other file times, and so has a file system with a clock of its own."""
    scheduler(tmp_path, monkeypatch)
    folder = tmp_path / "runs" / "table"
    for hours in (1.0, 2.0, 3.0):
        (tmp_path / "mine.yaml").write_text(dump({"hours": hours}))
        submit.submit(sweep, tmp_path / "runs", "mine.yaml")
    stamps = [
        (json.loads(path.read_text())["time"], path.with_suffix("")) for path in folder.glob("submissions/*.json")
    ]
    for number, (_, kept) in enumerate(sorted(stamps)):
        for path in kept.glob("*.*"):
            os.utime(path, (1e9 - number, 1e9 - number))
    assert profile.load(str(records.last_profile(folder)[0])).hours == 3.0
    for path in folder.glob("submissions/*/profile.yaml"):
        path.unlink()
    with pytest.raises(UserError, match="no submission has its profile.yaml any more: use `ham sweep CONFIG"):
        submit.resubmit(folder, [sweep.cells[0].path])


def test_a_dry_run_prints_scripts_and_totals_and_writes_nothing(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = scheduler(tmp_path, monkeypatch)
    (tmp_path / "gpu.yaml").write_text(dump({"gpus_per_rank": 1, "hours": 2.5}))
    finish(tmp_path / "runs", sweep.cells[0])
    before = sorted(tmp_path.rglob("*"))
    known = {sweep.cells[1].path: Estimate(3600.0, "same")}
    text = submit.dry_run(sweep, tmp_path / "runs", "gpu.yaml", known)
    assert "#SBATCH --array=0-1%2" in text
    assert "2 of 3 runs in 2 jobs (1 have a result, 0 under way); at most 5 GPU-hours" in text
    *_, bound, estimate = text.splitlines()
    assert "an upper bound" in bound
    assert estimate.startswith("estimate for 1 of 2 runs: 1 GPU-hours and 1 CPU-hours in 1 starts of jobs; ")
    assert calls(fake, "sbatch") == []
    assert sorted(path for path in tmp_path.rglob("*") if not path.name.endswith(".calls")) == before


def test_profiles_are_checked_before_anything_is_written(sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no profile 'defualt'"):
        submit.submit(sweep, tmp_path / "runs", "defualt")
    assert not (tmp_path / "runs").exists()
    assert profile.load("default").requeue


def mailed(arguments: str, begin: str) -> str:
    (found,) = [one.removeprefix(begin) for one in arguments.split() if one.startswith(begin)]
    return found


@pytest.mark.parametrize(("value", "to"), [("me@lab.org", ["--mail-user=me@lab.org"]), (True, [])])
def test_one_email_at_the_end_of_the_sweep(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | bool, to: list[str]
) -> None:
    accepts = f'case "$*" in *afterany*) echo 900 ;; *) {ACCEPTS} ;; esac'
    fake = scheduler(tmp_path, monkeypatch, sbatch=accepts)
    (tmp_path / "mine.yaml").write_text(dump({"mail": value, "account": "lab", "setup": ["module load cuda"]}))
    done = submit.submit(sweep, tmp_path / "runs", "mine.yaml")
    assert str(done).endswith("0 were under way\ne-mail at the end: job 900")
    _, end = calls(fake, "sbatch")
    assert mailed(end, "--dependency=") == "afterany:101"
    assert mailed(end, "--mail-type=") == "END,FAIL"
    assert [one for one in end.split() if one.startswith("--mail-user")] == to
    assert "--account=lab" in end
    script = Path(end.split()[-1]).read_text()
    assert f"-m experiments.cli wait {tmp_path}/runs/table --timeout 300" in script
    assert script.index("module load cuda") < script.index("PYTHONPATH=")

    # the second submission waits for the first one, too, and its e-mail replaces the first one's
    name = mailed(end, "--job-name=")
    fields = [("101_0", "101", written_name(tmp_path), "RUNNING"), ("900", "900", name, "PENDING")]
    rest = ("Dependency", "0", "", "1:00", "1", "N/A", "N/A", "0")
    widths = (48, 24, 256, 24, 96, 12, 256, 24, 24, 24, 24, 12)
    lines = ["".join(map(str.ljust, (*one, *rest), widths)) for one in fields]
    (tmp_path / "queue").write_text("\n".join(lines) + "\n")
    fake = scheduler(tmp_path, monkeypatch, sbatch=accepts, squeue=f"cat {tmp_path}/queue")
    submit.submit(sweep, tmp_path / "runs", "mine.yaml")
    again = calls(fake, "sbatch")[-1]
    assert mailed(again, "--dependency=").split(":")[1:3][0] == "101"
    assert calls(fake, "scancel") == ["900"]


def written_name(folder: Path) -> str:
    return record(folder / "runs")["arrays"][0]["name"]


def test_a_refused_email_refuses_no_runs(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = f'case "$*" in *afterany*) echo "sbatch: error: Invalid qos" >&2; exit 1 ;; *) {ACCEPTS} ;; esac'
    scheduler(tmp_path, monkeypatch, sbatch=refuses)
    (tmp_path / "mine.yaml").write_text(dump({"mail": "me@lab.org"}))
    done = submit.submit(sweep, tmp_path / "runs", "mine.yaml")
    said = "3 runs in 3 jobs submitted (101); 0 have a result, 0 were under way"
    assert str(done) == f"{said}\nno e-mail at the end: Invalid qos"
