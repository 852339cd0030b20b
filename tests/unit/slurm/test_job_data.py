"""A job trains on the data that its run was submitted with, wherever they lie, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slurm_plans import cells

from experiments.config.identity import identity_with_data
from experiments.data import content_hash
from experiments.data.folder import scan
from slurm.job.crashes import Limits
from slurm.job.payload import JobPayload, JobRun


def pictures(folder: Path, seed: int) -> Path:
    random = np.random.default_rng(seed)
    for part in ("train", "val"):
        for kind in ("cats", "dogs"):
            (folder / part / kind).mkdir(parents=True)
            for number in range(6):
                image = Image.fromarray(random.integers(0, 255, (40 + seed, 40, 3), dtype=np.uint8))
                image.save(folder / part / kind / f"{number}.png")
    return folder


def test_other_data_under_the_same_path_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only where data were staged: a folder may be filled anew while a job waits."""
    for name in ("SLURM_PROCID", "SLURM_RESTART_COUNT", "SUBMITIT_FOLDER", "SLURM_STEP_NUM_TASKS", "HAM_VERDICT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("slurm.job.signals.Signals.install", lambda self: None)
    root = pictures(tmp_path / "pictures", 0)
    data = ("data.name=imagenet", f"data.root={root}", "data.image_size=32", "data.batch_size=8", "data.validation=0")
    (cell,) = cells(tmp_path, 1, *data, "data.evaluate_on=test", "data.workers=0", "model.name=torchvision:resnet18")
    run = JobRun(str(tmp_path / "run"), identity_with_data(cell.spec), cell.row, cell.spec.model_dump())
    shutil.rmtree(root)
    pictures(root, 1)
    content_hash.cache_clear()  # the job is another process
    scan.cache_clear()
    with pytest.raises(SystemExit) as left:
        JobPayload((run,), limits=Limits(3, 100), gpu=False)()
    assert left.value.code == 1
    told = json.loads((tmp_path / "run" / "failure.json").read_text())["error"]
    assert "are not those that its command has seen" in told
    assert not (tmp_path / "run" / "result.json").exists()
