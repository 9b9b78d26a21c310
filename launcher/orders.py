"""Questions and orders to Slurm that outlast a restart of its controller. Standard library only."""

import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from launcher import cluster
from launcher.cluster import JobFacts
from launcher.errors import LaunchError
from launcher.process import Result

PATIENCE: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)
"""Seconds between questions to a controller that does not answer: a minute in all. A restart of it takes less."""
ALREADY: Final = ("pending", "already")
"""Words of Slurm's refusal to requeue what is requeued."""


def ask(job: str) -> JobFacts | None:
    """Facts about a job; None when the controller does not know it, or gave no answer for a minute."""
    for pause in (*PATIENCE, None):
        try:
            return cluster.job_facts(job)
        except LaunchError as error:
            print(f"samebits: {error}", flush=True)
            if pause is not None:
                time.sleep(pause)
    return None


def requeue(job: str, facts: JobFacts | None) -> str | None:
    """Put a job back, of which Slurm said `facts`. None: it is, or its state changed meanwhile; else Slurm's refusal."""
    running = facts is not None and facts.state == "RUNNING"
    return _persist(partial(cluster.requeue, job, ended=not running), done=ALREADY)


def cancel(job: str) -> str | None:
    """End a job for good. None, or Slurm's refusal."""
    return _persist(partial(cluster.cancel, [job]))


def narrow(job: str, facts: JobFacts | None, avoid: Collection[str], minutes: int | None) -> str | None:
    """Keep a job that waits in the queue from these nodes besides those that it avoids already, and give its next attempt so many
    minutes. None, or Slurm's refusal."""
    changes = {}
    if avoid:
        changes["ExcNodeList"] = ",".join(filter(None, [facts.avoided if facts else "", *avoid]))
    if minutes is not None:
        changes["TimeLimit"] = str(minutes)
    return _persist(partial(cluster.update, job, changes)) if changes else None


def _persist(order: Callable[[], Result], done: Collection[str] = ()) -> str | None:
    """Give an order until Slurm answers it. None: it is carried out, or was before, as words of `done` say; else its refusal."""
    refusal = "no answer"
    for pause in (*PATIENCE, None):
        try:
            answer = order()
        except LaunchError as error:
            refusal = str(error)
        else:
            refusal = cluster.first_line(answer)
            if answer.ok or any(word in refusal.lower() for word in done):
                return None
            if not cluster.is_silent(answer):
                return refusal
        if pause is not None:
            time.sleep(pause)
    return refusal


def keep_out(job: str, restarts: int) -> None:
    """A job that ends for good within the grace of its preemption stays out: 24.11 would requeue it, whatever its exit code.

    There a job that was requeued within its grace keeps that mark, which scontrol does not show: the end of its next start
    would be taken for one within the grace. Only this start of it is meant: what is requeued already may be a newer attempt,
    which must stay requeueable. Slurm cannot be told "only if": so it is asked again, and what came back meanwhile gets its
    right to be requeued back."""
    facts = ask(job)
    if facts is None or facts.state != "RUNNING" or facts.restarts != restarts or not (facts.preempt_time or restarts):
        return
    refused = _requeueable(job, yes=False)
    after = ask(job)
    if after is not None and after.restarts > restarts:
        refused = _requeueable(job, yes=True)
    if refused is not None:
        print(f"samebits: whether job {job} may be requeued could not be told to Slurm: {refused}", flush=True)


def _requeueable(job: str, *, yes: bool) -> str | None:
    return _persist(partial(cluster.update, job, {"Requeue": "1" if yes else "0"}))
