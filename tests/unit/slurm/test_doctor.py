"""What the doctor makes of what Slurm's commands print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from slurm_plans import install

from experiments.cli import cluster as commands
from experiments.cli import options
from experiments.config.yaml_text import dump
from experiments.errors import UserError
from slurm import doctor
from slurm.doctor import limits, nodes, probe, rank
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
    lines = [str(finding) for finding in probe.on_node(facts)]
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
    text = "\n".join(map(str, doctor.examine(None, None, tmp_path / "runs")))
    assert "failed  a small job: sbatch refused it: Invalid account" in text
    assert "warning  JobRequeue: 0" in text
    assert not list((tmp_path / "runs/.doctor").iterdir())
    assert "warning  two nodes: sbatch refused the job: Invalid account" in text


def test_the_first_profile_goes_into_a_folder_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        tmp_path / "bin",
        monkeypatch,
        sbatch="echo 'sbatch: error: Invalid account' >&2; exit 1",
        sinfo=f"cat <<'END'\n{SINFO}END",
        **dict.fromkeys(("srun", "squeue", "scancel", "sacct", "scontrol"), ""),
    )
    output = tmp_path / "new/profiles/mine.yaml"
    with pytest.raises(typer.Exit) as caught:
        commands.doctor(options.Cluster.slurm, None, output, tmp_path / "runs")
    assert caught.value.exit_code == 1  # jobs are refused
    assert load(str(output)).partition == "gpu"


def test_there_is_nothing_to_examine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch on the PATH"):
        list(doctor.examine(None, None, tmp_path))


# ---- limits ---------------------------------------------------------------------------------------------------------

ASSOC = "lab|||100|200||||gres/gpu=16|\nlab|gpu|normal,long|||||7-00:00:00||\n"
QOS = "normal|||||||\nlong|7-00:00:00|4|5|gres/gpu=8|||\nothers|1:00:00|1|1||||\n"
PARTITIONS = "PartitionName=gpu AllowAccounts=lab AllowQos=ALL MaxNodes=4 MaxTime=1-12:00:00 QoS=part State=UP\n"


def test_limits_of_accounts_qos_and_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"assoc": ASSOC, "qos": QOS}
    monkeypatch.setattr(
        limits.cluster, "ask", lambda *words: (said[words[3]] if words[0] == "sacctmgr" else PARTITIONS, None)
    )
    settings = {"AccountingStorageType": "accounting_storage/slurmdbd", "AccountingStorageEnforce": "associations"}
    lines = [str(finding).strip() for finding in limits.of_user(settings)]
    assert lines == [
        "ok  limits: not enforced here (AccountingStorageEnforce=associations)",
        "ok  account lab: MaxJobs 100, MaxSubmit 200, MaxTRES gres/gpu=16; more than 200 jobs at once are refused",
        "ok  account lab, partition gpu: MaxWall 7-00:00:00",
        "ok  QOS normal: no limits",
        "ok  QOS long: MaxWall 7-00:00:00, MaxJobsPU 4, MaxSubmitPU 5, MaxTRESPU gres/gpu=8; more than 5 jobs at once "
        "are refused",
        "ok  limits of partition gpu: MaxTime 1-12:00:00, MaxNodes 4, QoS part, AllowAccounts lab",
    ]
    enforced = [str(one) for one in limits.of_user({**settings, "AccountingStorageEnforce": "associations,limits,qos"})]
    assert not any("not enforced" in line for line in enforced)


def test_limits_that_cannot_be_read_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.cluster, "ask", lambda *words: ("", "slurmdbd is down"))
    settings = {"AccountingStorageType": "accounting_storage/slurmdbd"}
    assert [str(one) for one in limits.of_user(settings)] == ["unknown  limits: sacctmgr says: slurmdbd is down"]


# ---- two nodes ------------------------------------------------------------------------------------------------------


def fact(node: str, **changes: Any) -> dict[str, Any]:
    """What a rank finds where all is well."""
    return {
        **{"node": node, "host": f"{node}.site", "address": "10.0.0.1", "met": None, "internet": True, "tried": 4},
        "interfaces": {"lo": "127.0.0.1", "ib0": "10.1.0.1"},
        "variables": {"GLOO_SOCKET_IFNAME": None, "NCCL_SOCKET_IFNAME": None},
        "created": [0, 1] if node == "a" else [2, 3],
        **{"stamp": 1000.0, "clock": 1000.1},
        **changes,
    }


def judged(**changes: Any) -> dict[str, str]:
    """The findings that are not ok, by what they are about, where the second node has changes."""
    findings = list(nodes.judged([fact("a"), fact("b", **changes)]))
    return {one.what: f"{one.mark}: {one.text}" for one in findings if one.mark != "ok"}


def test_two_nodes_that_are_well() -> None:
    assert judged() == {}
    text = [str(one).strip() for one in nodes.judged([fact("a"), fact("b")])]
    assert text[0] == "ok  two nodes: ranks on a and b found each other and summed over gloo"
    assert (
        "ok  interfaces of b: lo 127.0.0.1, ib0 10.1.0.1; GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME are not set" in text
    )


def test_ranks_that_do_not_meet_are_told_why_and_what_to_set() -> None:
    said = judged(met="rank 1 of 2 did not find the others", address="127.0.1.1")["two nodes"]
    assert said.startswith(
        "failed: ranks on a and b did not find each other: rank 1 of 2 did not find the others; on b "
    )
    assert "its own name, b.site, is 127.0.1.1, which other nodes cannot reach" in said
    assert "export GLOO_SOCKET_IFNAME=..." in said
    assert "an interface that both nodes share" in judged(met="timed out")["two nodes"]


@pytest.mark.parametrize(("value", "wrong"), [("eth0", True), ("ib", False), ("^lo", False), ("=ib0", False)])
def test_an_interface_that_is_not_there_is_named(value: str, wrong: bool) -> None:
    found = judged(variables={"GLOO_SOCKET_IFNAME": value, "NCCL_SOCKET_IFNAME": None})
    assert ("network of b" in found) == wrong
    if wrong:
        assert "GLOO_SOCKET_IFNAME=eth0 names none of the interfaces there: lo 127.0.0.1, ib0" in found["network of b"]


def test_claims_must_be_exclusive() -> None:
    assert judged(created=[1, 2, 3])["O_EXCL"].startswith("failed: 1 of 4 files were created by both nodes")


def test_nodes_without_internet_are_told_how_to_sync() -> None:
    way = "W&B is not reached from b: tracking.wandb=offline, then `ham track push DIR`"
    assert way in judged(internet=False)["internet"]


@pytest.mark.parametrize(
    ("change", "here", "said"),
    [
        ({}, 0.0, None),
        ({"clock": 1007.0}, 0.0, "b +7.0 s"),  # its own is wrong
        ({}, 9.0, "this machine +9.0 s"),  # this machine's is
        ({"clock": 400.0, "stamp": 400.0}, 0.0, "b -590.0 s"),  # its file system stamps by its own clock
    ],
)
def test_clocks(change: dict[str, float], here: float, said: str | None) -> None:
    found = nodes.clocks([fact("a"), fact("b", **change)], here, begun=990.0, now=1010.0)
    assert found.mark == ("ok" if said is None else "warning")
    assert said is None or said in found.text


def test_what_a_rank_sees_is_what_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    one, other = rank.look(tmp_path), rank.look(tmp_path)
    assert one.keys() == fact("a").keys()
    assert (len(one["created"]), other["created"], one["internet"]) == (rank.FILES, [], False)
    assert one["interfaces"]["lo"] == "127.0.0.1"
    assert one["met"] == "there are 1 ranks, not 2"
    found = {one.what: one.mark for one in nodes.judged([one, other])}
    assert (found["two nodes"], found["O_EXCL"], found["internet"]) == ("failed", "ok", "warning")
