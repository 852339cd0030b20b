"""Tables through a real scheduler: the same results, each run once, and what it says when it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clusters import (
    HAM,
    ROOT,
    TABLE,
    TINY,
    Cluster,
    attempts,
    ledger,
    logs,
    names,
    planned,
    prepare,
    records,
    running,
    wait_for,
)
from PIL import Image

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

METHOD = """
from dataclasses import dataclass

import torch
from my_share import SHARE
from sparsity import MaskSet, Topology, register_topology


@register_topology("first_rows")
class FirstRows(Topology):
    title = "First rows"
    family = "PaI"
    paper = "Nobody et al., 2020"

    def initial_masks(self, ctx):
        masks = {}
        for name, mask in ctx.masks.items():
            mask = mask.clone()
            mask[round(SHARE * len(mask)) :] = False
            masks[name] = mask
        return MaskSet(masks)
"""


def csv(cluster: Cluster, folder: Path, out: str = "runs") -> str:
    called = cluster.ham("table", f"{out}/table", "--format", "csv", folder=folder)
    assert called.returncode == 0, called.stderr
    return called.stdout


def one_message(called: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    assert called.returncode == code, called
    assert called.stdout == ""
    assert len(called.stderr.strip().splitlines()) == 1, called.stderr
    for part in parts:
        assert part in called.stderr


def assert_each_run_began_once(sweep: Path) -> None:
    for run in planned(sweep):
        assert len(attempts(run)) == 1, run
        assert len(ledger(run, "start")) == 1, run


@pytest.mark.parametrize("packed", [1, 2])
def test_the_table_is_that_of_this_machine(cluster: Cluster, tmp_path: Path, packed: int) -> None:
    folder = prepare(tmp_path, {"runs_per_job": packed})
    sweep = cluster.submit(folder)
    (record,) = records(sweep)
    (array,) = record["arrays"]
    assert [len(task) for task in array["tasks"]] == [packed] * (4 // packed)
    cluster.wait_until_done(sweep)
    local = cluster.ham("sweep", "table.yaml", "--out", "here", folder=folder)
    assert local.returncode == 0, local.stderr
    assert csv(cluster, folder) == csv(cluster, folder, "here")
    for run in planned(sweep):
        told = [
            json.loads((path / "environment.json").read_text())["git_commit"]
            for path in (run, folder / "here/table" / run.name)
        ]
        assert (told[0] is None) == (told[1] is None), "a snapshot knows its commit"
        assert (run / "weights.pt").read_bytes() == (folder / "here/table" / run.name / "weights.pt").read_bytes()
    assert_each_run_began_once(sweep)
    wait_for(lambda: set(cluster.states(sweep).values()) == {"COMPLETED"}, "the end of the jobs", 30)


def test_an_array_holds_its_throttle(cluster: Cluster, tmp_path: Path) -> None:
    folder = prepare(tmp_path, {"max_running": 2, "setup": ["sleep 1"]}, sweep={**TABLE, "seeds": [0, 1, 2]})
    sweep = cluster.submit(folder)
    most = 0

    def done() -> bool:
        nonlocal most
        states = list(cluster.states(sweep).values())
        most = max(most, states.count("RUNNING"))
        return len(states) == 6 and set(states) == {"COMPLETED"}

    wait_for(done, "six jobs, two at a time")
    assert most == 2
    cluster.wait_until_done(sweep, 5)


def test_ranks_get_gpus_and_share_a_run(cluster: Cluster, tmp_path: Path) -> None:
    python = tmp_path / "telling-python"
    python.write_text(
        f'#!/bin/sh\necho "seen $SLURM_PROCID $SLURM_LOCALID $CUDA_VISIBLE_DEVICES"\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    profile = {"nodes": 2, "ranks_per_node": 2, "gpus_per_rank": 1, "python": str(python)}
    folder = prepare(
        tmp_path, profile, data={**TINY["data"], "batch_size": 40}, sweep={"rows": {"Dense": {}}, "seeds": [0]}
    )
    sweep = cluster.submit(folder)
    cluster.wait_until_done(sweep)
    seen = sorted(line for line in logs(sweep).splitlines() if "seen " in line)
    assert [line.partition("seen ")[2] for line in seen] == ["0 0 0,1", "1 1 0,1", "2 0 0,1", "3 1 0,1"]
    (run,) = planned(sweep)
    assert [begun["ranks"] for begun in ledger(run, "start")] == [4]


def test_an_error_of_all_ranks_is_for_good(cluster: Cluster, tmp_path: Path) -> None:
    """Ranks that end a little before rank 0 do not make its failure look like a crash, which would be tried again."""
    profile = {"nodes": 2, "ranks_per_node": 2}
    data = {**TINY["data"], "batch_size": 40}
    rows = {"Diverges": {"optimizer.lr": 1e30}}
    folder = prepare(tmp_path, profile, data=data, sweep={"rows": rows, "seeds": [0]})
    sweep = cluster.submit(folder)
    wait_for(lambda: set(cluster.states(sweep).values()) == {"FAILED"}, "the end of the job")
    (run,) = planned(sweep)
    assert "the loss is not finite" in (run / "failure.json").read_text()
    assert [attempt["restarts"] for attempt in attempts(run)] in ([], [0])


def test_long_tables_are_split_at_the_schedulers_limit(tmp_path: Path) -> None:
    with running(ARRAY_SIZE="10") as small:
        folder = prepare(tmp_path, {"max_running": 2}, sweep={"rows": {"Dense": {}}, "seeds": list(range(25))})
        sweep = small.submit(folder)
        (record,) = records(sweep)
        assert [len(array["tasks"]) for array in record["arrays"]] == [10, 10, 5]
        assert len(small.states(sweep)) == 25
        assert len({array["job"] for array in record["arrays"]}) == 3
        last = record["arrays"][2]
        small.ask("scancel", record["arrays"][0]["job"], record["arrays"][1]["job"])
        wait_for(lambda: all((sweep / path / "result.json").exists() for (path,) in last["tasks"]), "the last array")


@pytest.mark.parametrize(
    ("profile", "says"),
    [
        ({"partition": "mian"}, "invalid partition specified: mian"),
        ({"mem_per_rank_gb": 9999.0}, "Memory specification can not be satisfied"),
        ({"gpus_per_rank": 1, "ranks_per_node": 10}, "Requested node configuration is not available"),
        ({"constraint": "nosuch"}, "Invalid feature specification"),
    ],
)
def test_a_refusal_is_one_message_in_the_schedulers_words(
    cluster: Cluster, tmp_path: Path, profile: dict[str, Any], says: str
) -> None:
    folder = prepare(tmp_path, profile)
    called = cluster.ham("sweep", "table.yaml", "--cluster", "slurm", "--profile", "test", folder=folder)
    one_message(called, 2, "profile test: sbatch refused the job: ", says)
    assert list((folder / "runs/table/submissions").iterdir()) == []
    assert cluster.ask("squeue", "-h") == ""


def test_without_slurm_there_is_one_message(cluster: Cluster, tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    called = cluster.ham("sweep", "table.yaml", "--cluster", "slurm", folder=folder, PATH=str(HAM.parent))
    one_message(called, 2, "there is no sbatch on the PATH")


def test_a_controller_that_is_away_for_ten_seconds_costs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    cluster.control("stop-ctld")
    command = [HAM, "sweep", "table.yaml", "--cluster", "slurm", "--profile", "test"]
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=folder, env=cluster.env, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(10)
        cluster.control("start-ctld")
        out, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    assert "4 runs in 4 jobs submitted" in out
    assert time.monotonic() - begun > 10
    sweep = folder / "runs/table"
    cluster.wait_until_done(sweep)
    assert_each_run_began_once(sweep)
    jobs = cluster.ask("squeue", "-h", "-r", "-t", "all", "-n", ",".join(names(sweep)), "-o", "%i").split()
    assert len(jobs) == 4


def test_submitting_twice_runs_nothing_twice(cluster: Cluster, tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    command = [HAM, "sweep", "table.yaml", "--cluster", "slurm", "--profile", "test"]
    both = [subprocess.Popen(command, cwd=folder, env=cluster.env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=120)[0].split(" in ")[0] for process in both)
    assert said == ["0 runs", "4 runs"]
    sweep = folder / "runs/table"
    third = cluster.ham(*command[1:], folder=folder)
    assert third.stdout.startswith("0 runs in 0 jobs submitted")
    cluster.wait_until_done(sweep)
    assert_each_run_began_once(sweep)
    again = cluster.ham(*command[1:], folder=folder)
    assert again.stdout.startswith("0 runs in 0 jobs submitted; 4 have a result")
    assert len(records(sweep)) == 1


def test_what_happens_to_the_checkout_afterwards_does_not_matter(cluster: Cluster, tmp_path: Path) -> None:
    """A copy of the checkout, first on the path and the working directory, breaks while the jobs wait."""
    folder = tmp_path / "checkout"
    for name in ("ham", "sparsity", "experiments", "results", "slurm", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "my_method.py").write_text(METHOD)
    (folder / "my_share.py").write_text("SHARE = 0.5\n")
    rows = {"Half": {"topology": {"name": "first_rows", "sparsity": 0.5}}}
    prepare(folder, imports=["my_method"], sweep={"rows": rows, "seeds": [0]}, topology=rows["Half"]["topology"])
    cluster.ask("scontrol", "update", "nodename=n[0-1]", "state=drain", "reason=test")
    sweep = cluster.submit(folder, PYTHONPATH=str(folder))
    for path in [*folder.glob("*/__init__.py"), *folder.glob("my_*.py")]:
        path.write_text("raise RuntimeError('this checkout is broken')\n")
    shutil.rmtree(folder / "sparsity")
    (folder / "table.yaml").write_text("schedule: {epochs: 77}\n")
    cluster.ask("scontrol", "update", "nodename=n[0-1]", "state=resume")
    cluster.wait_until_done(sweep)
    (run,) = planned(sweep)
    assert '"sparsity": 0.5' in (run / "result.json").read_text()
    assert ledger(run, "start")[0]["job"] == records(sweep)[0]["arrays"][0]["job"]


def pictures(folder: Path) -> Path:
    """A data set of files: noise in two classes."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for kind in ("cats", "dogs"):
            (folder / part / kind).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(random.integers(0, 255, (40, 40, 3), dtype=np.uint8))
                image.save(folder / part / kind / f"{number}.png")
    return folder


