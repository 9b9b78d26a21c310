"""What ends for good within the grace of its preemption is told to Slurm as that: 24.11 would requeue it."""

import pytest
from arbiter_job import GRACE, QUIET


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
