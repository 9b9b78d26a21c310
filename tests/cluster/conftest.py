"""Fixtures of the tests that meet a real Slurm. It is started once per session, with whatever it needs; never skipped."""

from collections.abc import Iterator

import pytest
from cluster_ground import GRACE, Cluster, start_cluster, stop_cluster, sweep


@pytest.fixture(scope="session")
def _session_cluster() -> Iterator[Cluster]:
    sweep()
    # Slurm looks at graces twice a minute: a short one may be over before a loaded machine has answered the signal
    cluster = start_cluster("", "--grace", str(GRACE), "--min-job-age", "3600")
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
