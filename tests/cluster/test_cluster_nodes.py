"""Nodes that fail, do not suit, or are taken away for good; a scancel in the narrowest place. All from real runs."""

import pytest
from cluster_ground import GRACE, until
from tiny_ground import Tiny, as_root

pytestmark = pytest.mark.cluster

GOES_ON = {"steps": 3, "seconds": 0.1, "finishes_at": 2}
LONG = {"steps": 100_000, "seconds": 0.1}
FREE = {"gpus_per_node": 0}


def only(*nodes):
    """Parameters that leave these nodes."""
    return {**FREE, "exclude": ",".join(sorted({"n1", "n2", "n3", "n4"} - set(nodes)))}


@pytest.fixture(scope="module")
def module_tiny(_session_cluster):
    return Tiny(_session_cluster, "nodes")


@pytest.fixture
def tiny(module_tiny, cluster):
    return module_tiny


@pytest.fixture
def partition(tiny):
    """Change partition `gpu`; it is as it was afterwards."""

    def change(*fields):
        as_root(tiny.cluster, "scontrol", "update", "PartitionName=gpu", *fields)

    yield change
    change("PreemptMode=REQUEUE", f"GraceTime={GRACE}")


def planted(name, lines, tiny):
    """A site's setup line that puts a program of that name in front of Slurm's, which does `lines` first: what happens at one
    moment of the arbiter's life is planted there, so that no timing decides a test."""
    folder = f"{tiny.folder}/planted-{name}"
    real = tiny.cluster.run(["bash", "-c", f"command -v {name}"]).stdout.strip()
    tiny.cluster.write(tiny.folder / f"planted-{name}" / name, f'#!/bin/bash\n{lines}\nexec {real} "$@"\n')
    tiny.cluster.run(["chmod", "755", f"{folder}/{name}"])
    return f"export PATH={folder}:$PATH"


def preempt(tiny, name):
    """Take away the node that it runs on."""
    tiny.cluster.preempt(tiny.attempts(name)[-1].node)


@pytest.mark.parametrize("grace", [5, 0])
def test_a_partition_that_cancels_what_it_preempts(tiny, partition, grace):
    """Within the grace it still runs, without one it is over: a requeue brings it back from both."""
    partition("PreemptMode=CANCEL", f"GraceTime={grace}")
    name = f"cancels-{grace}"
    job = tiny.submit(name, GOES_ON, **FREE)["job"]
    tiny.until_step(name, 2)
    preempt(tiny, name)
    tiny.until_decided(name, 1)
    tiny.cluster.release()
    tiny.until_done(name)
    tiny.until_decided(name, 2)
    first, second = tiny.attempts(name)
    assert (first.cause, first.action, first.exit_code) == ("preempted", "requeue", 75)
    assert first.evidence["JobState"] == ("RUNNING" if grace else "COMPLETING")
    assert (second.cause, second.restart, second.first_step) == ("done", 1, first.step)
    assert tiny.cluster.job(f"{job}_0")["Restarts"] == "1"


def test_cancelled_where_preemption_cancels_stays_dead(tiny, partition):
    """To the controller both look alike once the job is over."""
    partition("PreemptMode=CANCEL", "GraceTime=60")
    gate = tiny.folder / "dead-may-end"
    job = tiny.submit("dead", {**LONG, "saving_until": str(gate)}, **FREE)["job"]
    tiny.until_step("dead", 2)
    node = tiny.attempts("dead")[0].node
    argv = ["sbatch", "--parsable", "-p", "high", "-w", node, "--exclusive", "-J", "taker", "-o", "/dev/null"]
    tiny.cluster.run([*argv, "--wrap", "sleep 100000"], cwd=tiny.cluster.home)
    until(lambda: any(each.signal for each in tiny.attempts("dead")), "the signal of the preemption")
    tiny.cluster.run(["scancel", f"{job}_0"])
    tiny.cluster.write(gate, "")
    tiny.until_decided("dead", 1)
    assert tiny.causes("dead") == [("cancelled", "stop")]
    assert tiny.attempts("dead")[0].evidence["PreemptTime"] is not None
    tiny.cluster.release()
    tiny.until_state("dead", "cancelled")


