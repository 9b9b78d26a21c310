"""The arbiter's manners: decide, record, act, say; patience with a silent controller. Slurm itself is met in tests/cluster."""

import pytest
from arbiter_job import DOWN, GRACE, LIMIT

from jobs.contract import Event
from jobs.files import append_line, publish_json
from launcher import ends, orders
from launcher.record import Submission


def test_a_preempted_run_goes_back_by_its_array_task_and_is_recorded_before(job, capsys):
    job.attempt(1, 75, 9)
    job.scontrol(show=[(0, GRACE)], requeue=[(0, "")])
    assert job.decide() == 75
    assert job.decisions() == [("preempted", "requeue")]
    (show, _), (requeue, events), _ = job.calls()
    assert show[-1] == "7_1"
    assert requeue == ["requeue", "incomplete", "7_1"]
    assert '"decided"' in events
    assert capsys.readouterr().out.startswith("samebits: job 7_1, attempt 1: preempted: back into the queue (")


def test_a_silent_controller_is_asked_again(job):
    job.attempt(1, 75, 9)
    job.scontrol(show=[DOWN, DOWN, (0, GRACE)], requeue=[DOWN, (0, "")])
    assert job.decide() == 75
    assert job.decisions() == [("preempted", "requeue")]
    assert [call[0] for call, _ in job.calls()].count("requeue") == 2


def test_a_controller_that_stays_silent_means_stop_said_loudly(job, capsys):
    job.attempt(1, 75, 9)
    job.scontrol(show=[DOWN])
    assert job.decide() == 1
    assert job.decisions() == [("unknown", "stop")]
    assert "unknown: stop" in capsys.readouterr().out


def test_without_scontrol_too(job):
    job.attempt(1, 75, 9)
    assert job.decide() == 1
    assert job.decisions() == [("unknown", "stop")]


def test_a_job_that_has_ended_is_requeued_whatever_its_state(job):
    job.attempt(1, 75, 9)
    job.scontrol(show=[(0, LIMIT.format(0))], requeue=[(0, "")])
    assert job.decide() == 75
    assert job.calls()[1][0] == ["requeue", "7_1"]


def test_a_scancel_between_the_question_and_the_order_wins(job):
    """Slurm requeues only what still runs, says nothing when it did nothing, and is asked again."""
    job.attempt(1, 75, 9)
    cancelled = GRACE.replace("RUNNING", "COMPLETING")
    job.scontrol(show=[(0, GRACE), (0, cancelled)], requeue=[(0, " ")])
    assert job.decide() == 1
    assert job.decisions() == [("preempted", "requeue"), ("cancelled", "stop")]
    assert sum(call[0] == "requeue" for call, _ in job.calls()) == 1


def test_a_time_limit_between_the_question_and_the_order_is_requeued_as_such(job):
    job.attempt(1, 75, 9)
    job.scontrol(show=[(0, GRACE), (0, LIMIT.format(0))], requeue=[(0, " "), (0, "")])
    assert job.decide() == 75
    assert job.decisions() == [("preempted", "requeue"), ("time limit", "requeue")]
    assert [call for call, _ in job.calls() if call[0] == "requeue"] == [
        ["requeue", "incomplete", "7_1"],
        ["requeue", "7_1"],
    ]


def test_a_slurm_that_says_yes_and_does_nothing_is_not_asked_for_ever(job, capsys):
    job.attempt(1, 75, 9)
    job.scontrol(show=[(0, GRACE)], requeue=[(0, " ")])
    assert job.decide() == 1
    assert job.decisions()[-1] == ("preempted", "stop")
    assert "does not requeue it" in capsys.readouterr().out


def test_a_run_that_was_cancelled_is_not_requeued(job):
    job.attempt(1, 75, 9)
    job.cancel()
    job.scontrol(show=[(0, GRACE)])
    assert job.decide() == 1
    assert job.decisions() == [("cancelled", "stop")]


