"""Why a start of a job ended, and what is right then: one table, pure. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from jobs.contract import STOP_SIGNALS, Action, Cause, Exit
from launcher.cluster import JobFacts
from launcher.witness import Heard

SIGNAL_EARLY: Final = timedelta(seconds=60)
"""Slurm sends its signal up to so much earlier than asked: it looks at time limits once in a while."""
IDLE_STARTS: Final = 2
"""So many starts in a row that reach the time limit without a step: the next would do the same."""
SIGKILL: Final = 9


class Outcome(StrEnum):
    """What the run said, by the exit code in the tree. srun's exit code is not asked: it may be submitit's own."""

    DONE = "done"
    SAVED = "saved"
    BROKEN = "broken"
    KILLED = "killed"
    """By SIGKILL: by Slurm at the end of its patience, by the kernel for want of memory, or by hand."""
    SILENT = "silent"
    """No word: the task died before the run could end, or a stop signal came before the run could listen."""
    ABSENT = "absent"
    """No attempt was taken: the task never came so far."""
    REFUSED = "refused"
    UNFIT = "refused here"
    """Refused for this machine alone."""
    FENCED = "fenced"


class Word(StrEnum):
    """What Slurm says about the job, asked after the step and before the batch script ends."""

    REQUEUED = "requeued"
    """Restarts is one more than at the start: Slurm has put it back already."""
    LOST = "requeued for its node"
    """The same, because the node failed: its daemon says so, where it still can."""
    GRACE = "preempted, within the grace"
    """RUNNING, and PreemptTime is set."""
    NEAR_LIMIT = "near the time limit"
    """RUNNING, not preempted, and the time limit is so near that Slurm has sent its signal."""
    RUNNING = "running"
    """RUNNING, and Slurm wants nothing of it."""
    TIME_LIMIT = "time limit"
    """COMPLETING for that reason, or TIMEOUT."""
    TAKEN = "preempted and ended"
    """PREEMPTED, or COMPLETING with PreemptTime set, and the node says that it was for that: PreemptMode=CANCEL."""
    NODE = "node failure"
    MEMORY = "out of memory"
    ENDING = "ending"
    """COMPLETING, restarts equal, no reason: somebody cancelled it."""
    MUTE = "mute"
    """No answer, or a state that this table does not know."""


NONE, REQUEUE, STOP = Action.NONE, Action.REQUEUE, Action.STOP

# Slurm requeues by itself: nothing to do, whatever the run said. Otherwise the run would be put back twice.
# Preempted and `scontrol requeue` by someone look alike to the controller; accounting, where there is one, names it later.
_BY_SLURM = (Cause.REQUEUED, NONE)

_STOPPED: Mapping[Word, tuple[Cause, Action]] = {  # it saved, or Slurm ended it before it could
    Word.REQUEUED: _BY_SLURM,
    Word.LOST: (Cause.NODE_FAILURE, NONE),
    Word.GRACE: (Cause.PREEMPTED, REQUEUE),  # 22.05 would not by itself, 24.11 would: see arbiter.py
    Word.NEAR_LIMIT: (Cause.TIME_LIMIT, REQUEUE),
    Word.RUNNING: (Cause.INTERRUPTED, STOP),  # a signal by hand: the person who sent it wants it to stop
    Word.TIME_LIMIT: (Cause.TIME_LIMIT, REQUEUE),  # works even while COMPLETING
    Word.TAKEN: (Cause.PREEMPTED, REQUEUE),  # a requeue works here too, and brings it back with its number
    Word.NODE: (Cause.NODE_FAILURE, REQUEUE),
    Word.MEMORY: (Cause.OUT_OF_MEMORY, STOP),  # it would need as much again: it wants more cluster.memory
    Word.ENDING: (Cause.CANCELLED, STOP),  # a cancelled job stays dead
    Word.MUTE: (Cause.UNKNOWN, STOP),
}

TABLE: Final[Mapping[Outcome, Mapping[Word, tuple[Cause, Action]]]] = {
    Outcome.DONE: dict.fromkeys(Word, (Cause.DONE, NONE)),  # if Slurm starts it again, it ends at once
    Outcome.SAVED: _STOPPED,
    # A crash is never requeued by us. Where Slurm does so by itself, the next start meets it without a preemption.
    Outcome.BROKEN: {
        **dict.fromkeys(Word, (Cause.CRASHED, STOP)),
        Word.REQUEUED: (Cause.CRASHED, NONE),
        Word.LOST: (Cause.CRASHED, NONE),
        Word.MEMORY: (Cause.OUT_OF_MEMORY, STOP),
    },
    # Slurm kills what it has asked to stop; without having been asked, a SIGKILL is a crash.
    Outcome.KILLED: {
        **_STOPPED,
        Word.GRACE: (Cause.CRASHED, STOP),
        Word.NEAR_LIMIT: (Cause.CRASHED, STOP),
        Word.RUNNING: (Cause.CRASHED, STOP),
        Word.MUTE: (Cause.CRASHED, STOP),
    },
    Outcome.SILENT: {**_STOPPED, Word.RUNNING: (Cause.CRASHED, STOP)},
    # A stop signal may have come first; else it is this node's python, its file systems, or the hour that it hung there.
    Outcome.ABSENT: {
        **_STOPPED,
        Word.RUNNING: (Cause.NOT_STARTED, REQUEUE),
        Word.NEAR_LIMIT: (Cause.NOT_STARTED, REQUEUE),
        Word.TIME_LIMIT: (Cause.NOT_STARTED, REQUEUE),
    },
    # Another node may do. It asks no more of Slurm than that nobody wanted it to end.
    Outcome.UNFIT: {
        **dict.fromkeys(Word, (Cause.UNFIT, REQUEUE)),
        Word.REQUEUED: (Cause.UNFIT, NONE),
        Word.LOST: (Cause.UNFIT, NONE),
        Word.ENDING: (Cause.CANCELLED, STOP),
        Word.MUTE: (Cause.UNFIT, STOP),
    },
    Outcome.REFUSED: dict.fromkeys(Word, (Cause.REFUSED, STOP)),
    # The newer attempt may be of this very job: nothing is said to Slurm about it.
    Outcome.FENCED: dict.fromkeys(Word, (Cause.FENCED, STOP)),
}


_MAY_BE_CANCELLED: Final = frozenset({Outcome.SAVED, Outcome.KILLED, Outcome.SILENT, Outcome.ABSENT, Outcome.UNFIT})
_STILL_RUNS: Final = frozenset({Word.RUNNING, Word.GRACE, Word.NEAR_LIMIT})


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision depends on."""

    code: int | None
    """Exit code of the run as the tree has it; None when the tree has none for this start of the job."""
    restarts: int
    """$SLURM_RESTART_COUNT of this start."""
    facts: JobFacts | None
    """None: Slurm gave no answer."""
    now: datetime
    """Local time without a zone, as Slurm prints its own."""
    signal_seconds: int
    budgets: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, int] = field(default_factory=dict)
    """Requeues of this submission so far, by cause."""
    idle: int = 0
    """Starts in a row, this one included, that reached the time limit without finishing a step."""
    minutes_left: float | None = None
    """Of the time that all attempts may have together; None: it is not bounded."""
    taken: bool = True
    """Whether this start took an attempt."""
    suspect: str = ""
    """A node on which the run came further than here, where it ended before its first step; empty when that says nothing."""
    heard: frozenset[Heard] = frozenset()
    """What the node's own daemon said, where the controller does not."""
    cancelled: bool = False
    """Whether `launch cancel` was asked for this submission of it."""
    asked: bool = True
    """Whether Slurm was asked at all: where its answer cannot matter, it is not."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One cause, one action, and the reason in words where the table alone does not say it."""

    cause: Cause
    action: Action
    why: str
    evidence: Mapping[str, Any]


