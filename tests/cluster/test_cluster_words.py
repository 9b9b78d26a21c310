"""status, logs, cancel and wait while things happen; with accounting and without it."""

import subprocess

import pytest
from cluster_ground import GRACE, start_cluster, stop_cluster, until
from tiny_ground import Tiny

pytestmark = pytest.mark.cluster

LONG = {"steps": 100_000, "seconds": 0.1}
SHORT = {"steps": 3, "seconds": 0.05}


@pytest.fixture(scope="module")
def module_tiny(_session_cluster):
    return Tiny(_session_cluster, "words")


@pytest.fixture
def tiny(module_tiny, cluster):
    return module_tiny


def test_cancel_ends_running_and_waiting_seeds_for_good(tiny):
    tiny.submit("c", LONG, (0, 1, 2), gpus_per_node=0, array_parallelism=2)
    tiny.until_step("c", 1, 0)
    tiny.until_step("c", 1, 1)
    assert [tiny.status("c")[seed]["state"] for seed in (0, 1, 2)] == ["running", "running", "pending"]
    one = tiny.launch("cancel", "c", "--seed", "0").stdout
    assert "seed 0: cancelled, job" in one
    tiny.until_state("c", "cancelled", 0)
    rest = tiny.launch("cancel", "c").stdout
    assert "seed 0: cancelled, nothing to cancel" in rest
    for seed in (1, 2):
        tiny.until_state("c", "cancelled", seed)
    assert tiny.submit("c", SHORT, (0, 1, 2))["already"] == []


def test_cancelled_while_it_waits_to_come_back(tiny):
    tiny.submit("back", LONG, additional={"nodelist": "n1"})
    tiny.until_step("back", 2)
    tiny.cluster.preempt("n1")
    tiny.until_decided("back", 1)
    waiting = tiny.until_state("back", "saved")
    assert waiting["active"]
    tiny.launch("cancel", "back")
    tiny.cluster.release()
    found = tiny.until_state("back", "cancelled")
    assert "saved at step" in found["detail"]
    assert not tiny.cluster.squeue("-h", "-n", "back").strip()


def test_following_logs_goes_on_over_a_preemption_and_ends_with_the_run(tiny):
    tiny.submit("follow", {"steps": 5, "seconds": 0.1, "finishes_at": 2}, additional={"nodelist": "n1"})
    argv = ["launch", "logs", "follow", "-f", "--experiments", tiny.experiments]
    with tiny.cluster.popen(argv, stdout=subprocess.PIPE) as process:
        tiny.until_step("follow", 3)
        tiny.cluster.preempt("n1")
        tiny.until_decided("follow", 1)
        tiny.cluster.release()
        text, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    assert "attempt 1" in text
    assert "saved at step" in text
    assert text.index("attempt 2 goes on") < text.index("done at step")
    assert text.count("== seed 0, attempt 1") == 1


def test_logs_of_several_seeds_say_whose_line_it_is(tiny):
    tiny.submit("whose", SHORT, (3, 5))
    for seed in (3, 5):
        tiny.until_done("whose", seed)
    text = tiny.launch("logs", "whose").stdout
    assert "seed 3 | done at step 3" in text
    assert "seed 5 | done at step 3" in text


@pytest.mark.parametrize(
    "argv",
    [("logs", "absent", "--seed", "9"), ("cancel", "absent", "--seed", "9"), ("logs", "absent", "--attempt", "4")],
)
def test_a_seed_or_attempt_that_is_not_there(tiny, argv):
    if not tiny.run("absent").specification.exists():
        tiny.submit("absent", SHORT)
    done = tiny.launch(*argv, check=False)
    assert done.returncode == 10
    assert "There: " in done.stderr or "None has started" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_slurm_the_tree_still_speaks(tiny):
    tiny.submit("alone", SHORT)
    tiny.until_done("alone")
    tiny.submit("open", LONG)
    tiny.until_step("open", 1)
    nothing = {"PATH": str(tiny.cluster.bin), "SLURM_CONF": ""}
    assert tiny.status("alone", env=nothing)[0]["state"] == "done"
    found = tiny.status("open", env=nothing)[0]
    assert found["state"] == "running"
    assert "`squeue` is not on PATH" in found["detail"]


@pytest.fixture(scope="module")
def forgetful():
    """A cluster without accounting that forgets an ended job after two seconds."""
    cluster = start_cluster("f", "--no-accounting", "--min-job-age", "2", "--grace", str(GRACE))
    yield Tiny(cluster, "forgetful")
    stop_cluster(cluster)


def test_without_accounting_everything_is_right_as_well(forgetful):
    tiny = forgetful
    tiny.submit("ok", SHORT, (0, 1))
    tiny.submit("crash", {**LONG, "crash_at": 2})
    tiny.submit("cancelled", LONG, additional={"nodelist": "n2"})
    tiny.submit("back", {"steps": 5, "seconds": 0.1, "finishes_at": 2}, additional={"nodelist": "n1"}, cpus_per_task=2)
    tiny.until_step("back", 2)
    assert tiny.status("back")[0]["state"] == "running"
    tiny.until_step("cancelled", 2)
    tiny.launch("cancel", "cancelled")
    tiny.cluster.preempt("n1")
    tiny.until_decided("back", 1)
    assert tiny.until_state("back", "saved")["active"]
    tiny.cluster.release()
    tiny.until_done("back")
    until(lambda: not tiny.cluster.squeue("-h", "-t", "all").strip(), "Slurm has forgotten every job")
    assert [tiny.status("ok")[seed]["state"] for seed in (0, 1)] == ["done", "done"]
    assert tiny.status("crash")[0]["state"] == "failed"
    assert tiny.status("cancelled")[0]["state"] == "cancelled"
    assert [each["cause"] for each in tiny.status("back")[0]["attempts"]] == ["preempted", "done"]
    done = tiny.cluster.run(["sacct", "-n"], check=False)
    assert "disabled" in done.stderr
