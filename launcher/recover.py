"""Submissions whose launcher died half-way: found again in Slurm and completed, or written off."""

import socket
from datetime import UTC, datetime, timedelta
from typing import Final

from filelock import FileLock, Timeout

from jobs.rundir import Tree
from launcher import cluster
from launcher.errors import LaunchError
from launcher.record import COMMENT, Submission, submissions
from launcher.runstate import is_alive

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