def decide(now: Situation) -> Decision:
    """Pure. Every pair of outcome and word has its answer in TABLE; budgets only ever turn a requeue into a stop."""
    said, word = outcome(now.code), slurm_word(now)
    if now.code is None and not now.taken:
        said = Outcome.ABSENT
    cause, action = TABLE[said][word]
    why = f"the run said {said}" + ("" if word is Word.MUTE and not now.asked else f", Slurm says {word}")
    if cause is Cause.CRASHED and now.suspect and word in _STILL_RUNS:
        cause, action = Cause.NODE_FAILURE, REQUEUE
        why = f"{why}; before its first step, and {now.suspect} came further"
    if now.cancelled and said in _MAY_BE_CANCELLED:
        cause, action, why = Cause.CANCELLED, STOP, f"{why}; `launch cancel` was asked for"
    evidence: dict[str, Any] = now.facts.evidence() if now.facts else {}
    if action is REQUEUE and (because := _no_more(now, cause)):
        action, why, evidence["because"] = STOP, f"{why}; {because}", because
    evidence |= {"restart": now.restarts, "outcome": str(said), "word": str(word) if now.asked else "not asked"}
    return Decision(cause, action, why, evidence)


def _no_more(now: Situation, cause: Cause) -> str:
    """Why a run is not requeued although its cause would allow it; empty when it is."""
    limit = now.budgets.get(cause)
    if limit is not None and now.used.get(cause, 0) >= limit:
        return f"its budget of {limit} requeues is used up"
    if now.minutes_left is not None and now.minutes_left * 60 <= now.signal_seconds:
        return "the time that was asked for is used up"
    if cause is Cause.TIME_LIMIT and now.idle >= IDLE_STARTS:
        return f"{now.idle} starts in a row ended there without a step: it needs more --time"
    return ""


