"""Writes down why a start ended, and corrects that once more is known. Standard library only."""

import time
from collections.abc import Mapping
from typing import Final

from jobs.contract import Action, Cause, Event
from jobs.files import append_line, now
from jobs.rundir import RunDir
from launcher import cluster
from launcher.attempts import AttemptRecord, attempts
from launcher.causes import TABLE, Decision, Word, outcome

ACCOUNTING_LAG: Final = (0.2, 0.3, 0.5, 1.0, 1.0)
"""Seconds between questions to accounting, which is told of a job's end in the background."""
NAMES: Final = {"PREEMPTED": Cause.PREEMPTED, "NODE_FAIL": Cause.NODE_FAILURE}
"""Accounting's words. By every other one Slurm put the job back because somebody asked it to."""
WORDS: Final = {Action.NONE: "nothing to do", Action.REQUEUE: "back into the queue", Action.STOP: "stop"}


def write(run: RunDir, job: str, attempt: int, decision: Decision) -> None:
    """Into the events, and as a line into the job's log."""
    line: Mapping[str, object] = {
        "event": Event.DECIDED,
        "attempt": attempt,
        "time": now(),
        "cause": decision.cause,
        "action": decision.action,
        "evidence": dict(decision.evidence),
    }
    record(run, line)
    words = WORDS[decision.action]
    print(f"samebits: job {job}, attempt {attempt}: {decision.cause}: {words} ({decision.why})", flush=True)


def record(run: RunDir, line: Mapping[str, object]) -> None:
    """An event. A full disk must not keep a preempted run out of the queue."""
    try:
        run.logs.mkdir(parents=True, exist_ok=True)
        append_line(run.events, line)
    except OSError as error:
        print(f"samebits: {run.events} cannot be written: {error}", flush=True)


def name_lost(run: RunDir, job: str, restarts: int) -> None:
    """Decide about earlier starts of which no arbiter spoke: Slurm started the job again, so it had put it back by itself.

    Their batch script was killed, or is out of reach. Without any word of it, not even of a signal, the node is gone."""
    for lost in attempts(run):
        if lost.job == job and lost.restart < restarts and lost.cause is None:
            cause = TABLE[outcome(lost.exit_code)][Word.REQUEUED][0]
            if lost.exit_code is None and lost.signal is None:
                cause = Cause.NODE_FAILURE
            why = "Slurm started it again, and nobody on its node said why"
            write(run, job, lost.number, Decision(cause, Action.NONE, why, {"job": job, "why": why}))


def name_ends(run: RunDir, job: str) -> None:
    """Correct the record of ends that only accounting can name: preempted, requeued by somebody, lost with their node.

    It is told of them in the background, perhaps after this script has ended; the next start's arbiter then finds what is left.
    Nothing but the record depends on it."""
    for pause in (*ACCOUNTING_LAG, 0.0):
        unnamed = [each for each in attempts(run) if each.job == job and _is_unnamed(each)]
        if not unnamed:
            return
        for each in unnamed:
            name = cluster.end_of_start(job, each.restart)
            if name == "":
                return
            if name is not None:
                evidence = {**each.evidence, "accounting": name}
                action = Action(each.action or Action.NONE)
                decision = Decision(NAMES.get(name, Cause.REQUEUED), action, f"accounting says {name}", evidence)
                write(run, job, each.number, decision)
        time.sleep(pause)


def _is_unnamed(record: AttemptRecord) -> bool:
    by_slurm = record.cause in {Cause.REQUEUED, Cause.NODE_FAILURE} and record.action == Action.NONE
    return by_slurm and "accounting" not in record.evidence
