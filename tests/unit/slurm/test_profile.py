"""Cluster profiles: where they are found, what they hold, what is wrong with them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.config.yaml_text import dump, read_mapping
from experiments.errors import UserError
from slurm import profile


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def write(path: Path, **keys: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump(keys))
    return path


def test_the_packaged_default_has_every_key(folders: Path) -> None:
    tree = read_mapping(profile.find("default"))
    assert list(tree) == list(profile.Profile.model_fields)
    assert profile.load("default").hours == 4.0


def test_a_profile_needs_only_what_differs(folders: Path) -> None:
    path = write(
        folders / "mine.yaml", partition="gpu", gpus_per_rank=1, staging={"command": "true", "root": "$TMPDIR/x"}
    )
    loaded = profile.load(str(path))
    default = profile.load("default")
    assert (loaded.partition, loaded.gpus_per_rank) == ("gpu", 1)
    assert loaded.staging is not None
    assert loaded.staging.root == "$TMPDIR/x"
    same = set(profile.Profile.model_fields) - {"partition", "gpus_per_rank", "staging"}
    assert all(getattr(loaded, key) == getattr(default, key) for key in same)


def test_the_project_comes_before_the_user_and_the_package(folders: Path) -> None:
    for folder, hours in ((folders / "config/ham-suite/profiles", 2.0), (folders / "profiles", 3.0)):
        write(folder / "default.yaml", hours=hours)
        assert profile.load("default").hours == hours
    write(folders / "config/ham-suite/profiles/theirs.yaml", hours=5.0)
    assert profile.load("theirs").hours == 5.0


def test_an_unknown_name_is_told_the_nearest(folders: Path) -> None:
    write(folders / "profiles/juelich.yaml", hours=1.0)
    with pytest.raises(UserError, match="did you mean 'juelich'") as caught:
        profile.load("julich")
    assert "default, juelich" in str(caught.value)
    assert "ham doctor slurm" in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"patrition": "gpu"}, "patrition: unknown key; allowed: partition"),
        ({"hours": 0}, "hours: 0 is out of range: must be > 0"),
        ({"hours": "4"}, "hours: '4' is not a number; remove the quotes"),
        ({"gpus_per_rank": 2}, "gpus_per_rank: 2 is out of range: must be <= 1"),
        ({"setup": "module load cuda"}, "setup: 'module load cuda' is not a list"),
        ({"staging": {"command": "true"}}, "staging: root is missing"),
        ({"requeue": "yes"}, "requeue: 'yes' is not true or false; write true"),
        ({"max_restarts": 0}, "max_restarts: 0 is out of range: must be >= 1"),
        ({"sbatch": {"array": "0-3"}}, "sbatch.array: has a key of its own: write max_running"),
        ({"sbatch": {"job_name": "x"}}, "sbatch.job_name: is set by the suite"),
        ({"sbatch": {"parsable": True}}, "sbatch.parsable: would keep the job's number from the suite"),
        ({"sbatch": {"parsabl": True}}, "sbatch.parsabl: means parsable, which would keep the job's number"),
        ({"sbatch": {"cpus_per_task": 4}}, "sbatch.cpus_per_task: has a key of its own: write cpus_per_rank"),
        ({"sbatch": {"exclusive": False}}, "sbatch.exclusive: false is no value for sbatch"),
        ({"sbatch": {"mail-user": "me\n#SBATCH --wait"}}, "must be one line of printable characters"),
        ({"sbatch": {"x y": 1}}, "is not the long name of a parameter of sbatch"),
        ({"mail": 3}, "mail: 3 is not text or true or false"),
        ({"sbatch": {"mem": [1]}}, "sbatch.mem: [1] is not true or false or a whole number or a number or text"),
        ({"gpu_type": "a100"}, "gpu_type: names a GPU, and gpus_per_rank is 0; write gpus_per_rank: 1"),
        ({"sbatch": {"gres": "gpu:2"}, "gpus_per_rank": 1}, "sbatch.gres: and gpus_per_rank both ask for GPUs"),
        ({"setup": ["true", "ls &&"]}, "setup.1: is no complete command of the shell: syntax error"),
        ({"setup": ["echo 'a"]}, "setup.0: is no complete command of the shell: unexpected EOF"),
        ({"staging": {"command": "(tar", "root": "/x"}}, "staging.command: is no complete command of the shell"),
        ({"partition": "gpu\nrm"}, "partition: 'gpu\\nrm' must be one line"),
    ],
)
def test_faults_name_file_line_and_key(folders: Path, keys: dict[str, object], says: str) -> None:
    path = write(folders / "mine.yaml", **keys)
    with pytest.raises(UserError) as caught:
        profile.load(str(path))
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("mine.yaml:")
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", profile.REFUSED)
def test_parameters_that_would_break_the_call_are_refused_by_name(folders: Path, key: str) -> None:
    for spelt in (key, key.replace("-", "_")):
        path = write(folders / "mine.yaml", sbatch={spelt: "1"})
        with pytest.raises(UserError, match=rf"mine.yaml:\d+: sbatch.{spelt}: "):
            profile.load(str(path))


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs sbatch")
def test_every_parameter_that_sets_no_number_is_known(folders: Path) -> None:
    """What sbatch lists as help, and what stands above it: none of them is left to a submission."""
    listed = subprocess.run(["sbatch", "--help"], capture_output=True, text=True, check=False).stdout
    long = set(re.findall(r"--([a-z][a-z-]+)", listed))
    breaking = {"parsable", "quiet", "test-only", "usage", "version", "wait", "wrap", "help", "array"}
    assert breaking & long <= profile.REFUSED.keys()
    for key in ("mail-type", "exclude", "exclusive", "gres", "comment", "dependency", "mem", "nice"):
        assert profile.load(str(write(folders / "mine.yaml", sbatch={key: "1"}))).sbatch == {key: "1"}
