"""What the arbiter does about nodes: starts that never begin, nodes that fail or do not suit, words of the node's own daemon."""

import pytest
from arbiter_job import GRACE, LIMIT, QUIET

from jobs.contract import Event
from jobs.files import append_line
from launcher.attempts import attempts


def test_starts_that_take_no_attempt_have_a_budget_of_their_own(job):
    """A node whose python is broken, a store that is not mounted: elsewhere, but not for ever."""
    job.budgets({"preempted": 1000, "not started": 2})
    job.nodes("n1", "n2", "n3")
    for restarts in range(3):
        job.monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        (job.folder / "back").unlink(missing_ok=True)
        job.scontrol(show=[(0, QUIET.format(restarts, "(null)"))], requeue=[(0, "")], update=[(0, "")])
        assert job.decide() == (75 if restarts < 2 else 1)
    assert job.decisions() == [("not started", "requeue")] * 2 + [("not started", "stop")]
    assert [(each.number, each.restart, each.node) for each in attempts(job.run)] == [
        (n, n - 1, "n1") for n in (1, 2, 3)
    ]


def test_a_start_that_hung_up_to_its_limit_counts_as_one_too(job):
    job.budgets({"time limit": 100, "not started": 0})
    job.scontrol(show=[(0, LIMIT.format(0))])
    assert job.decide() == 1
    assert job.decisions() == [("not started", "stop")]


def test_a_preemption_before_the_attempt_is_a_preemption(job):
    job.scontrol(show=[(0, GRACE)], requeue=[(0, "")])
    assert job.decide() == 75
    assert job.decisions() == [("preempted", "requeue")]


def test_a_tree_that_cannot_be_written_does_not_hide_the_decision(job, capsys):
    job.monkeypatch.setattr(type(job.run), "take_attempt", lambda _: (_ for _ in ()).throw(OSError(5, "I/O error")))
    job.scontrol(show=[(0, QUIET.format(0, "(null)"))], requeue=[(0, "")])
    assert job.decide() == 75
    assert "cannot be written" in capsys.readouterr().out


def test_a_node_that_fails_twice_is_left_out_from_then_on(job):
    job.nodes("n1", "n2", "n3")
    job.attempt(1, None, first=None, cause="not started", action="requeue")
    job.monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.scontrol(show=[(0, QUIET.format(1, "n[3-4]"))], requeue=[(0, "")], update=[(0, "")], hostnames=[])
    job.budgets({"not started": 5})
    assert job.decide() == 75
    assert ["update", "JobId=7_1", "ExcNodeList=n[3-4],n1"] in [call for call, _ in job.calls()]
    order = [call[0] for call, _ in job.calls()]
    assert order.index("requeue") < order.index("update")  # Slurm changes the nodes of what waits alone
    assert attempts(job.run)[-1].evidence["exclude"] == ["n1"]


def test_a_node_that_fails_once_may_be_used_again(job):
    job.nodes("n1", "n2")
    job.scontrol(show=[(0, QUIET.format(0, "(null)"))], requeue=[(0, "")])
    assert job.decide() == 75
    assert "update" not in [call[0] for call, _ in job.calls()]


@pytest.mark.parametrize(("other", "action"), [("n2", "requeue"), ("n1", "stop")])
def test_a_crash_before_the_first_step_that_another_node_does_not_have_is_the_nodes(job, other, action):
    """With a run that got further elsewhere it is the node; with one that got further here it is the run."""
    job.attempt(1, 75, 9, cause="preempted", action="requeue", node=other)
    job.attempt(2, 1, first=None)
    job.monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.scontrol(show=[(0, QUIET.format(1, "(null)"))], requeue=[(0, "")])
    job.decide()
    assert job.decisions()[-1] == ("node failure" if action == "requeue" else "crashed", action)


def test_a_crash_that_a_second_node_has_too_is_the_runs(job):
    job.attempt(1, 75, 9, cause="preempted", action="requeue", node="n2")
    job.attempt(2, 1, first=None, cause="node failure", action="requeue", node="n3")
    job.attempt(3, 1, first=None)
    job.monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    job.scontrol(show=[(0, QUIET.format(2, "(null)"))])
    job.decide()
    assert job.decisions()[-1] == ("crashed", "stop")


def test_a_crash_after_a_step_is_the_runs(job):
    job.attempt(1, 75, 9, cause="preempted", action="requeue", node="n2")
    job.attempt(2, 1, 10, first=9)
    job.monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.scontrol(show=[(0, QUIET.format(1, "(null)"))])
    job.decide()
    assert job.decisions()[-1] == ("crashed", "stop")


def test_a_run_that_a_node_does_not_suit_is_sent_elsewhere(job):
    job.nodes("n1", "n2")
    job.attempt(1, 79, first=None)
    job.scontrol(show=[(0, QUIET.format(0, "(null)"))], requeue=[(0, "")], update=[(0, "")])
    assert job.decide() == 75
    assert job.decisions() == [("unfit node", "requeue")]
    assert ["update", "JobId=7_1", "ExcNodeList=n1"] in [call for call, _ in job.calls()]