def test_data_are_staged_once_a_node_and_read_there(cluster: Cluster, tmp_path: Path) -> None:
    source = pictures(tmp_path / "pictures")
    # the nodes are one machine here, so each has a folder of its own
    own = "$NODE_LOCAL/$SLURMD_NODENAME"
    copy = f'echo "$SLURMD_NODENAME" >> {tmp_path}/staged; mkdir -p {own}; cp -r {source} {own}'
    profile = {
        "nodes": 2,
        "setup": [f"export NODE_LOCAL={tmp_path}/local-$SLURM_JOB_ID"],
        "staging": {"command": copy, "root": f"{own}/pictures"},
    }
    data = {"name": "imagenet", "root": str(source), "image_size": 32, "batch_size": 8, "validation": 0, "workers": 0}
    sections = {"model": {"name": "torchvision:resnet18"}, "schedule": {"epochs": 1}}
    folder = prepare(tmp_path, profile, data=data, sweep={"rows": {"Dense": {}}, "seeds": [0]}, **sections)
    sweep = cluster.submit(folder)
    cluster.wait_until_done(sweep)
    assert sorted((tmp_path / "staged").read_text().split()) == ["n0", "n1"]
    (run,) = planned(sweep)
    assert f"root: {tmp_path}/local-" in (run / "spec.yaml").read_text()


