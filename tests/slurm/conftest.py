"""The cluster as a fixture: a real Slurm on this machine, on a port and in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("clusters")

from clusters import Cluster, running  # noqa: E402


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