def test_cancelled_between_the_question_and_the_requeue_is_taken_out_of_the_queue_again(job):
    """`launch cancel` writes, the requeue comes, and only then scancel would: whoever comes second sees the other."""
    job.attempt(1, 75, 9)
    job.scontrol(show=[(0, GRACE)], requeue=[(0, "")])
    told = job.program("scancel", f"#!/bin/sh\necho $* > {job.folder}/told\n")
    order, job.before_requeue = orders.cluster.requeue, job.cancel
    job.monkeypatch.setattr(orders.cluster, "requeue", lambda *a, **k: (job.before_requeue(), order(*a, **k))[1])
    assert job.decide() == 1
    assert job.decisions() == [("preempted", "requeue"), ("cancelled", "stop")]
    assert (told.parent.parent / "told").read_text() == "7_1\n"


def test_a_wish_of_an_older_submission_says_nothing_about_this_one(job):
    job.attempt(1, 75, 9)
    job.cancel()
    Submission("b", "slurm", "submitted", (4, 5), "7", None, "gpu", "h", 1, "t").write(job.tree)
    job.placement.write_text(job.placement.read_text().replace('"a"', '"b"'))
    job.scontrol(show=[(0, GRACE)], requeue=[(0, "")])
    assert job.decide() == 75


def test_a_crash_stays_a_crash_when_it_was_cancelled_too(job):
    job.attempt(1, 1, 9)
    job.cancel()
    job.scontrol(show=[(0, GRACE)])
    assert job.decide() == 1
    assert job.decisions() == [("crashed", "stop")]


def test_slurm_was_faster_and_that_counts_as_done(job):
    job.attempt(1, 75, 9)
    again = GRACE.replace("Restarts=0", "Restarts=1")
    job.scontrol(show=[(0, GRACE), (0, again)], requeue=[(1, "Job is pending execution for job 7_1")])
    assert job.decide() == 75
    assert job.decisions() == [("preempted", "requeue")]


def test_accounting_learns_of_it_later_and_corrects_the_record(job, monkeypatch):
    monkeypatch.setattr(ends, "ACCOUNTING_LAG", (0.01, 0.01))
    job.attempt(1, 75, 9)
    job.scontrol(show=[(0, LIMIT.replace("TimeLimit", "None").format(1))])
    count = job.folder / "count"
    sacct = job.folder / "bin" / "sacct"
    sacct.write_text(f"#!/bin/sh\n[ -e {count} ] && echo '2026-01-31T12:00:00|PREEMPTED'\n/usr/bin/touch {count}\n")
    sacct.chmod(0o755)
    assert job.decide() == 75
    assert job.decisions() == [("requeued", "none"), ("preempted", "none")]


def test_the_next_start_names_what_accounting_did_not_know_yet(job, monkeypatch):
    sacct = job.folder / "bin" / "sacct"
    sacct.write_text("#!/bin/sh\necho '2026-01-31T12:00:00|PREEMPTED'\n")
    sacct.chmod(0o755)
    job.attempt(1, 75, 9, cause="requeued", action="none")
    job.attempt(2, 0, 12)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert job.decide() == 0
    assert job.decisions() == [("requeued", "none"), ("done", "none"), ("preempted", "none")]


def test_without_accounting_nobody_waits_for_it(job, monkeypatch):
    monkeypatch.setattr(ends, "ACCOUNTING_LAG", (1000.0,))
    job.attempt(1, 75, 9)
    job.scontrol(show=[(0, LIMIT.replace("TimeLimit", "None").format(1))])
    assert job.decide() == 75
    assert job.decisions() == [("requeued", "none")]


def test_a_requeue_that_is_refused_is_a_stop(job, capsys):
    job.attempt(1, 75, 9)
    job.scontrol(show=[(0, GRACE)], requeue=[(1, "Requested operation is presently disabled for job 7_1")])
    assert job.decide() == 1
    assert job.decisions() == [("preempted", "requeue"), ("preempted", "stop")]
    assert "presently disabled" in capsys.readouterr().out


def test_a_done_run_is_not_asked_about(job):
    job.attempt(1, 0, 9)
    assert job.decide() == 0
    assert job.decisions() == [("done", "none")]


