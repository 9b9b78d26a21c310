"""Runs in the batch script after the step: asks Slurm once why it ended, records that, requeues or stops. Stdlib only.

Never two restarts for one end. `scontrol requeue` makes the job PENDING and counts the restart at once, while this script
still runs. What Slurm would do afterwards by itself (24.11 requeues every job that ends within the grace of its
preemption; the end of the grace does on all versions) looks for a job that is RUNNING, and finds none. The other way
round, if Slurm was faster, it refuses our requeue because the job is pending, and that counts as done. The new start
cannot begin before this script has ended, so a requeue can never hit it."""

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from jobs.contract import Action, Cause, Event, Exit
from jobs.files import append_line, now
from jobs.rundir import RunDir, Tree
from launcher import cluster
from launcher.attempts import AttemptRecord, attempts
from launcher.causes import Decision, Situation, decide
from launcher.errors import LaunchError
from launcher.history import idle, saved_step
from launcher.placement import Placement
from launcher.process import Result
from launcher.record import Submission, is_cancelled

PATIENCE: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)
"""Seconds between questions to a controller that does not answer: a minute in all. A restart of it takes less."""
ACCOUNTING_LAG: Final = (0.2, 0.3, 0.5, 1.0, 1.0)
"""Seconds between questions to accounting, which is told of a job's end in the background."""
ROUNDS: Final = 3
"""So often it is decided anew because the job's state changed between the question and the order."""
ALREADY: Final = ("pending", "already")
"""Words of Slurm's refusal to requeue what is requeued."""


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
    history = attempts(run)
    mine = [record for record in history if record.job == job and record.restart == restarts]
    number = mine[-1].number if mine else 0
    known = situation(run, history, job, restarts, placement)

    def settle(decision: Decision) -> Decision:
        evidence = {**decision.evidence, "job": job, "step_exit_code": step_code, "why": decision.why}
        decision = replace(decision, evidence=evidence)
        _record(run, number, decision)
        _say(job, number, decision)
        return decision

    decision = _put_back(job, known, settle)
    # Whoever cancels writes first and tells Slurm then: what is not seen here will be told to a job that waits in the queue.
    if _comes_back(decision) and is_cancelled(run, placement.submission):
        why = "`launch cancel` was asked for"
        decision = settle(replace(decision, cause=Cause.CANCELLED, action=Action.STOP, why=why))
        _persist(partial(cluster.cancel, [job]))
    name_ends(run, job)
    if decision.cause is Cause.DONE:
        return Exit.DONE
    return Exit.SAVED if _comes_back(decision) else Exit.BROKEN


def situation(run: RunDir, history: list[AttemptRecord], job: str, restarts: int, placement: Placement) -> Situation:
    """What the tree and Slurm say about this start of the job. Slurm is not asked where its answer cannot matter."""
    mine = [record for record in history if record.job == job]
    this = next((record for record in reversed(mine) if record.restart == restarts), None)
    code = this.exit_code if this else None
    if code is None and run.done.exists():
        code = Exit.DONE
    asked = code not in {Exit.DONE, Exit.REFUSED, Exit.FENCED}
    facts = _ask(job) if asked else None
    return Situation(
        code=code,
        restarts=restarts,
        facts=facts,
        now=_clock(),
        signal_seconds=placement.signal_seconds,
        budgets=placement.budgets,
        used=Counter(r.cause for r in mine if r.cause is not None and r.action == Action.REQUEUE),
        idle=idle(mine, this, saved_step(run, history)),
        cancelled=is_cancelled(run, placement.submission),
        asked=asked,
    )


def _put_back(job: str, known: Situation, settle: Callable[[Decision], Decision]) -> Decision:
    """Decide, and requeue where that is right; anew if the job was cancelled, or met its limit, since Slurm was asked."""
    decision = settle(decide(known))
    for _ in range(ROUNDS):
        if decision.action is not Action.REQUEUE:
            return decision
        running = known.facts is not None and known.facts.state == "RUNNING"
        refused = _persist(partial(cluster.requeue, job, ended=not running))
        if refused is not None:
            why = f"{decision.why}; but `scontrol requeue {job}` failed: {refused}"
            return settle(replace(decision, action=Action.STOP, why=why))
        facts = _ask(job)
        if facts is None or facts.restarts > known.restarts:
            return decision
        known = replace(known, facts=facts, now=_clock())
        decision = settle(decide(known))
    return settle(replace(decision, action=Action.STOP, why=f"{decision.why}; but Slurm does not requeue it"))


def _comes_back(decision: Decision) -> bool:
    return decision.action is not Action.STOP and decision.cause is not Cause.DONE


def _clock() -> datetime:
    """Local time without a zone, as Slurm prints its own."""
    return datetime.now().astimezone().replace(tzinfo=None)


def name_ends(run: RunDir, job: str) -> None:
    """Correct the record of ends that only accounting can name: preempted, or requeued by somebody.

    It is told of them in the background, perhaps after this script has ended; the next start's arbiter then finds what is left.
    Nothing but the record depends on it."""
    for pause in (*ACCOUNTING_LAG, 0.0):
        unnamed = [
            r for r in attempts(run) if r.job == job and r.cause == Cause.REQUEUED and "accounting" not in r.evidence
        ]
        if not unnamed:
            return
        for record in unnamed:
            name = cluster.end_of_start(job, record.restart)
            if name == "":
                return
            if name is not None:
                cause = Cause.PREEMPTED if name == "PREEMPTED" else Cause.REQUEUED
                evidence = {**record.evidence, "accounting": name}
                why = f"accounting says {name}"
                decision = Decision(cause, Action(record.action or Action.NONE), why, evidence)
                _record(run, record.number, decision)
                _say(job, record.number, decision)
        time.sleep(pause)


def _ask(job: str) -> cluster.JobFacts | None:
    for pause in (*PATIENCE, None):
        try:
            return cluster.job_facts(job)
        except LaunchError as error:
            print(f"samebits: {error}", flush=True)
            if pause is not None:
                time.sleep(pause)
    return None


def _persist(order: Callable[[], Result]) -> str | None:
    """Give an order until Slurm answers it. None: it is carried out; else its refusal."""
    refusal = "no answer"
    for pause in (*PATIENCE, None):
        try:
            answer = order()
        except LaunchError as error:
            refusal = str(error)
        else:
            refusal = cluster.first_line(answer)
            if answer.ok or any(word in refusal.lower() for word in ALREADY):
                return None
            if not cluster.is_silent(answer):
                return refusal
        if pause is not None:
            time.sleep(pause)
    return refusal


def _record(run: RunDir, attempt: int, decision: Decision) -> None:
    line: Mapping[str, object] = {
        "event": Event.DECIDED,
        "attempt": attempt,
        "time": now(),
        "cause": decision.cause,
        "action": decision.action,
        "evidence": dict(decision.evidence),
    }
    try:
        run.logs.mkdir(parents=True, exist_ok=True)
        append_line(run.events, line)
    except OSError as error:  # a full disk must not keep a preempted run out of the queue
        print(f"samebits: {run.events} cannot be written: {error}", flush=True)


def _say(job: str, attempt: int, decision: Decision) -> None:
    words = {Action.NONE: "nothing to do", Action.REQUEUE: "back into the queue", Action.STOP: "stop"}
    line = f"samebits: job {job}, attempt {attempt}: {decision.cause}: {words[decision.action]} ({decision.why})"
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
