"""What was left half-way: submissions whose launcher died, jobs that a partition cancelled to preempt them."""

import contextlib
import socket
from datetime import UTC, datetime, timedelta
from typing import Final

from filelock import FileLock, Timeout

from jobs.contract import Action, Cause, Event
from jobs.files import append_line, now
from jobs.rundir import Tree
from launcher import cluster
from launcher.errors import LaunchError
from launcher.record import COMMENT, Submission, submissions
from launcher.runstate import examine, is_alive

ELSEWHERE: Final = timedelta(minutes=10)
"""A launcher on another machine cannot be asked whether it lives; after this long it does not."""


def recover(tree: Tree, *, locked: bool = False) -> list[str]:
    """Complete or write off every intent that its launcher left behind. Returns a line for each, for a person.

    Where Slurm gives no answer nothing is concluded, and the intent stays. Without `locked` the tree's lock is tried and, where
    another launcher holds it or the tree cannot be written, everything is left to that one."""
    orphans = [submission for submission in submissions(tree) if _is_orphan(submission)]
    if not orphans:
        return []
    if locked:
        return [_settle(tree, orphan) for orphan in orphans]
    try:
        with FileLock(tree.submissions / ".lock", timeout=0):
            again = [submission for submission in submissions(tree) if _is_orphan(submission)]
            return [_settle(tree, orphan) for orphan in again]
    except (Timeout, OSError):
        return []


def bring_back(tree: Tree) -> list[str]:
    """Requeue what Slurm preempted by cancelling it, where the run's own arbiter had no time to. Returns a line for each.

    As long as Slurm remembers a job it can be requeued, with its number and its history; after that, or where Slurm refuses, the
    next launch of the config submits the run anew."""
    lines = []
    for state in examine(tree):
        run = tree.run(state.seed)
        if not state.taken or state.job is None or not cluster.requeue(state.job, ended=True).ok:
            continue
        line = f"seed {state.seed}: job {state.job} was preempted in a partition that cancels; it is back in the queue."
        number = state.last.number if state.last else 0
        head = {"event": Event.DECIDED, "attempt": number, "time": now(), "cause": Cause.PREEMPTED}
        with contextlib.suppress(OSError):
            append_line(run.events, {**head, "action": Action.REQUEUE, "evidence": {"job": state.job, "why": line}})
        lines.append(line)
    return lines


def _is_orphan(submission: Submission) -> bool:
    if submission.place != "slurm" or submission.state != "intent":
        return False
    since = datetime.fromisoformat(submission.time)
    if submission.host == socket.gethostname():
        return not is_alive(submission.pid, since)
    return datetime.now(UTC) - since > ELSEWHERE


def _settle(tree: Tree, orphan: Submission) -> str:
    try:
        job = orphan.job or cluster.find_comment(COMMENT + orphan.id, str(orphan.folder(tree)))
        if job is None:
            orphan.with_state("failed").write(tree)
            return f"Submission {orphan.id} never reached Slurm: its launcher died before sbatch."
        from launcher.submit import complete

        complete(tree, orphan.with_state("intent", job).write(tree))
    except LaunchError as error:
        return f"Submission {orphan.id} is unfinished, and Slurm gives no answer about it: {error}"
    return f"Submission {orphan.id} was found again in Slurm as job {job}: its launcher had died in between."