def test_where_the_arbiter_had_no_time_status_brings_it_back(tiny, partition):
    """Its batch script is killed before anything was decided."""
    partition("PreemptMode=CANCEL", "GraceTime=0")
    job = tiny.submit("late", GOES_ON, setup=["trap - TERM"], **FREE)["job"]
    tiny.until_step("late", 2)
    preempt(tiny, "late")
    tiny.cluster.wait(f"{job}_0", "PREEMPTED")
    assert tiny.causes("late") == [(None, None)]
    tiny.cluster.release()
    said = tiny.launch("status", "late").stdout
    assert f"job {job}_0 was preempted in a partition that cancels; it is back in the queue" in said
    assert "back in the queue" not in tiny.launch("status", "late").stdout
    tiny.until_done("late")
    tiny.until_decided("late", 2)
    assert tiny.causes("late") == [("preempted", "requeue"), ("done", "none")]


def test_a_run_that_a_node_does_not_suit_goes_to_another(tiny):
    tiny.submit("unfit", {"steps": 3, "seconds": 0.1, "unfit_attempts": 1}, **only("n1", "n2"))
    tiny.until_done("unfit")
    tiny.until_decided("unfit", 2)
    first, second = tiny.attempts("unfit")
    assert (first.cause, first.action, first.evidence["exclude"]) == ("unfit node", "requeue", [first.node])
    assert {first.node, second.node} == {"n1", "n2"}


def test_a_run_that_no_node_suits_ends_and_says_so(tiny):
    job = tiny.submit("misfit", {**LONG, "unfit_attempts": 99}, **only("n1", "n2"))["job"]
    tiny.until_decided("misfit", 2)
    assert tiny.causes("misfit") == [("unfit node", "requeue"), ("unfit node", "stop")]
    assert {each.node for each in tiny.attempts("misfit")} == {"n1", "n2"}
    until(lambda: tiny.cluster.job(f"{job}_0")["JobState"] == "FAILED", "Slurm calls it failed")
    assert "its partition has none left for it" in tiny.until_state("misfit", "failed")["detail"]


def test_a_node_that_breaks_a_run_twice_before_its_first_step_is_left_out(tiny):
    """It ran on one node, and breaks on the one that it was preempted to; a third does not break it."""
    recipe = {"steps": 3, "seconds": 0.1, "finishes_at": 4, "break_attempts": [2, 3]}
    tiny.submit("broken", recipe, **FREE)
    tiny.until_step("broken", 2)
    first = tiny.attempts("broken")[0].node
    tiny.cluster.preempt(first)  # and keep it: the run goes elsewhere
    # whichever node Slurm gives to attempt 3: two breaks on one node are left out, on two nodes they are the run's own
    tiny.until_decided("broken", 3)
    second, third = tiny.attempts("broken")[1:3]
    assert (second.cause, second.action) == ("node failure", "requeue")
    assert first not in {second.node, third.node}
    if second.node == third.node:
        assert (third.cause, third.evidence["exclude"]) == ("node failure", [second.node])
        tiny.until_done("broken")
        assert tiny.attempts("broken")[3].node != second.node
    else:
        assert (third.cause, third.action) == ("crashed", "stop")


def test_starts_without_an_attempt_count_and_go_elsewhere(tiny):
    """srun fails: the step never comes so far as to take an attempt."""
    broken = '[ "${SLURM_RESTART_COUNT:-0}" -ge 2 ] || srun() { return 127; }'
    tiny.submit("absent", {"steps": 3, "seconds": 0.1}, setup=[broken], **only("n3"))
    tiny.until_decided("absent", 2)
    found = tiny.attempts("absent")
    assert (found[0].cause, found[0].action, found[0].node) == ("not started", "requeue", "n3")
    # the same node twice, and it was the only one
    assert (found[1].cause, found[1].action) == ("not started", "stop")


def test_a_node_that_cannot_even_start_the_arbiter(tiny):
    broken = '[ "${SLURM_RESTART_COUNT:-0}" -ge 1 ] || readonly samebits=/nowhere/python'
    job = tiny.submit("mute", {"steps": 3, "seconds": 0.1}, setup=[broken], **only("n2", "n3"))["job"]
    tiny.until_done("mute")
    tiny.until_decided("mute", 1)
    (record,) = tiny.attempts("mute")
    assert (record.cause, record.restart) == ("done", 1)
    (folder,) = tiny.tree("mute").submissions.glob("2*")
    text = (folder / f"{job}_0.log").read_text()
    refused = text.partition("the launcher cannot start here (exit code 127 on ")[2].partition(")")[0]
    assert {refused, record.node} == {"n2", "n3"}


