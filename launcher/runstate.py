"""What has become of each run: the tree first, and from Slurm only what the tree cannot know."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from jobs.contract import Action, Cause, Exit
from jobs.rundir import RunDir, Tree
from launcher import cluster
from launcher.attempts import AttemptRecord, attempts
from launcher.cluster import Answer, JobStatus

FORGOTTEN: Final = timedelta(seconds=60)
"""So long after its last word a job that Slurm does not know counts as lost. Slurm itself remembers an ended one longer."""


class State(StrEnum):
    """One word for a person."""

    PLANNED = "planned"
    SUBMITTED = "submitted"
    PENDING = "pending"
    RUNNING = "running"
    SAVED = "saved"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class RunState:
    """One seed."""

    seed: int
    state: State
    detail: str
    """Why, in a few words: what it waits for, how it ended."""
    active: bool
    """It goes on without anybody doing anything: it must not be launched again."""
    place: str | None
    """`slurm`, `local`, or None for a run that was never launched."""
    job: str | None
    node: str | None
    attempts: tuple[AttemptRecord, ...] = field(default=())
    taken: bool = False
    """Slurm ended its job to make room for another, and does not bring it back by itself (PreemptMode=CANCEL)."""

    @property
    def last(self) -> AttemptRecord | None:
        return self.attempts[-1] if self.attempts else None


@dataclass(frozen=True, slots=True)
class Record:
    """A seed's `submission.json`: its newest submission."""

    id: str
    place: str
    state: str
    job: str | None
    host: str
    pid: int
    time: datetime

    @classmethod
    def read(cls, run: RunDir) -> "Record | None":
        """None for a run that was never launched, or whose record cannot be read."""
        try:
            fields = json.loads(run.submission.read_text(encoding="utf-8"))
            time = datetime.fromisoformat(fields["time"])
            return cls(
                fields["id"],
                fields["place"],
                fields["state"],
                fields["job"],
                fields["host"],
                int(fields["pid"]),
                time if time.tzinfo else time.replace(tzinfo=UTC),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def examine(tree: Tree, seeds: Sequence[int] | None = None) -> list[RunState]:
    """The state of these seeds (default: all that have a specification), with one question to Slurm for all of them."""
    wanted = tree.seeds() if seeds is None else list(seeds)
    records = {seed: Record.read(tree.run(seed)) for seed in wanted}
    open_jobs = [
        record.job
        for seed, record in records.items()
        if record is not None and record.job is not None and not tree.run(seed).done.exists()
    ]
    answer = cluster.states(open_jobs)
    return [judge(tree.run(seed), records[seed], answer) for seed in wanted]


def judge(run: RunDir, record: Record | None, answer: Answer) -> RunState:
    """One run, from its tree and Slurm's answer."""
    history = tuple(attempts(run))
    last = history[-1] if history else None
    status = answer.jobs.get(record.job or "") if record else None
    if run.done.exists():
        state, detail, active = State.DONE, "", False
    elif record is None or record.state == "failed":
        why = "the last submission was refused" if record else ""
        state, detail, active = _by_tree(last) if last else (State.PLANNED, why, False)
    elif record.state == "cancelled" and (status is None or status.ended):
        mine = _of(record, last)
        state, detail, active = State.CANCELLED, _saved_at(mine) if mine else "before it started", False
    elif record.place == "local":
        state, detail, active = _local(record, last)
    elif status is None:
        state, detail, active = _unknown_to_slurm(record, last, answer)
    elif status.ended:
        state, detail, active = _ended(status, _of(record, last))
    else:
        state, detail, active = _in_slurm(status, _of(record, last))
    node = (status.node if status and not status.ended else "") or (last.where if last else None)
    place, job = (record.place, record.job) if record else (None, None)
    taken = state is State.SAVED and not active and status is not None and status.state == "PREEMPTED"
    return RunState(run.seed, state, detail, active, place, job, node, history, taken)


Verdict = tuple[State, str, bool]
"""State, detail, active."""


def _of(record: Record, last: AttemptRecord | None) -> AttemptRecord | None:
    """The last attempt, if it belongs to the newest submission."""
    return last if last is not None and last.job == record.job else None


def _by_tree(last: AttemptRecord) -> Verdict:
    """How the last attempt ended, when nothing else is under way."""
    if last.exit_code is None and last.cause is None:
        return State.LOST, f"attempt {last.number} never said how it ended", False
    cause = last.cause or _CAUSES.get(last.exit_code or 0, Cause.CRASHED)
    if cause == Cause.CANCELLED:
        return State.CANCELLED, _saved_at(last), False
    if last.exit_code == Exit.SAVED or cause in _COMES_BACK:
        because = last.evidence.get("because")
        return State.SAVED, f"{cause}{f', {because}' if because else ''}; launch it again to go on", False
    return State.FAILED, _why(last, str(cause)), False


_CAUSES: Final[Mapping[int, Cause]] = {
    Exit.SAVED: Cause.INTERRUPTED,
    Exit.FENCED: Cause.FENCED,
    Exit.REFUSED: Cause.REFUSED,
    Exit.UNFIT: Cause.UNFIT,
}
_COMES_BACK: Final = frozenset(
    {Cause.PREEMPTED, Cause.REQUEUED, Cause.TIME_LIMIT, Cause.NODE_FAILURE, Cause.INTERRUPTED}
)


def _saved_at(last: AttemptRecord) -> str:
    return f"saved at step {last.step}" if last.exit_code == Exit.SAVED and last.step is not None else ""


def _why(last: AttemptRecord, cause: str) -> str:
    because = last.evidence.get("because")
    if because:
        return f"{cause}: {because}"
    return f"{cause} (exit code {last.exit_code})" if last.exit_code is not None else cause


def _local(record: Record, last: AttemptRecord | None) -> Verdict:
    alive = is_alive(record.pid, record.time, record.host)
    open_attempt = last is not None and last.exit_code is None and last.cause is None
    if alive:
        return (
            (State.RUNNING, "", True) if open_attempt else (State.PENDING, "waits for its turn on this machine", True)
        )
    if last is None:
        return State.PLANNED, "stopped before it started", False
    if open_attempt and record.host != socket.gethostname():
        return State.RUNNING, f"on {record.host}, which cannot be asked from here", True
    return (State.LOST, "its process is gone", False) if open_attempt else _by_tree(last)


def _in_slurm(status: JobStatus, last: AttemptRecord | None) -> Verdict:
    """Slurm has the job, and it has not ended."""
    if status.held:
        hint = f"held by Slurm ({status.reason}): `scontrol release {status.job}`"
        return (State.SAVED if last else State.PENDING), hint, True
    if status.state in {"PENDING", "REQUEUED", "REQUEUE_FED"}:
        return (
            (State.SAVED, f"waits in the queue ({status.reason})", True)
            if last
            else (State.PENDING, status.reason, True)
        )
    if last is not None and last.action == Action.STOP:
        state, detail, _ = _by_tree(last)
        return state, detail, False
    busy = last is not None and last.exit_code is None
    detail = "" if busy else "starting" if last is None else "between attempts"
    return State.RUNNING, detail if status.state == "RUNNING" else status.state.lower(), True


def _ended(status: JobStatus, last: AttemptRecord | None) -> Verdict:
    """Slurm says that the job is over, and the run is not done."""
    if status.state == "CANCELLED":
        return State.CANCELLED, _saved_at(last) if last else "before it started", False
    if last is not None and last.action == Action.STOP:
        return _by_tree(last)
    if status.state == "PREEMPTED":
        return State.SAVED, "preempted, and this partition cancels; launch it again to go on", False
    detail = _SLURM_ENDS.get(status.state, f"Slurm says {status.state}")
    return State.FAILED, detail if last else f"{detail}; it never started", False


_SLURM_ENDS: Final = {
    "TIMEOUT": "time limit, before it could save",
    "NODE_FAIL": "node failure",
    "OUT_OF_MEMORY": "out of memory",
    "FAILED": "its batch script failed",
}


def _unknown_to_slurm(record: Record, last: AttemptRecord | None, answer: Answer) -> Verdict:
    mine = _of(record, last)
    if record.job is None:
        return State.SUBMITTED, "its job id is not known yet", True
    if mine is not None and mine.action == Action.STOP:
        return _by_tree(mine)
    if answer.silent:
        detail = f"as the tree has it; {answer.silent}"
        if mine is None:
            return State.SUBMITTED, detail, True
        return (State.RUNNING if mine.exit_code is None else State.SAVED), detail, True
    if datetime.now(UTC) - _last_word(record, mine) < FORGOTTEN:
        return (State.SUBMITTED if mine is None else State.RUNNING), "Slurm does not know it yet", True
    never = "" if mine else ", and it never started"
    return State.LOST, f"Slurm does not know job {record.job} any more{never}", False


def _last_word(record: Record, last: AttemptRecord | None) -> datetime:
    texts = (last.started, last.signalled, last.ended, last.decided) if last else ()
    return max([record.time, *(datetime.fromisoformat(text) for text in texts if text)])


def is_alive(pid: int, since: datetime, host: str | None = None) -> bool:
    """Whether the process that wrote its pid at `since` still runs here. A later one with the same number does not count."""
    if host is not None and host != socket.gethostname():
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        boot = next(
            line for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines() if line[:6] == "btime "
        )
    except (OSError, StopIteration):
        return False
    fields = stat.rpartition(")")[2].split()
    started = int(boot.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    slack = 2.0
    return fields[0] not in {"Z", "X"} and started <= since.timestamp() + slack
