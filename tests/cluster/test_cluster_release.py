"""Another version of Slurm, 24.11: it requeues by itself what ends within the grace of its preemption, whatever its exit code."""

import os
from pathlib import Path

import pytest
from cause_scenes import Scenes
from cluster_ground import GRACE, start_cluster, stop_cluster

pytestmark = pytest.mark.cluster

CONFINES = os.access("/sys/fs/cgroup/memory", os.W_OK)
"""Whether jobs can be held to their memory on this machine."""
EXPECTED = {
    "preempted": [("preempted", "requeue"), ("done", "none")],
    "ends-in-grace": [("done", "none")],
    "crash-in-grace": [("crashed", "stop")],
    "refuse-in-grace": [("refused", "stop")],
    "cancelled-in-grace": [("cancelled", "stop")],
    "requeued": [("requeued", "none"), ("done", "none")],
    "node-failure": [("node failure", "none"), ("done", "none")],
    "limit-near": [("time limit", "requeue"), ("done", "none")],
    "limit-hit": [("time limit", "requeue"), ("done", "none")],
    "unfit": [("requeued", "none"), ("unfit node", "requeue"), ("done", "none")],
    "not-started": [("not started", "requeue"), ("done", "none")],
    "cancelled": [("cancelled", "stop")],
    "launch-cancel": [("cancelled", "stop")],
    "interrupted": [("interrupted", "stop")],
    "crash": [("crashed", "stop")],
    "kill": [("crashed", "stop")],
    "refuse": [("requeued", "none"), ("refused", "stop")],
    "fenced": [("fenced", "stop")],
    "done": [("done", "none")],
    **({"memory": [("out of memory", "stop")]} if CONFINES else {}),
}


@pytest.fixture(scope="module")
def newer():
    options = [
        "--slurm",
        "24.11",
        "--no-accounting",
        "--grace",
        str(GRACE),
        "--min-job-age",
        "3600",
        "--node-cpus",
        "16",
    ]
    cluster = start_cluster("r", *options, *(["--confine-memory"] if CONFINES else []))
    yield cluster
    stop_cluster(cluster)


@pytest.fixture(scope="module")
def endings(newer):
    return Scenes(newer, "causes", grace=True, confined=CONFINES).play()


def test_jobs_and_their_user_have_that_version_and_this_machines_files(newer):
    said = newer.run(["srun", "sh", "-c", "srun --version; cat /etc/debian_version"]).stdout
    assert said.startswith("slurm-wlm 24.11.")
    assert said.splitlines()[1:] == Path("/etc/debian_version").read_text().splitlines()


@pytest.mark.parametrize("name", EXPECTED)
def test_each_cause_is_decided_once_for_each_start(endings, name):
    assert endings[name].decided == EXPECTED[name]
    assert endings[name].restarts == str(len(EXPECTED[name]) - 1)
    assert endings[name].lost == 0
