"""Keys of the user's shell and files, planted: what Slurm itself keeps of a submission, and what the real run writes."""

import hashlib
import json
import subprocess

import pytest
import secret_ground
from cluster_ground import SUDO
from project import CONFIG, ROWS

from jobs.rundir import Tree

pytestmark = pytest.mark.cluster


def test_no_key_reaches_slurm_or_the_tree_but_those_of_the_run(cluster):
    """With the real run: its log, its provenance, its trackers. Those that are passed on lie where Slurm keeps a job's environment,
    which only its own user can read; they get to the node by no other way."""
    config = CONFIG.replace("HASH", hashlib.sha256(ROWS.encode()).hexdigest()).replace("[0, 1]", "[0]")
    cluster.write(cluster.repository / "configs" / "tiny.yaml", config)
    cluster.write(cluster.repository / "data" / "rows.jsonl", ROWS)
    cluster.commit(cluster.repository, "tiny")
    docker = cluster.home / ".docker" / "config.json"
    cluster.write(docker, secret_ground.docker_config())
    site = cluster.home / "planted-site.yaml"
    literal = secret_ground.PLANTED["LITERAL_PASSWORD"]
    url = f"https://me:{literal}@$MY_INDEX_HOST/simple"
    cluster.write(site, f"build: {{ca_bundle: {secret_ground.CA}, index_url: '{url}'}}\n")
    env = {**secret_ground.shell(), "SAMEBITS_SITE": str(site), "MY_INDEX_HOST": "pypi.example.org"}
    said = cluster.run(["launch", "configs/tiny.yaml", "--partition", "gpu"], env=env).stdout
    run = Tree(cluster.repository / "experiments" / "tiny").run(0)
    job = json.loads(run.submission.read_text())["job"]
    shown = cluster.scontrol("show", "job", "-dd", job) + cluster.scontrol("write", "batch_script", job, "-")
    cluster.wait(job, ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), 300)
    assert run.done.exists(), run.attempt_log(1).read_text()
    shown += cluster.scontrol("show", "job", "-dd", job)
    shown += cluster.run(["sacct", "-P", "-j", job, "-o", "ALL"], check=False).stdout
    shown += cluster.run(["launch", "status", "tiny"], env=env).stdout
    assert secret_ground.named(said + shown) == []

    kept = secret_ground.found(cluster.root, but=(docker, site))
    assert {name for name, _ in kept} <= set(secret_ground.PASSED_ON), kept
    for _, path in kept:
        assert path.name == "environment", kept
        modes = ["stat", "-c", "%a %U", str(path), str(path.parent)]
        told = subprocess.run([*SUDO, *modes], capture_output=True, text=True, check=True).stdout.split()
        assert all(mode.endswith("00") for mode in told[::2]), told
        assert cluster.user not in told[1::2]

    provenance = json.loads(run.provenance.read_text())
    assert provenance["attempts"][0]["slurm"]["version"].startswith("slurm")
    assert provenance["attempts"][0]["slurm"]["SLURM_JOB_NAME"]
    assert provenance["launched"]["lock_sha256"] == provenance["image"]["lock_sha256"].removeprefix("sha256:")