def outcome(code: int | None) -> Outcome:
    """The exit code of the run, as `ended` in events.jsonl has it (negative: a signal), as an outcome."""
    if code is None or -code in STOP_SIGNALS or code == Exit.PEER:  # whoever had the cause could not say it
        return Outcome.SILENT
    if code == -SIGKILL:
        return Outcome.KILLED
    named = {
        Exit.DONE: Outcome.DONE,
        Exit.SAVED: Outcome.SAVED,
        Exit.FENCED: Outcome.FENCED,
        Exit.REFUSED: Outcome.REFUSED,
        Exit.UNFIT: Outcome.UNFIT,
    }
    return next((word for exit_code, word in named.items() if exit_code == code), Outcome.BROKEN)


def slurm_word(now: Situation) -> Word:
    """What the controller's answer means. The order matters: a restart that was counted outranks every state."""
    facts = now.facts
    if facts is None:
        return Word.MUTE
    if facts.restarts > now.restarts:
        return Word.LOST if facts.state == "NODE_FAIL" or Heard.NODE in now.heard else Word.REQUEUED
    if Heard.MEMORY in now.heard:
        return Word.MEMORY
    if facts.state == "RUNNING":
        if facts.preempt_time is not None:
            return Word.GRACE
        soon = now.now + timedelta(seconds=now.signal_seconds) + SIGNAL_EARLY
        return Word.NEAR_LIMIT if facts.end_time is not None and facts.end_time <= soon else Word.RUNNING
    return _ending(facts, now.heard)


def _ending(facts: JobFacts, heard: frozenset[Heard]) -> Word:
    # COMPLETING with PreemptTime set is the preemption itself where Slurm does not requeue, or a scancel within the grace.
    if facts.state == "COMPLETING" and facts.reason == "None" and facts.preempt_time and Heard.PREEMPTED in heard:
        return Word.TAKEN
    return _ENDINGS.get(facts.reason, _ENDINGS.get(facts.state, Word.MUTE))


_ENDINGS: Final = {
    "TimeLimit": Word.TIME_LIMIT,
    "TIMEOUT": Word.TIME_LIMIT,
    "NODE_FAIL": Word.NODE,
    "NodeDown": Word.NODE,
    "OUT_OF_MEMORY": Word.MEMORY,
    "OutOfMemory": Word.MEMORY,
    "PREEMPTED": Word.TAKEN,
    "CANCELLED": Word.ENDING,
    "COMPLETING": Word.ENDING,
}
