"""Runs in the batch script after the step: asks Slurm once why it ended, records that, requeues or stops. Stdlib only.

Never two restarts for one end. `scontrol requeue` makes the job PENDING and counts the restart at once, while this script
still runs. What Slurm would do afterwards by itself (24.11 requeues every job that ends within the grace of its
preemption; the end of the grace does on all versions) looks for a job that is RUNNING, and finds none. The other way
round, if Slurm was faster, it refuses our requeue because the job is pending, and that counts as done. The new start
cannot begin before this script has ended, so a requeue can never hit it.

And none where there is to be none: a job that ends within that grace for good is told to be no more requeued."""

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from jobs.contract import Action, Cause, Event, Exit
from jobs.files import now
from jobs.rundir import RunDir, Tree
from launcher import cluster, orders
from launcher.attempts import AttemptRecord, attempts
from launcher.causes import Decision, Situation, decide
from launcher.ends import name_ends, name_lost, record, write
from launcher.engines import engine
from launcher.errors import LaunchError
from launcher.history import FAILED, failures, idle, minutes, saved_step, suspect
from launcher.placement import Placement
from launcher.record import Submission, is_cancelled
from launcher.witness import Heard, heard

ROUNDS: Final = 3
"""So often it is decided anew because the job's state changed between the question and the order."""


def main(argv: list[str] | None = None) -> int:
    """Exit code of the job, so that Slurm's state tells the truth: 0 done, 75 in the queue again, 1 everything else."""
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--placement", type=Path, required=True)
    parser.add_argument("--code", type=int, required=True, help="exit code of the step, for the evidence only")
    arguments = parser.parse_args(argv)
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    placement = Placement.read(arguments.placement)
    run = run_of(arguments.placement, int(os.environ["SLURM_ARRAY_TASK_ID"]))
    return arbitrate(run, job, restarts, placement, arguments.code)


def run_of(placement: Path, task: int) -> RunDir:
    """The run of an array task. `placement` is `experiments/NAME/logs/submissions/ID/placement.json`."""
    submission = Submission.read(placement.with_name("submission.json"))
    return Tree(placement.absolute().parents[3]).run(submission.seeds[task])


def arbitrate(run: RunDir, job: str, restarts: int, placement: Placement, step_code: int) -> int:
    """Decide, record, act, say. In this order: a requeue ends this process, so nothing may be left to do after it."""
    _clean(run)
    name_lost(run, job, restarts)
    log = run.root / "logs" / "submissions" / placement.submission / f"{job}.log"
    known = situation(run, job, restarts, placement, heard(log))
    number = _number(run, known, job)

    def settle(decision: Decision) -> Decision:
        evidence = {**decision.evidence, "job": job, "step_exit_code": step_code, "why": decision.why}
        decision = replace(decision, evidence=evidence)
        write(run, job, number, decision)
        return decision

    decision = _put_back(run, job, known, placement, settle)
    # Whoever cancels writes first and tells Slurm then: what is not seen here will be told to a job that waits in the queue.
    if _comes_back(decision) and is_cancelled(run, placement.submission):
        why = "`launch cancel` was asked for"
        decision = settle(replace(decision, cause=Cause.CANCELLED, action=Action.STOP, why=why))
        orders.cancel(job)
    if not _comes_back(decision):
        orders.keep_out(job, restarts)
    name_ends(run, job)
    if decision.cause is Cause.DONE:
        return Exit.DONE
    return Exit.SAVED if _comes_back(decision) else Exit.BROKEN


