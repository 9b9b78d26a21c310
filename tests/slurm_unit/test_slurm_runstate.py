"""What has become of a run: the tree first, and Slurm's answer where the tree cannot know."""

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from jobs.contract import Event
from jobs.files import append_line, publish_json
from jobs.rundir import Tree
from launcher.cluster import Answer, JobStatus
from launcher.record import Submission, new_id, submissions
from launcher.runstate import Record, State, is_alive, judge

LONG_AGO = "2026-01-31T12:00:00.000Z"


def stamp(moment):
    return moment.isoformat().replace("+00:00", "Z")


@pytest.fixture
def tree(tmp_path):
    tree = Tree(tmp_path / "tiny")
    for seed in (0, 1):
        tree.run(seed).artifacts.mkdir(parents=True)
        tree.run(seed).specification.write_text("{}")
    return tree


def submit(tree, **changes):
    known = {
        "id": "a",
        "place": "slurm",
        "state": "submitted",
        "seeds": (0, 1),
        "job": "7",
        "cluster": None,
        "partition": "gpu",
    }
    Submission(**{**known, "host": "elsewhere", "pid": 1, "time": LONG_AGO, **changes}).write(tree)


def attempt(tree, *, job="7_0", code=None, cause=None, action=None, step=None):
    number = 1
    run = tree.run(0)
    start = {
        "event": Event.STARTED,
        "attempt": number,
        "time": LONG_AGO,
        "node": "n1",
        "job": job,
        "restart": number - 1,
    }
    append_line(run.events, start)
    if code is not None:
        append_line(
            run.events, {"event": Event.ENDED, "attempt": number, "time": LONG_AGO, "exit_code": code, "step": step}
        )
    if cause is not None:
        line = {"event": Event.DECIDED, "attempt": number, "time": LONG_AGO, "cause": cause, "action": action}
        append_line(run.events, line)


def verdict(tree, answer=None):
    run = tree.run(0)
    found = judge(run, Record.read(run), answer if answer is not None else Answer({}))
    return found.state, found.active, found.detail


def says(state, reason="None", node="n2"):
    return Answer({"7_0": JobStatus("7_0", state, reason, node)})


def test_a_run_that_was_never_launched(tree):
    assert verdict(tree)[:2] == (State.PLANNED, False)


def test_a_refused_submission_can_be_launched_again(tree):
    submit(tree, state="failed", job=None)
    state, active, detail = verdict(tree)
    assert (state, active) == (State.PLANNED, False)
    assert "refused" in detail


def test_the_done_marker_outranks_everything(tree):
    submit(tree)
    attempt(tree, code=75)
    publish_json(tree.run(0).done, {"step": 9})
    assert verdict(tree, says("RUNNING"))[:2] == (State.DONE, False)


@pytest.mark.parametrize(
    ("slurm", "reason", "state", "active"),
    [
        ("PENDING", "Priority", State.PENDING, True),
        ("PENDING", "launch failed requeued held", State.PENDING, True),
        ("RUNNING", "None", State.RUNNING, True),
        ("COMPLETING", "None", State.RUNNING, True),
        ("CANCELLED", "None", State.CANCELLED, False),
        ("FAILED", "NonZeroExitCode", State.FAILED, False),
    ],
)
def test_before_the_first_attempt(tree, slurm, reason, state, active):
    submit(tree)
    assert verdict(tree, says(slurm, reason))[:2] == (state, active)


def test_held_is_said_with_the_command_that_lets_it_go(tree):
    submit(tree)
    assert "scontrol release 7_0" in verdict(tree, says("PENDING", "JobHeldUser"))[2]


def test_an_attempt_under_way(tree):
    submit(tree)
    attempt(tree)
    assert verdict(tree, says("RUNNING")) == (State.RUNNING, True, "")


@pytest.mark.parametrize(
    ("slurm", "state"), [("PENDING", State.SAVED), ("RUNNING", State.RUNNING), ("COMPLETING", State.RUNNING)]
)
def test_between_two_attempts(tree, slurm, state):
    submit(tree)
    attempt(tree, code=75, cause="preempted", action="requeue", step=4)
    assert verdict(tree, says(slurm, "BeginTime"))[:2] == (state, True)


@pytest.mark.parametrize(
    "slurm", [says("RUNNING"), says("COMPLETING"), says("FAILED"), Answer({}), Answer({}, silent="down")]
)
def test_a_crash_is_failed_whatever_slurm_remembers(tree, slurm):
    submit(tree)
    attempt(tree, code=1, cause="crashed", action="stop")
    assert verdict(tree, slurm)[:2] == (State.FAILED, False)