def test_when_every_node_was_tried_it_ends_and_says_so(job, capsys):
    job.nodes("n1", "n2")
    job.attempt(1, 79, first=None, cause="unfit node", action="requeue", node="n2")
    job.attempt(2, 79, first=None)
    job.monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.scontrol(show=[(0, QUIET.format(1, "(null)"))])
    assert job.decide() == 1
    assert job.decisions()[-1] == ("unfit node", "stop")
    assert "without n2, n1 its partition has none left for it" in capsys.readouterr().out


def test_where_sinfo_says_nothing_the_nodes_are_left_out_all_the_same(job):
    job.attempt(1, 79, first=None)
    job.scontrol(show=[(0, QUIET.format(0, "(null)"))], requeue=[(0, "")], update=[(0, "")])
    assert job.decide() == 75
    assert attempts(job.run)[-1].evidence["exclude"] == ["n1"]


def test_an_exclusion_that_slurm_refuses_is_said(job, capsys):
    job.attempt(1, 79, first=None)
    job.scontrol(show=[(0, QUIET.format(0, "(null)"))], requeue=[(0, "")], update=[(1, "Job is no longer pending")])
    assert job.decide() == 75
    assert "has the nodes and the time limit that it had: Job is no longer pending" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ran", "limit", "action"), [(60, None, "requeue"), (119, None, "requeue"), (150, 30, "requeue"), (179, 0, "stop")]
)
def test_a_chain_of_attempts_has_the_time_that_was_asked_for(job, ran, limit, action):
    """Three hours, an hour an attempt. The last one gets what is left; what is not more than the time to save is nothing."""
    job.budgets({"time limit": 100}, time_minutes=60, total_minutes=180)
    job.attempt(1, 75, 9, ran=ran)
    job.scontrol(show=[(0, LIMIT.format(0))], requeue=[(0, "")], update=[(0, "")])
    job.decide()
    assert job.decisions() == [("time limit", action)]
    told = [call for call, _ in job.calls() if call[0] == "update"]
    assert told == ([["update", "JobId=7_1", f"TimeLimit={limit}"]] if limit else [])
    assert ("used up" in attempts(job.run)[0].evidence["why"]) == (action == "stop")


@pytest.mark.parametrize(
    ("signal", "code", "cause"),
    [(None, None, "node failure"), ("SIGTERM", None, "requeued"), ("SIGTERM", 75, "requeued"), (None, 1, "crashed")],
)
def test_ends_of_which_no_arbiter_spoke_are_named_by_the_next(job, signal, code, cause):
    job.attempt(1, code)
    if signal:
        append_line(job.run.events, {"event": Event.SIGNALLED, "attempt": 1, "time": "t", "signal": signal})
    job.attempt(2, 0, 9)
    job.monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert job.decide() == 0
    assert job.decisions() == [(cause, "none"), ("done", "none")]


PREEMPTION = "slurmstepd-n1: error: *** JOB 8 ON n1 CANCELLED AT 2026-01-31T12:00:05 DUE TO PREEMPTION ***\n"
SCANCEL = "slurmstepd-n1: error: *** JOB 8 ON n1 CANCELLED AT 2026-01-31T12:00:05 ***\n"
SPOKEN = "samebits: job 7_1, attempt 1: preempted: back into the queue (so it was)\n"


@pytest.mark.parametrize(
    ("log", "decision"),
    [
        (PREEMPTION, ("preempted", "requeue")),
        (SCANCEL, ("cancelled", "stop")),
        (PREEMPTION + SPOKEN + SCANCEL, ("cancelled", "stop")),
        ("step 5: " + PREEMPTION, ("cancelled", "stop")),
        (None, ("cancelled", "stop")),
    ],
)
def test_where_preemption_cancels_the_nodes_daemon_tells_it_from_a_scancel(job, log, decision):
    """Asked after the end of the job, the controller says the same of both."""
    job.attempt(1, 75, 9)
    if log is not None:
        job.placement.with_name("7_1.log").write_text(f"hello\n{log}")
    job.scontrol(show=[(0, GRACE.replace("RUNNING", "COMPLETING"))], requeue=[(0, "")])
    job.decide()
    assert job.decisions() == [decision]


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd-n1: error: *** JOB 8 ON n1 CANCELLED AT 2026-01-31T12:00:05 DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***",
        "srun: error: Node failure on n1",
    ],
)
def test_a_job_that_slurm_put_back_for_its_node_is_a_node_failure(job, line):
    job.attempt(1, None)
    job.placement.with_name("7_1.log").write_text(f"hello\n{line}\n")
    job.scontrol(show=[(0, GRACE.replace("RUNNING", "PENDING").replace("Restarts=0", "Restarts=1"))])
    job.decide()
    assert job.decisions() == [("node failure", "none")]


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=8.0. Some of your processes may have been killed\n",
        "slurmstepd: error: Detected 2 oom_kill events in StepId=8.0. Some of the step tasks have been OOM Killed.\n",
    ],
)
def test_a_kill_for_want_of_memory_is_told_from_others(job, line):
    job.attempt(1, -9, 9)
    job.placement.with_name("7_1.log").write_text(f"hello\n{line}")
    job.scontrol(show=[(0, QUIET.format(0, "(null)"))])
    assert job.decide() == 1
    assert job.decisions() == [("out of memory", "stop")]
