"""Fixtures of the tests in containers: one cluster with all that they need for the whole session; never skipped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_ground import GRACE, stop_cluster, sweep
from container_ground import Containers, start_containers


@pytest.fixture(scope="session")
def _session_containers() -> Iterator[Containers]:
    sweep()
    cluster = start_containers("k", "--grace", str(GRACE), "--min-job-age", "3600")
    try:
        yield cluster
    finally:
        stop_cluster(cluster)


@pytest.fixture
def cluster(_session_containers: Containers) -> Iterator[Containers]:
    """The session's cluster, without jobs and containers at the start and at the end of each test."""
    _session_containers.clear()
    _session_containers.clear_containers()
    yield _session_containers
    _session_containers.clear()
    _session_containers.clear_containers()


@pytest.fixture(scope="session")
def base_sif(_session_containers: Containers) -> Path:
    """The base image as a SIF of the user's."""
    sif = _session_containers.home / "base.sif"
    _session_containers.docker("pull", "--quiet", _session_containers.base)
    fast = ["--mksquashfs-args", "-comp gzip -Xcompression-level 1"]
    _session_containers.apptainer("build", *fast, sif, f"docker-daemon:{_session_containers.base}", timeout=300)
    return sif
