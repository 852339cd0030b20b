"""ResNet-50 on real photographs by a published recipe: a run in pieces, read by workers, is the same run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import assert_same_run, events, resumptions, train, train_in_pieces

from experiments.config.resolve import load, resolve
from experiments.config.schema import Spec

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_photo_folder.py"
HAM = "optimizer.ham={alpha: 200.0, beta: 1.0e-3}"
# two epochs of two steps; a batch of six is too small for the published rates
STEPS = 4
SMALL = [
    *("data.image_size=32", "data.batch_size=6", "data.train_limit=12", "data.validation=6", "optimizer.lr=0.01", HAM),
    *("runtime.device=cpu", "runtime.amp=none", "tracking.wandb=disabled", "schedule.epochs=2"),
]
RIGL = ["topology.update_every=2", "schedule.warmup_epochs=1", "schedule.milestones=[1.5]"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    subprocess.run([sys.executable, str(SCRIPT), str(folder), "--train", "6", "--val", "2"], check=True)
    return folder


def spec(photos: Path, workers: int) -> Spec:
    overrides = [f"data.root={photos}", f"data.workers={workers}", *SMALL, *RIGL]
    return resolve(load("recipes/rigl_resnet50", overrides))


@pytest.mark.robust
def test_pieces_read_by_workers_equal_the_whole(photos: Path, tmp_path: Path) -> None:
    train(spec(photos, workers=0), tmp_path / "whole")
    # after the first step of the second epoch
    train_in_pieces(spec(photos, workers=2), tmp_path / "pieces", [3])
    assert resumptions(tmp_path / "pieces") == [3]
    assert_same_run(tmp_path / "pieces", tmp_path / "whole")
    done = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert (done["steps"], done["evaluated"], done["prunable_weights"]) == (STEPS, 12, 25_502_912 - 994 * 2048)
    assert done["sparsity"] == pytest.approx(0.9, abs=2e-3)  # some of what RiGL grew last has not moved yet
    assert [event["step"] for event in events(tmp_path / "whole", "update")] == [0, 2]
