"""A slice of `make chaos`: the shipped job on a real Slurm, a few blows of each sort, and what a user reads of it."""

import json

import pytest
from cluster_ground import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
KINDS = ("requeue", "kill", "scancel", "preempt")


def test_a_twin_under_blows_keeps_its_bits(cluster):
    text = (cluster.repository / "configs" / "quickstart.yaml").read_text()
    changes = {
        "name: quickstart": "name: beat",
        "seeds: [0, 1, 2]": "seeds: [0]",
        "every_steps: 100": "every_steps: 50",
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    cluster.write(cluster.repository / "configs" / "beat.yaml", text)
    cluster.commit(cluster.repository, "beat")
    argv = [
        "launch",
        "chaos",
        "configs/beat.yaml",
        "--partition",
        "gpu",
        "--preemptor",
        "high",
        "--seed",
        "3",
        "--blows",
        "4",
    ]
    done = cluster.run([*argv, *(word for kind in KINDS for word in ("--only", kind))], check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (cluster.repository / "experiments" / "chaos").glob("beat-*/seed-3/report.json")
    report = json.loads(path.read_text())
    assert report["good"]
    assert {blow["blow"]["kind"] for blow in report["blows"]} == set(KINDS)
    assert sum(blow["landed"] for blow in report["blows"]) >= 3  # the last may come when the run is done
    assert report["runs"][0]["compared"] == "identical"
    assert "HELD: 1 of 1 runs identical to the calm one" in done.stdout
    assert not (cluster.repository / "experiments" / "beat").exists()
    until(lambda: not cluster.squeue("-h").strip(), "nothing of it is left in the queue")
