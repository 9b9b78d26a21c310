"""The main job for real, on a real Slurm: an array over nodes, preempted twice, to the bits of a calm run on this machine."""

import json

import pytest
from cluster_ground import until
from same_bits import assert_same_run, metrics

from jobs.rundir import Tree

pytestmark = pytest.mark.cluster

CONFIG = "configs/quickstart.yaml"
SEEDS = (0, 1, 2)


def events(run, name):
    return [line for line in map(json.loads, run.events.read_text().splitlines()) if line["event"] == name]


def steps(run):
    return len(run.ledger.read_text().splitlines()) if run.ledger.exists() else 0


@pytest.fixture(scope="module")
def calm(_session_cluster):
    """The same config on this machine, in a folder of its own, by the same user: nothing interrupts it."""
    folder = _session_cluster.home / "calm"
    _session_cluster.run(["launch", CONFIG, "--local", "--experiments", folder], timeout=900)
    return Tree(folder / "quickstart")


def test_preempted_twice_it_is_one_run(cluster, calm):
    said = cluster.run(["launch", CONFIG, "--partition", "gpu"]).stdout
    tree = Tree(cluster.repository / "experiments" / "quickstart")
    runs = [tree.run(seed) for seed in SEEDS]
    assert "seeds 0, 1, 2" in said
    job = json.loads(runs[0].submission.read_text())["job"].removesuffix("_0")

    until(lambda: all(steps(run) > 20 for run in runs), "all three seeds train", 300)
    nodes = {events(run, "started")[0]["node"] for run in runs}
    assert len(nodes) == 3, f"three seeds on {nodes}"
    for attempt in (1, 2):
        cluster.preempt("all")
        until(lambda n=attempt: all(len(events(run, "saved")) == n for run in runs), "all have saved")
        reached = [events(run, "saved")[-1]["step"] for run in runs]
        status = cluster.run(["launch", "status", "quickstart", "--json"]).stdout
        assert "saved" in status, status
        cluster.release()
        until(lambda n=attempt: all(len(events(run, "resumed")) == n + 1 for run in runs), "all are back", 300)
        # To the step: nothing is lost where there was notice.
        assert [events(run, "resumed")[-1]["step"] for run in runs] == reached
        assert [events(run, "resumed")[-1]["lost_steps"] for run in runs] == [0, 0, 0]
        if attempt == 1:
            until(
                lambda at=reached: all(steps(run) > n + 5 for run, n in zip(runs, at, strict=True)), "all train on", 300
            )
    until(lambda: all(run.done.exists() for run in runs), "all are done", 900)
    until(
        lambda: not cluster.squeue("-h", "-j", job).strip() or "CG" in cluster.squeue("-h", "-j", job), "the job ends"
    )

    for run in runs:
        assert run.attempts() == [1, 2, 3]
        assert "attempt 1" in run.attempt_log(1).read_text()
        assert [line["cause"] for line in events(run, "decided")][:2] == ["preempted", "preempted"]
        numbers = [line["step"] for line in metrics(run) if line["kind"] == "train"]
        assert numbers == list(range(1, len(numbers) + 1))
        assert_same_run(calm.run(run.seed), run)
    said = cluster.run(["launch", "status", "quickstart"]).stdout
    assert "3 done" in said
    again = cluster.run(["launch", CONFIG, "--partition", "gpu"]).stdout
    assert "Nothing to do" in again
