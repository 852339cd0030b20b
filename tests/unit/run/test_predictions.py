"""Predictions: in the order of the part whatever the ranks, equal bytes for equal content, believed only if sealed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.ranks.distributed import ALONE, World
from experiments.run import predictions
from experiments.rundir.reading import Unreadable
from experiments.rundir.result import seal
from results.runs.predictions import read_predictions

BOTH = np.array([[1, 2, 300], [1, 0, 300]])


class Second(World):
    """The second of two ranks, whose first had one image."""

    def gather(self, value: Any) -> list[Any]:
        return [np.array([[7], [8]]), value]


def test_ranks_are_joined_in_their_order() -> None:
    seen = [torch.tensor([[1, 2], [1, 0]]), torch.tensor([[3], [3]])]
    assert predictions.gather(seen, ALONE).tolist() == [[1, 2, 3], [1, 0, 3]]
    assert predictions.gather(seen, Second()).tolist() == [[7, 1, 2, 3], [8, 1, 0, 3]]
    assert predictions.gather([], Second()).tolist() == [[7], [8]]  # a rank without images


def sealed(folder: Path, accuracy: float = 2 / 3) -> dict[str, Any]:
    predictions.write(folder, BOTH)
    return seal({"accuracy": accuracy}, folder)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_predictions(tmp_path, sealed(tmp_path)).tolist() == BOTH.tolist()
    content = (tmp_path / "predictions.npz").read_bytes()
    predictions.write(tmp_path, BOTH)
    assert (tmp_path / "predictions.npz").read_bytes() == content
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as arrays:
        assert arrays["predicted"].dtype == np.uint16


def test_what_the_run_did_not_leave_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_predictions(tmp_path, {"accuracy": 1.0})
    result = sealed(tmp_path)
    with pytest.raises(Unreadable, match="has no checksum in the result"):
        read_predictions(tmp_path, {"accuracy": 2 / 3, "files": {}})
    with pytest.raises(Unreadable, match="does not have the accuracy of the result"):
        read_predictions(tmp_path, {**result, "accuracy": 1.0})
    predictions.write(tmp_path, BOTH[:, :2])
    with pytest.raises(Unreadable, match="was changed after the run had ended"):
        read_predictions(tmp_path, result)
    for content in (b"", b"PK", b"nothing at all"):
        (tmp_path / "predictions.npz").write_bytes(content)
        with pytest.raises(Unreadable, match="does not hold predicted classes and labels"):
            read_predictions(tmp_path, seal({"accuracy": 1.0}, tmp_path))