def test_failed_staging_stops_the_job_and_not_the_run(cluster: Cluster, tmp_path: Path) -> None:
    staging = {"command": f"echo $SLURMD_NODENAME >> {tmp_path}/staged; exit 7", "root": "$TMPDIR/data"}
    profile = {"nodes": 2, "staging": staging}
    folder = prepare(tmp_path, profile, sweep={"rows": {"Dense": {}}, "seeds": [0]})
    sweep = cluster.submit(folder)
    wait_for(lambda: set(cluster.states(sweep).values()) == {"FAILED"}, "the end of the job", 60)
    assert sorted((tmp_path / "staged").read_text().split()) == ["n0", "n1"]
    assert "staging failed" in logs(sweep)
    assert not list(sweep.glob("*/failure.json"))


def test_the_doctor_tries_the_cluster_and_writes_a_profile(cluster: Cluster, tmp_path: Path) -> None:
    called = cluster.ham("doctor", "slurm", "--profile-out", "first.yaml", folder=tmp_path)
    assert called.returncode == 0, called.stderr
    for line in ("ok  shared file system", "ok  scontrol", "ok  requeue", "ok  Python", "ok  MaxArraySize: 1001"):
        assert line in called.stdout
    assert "CUDA_VISIBLE_DEVICES=" in called.stdout
    assert "ok  two nodes: ranks on n0 and n1 found each other and summed over gloo" in called.stdout
    for line in ("ok  O_EXCL: each of", "ok  clocks: beside", "ok  interfaces of n1: ", "ok  limits: none"):
        assert line in called.stdout
    prepare(tmp_path)
    listed = cluster.ham(
        "sweep", "table.yaml", "--cluster", "slurm", "--profile", "first.yaml", "--dry-run", folder=tmp_path
    )
    assert "#SBATCH --partition=main" in listed.stdout
    assert "4 of 4 runs in 4 jobs (0 have a result, 0 under way); at most 16 GPU-hours and" in listed.stdout
    assert "estimate: none, of 4 nothing is known" in listed.stdout
    one_message(cluster.ham("doctor", "slurm", "--profile-out", "first.yaml", folder=tmp_path), 2, "is there already")