def _clean(run: RunDir) -> None:
    """A container is no child of the job's: one that was left goes before somebody else gets this node. It decides nothing."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, LaunchError):
        name = json.loads(run.specification.read_text(encoding="utf-8"))["image"]["engine"]
        engine(name).clean(run.id)


def situation(
    run: RunDir, job: str, restarts: int, placement: Placement, said: frozenset[Heard] = frozenset()
) -> Situation:
    """What the tree and Slurm say about this start of the job, and its node (`said`). Slurm is not asked where its answer cannot
    matter."""
    history = attempts(run)
    mine = [record for record in history if record.job == job]
    this = _this(mine, restarts)
    code = this.exit_code if this else None
    if code is None and run.done.exists():
        code = Exit.DONE
    asked = code not in {Exit.DONE, Exit.REFUSED, Exit.FENCED}
    return Situation(
        code=code,
        restarts=restarts,
        facts=orders.ask(job) if asked else None,
        now=_clock(),
        signal_seconds=placement.signal_seconds,
        budgets=placement.budgets,
        used=Counter(r.cause for r in mine if r.cause is not None and r.action == Action.REQUEUE),
        idle=idle(mine, this, saved_step(run, history)),
        minutes_left=placement.total_minutes - minutes(mine, now()) if placement.total_minutes else None,
        taken=this is not None,
        suspect=suspect(history, this) if this else "",
        heard=said,
        cancelled=is_cancelled(run, placement.submission),
        asked=asked,
    )


def _this(mine: Sequence[AttemptRecord], restarts: int) -> AttemptRecord | None:
    return next((record for record in reversed(mine) if record.restart == restarts), None)


def _number(run: RunDir, known: Situation, job: str) -> int:
    """The attempt that is decided about. A start that took none gets one now: it counts, and is seen, like the others."""
    this = _this([record for record in attempts(run) if record.job == job], known.restarts)
    if this is not None or known.code is not None or known.cancelled:
        return this.number if this else 0
    try:
        number = run.take_attempt()
    except OSError as error:
        print(f"samebits: {run.logs} cannot be written: {error}", flush=True)
        return 0
    node = os.environ.get("SLURMD_NODENAME") or platform.node()
    start = {"event": Event.STARTED, "attempt": number, "time": now(), "node": node}
    record(run, {**start, "job": job, "restart": known.restarts})
    return number


def _put_back(
    run: RunDir, job: str, known: Situation, placement: Placement, settle: Callable[[Decision], Decision]
) -> Decision:
    """Decide, and requeue where that is right; anew if the job was cancelled, or met its limit, since Slurm was asked."""
    decision = settle(_elsewhere(run, job, known, decide(known)))
    for _ in range(ROUNDS):
        if decision.action is not Action.REQUEUE:
            return decision
        refused = orders.requeue(job, known.facts)
        if refused is not None:
            why = f"{decision.why}; but `scontrol requeue {job}` failed: {refused}"
            return settle(replace(decision, action=Action.STOP, why=why))
        facts = orders.ask(job)
        if facts is None or facts.restarts > known.restarts:
            _narrow(job, known, decision, placement)
            return decision
        known = replace(known, facts=facts, now=_clock())
        decision = settle(_elsewhere(run, job, known, decide(known)))
    return settle(replace(decision, action=Action.STOP, why=f"{decision.why}; but Slurm does not requeue it"))


def _elsewhere(run: RunDir, job: str, known: Situation, decision: Decision) -> Decision:
    """The same decision with the nodes that are kept from the next attempt; a stop where that leaves none."""
    if decision.action is not Action.REQUEUE:
        return decision
    mine = [each for each in attempts(run) if each.job == job]
    before = [each for each in mine if each.restart != known.restarts]
    node = os.environ.get("SLURMD_NODENAME") or platform.node()
    ended = replace(_this(mine, known.restarts) or AttemptRecord(0), node=node, cause=decision.cause)
    avoid = [name for name, weight in failures([*before, ended]).items() if weight >= FAILED]
    if not avoid:
        return decision
    decision = replace(decision, evidence={**decision.evidence, "exclude": avoid})
    left = cluster.nodes_left(known.facts, avoid) if known.facts else None
    if left is None or (known.facts and len(left) >= known.facts.nodes):
        return replace(decision, why=f"{decision.why}; from now on without {', '.join(avoid)}")
    rest = f"only {', '.join(sorted(left))}" if left else "none"
    because = f"without {', '.join(avoid)} its partition has {rest} left for it"
    evidence = {**decision.evidence, "because": because}
    return replace(decision, action=Action.STOP, why=f"{decision.why}; {because}", evidence=evidence)


def _narrow(job: str, known: Situation, decision: Decision, placement: Placement) -> None:
    """Say to Slurm where the next attempt may not run, and for how long it may where less is left than an attempt has."""
    avoid, left = decision.evidence.get("exclude", ()), known.minutes_left
    last = math.ceil(left) if left is not None and left < placement.time_minutes else None
    refused = orders.narrow(job, known.facts, avoid, last)
    if refused is not None:
        print(f"samebits: job {job} has the nodes and the time limit that it had: {refused}", flush=True)


def _comes_back(decision: Decision) -> bool:
    return decision.action is not Action.STOP and decision.cause is not Cause.DONE


def _clock() -> datetime:
    """Local time without a zone, as Slurm prints its own."""
    return datetime.now().astimezone().replace(tzinfo=None)


if __name__ == "__main__":
    sys.exit(main())