def test_a_scancel_between_the_question_and_the_requeue_wins(tiny):
    """Planted where it hurts: after Slurm has said `preempted`, in front of the order to requeue."""
    job_name = '"${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"'
    plant = f'if [ "$1" = requeue ]; then scancel {job_name}; sleep 1; fi'
    job = tiny.submit("narrow", LONG, setup=[planted("scontrol", plant, tiny)], **FREE)["job"]
    tiny.until_step("narrow", 2)
    preempt(tiny, "narrow")
    tiny.until_decided("narrow", 1)
    tiny.cluster.release()
    tiny.until_state("narrow", "cancelled")
    assert tiny.causes("narrow") == [("cancelled", "stop")]
    assert tiny.cluster.job(f"{job}_0")["Restarts"] == "0"


def test_launch_cancel_between_the_question_and_the_requeue_wins(tiny):
    """Its wish is in the tree, its scancel has not come yet: the arbiter takes the job out of the queue itself."""
    record = tiny.run("wish").submission
    plant = f'if [ "$1" = requeue ]; then sed -i \'s/"submitted"/"cancelled"/\' {record}; fi'
    job = tiny.submit("wish", LONG, setup=[planted("scontrol", plant, tiny)], **FREE)["job"]
    tiny.until_step("wish", 2)
    preempt(tiny, "wish")
    until(lambda: tiny.causes("wish") == [("cancelled", "stop")], "the arbiter sees the wish")
    tiny.cluster.release()
    until(lambda: not tiny.cluster.squeue("-h", "-n", "wish").strip(), "it is out of the queue")
    assert tiny.cluster.job(f"{job}_0")["JobState"] == "CANCELLED"
    assert len(tiny.attempts("wish")) == 1


def test_a_node_that_goes_down_is_a_node_failure(tiny):
    tiny.submit("down", GOES_ON, **only("n4"))
    tiny.until_step("down", 2)
    as_root(tiny.cluster, "scontrol", "update", "NodeName=n4", "State=DOWN", "Reason=test")
    tiny.until_decided("down", 1)  # the node answers, so that it is back by itself
    tiny.until_done("down")
    tiny.until_decided("down", 2)
    assert tiny.causes("down") == [("node failure", "none"), ("done", "none")]


def test_a_node_whose_daemon_is_gone_is_a_node_failure(tiny):
    """Stopped, as by a network that is gone: the controller waits for SlurmdTimeout, and the run goes on elsewhere meanwhile."""
    tiny.submit("gone", GOES_ON, **only("n3", "n4"))
    tiny.until_step("gone", 2)
    node = tiny.attempts("gone")[0].node
    daemon = (tiny.cluster.root / "run" / f"slurmd-{node}.pid").read_text().split()[0]
    as_root(tiny.cluster, "kill", "-STOP", daemon)
    try:
        tiny.until_done("gone", seconds=150)
    finally:
        as_root(tiny.cluster, "kill", "-CONT", daemon)
    tiny.until_decided("gone", 2)
    first, second = tiny.attempts("gone")
    assert (first.cause, first.action, second.cause) == ("node failure", "none", "done")
    assert second.node != node
    until(lambda: tiny.cluster.run(["sinfo", "-h", "-n", node, "-o", "%t"]).stdout.split()[0] == "idle", "it is back")


def test_a_partition_that_gives_less_time_gets_a_chain_of_attempts(tiny, partition):
    partition("MaxTime=1")
    try:
        done = tiny.submit("chain", {**GOES_ON, "finishes_at": 2}, time_minutes=2, **FREE)
        job = f"{done['job']}_0"
        assert "Partition gpu gives at most 00:01:00 at a time: a chain of attempts, 00:02:00 together." in done["said"]
        assert tiny.cluster.job(job)["TimeLimit"] == "00:01:00"
        tiny.until_done("chain", seconds=150)
    finally:
        partition("MaxTime=1-0")
    tiny.until_decided("chain", 2)
    assert tiny.causes("chain") == [("time limit", "requeue"), ("done", "none")]
