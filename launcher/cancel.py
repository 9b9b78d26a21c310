"""`launch cancel`: what is active ends for good; what is not is said to be so."""

import os
import signal
import sys
from collections.abc import Sequence

from jobs.rundir import Tree
from launcher import cluster
from launcher.errors import ExitCode, fail
from launcher.record import submissions
from launcher.recover import recover
from launcher.runstate import Record, RunState, examine, is_alive


def cancel(tree: Tree, seed: int | None) -> int:
    """Stop the seed's run, or all of them. Slurm is told of each `ARRAYJOB_TASK`; a local runner gets SIGTERM, and saves.

    Nothing active is no error. Raises LaunchError: NOT_FOUND for a seed that the experiment has not, CLUSTER with Slurm's words."""
    for line in recover(tree):
        _say(line)
    seeds = [seed] if seed is not None else None
    if seed is not None and seed not in tree.seeds():
        there = ", ".join(map(str, tree.seeds())) or "none"
        raise fail(ExitCode.NOT_FOUND, f"{tree.name} has no seed {seed}.", hint=f"There: {there}.")
    states = examine(tree, seeds)
    active = [state for state in states if state.active]
    _slurm(tree, [state for state in active if state.place == "slurm"])
    stopped = _local(tree, [state for state in active if state.place == "local"], alone=seed is None)
    for state in states:
        if state not in active:
            _say(f"seed {state.seed}: {state.state}, nothing to cancel")
    if not active:
        _say(f"Nothing of {tree.name} is active.")
    elif stopped:
        _say(f"`launch status {tree.name}` shows when they have ended. Launching the config again goes on from there.")
    return ExitCode.OK


def _slurm(tree: Tree, states: Sequence[RunState]) -> None:
    """The tree is told first: an arbiter that is about to requeue, and a start that Slurm makes nevertheless, look there."""
    recorded = _record(tree, frozenset(state.seed for state in states))
    jobs = {state.job: state for state in states if state.job is not None}
    for state in states:
        if state.job is None:
            _say(f"seed {state.seed}: it is being submitted at this moment; it ends when it starts, if not before")
    if not jobs:
        return
    answer = cluster.cancel(jobs)
    if not answer.ok:
        hint = "`squeue --me` shows what is still there." + (" None of it will be requeued." if recorded else "")
        raise fail(ExitCode.CLUSTER, f"scancel: {cluster.first_line(answer)}.", hint=hint, evidence=answer.evidence())
    for job, state in jobs.items():
        where = f" on {state.node}" if state.node and state.state == "running" else ""
        _say(f"seed {state.seed}: cancelled, job {job}, which was {state.state}{where}")


def _record(tree: Tree, seeds: frozenset[int]) -> bool:
    """Whether the wish stands in the tree. A disk without room must not keep Slurm from being told."""
    try:
        for submission in submissions(tree) if seeds else ():
            for seed in seeds.intersection(submission.seeds):
                submission.cancel(tree, seed)
    except OSError as error:
        _say(f"The tree cannot be written, so only Slurm is told: {error}")
        return False
    return True


def _local(tree: Tree, states: Sequence[RunState], *, alone: bool) -> bool:
    """One runner holds all seeds of its launch: it is stopped as a whole, and that is said."""
    runners: dict[int, list[int]] = {}
    for state in states:
        record = Record.read(tree.run(state.seed))
        if record is not None:
            if is_alive(record.pid, record.time, record.host):
                runners.setdefault(record.pid, []).append(state.seed)
            else:
                _say(f"seed {state.seed}: it runs on {record.host}; cancel it there")
    for pid, seeds in runners.items():
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
        except PermissionError as error:
            raise fail(ExitCode.FILES, f"Process {pid}, which runs {tree.name}, belongs to another user.") from error
        rest = "" if alone else " with all seeds of its launch"
        _say(f"seed {', '.join(map(str, seeds))}: asked to save and stop, process {pid}{rest}")
    return bool(states)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
