"""What ends for good within the grace of its preemption is told to Slurm as that: 24.11 would requeue it."""

import pytest
from arbiter_job import DOWN, GRACE, LIMIT, QUIET


def updates(job):
    return [call for call, _ in job.calls() if call[0] == "update"]


@pytest.mark.parametrize(("code", "cause"), [(0, "done"), (1, "crashed"), (78, "refused")])
def test_an_end_for_good_within_the_grace_stays_out(job, code, cause):
    job.attempt(1, code, 9)
    job.scontrol(show=[(0, GRACE)], update=[(0, "")])
    job.decide()
    assert [found for found, _ in job.decisions()] == [cause]
    assert updates(job) == [["update", "JobId=7_1", "Requeue=0"]]


def test_outside_of_a_grace_a_job_stays_as_it_was_submitted(job):
    job.attempt(1, 1, 9)
    job.scontrol(show=[(0, QUIET.format(0, "(null)"))], update=[(0, "")])
    job.decide()
    assert updates(job) == []


def test_what_waits_in_the_queue_again_may_be_requeued_again(job):
    """A newer attempt of this very job."""
    job.attempt(1, 76, 9)
    job.scontrol(show=[(0, GRACE.replace("Restarts=0", "Restarts=1"))], update=[(0, "")])
    job.decide()
    assert updates(job) == []


OFF, ON = (["update", "JobId=7_1", f"Requeue={number}"] for number in (0, 1))
BACK = GRACE.replace("Restarts=0", "Restarts=1")


def test_what_was_requeued_between_the_question_and_the_order_may_be_requeued_again(job):
    job.attempt(1, 78, 9)
    job.scontrol(show=[(0, GRACE), (0, BACK)], update=[(0, "")])
    job.decide()
    assert updates(job) == [OFF, ON]


@pytest.mark.parametrize("code", [0, 78])
def test_a_controller_that_restarts_meanwhile_is_told_afterwards(job, code):
    job.attempt(1, code, 9)
    job.scontrol(show=[DOWN, (0, GRACE)], update=[DOWN, (0, "")])
    job.decide()
    assert updates(job) == [OFF, OFF]


def test_a_refusal_is_said_and_changes_nothing(job, capsys):
    job.attempt(1, 78, 9)
    job.scontrol(show=[(0, GRACE)], update=[(1, "Access/permission denied")])
    assert job.decide() == 1
    assert updates(job) == [OFF]
    assert "Access/permission denied" in capsys.readouterr().out


@pytest.mark.parametrize("code", [0, 78])
def test_the_start_after_a_requeue_stays_out_though_no_grace_is_shown(job, monkeypatch, code):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.attempt(2, code, 9)
    job.scontrol(show=[(0, QUIET.format(1, "(null)"))], update=[(0, "")])
    job.decide()
    assert updates(job) == [OFF]


def test_what_slurm_ends_itself_is_left_alone(job, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.attempt(2, 78, 9)
    job.scontrol(show=[(0, LIMIT.format(1))], update=[(0, "")])
    job.decide()
    assert updates(job) == []


def test_what_is_to_be_requeued_is_never_kept_out(job):
    job.attempt(1, 75, 9)
    job.scontrol(show=[(0, GRACE)], requeue=[(0, "")], update=[(0, "")])
    assert job.decide() == 75
    assert OFF not in updates(job)
