"""The copy of the code that jobs run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from slurm_plans import PLACE, calls, cells, profile_of, scheduler

from experiments.config.methods import import_modules
from experiments.errors import UserError
from slurm import snapshot
from slurm.plan import plan, script

PROBE = """
import experiments, experiments.config.files, ham, results, slurm.job, sparsity
print(experiments.__file__, experiments.config.files.configs_folder(), ham.__file__, slurm.job.__file__, sep="\\n")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of one's own with a method module, what it imports, and what it does not."""
    folder = tmp_path / "mine"
    (folder / "helping_package" / "inner").mkdir(parents=True)
    (folder / "my_methods.py").write_text("import my_helper\nimport helping_package.inner\n")
    (folder / "my_helper.py").write_text("")
    (folder / "helping_package" / "__init__.py").write_text("")
    (folder / "helping_package" / "inner" / "__init__.py").write_text("VALUE = 1\n")
    (folder / "unrelated.py").write_text("raise RuntimeError\n")
    (folder / "data.bin").write_bytes(b"0" * 100)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    import_modules(["my_methods"], [folder], None)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_snapshot_stands_on_its_own(tmp_path: Path) -> None:
    folder = snapshot.take(tmp_path / "runs", snapshot.contents())
    assert folder.parent == tmp_path / "runs" / ".snapshots"
    command = [sys.executable, "-P", "-c", PROBE]
    done = subprocess.run(command, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert line.startswith(f"{folder}/"), line
    assert (folder / "experiments" / "data" / "fashion_mnist_5k.npz").is_file()
    assert not list((tmp_path / "runs" / ".snapshots").glob(".*.tmp"))


def test_equal_code_is_one_snapshot_and_changed_code_another(tmp_path: Path) -> None:
    files = snapshot.contents()
    first = snapshot.take(tmp_path, files)
    stamp = (first / "ham" / "rule.py").stat().st_mtime_ns
    assert snapshot.take(tmp_path, snapshot.contents()) == first
    assert (first / "ham" / "rule.py").stat().st_mtime_ns == stamp
    changed = tmp_path / "rule.py"
    changed.write_text((first / "ham" / "rule.py").read_text() + "\n# changed\n")
    second = snapshot.take(tmp_path, {**files, "ham/rule.py": changed})
    assert second != first
    assert (second / "ham" / "rule.py").read_text().endswith("# changed\n")
    moved = {("ham/other.py" if name == "ham/rule.py" else name): path for name, path in files.items()}
    assert snapshot.name_of(moved) != snapshot.name_of(files)


def test_modules_of_ones_own_go_along_with_what_they_import(mine: Path, tmp_path: Path) -> None:
    own = set(snapshot.contents(["my_methods"])) - set(snapshot.contents())
    assert own == {
        "my_methods.py",
        "my_helper.py",
        "helping_package/__init__.py",
        "helping_package/inner/__init__.py",
    }
    assert set(snapshot.contents(["numpy.linalg", "json"])) == set(snapshot.contents())


def test_a_module_that_is_gone_is_named() -> None:
    with pytest.raises(UserError, match="'no_such_module'"):
        snapshot.contents(["no_such_module.methods"])


def test_no_half_snapshot_is_left_behind(tmp_path: Path) -> None:
    files = {**snapshot.contents(), "missing.py": tmp_path / "missing.py"}
    with pytest.raises(FileNotFoundError):
        snapshot.name_of(files)
    (tmp_path / "missing.py").write_text("")
    target = snapshot.name_of(files)
    (tmp_path / "runs" / ".snapshots").mkdir(parents=True)
    (tmp_path / "runs" / ".snapshots" / target).mkdir()  # somebody else was faster
    assert snapshot.take(tmp_path / "runs", files).name == target
    assert [path.name for path in (tmp_path / "runs" / ".snapshots").iterdir()] == [target]


def verdict(folder: Path) -> int:
    return subprocess.run(["bash", "-c", snapshot.verification(folder)], cwd="/", check=False).returncode


DAMAGE = {
    "a file is gone": lambda folder: (folder / "sparsity" / "__init__.py").unlink(),
    "a file was edited": lambda folder: (folder / "ham" / "rule.py").write_text("# other\n"),
    "two files were exchanged": lambda folder: exchange(folder / "ham" / "rule.py", folder / "ham" / "curves.py"),
    "a file was added": lambda folder: (folder / "torch.py").write_text("raise RuntimeError\n"),
    "a hidden file was added": lambda folder: (folder / "ham" / ".pth").write_text(""),
    "a file was moved": lambda folder: (folder / "ham" / "rule.py").rename(folder / "ham" / "rules.py"),
    "a file became a link": lambda folder: relinked(folder / "ham" / "rule.py"),
    "a package became a link": lambda folder: (folder / "more").symlink_to(folder / "ham"),
    "a folder is gone": lambda folder: shutil.rmtree(folder / "results"),
    "all is gone": lambda folder: shutil.rmtree(folder),
}


def exchange(one: Path, other: Path) -> None:
    text = one.read_text()
    one.write_text(other.read_text())
    other.write_text(text)


def relinked(path: Path) -> None:
    path.unlink()
    path.symlink_to("curves.py")


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_snapshot_is_refused_by_jobs_and_mended_by_the_next_submission(kind: str, tmp_path: Path) -> None:
    files = snapshot.contents()
    folder = snapshot.take(tmp_path / "it is $HOME", files)
    (folder / "ham" / "__pycache__").mkdir()
    (folder / "ham" / "__pycache__" / "rule.cpython-311.pyc").write_bytes(b"0")  # as jobs leave it
    assert verdict(folder) == 0
    DAMAGE[kind](folder)
    assert verdict(folder) != 0
    assert snapshot.take(tmp_path / "it is $HOME", files) == folder
    assert verdict(folder) == 0


def test_code_that_is_edited_while_it_is_copied_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.py"
    path.write_text("1\n")
    copy = snapshot._copy

    def edited(*arguments: Any) -> None:
        path.write_text("2\n")
        copy(*arguments)

    monkeypatch.setattr(snapshot, "_copy", edited)
    with pytest.raises(UserError, match="is being edited"):
        snapshot.take(tmp_path / "runs", {"mine.py": path})
    assert list((tmp_path / "runs" / ".snapshots").iterdir()) == []


def test_a_job_starts_nothing_from_another_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = snapshot.take(tmp_path / "runs", snapshot.contents())
    place = replace(PLACE, folder=tmp_path, snapshot=folder)
    (array,) = plan(cells(tmp_path, 1), profile_of(tmp_path), place, name="x", array_size=10)
    fake = scheduler(tmp_path, monkeypatch, scontrol="exit 0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")

    def started() -> tuple[int, str]:
        done = subprocess.run(["bash"], input=script(array, place), text=True, capture_output=True, check=False)
        return len(calls(fake, "srun")), done.stderr

    assert started()[0] == 1
    (folder / "slurm" / "plan.py").unlink()
    count, said = started()
    assert count == 1
    assert (
        f"the code of this job, {folder}, was changed or removed; to go on with the present code: ham status " in said
    )