def test_cancelled_while_it_waited_for_its_next_attempt(tree):
    submit(tree)
    attempt(tree, code=75, cause="preempted", action="requeue", step=4)
    assert verdict(tree, says("CANCELLED")) == (State.CANCELLED, False, "saved at step 4")


def test_killed_by_slurm_before_it_could_say_anything(tree):
    submit(tree)
    attempt(tree)
    state, active, detail = verdict(tree, says("TIMEOUT"))
    assert (state, active) == (State.FAILED, False)
    assert "before it could save" in detail


def test_a_budget_that_is_used_up_leaves_it_saved_for_the_next_launch(tree):
    submit(tree)
    attempt(tree, code=75, cause="preempted", action="stop", step=4)
    state, active, detail = verdict(tree, says("FAILED"))
    assert (state, active) == (State.SAVED, False)
    assert "launch it again" in detail


def test_unknown_to_slurm_for_a_while_is_lost(tree):
    submit(tree)
    attempt(tree)
    assert verdict(tree)[:2] == (State.LOST, False)


def test_just_submitted_is_not_lost(tree):
    submit(tree, time=stamp(datetime.now(UTC)))
    assert verdict(tree)[:2] == (State.SUBMITTED, True)


@pytest.mark.parametrize(("code", "state"), [(None, State.RUNNING), (75, State.SAVED)])
def test_while_slurm_gives_no_answer_nothing_is_concluded(tree, code, state):
    submit(tree)
    attempt(tree, code=code)
    found, active, detail = verdict(tree, Answer({}, silent="Unable to contact slurm controller"))
    assert (found, active) == (state, True)
    assert "Unable to contact" in detail


def test_an_attempt_of_an_older_submission_says_nothing_about_this_one(tree):
    submit(tree, job="8")
    attempt(tree, code=1, cause="crashed", action="stop")
    run = tree.run(0)
    answer = Answer({"8_0": JobStatus("8_0", "PENDING", "Priority", "")})
    found = judge(run, Record.read(run), answer)
    assert (found.state, found.active) == (State.PENDING, True)


def test_an_intent_without_a_job_is_submitted_not_lost(tree):
    submit(tree, state="intent", job=None)
    assert verdict(tree)[:2] == (State.SUBMITTED, True)


def test_local_runs_live_and_die_with_their_runner(tree):
    here = {"place": "local", "job": None, "host": socket.gethostname(), "time": stamp(datetime.now(UTC))}
    submit(tree, **here, pid=os.getpid())
    assert verdict(tree)[:2] == (State.PENDING, True)
    attempt(tree, job=None)
    assert verdict(tree)[:2] == (State.RUNNING, True)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    submit(tree, **here, pid=process.pid)
    assert verdict(tree)[:2] == (State.LOST, False)


@pytest.mark.parametrize(
    ("code", "state"), [(75, State.SAVED), (1, State.FAILED), (78, State.FAILED), (-9, State.FAILED)]
)
def test_a_local_run_that_ended(tree, code, state):
    submit(tree, place="local", job=None, host=socket.gethostname(), pid=2**22 - 1)
    attempt(tree, job=None, code=code)
    assert verdict(tree)[:2] == (state, False)


def test_a_local_run_on_another_machine_is_not_called_lost(tree):
    submit(tree, place="local", job=None)
    attempt(tree, job=None)
    assert verdict(tree)[:2] == (State.RUNNING, True)


def test_another_process_with_the_same_number_does_not_count():
    now = datetime.now(UTC)
    assert is_alive(os.getpid(), now)
    assert not is_alive(os.getpid(), now - timedelta(days=300))
    assert not is_alive(os.getpid(), now, "elsewhere")


def test_a_torn_record_is_no_record(tree):
    submit(tree)
    path = tree.run(0).submission
    path.write_text(json.dumps({"id": "a"})[:-3])
    assert Record.read(tree.run(0)) is None


def test_submissions_of_one_moment_keep_their_order_and_a_clock_that_is_behind_changes_nothing(tmp_path):
    tree = Tree(tmp_path / "many")
    made = []
    for _ in range(50):
        made.append(new_id(tree))
        Submission(made[-1], "slurm", "intent", (0,), None, None, "gpu", "h", 1, "t").write(tree)
    assert [each.id for each in submissions(tree)] == made
    ahead = "29991231-235959-999999-0000"
    Submission(ahead, "slurm", "intent", (0,), None, None, "gpu", "elsewhere", 1, "t").write(tree)
    assert new_id(tree) > ahead
