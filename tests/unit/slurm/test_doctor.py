"""What the doctor makes of what Slurm's commands print."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm_plans import install

from experiments.config.yaml_text import dump
from experiments.errors import UserError
from slurm import doctor
from slurm.profile import load
from slurm.scheduler import partitions

SINFO = """\
debug|up|30:00|2|64|257000+|(null)
gpu*|up|1-12:00:00|40|96+|1031000|gpu:a100:4(S:0-1)
gpu*|up|1-12:00:00|8|128|2063000|gpu:h100:8(S:0-1),shard:h100:16
old|down|infinite|1|8|16000|gpu:2
"""


@pytest.mark.parametrize(
    ("limit", "hours"),
    [("30:00", 0.5), ("4:00:00", 4.0), ("1-12:00:00", 36.0), ("infinite", None), ("n/a", None), ("", None)],
)
def test_time_limits(limit: str, hours: float | None) -> None:
    assert partitions.hours(limit) == hours


@pytest.mark.parametrize(
    ("gres", "found"),
    [
        ("(null)", {}),
        ("gpu:4", {"": 4}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:v100:2(S:0),gpu:a100:2(S:1),nvme:1", {"v100": 2, "a100": 2}),
    ],
)
def test_gpus_of_a_node(gres: str, found: dict[str, int]) -> None:
    assert partitions.gpus(gres) == found


def test_the_first_profile_takes_a_gpus_share_of_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "bin", monkeypatch, sinfo=f"cat <<'END'\n{SINFO}END")
    found, problem = partitions.partitions()
    assert problem is None
    assert [(one["name"], one["nodes"], one["up"]) for one in found] == [
        ("debug", 2, True),
        ("gpu", 48, True),
        ("old", 1, False),
    ]
    keys = partitions.suggestion(found)
    assert keys == {"partition": "gpu", "hours": 4.0, "gpus_per_rank": 1, "cpus_per_rank": 24, "mem_per_rank_gb": 226.5}
    (tmp_path / "first.yaml").write_text(dump(keys))
    assert load(str(tmp_path / "first.yaml")).cpus_per_rank == 24
    assert partitions.suggestion([]) == {}


def test_what_is_missing_on_a_node_is_said_with_its_consequence() -> None:
    facts = {"node": "n7", "shared": "yes", "python": "no", "scontrol": "no", "block": "yes", "gpus": "0", "smi": "1"}
    lines = [str(finding) for finding in doctor.on_node(facts)]
    assert any(line.startswith("warning  scontrol: ") and "--resubmit lost" in line for line in lines)
    assert any(line.strip().startswith("failed  Python: ") for line in lines)
    assert any("ok  shared file system" in line for line in lines)
    assert any("ok  GPU: CUDA_VISIBLE_DEVICES=0, nvidia-smi sees 1" in line for line in lines)


def test_a_cluster_that_refuses_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path / "bin",
        monkeypatch,
        sbatch="echo 'sbatch: error: Invalid account' >&2; exit 1",
        sinfo="exit 0",
        scontrol="echo 'JobRequeue = 0'",
        **dict.fromkeys(("srun", "squeue", "scancel", "sacct"), ""),
    )
    text = "\n".join(doctor.examine(None, None, tmp_path / "runs"))
    assert "failed  a small job: sbatch refused it: Invalid account" in text
    assert "warning  JobRequeue: 0" in text
    assert not list((tmp_path / "runs/.doctor").iterdir())


def test_there_is_nothing_to_examine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch on the PATH"):
        list(doctor.examine(None, None, tmp_path))
