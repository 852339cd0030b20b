"""Runs and a profile to job arrays; the batch scripts are pinned, since every line of them meets real schedulers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from slurm_plans import PLACE, cells, profile_of

from experiments.config.sweep import Cell
from experiments.errors import UserError
from slurm.array import ArrayPlan
from slurm.plan import plan, script
from slurm.profile import Profile
from slurm.scheduler import cluster
from slurm.throttle import throttled

GOLDEN = Path(__file__).parent / "golden"
PROFILES: dict[str, dict[str, Any]] = {
    "plain": {},
    "gpus": {
        "partition": "gpu",
        "account": "sparse",
        "qos": "long",
        "reservation": "night",
        "constraint": "a100|h100",
        "nodes": 2,
        "ranks_per_node": 4,
        "hours": 1.25,
        "gpus_per_rank": 1,
        "gpu_type": "a100",
        "cpus_per_rank": 8,
        "mem_per_rank_gb": 30.5,
        "signal_seconds": 300,
        "max_running": 2,
        "sbatch": {"mail-type": "FAIL", "exclusive": True},
    },
    "staged": {
        "setup": ["module load cuda", "export NCCL_DEBUG=WARN"],
        "srun_args": ["--container-image=/images/ham suite.sqsh"],
        "python": "apptainer exec /images/ham.sif python",
        "staging": {"command": "tar -xf '/data/it s.tar' -C $TMPDIR", "root": "$TMPDIR/imagenet"},
        "requeue": False,
    },
    "packed": {"runs_per_job": 3, "gpus_per_rank": 1},
}


def planned(runs: list[Cell], profile: Profile, array_size: int = 1001) -> list[ArrayPlan]:
    return plan(runs, profile, PLACE, name="ham-table-ab12cd34", array_size=array_size)


def paths(array: ArrayPlan) -> list[list[str]]:
    return [[cell.path.rpartition("-")[2] for cell in task] for task in array.tasks]


def blocks() -> dict[str, str]:
    """What stands in the golden files for the lines that all scripts have, which are pinned once."""
    common = (GOLDEN / "common.sh").read_text()
    return {"# common.sh\n": common, "# common.sh, without a try\n": common.replace(" in 1 2 3 4; do", " in ; do")}


def golden(name: str) -> str:
    text = (GOLDEN / f"{name}.sh").read_text()
    for word, block in blocks().items():
        text = text.replace(word, block)
    return text


def write_golden(name: str, text: str) -> None:
    if name == "plain":
        first, last = "unset ${!", "trap ham_end EXIT\n"
        (GOLDEN / "common.sh").write_text(text[text.index(first) : text.index(last) + len(last)])
    for word, block in blocks().items():
        text = text.replace(block, word)
    (GOLDEN / f"{name}.sh").write_text(text)


@pytest.mark.parametrize("name", PROFILES)
def test_batch_scripts_are_the_golden_ones(name: str, tmp_path: Path) -> None:
    """HAM_WRITE_GOLDEN=1 writes them anew; read the difference before it is committed."""
    profile = profile_of(tmp_path, **PROFILES[name])
    arrays = throttled(planned(cells(tmp_path, 4), profile), profile.max_running)
    text = "".join(f"{script(array, PLACE)}\n" for array in arrays)
    if os.environ.get("HAM_WRITE_GOLDEN") == "1":
        write_golden(name, text)
    assert text == golden(name)


@pytest.mark.parametrize("name", PROFILES)
def test_golden_scripts_hold_no_path_of_a_machine_and_are_valid_shell(name: str) -> None:
    text = golden(name)
    for place in (str(Path.home()), sys.prefix, sys.executable, str(Path(__file__).resolve().parents[3]), os.getcwd()):
        assert place == "/" or place not in text
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_nothing_here_loads_torch() -> None:
    root = Path(__file__).parents[3]
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in root.glob("slurm/**/[a-z]*.py")]
    assert {"slurm.plan", "slurm.job.payload", "slurm.scheduler.queue"} <= set(names)
    code = f"import sys, {', '.join(names)}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_planning_is_a_pure_function(tmp_path: Path) -> None:
    runs, profile = cells(tmp_path, 3), profile_of(tmp_path)
    before = os.listdir(tmp_path)
    assert planned(runs, profile) == planned(runs, profile)
    assert os.listdir(tmp_path) == before


def test_arrays_are_split_at_the_schedulers_limit(tmp_path: Path) -> None:
    arrays = planned(cells(tmp_path, 25), profile_of(tmp_path), array_size=10)
    assert [len(array.tasks) for array in arrays] == [10, 10, 5]
    assert [array.name for array in arrays] == [f"ham-table-ab12cd34-{k}" for k in range(3)]
    assert [path for array in arrays for task in paths(array) for path in task] == [f"s{seed}" for seed in range(25)]


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, 1001),
        ({"MaxArraySize": "50"}, 50),
        ({"MaxArraySize": "50", "SchedulerParameters": "bf_interval=2,max_array_tasks=20,defer"}, 20),
        ({"MaxArraySize": "50", "SchedulerParameters": "max_array_tasks=70"}, 50),
    ],
)
def test_the_limit_is_what_the_scheduler_accepts(settings: dict[str, str], size: int) -> None:
    assert cluster.array_size(settings) == size


def test_a_cluster_without_arrays_gets_single_jobs(tmp_path: Path) -> None:
    arrays = planned(cells(tmp_path, 2), profile_of(tmp_path), array_size=0)
    assert [len(array.tasks) for array in arrays] == [1, 1]
    assert "--array" not in script(arrays[0], PLACE)


def test_runs_are_grouped_by_what_they_ask_for(tmp_path: Path) -> None:
    small = cells(tmp_path, 2)
    wide = cells(tmp_path, 2, "resources.nodes=2", "resources.ranks_per_node=4", name="wide")
    long = cells(tmp_path, 1, "resources.hours=30.0", name="long")
    mixed = [small[0], wide[0], long[0], small[1], wide[1]]
    arrays = planned(mixed, profile_of(tmp_path, hours=2.0, gpus_per_rank=1))
    asked = [(one.resources.nodes, one.resources.ranks_per_node, one.resources.minutes) for one in arrays]
    assert asked == [(1, 1, 120), (2, 4, 120), (1, 1, 1800)]
    assert [len(array.tasks) for array in arrays] == [2, 2, 1]
    assert [array.parameters["gpus_per_node"] for array in arrays] == [1, 4, 1]


def test_small_runs_share_a_job_and_wide_ones_do_not(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, runs_per_job=2)
    wide = cells(tmp_path, 2, "resources.ranks_per_node=2", name="wide")
    arrays = planned([*cells(tmp_path, 5), *wide], profile)
    assert [paths(array) for array in arrays] == [[["s0", "s1"], ["s2", "s3"], ["s4"]], [["s0"], ["s1"]]]


def test_gpu_hours_are_gpus_times_limit_times_jobs(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, gpus_per_rank=1, nodes=2, ranks_per_node=4, hours=3.0)
    (array,) = planned(cells(tmp_path, 5), profile)
    assert array.gpu_hours == 2 * 4 * 3.0 * 5
    (cpu,) = planned(cells(tmp_path, 5), profile_of(tmp_path))
    assert cpu.gpu_hours == 0
    packed = planned(cells(tmp_path, 5), profile_of(tmp_path, gpus_per_rank=1, runs_per_job=5, hours=1.0))
    assert [array.gpu_hours for array in packed] == [1.0]


def test_an_array_holds_its_throttle(tmp_path: Path) -> None:
    (array,) = throttled(planned(cells(tmp_path, 5), profile_of(tmp_path)), 2)
    assert "#SBATCH --array=0-4%2" in script(array, PLACE)


@pytest.mark.parametrize(
    ("hours", "seconds", "key"), [(0.01, 120, "resources.hours"), (None, 3600, "hours of the profile")]
)
def test_a_job_no_longer_than_its_warning_is_refused(
    tmp_path: Path, hours: float | None, seconds: int, key: str
) -> None:
    """The scheduler would warn it at its start."""
    runs = cells(tmp_path, 1, *([f"resources.hours={hours}"] if hours else []))
    with pytest.raises(UserError, match="a job would be told to end as it begins") as caught:
        planned(runs, profile_of(tmp_path, hours=1.0, signal_seconds=seconds))
    assert caught.value.where == key
    planned(runs, profile_of(tmp_path, hours=1.0, signal_seconds=59))


@pytest.mark.parametrize("key", ["hours", "mem_per_rank_gb", "nodes", "ranks_per_node"])
def test_amounts_are_bounded(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=rf"{key}.*(out of range|too large)"):
        profile_of(tmp_path, **{key: 10**9 if key in ("nodes", "ranks_per_node") else 1e30})