def test_a_done_run_that_slurm_started_again_has_no_new_attempt(job, monkeypatch):
    job.attempt(1, 0, 9)
    publish_json(job.run.done, {"step": 9})
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert job.decide() == 0
    assert set(job.decisions()) == {("done", "none")}
    assert job.run.attempts() == [1]


def test_an_end_of_an_earlier_start_is_not_this_ones(job, monkeypatch):
    """The task of this start was killed before it took an attempt: the 75 in the tree is old."""
    job.attempt(1, 75, 9, cause="preempted", action="requeue")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    quiet = GRACE.replace("Restarts=0", "Restarts=1").replace("PreemptTime=2026-01-31T12:00:00", "PreemptTime=None")
    job.scontrol(show=[(0, quiet.replace("2026", "2099"))], requeue=[(0, "")])
    assert job.decide() == 75
    assert job.decisions()[-1] == ("not started", "requeue")


def test_the_budget_counts_requeues_of_this_submission_only(job):
    other = {"event": Event.STARTED, "attempt": 1, "time": "t", "node": "n1", "job": "3_0", "restart": 0}
    append_line(job.run.events, other)
    append_line(
        job.run.events, {"event": Event.DECIDED, "attempt": 1, "time": "t", "cause": "preempted", "action": "requeue"}
    )
    job.budgets({"preempted": 1})
    job.attempt(2, 75, 9, restart=0)
    job.scontrol(show=[(0, GRACE)], requeue=[(0, "")])
    assert job.decide() == 75


def test_the_budget_ends_it(job, monkeypatch):
    job.budgets({"preempted": 1})
    job.attempt(1, 75, 9, cause="preempted", action="requeue")
    job.attempt(2, 75, 12)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.scontrol(show=[(0, GRACE.replace("Restarts=0", "Restarts=1"))])
    assert job.decide() == 1
    assert job.decisions()[-1] == ("preempted", "stop")


@pytest.mark.parametrize(
    ("steps", "code", "action"), [((0, 0), 1, "stop"), ((0, 4), 75, "requeue"), ((4, 4), 75, "requeue")]
)
def test_time_limits_without_progress_end(job, monkeypatch, steps, code, action):
    first, second = steps
    job.attempt(1, 75, first, cause="time limit", action="requeue")
    job.attempt(2, 75, second, first=first)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.scontrol(show=[(0, LIMIT.format(1))], requeue=[(0, "")])
    assert job.decide() == code
    assert job.decisions()[-1] == ("time limit", action)


@pytest.mark.parametrize(
    ("manifest", "size", "action"), [(None, 0, "stop"), (7, 3, "requeue"), (7, 2, "stop"), (0, 3, "stop")]
)
def test_steps_that_no_checkpoint_holds_are_no_progress(job, monkeypatch, manifest, size, action):
    """Killed at the limit twice, with fifty steps in the ledger each time: only what a whole checkpoint holds counts."""
    job.attempt(1, -9, 50, cause="time limit", action="requeue")
    job.attempt(2, -9, 50)
    if manifest is not None:
        publish_json(job.run.checkpoints / "a.pt.json", {"file": "a.pt", "bytes": 3, "step": manifest})
        (job.run.checkpoints / "a.pt").write_bytes(b"abc"[:size])
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.scontrol(show=[(0, LIMIT.format(1))], requeue=[(0, "")])
    job.decide()
    assert job.decisions()[-1] == ("time limit", action)


def test_a_preemption_between_two_time_limits_hides_nothing(job, monkeypatch):
    job.attempt(1, 75, 0, cause="time limit", action="requeue")
    job.attempt(2, 75, 0, cause="preempted", action="requeue")
    job.attempt(3, 75, 0)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    job.scontrol(show=[(0, LIMIT.format(2))], requeue=[(0, "")])
    job.decide()
    assert job.decisions()[-1] == ("time limit", "stop")


def test_a_full_disk_does_not_keep_it_out_of_the_queue(job, monkeypatch, capsys):
    job.attempt(1, 75, 9)
    job.scontrol(show=[(0, GRACE)], requeue=[(0, "")])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ends, "append_line", full)
    assert job.decide() == 75
    assert "cannot be written" in capsys.readouterr().out
