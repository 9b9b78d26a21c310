"""The test cluster itself: that it preempts, that two live side by side, that it ends all and only its own."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from cluster_ground import GRACE, REPOSITORY, TESTCLUSTER, call, start_cluster, stop_cluster, until

pytestmark = pytest.mark.cluster

BATCH = ("sbatch", "--parsable", "-o", "/dev/null")


def sleeping(marker: str) -> list[str]:
    """Process ids of `sleep MARKER`, zombies not counted."""
    lines = subprocess.run(
        ["ps", "-eo", "pid,stat,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows = [line.split(None, 2) for line in lines[1:]]
    return [pid for pid, state, args in rows if args == f"sleep {marker}" and not state.startswith("Z")]


def test_jobs_run_as_an_ordinary_user_on_four_nodes_with_gpus(cluster):
    script = 'srun bash -c "echo \\$SLURMD_NODENAME \\$(id -un) \\$CUDA_VISIBLE_DEVICES"'
    argv = ["sbatch", "--parsable", "-N4", "--gpus-per-node=2", "-o", cluster.home / "out", "--wrap", script]
    cluster.wait(cluster.run(argv).stdout.strip(), "COMPLETED")
    lines = sorted((cluster.home / "out").read_text().split("\n"))
    assert lines == ["", *(f"n{number} {cluster.user} 0,1" for number in (1, 2, 3, 4))]
    assert cluster.user != "root"


def test_accounting_knows_a_job_that_ended(cluster):
    job = cluster.run([*BATCH, "--wrap", "exit 3"]).stdout.strip()
    cluster.wait(job, "FAILED")
    ask = ["sacct", "-n", "-X", "-P", "-o", "State,ExitCode", "-j", job]
    until(lambda: "FAILED|3:0" in cluster.run(ask).stdout, "sacct shows the job as FAILED")


def test_the_user_has_launch_and_the_code_of_its_own_clone(cluster):
    assert cluster.run(["launch", "--version"]).returncode == 0
    where = cluster.run(["python", "-c", "import launcher; print(launcher.__file__)"], cwd=cluster.home).stdout.strip()
    assert where == str(cluster.repository / "launcher" / "__init__.py")
    assert cluster.run(["git", "status", "--porcelain"]).stdout == ""


def test_start_again_changes_nothing_and_other_options_are_refused(cluster):
    pid = (cluster.root / "run" / "slurmctld.pid").read_text()
    again = call("start", "--root", str(cluster.root))
    assert again.stdout.startswith("It runs already.")
    assert (cluster.root / "run" / "slurmctld.pid").read_text() == pid
    other = call("start", "--root", str(cluster.root), "--grace", "5", check=False)
    assert other.returncode == 1
    assert f"grace is {GRACE}" in other.stderr
    assert "testcluster stop --root" in other.stderr


@pytest.fixture(scope="module")
def other():
    """A second cluster beside the session's."""
    made = start_cluster("b", "--no-accounting", "--grace", "0", "--user-signal")
    yield made
    stop_cluster(made)


def test_a_high_job_takes_the_nodes_and_the_job_comes_back(other):
    job = other.run([*BATCH, "-N4", "--wrap", "exec sleep 1000"]).stdout.strip()
    other.wait(job, "RUNNING")
    taker = other.preempt("all")
    assert other.job(job)["JobState"] in {"PENDING", "COMPLETING"}
    assert other.job(taker)["NumNodes"] == "4"
    other.release()
    assert other.wait(job, "RUNNING")["Restarts"] == "1"
    other.clear()


def test_two_clusters_side_by_side_and_stop_ends_one_with_its_stubborn_jobs(cluster, other):
    here, there = "1000101", "1000102"
    cluster.run([*BATCH, "--wrap", f"exec sleep {here}"])
    # it ignores signals, has left its session and kept nothing of its environment: still it belongs to the job
    other.run([*BATCH, "--wrap", f"trap '' TERM; setsid env -i sleep {there} & wait; sleep 1000103"])
    until(lambda: sleeping(here) and sleeping(there), "both jobs run")
    assert "preempt_send_user_signal" in other.scontrol("show", "config")
    assert "preempt_send_user_signal" not in cluster.scontrol("show", "config")
    call("stop", "--root", str(other.root))
    assert sleeping(there) == []
    assert sleeping("1000103") == []
    assert call("status", "--root", str(other.root), check=False).returncode == 3
    assert sleeping(here)
    assert set(cluster.run(["sinfo", "-h", "-N", "-p", "gpu", "-o", "%T"]).stdout.split()) <= {"idle", "mixed"}


def test_a_daemon_that_died_is_told_and_start_mends_it_around_the_jobs(cluster):
    job = cluster.run([*BATCH, "-w", "n1", "--wrap", "exec sleep 1000"]).stdout.strip()
    cluster.wait(job, "RUNNING")
    pid = (cluster.root / "run" / "slurmd-n3.pid").read_text().split()[0]
    subprocess.run(["kill", "-KILL", pid], check=True)
    status = ["status", "--root", str(cluster.root)]
    until(lambda: "Dead: slurmd-n3" in call(*status, check=False).stdout, "status tells it")
    assert call(*status, check=False).returncode == 1
    call("start", "--root", str(cluster.root), "--work-tree")
    assert call(*status).returncode == 0
    assert cluster.job(job)["JobState"] == "RUNNING"


def test_a_missing_package_is_named_with_the_command(tmp_path):
    for name in ("python3", "git", "slurmctld", "sbatch"):
        (tmp_path / name).symlink_to(shutil.which(name, path="/usr/bin:/usr/sbin"))
    asked = "import sys; sys.path.insert(0, sys.argv[1]); from cluster import packages; packages.SBIN = '/none'; "
    asked += "packages.require(accounting=True, install=False)"
    done = subprocess.run(
        ["/usr/bin/python3", "-c", asked, str(REPOSITORY / "slurm")],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "mariadb-server munge slurm-wlm slurmdbd (names of Debian's packages)" in done.stderr


def test_a_port_that_is_taken_is_refused_before_anything_starts(cluster):
    port = next(
        line.split("=")[1].strip()
        for line in cluster.scontrol("show", "config").splitlines()
        if "SlurmctldPort" in line
    )
    root = Path(f"{cluster.root}c")
    try:
        done = call("start", "--root", str(root), "--base-port", port, check=False)
        assert done.returncode == 1
        assert f"port {port}" in done.stderr
        assert "--base-port" in done.stderr
        assert not (root / "run").exists()
    finally:
        call("stop", "--root", str(root), "--purge")


@pytest.mark.parametrize("verb", [["run", "--", "true"], ["shell"], ["env"]])
def test_a_verb_that_needs_a_cluster_says_how_to_start_one(verb, tmp_path):
    done = subprocess.run(
        [str(TESTCLUSTER), verb[0], "--root", str(tmp_path), *verb[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"{shlex.quote(str(TESTCLUSTER))} start --root {tmp_path}" in done.stderr
