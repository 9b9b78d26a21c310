"""Fixtures of the tests that meet a real Slurm. It is started once per session, with whatever it needs; never skipped."""

from collections.abc import Iterator

import pytest
from cluster_ground import Cluster, start_cluster, stop_cluster, sweep


@pytest.fixture(scope="session")
def _session_cluster() -> Iterator[Cluster]:
    sweep()
    cluster = start_cluster("")
    try:
        yield cluster
    finally:
        stop_cluster(cluster)


@pytest.fixture
def cluster(_session_cluster: Cluster) -> Iterator[Cluster]:
    """The session's cluster, without jobs at the start and at the end of each test."""
    _session_cluster.clear()
    yield _session_cluster
    _session_cluster.clear()
