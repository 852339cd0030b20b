"""The wheel holds all that is needed, and finds its own data where other folders of these names lie about."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from small_runs import write_config

import ham as ham_package

pytestmark = pytest.mark.slow

ROOT = Path(ham_package.__file__).parent.parent

PROBE = """
import sys

import experiments, ham, results, sparsity
from experiments.cli import main
from experiments.config import files as config_files
from slurm import snapshot

print(experiments.__file__, ham.__file__, results.__file__, sparsity.__file__)
print(config_files.configs_folder())
files = snapshot.contents()
print(*sorted({name.partition("/")[0] for name in files}), *[name for name in files if name.endswith("/base.yaml")])
for arguments in (["sweep", "quickstart", "--dry-run"], ["run", "mine", "--out", "runs"]):
    sys.argv = ["ham", *arguments]
    try:
        main.main()
    except SystemExit as left:
        if left.code:
            raise
"""


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    called = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert called.returncode == 0, called.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel has been installed."""
    pytest.importorskip("hatchling", reason="the wheel is built without network access, so by an installed hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "experiments/configs/base.yaml" in names
    assert "slurm/profiles/default.yaml" in names
    assert {"results/published/figures.csv", "results/published/sources.csv"} <= set(names)
    assert "experiments/data/fashion_mnist_5k.npz" in names
    assert any(name.endswith("LICENSE.fashion-mnist") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "ham",
        "sparsity",
        "experiments",
        "results",
        "slurm",
    }
    assert not [name for name in names if "__pycache__" in name or "tests" in name]
    pip("install", "--no-deps", "--target", folder / "site", wheel)
    return folder / "site"


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """An empty folder but for folders named like ours, which must not be taken for them."""
    for name in ("configs", "experiments", "ham", "results", "slurm", "sparsity"):
        (tmp_path / name).mkdir()
    (tmp_path / "configs/base.yaml").write_text("decoy: true\n")
    (tmp_path / "configs/quickstart.yaml").write_text("decoy: true\n")
    (tmp_path / "experiments/__init__.py").write_text("raise RuntimeError('the decoy was imported')\n")
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe/probe.py").write_text(PROBE)
    return tmp_path


def test_the_wheel_finds_what_it_brought(site: Path, decoys: Path) -> None:
    """The packaged sweep expands and a run of one's own trains on the packaged images, out of the installed wheel."""
    data = {"name": "fashion_mnist", "train_limit": 200, "validation": 100, "batch_size": 100}
    write_config(decoys / "mine.yaml", data=data, data__evaluate_on="validation", schedule__epochs=1)
    env = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, decoys / "probe/probe.py"]
    called = subprocess.run(command, cwd=decoys, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert called.returncode == 0, called.stderr
    files, configs, copied, *planned, count, done = called.stdout.splitlines()
    assert all(Path(file).is_relative_to(site) for file in files.split())
    assert Path(configs) == site / "experiments/configs"
    assert copied == "experiments ham results slurm sparsity experiments/configs/base.yaml"
    assert planned
    assert all(line.startswith("runs/quickstart/") for line in planned)
    assert count == f"{len(planned)} of {len(planned)} runs to do"
    assert done.startswith("runs/mine-")
    assert len(list(decoys.glob("runs/mine-*/result.json"))) == 1
