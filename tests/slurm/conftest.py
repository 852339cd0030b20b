"""The cluster as a fixture: a real Slurm on this machine, on a port and in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("blows", "clusters", "tables")

from clusters import Cluster, prepare, running  # noqa: E402
from tables import SIZES, Table  # noqa: E402


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """One cluster of two nodes for all tests."""
    with running() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with an empty queue, all nodes up; so it is left behind, too."""
    yield shared_cluster
    shared_cluster.reset()


@pytest.fixture
def table(cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """Makes a table: rows to overrides, trained in peace at once; submit it with `cluster.submit(table.folder)`."""
    shutil.copy(Path(__file__).with_name("pace.py"), tmp_path)

    def make(rows: dict[str, Any], profile: dict[str, Any] | None = None, **sections: Any) -> Table:
        folder = prepare(tmp_path, profile, sweep={"rows": rows, "seeds": [0]}, **{**SIZES, **sections})
        called = cluster.ham("sweep", "table.yaml", "--out", "peace", folder=folder)
        assert called.returncode == 0, called.stderr
        return Table(cluster, folder, folder / "runs/table", folder / "peace/table")

    yield make
    shutil.rmtree(tmp_path / "runs/gates", ignore_errors=True)  # nobody is held any longer
