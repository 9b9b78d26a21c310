"""What happened to a run, attempt by attempt: the fold of its events.jsonl. Standard library only."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.contract import Event
from jobs.files import read_lines
from jobs.rundir import RunDir


@dataclass(slots=True)
class AttemptRecord:
    """One attempt. A field is None (or empty) while nothing was said about it."""

    number: int
    """From 1. 0 gathers decisions about a job that ended before any attempt was taken."""
    node: str | None = None
    nodes: str | None = None
    """All of them, as Slurm writes lists of nodes, where there are several; `node` is the first."""
    codes: Mapping[str, int] = field(default_factory=dict)
    """Of several nodes: how the run ended on each that said so, by its name."""
    job: str | None = None
    """`ARRAYJOB_TASK`; None when it ran on this machine."""
    restart: int = 0
    """Slurm's restart count when it started."""
    started: str | None = None
    ended: str | None = None
    signal: str | None = None
    """The first one that it was sent."""
    signalled: str | None = None
    exit_code: int | None = None
    """Negative: killed by that signal."""
    cause: str | None = None
    action: str | None = None
    decided: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    first_step: int | None = None
    """The step that it went on from."""
    checkpoint: str | None = None
    """The file that it went on from; None: from the start."""
    skipped: tuple[Mapping[str, Any], ...] = ()
    """Checkpoints that were passed over as damaged: {file, reason}."""
    lost_steps: int = 0
    """Steps of earlier attempts that it had to do again."""
    crossed: tuple[str, ...] = ()
    """What of the hardware class was another one than that of the checkpoint that it went on from."""
    at: tuple[int, ...] = ()
    """Where it went on: step, micro-batches of the next one, evaluations."""
    step: int | None = None
    """The last step that it finished, whether it was saved or not."""
    saved_step: int | None = None
    """The step of the checkpoint that it saved when it was asked to stop."""
    saved_seconds: float | None = None
    """From the signal to the published checkpoint."""

    @property
    def where(self) -> str | None:
        """The node, or all of them."""
        return self.nodes or self.node

    @property
    def executed(self) -> int | None:
        """Steps that it did, those that are lost included; None while that is not known."""
        if self.first_step is None:
            return 0 if self.ended is not None else None
        return max(0, self.step - self.first_step) if self.step is not None else None


def attempts(run: RunDir) -> list[AttemptRecord]:
    """The attempts of a run in order. A run without events has none."""
    return fold(read_lines(run.events))


def fold(events: Iterable[Mapping[str, Any]]) -> list[AttemptRecord]:
    """Lines that are not an event of an attempt are passed over: a reader must survive what a killed writer left."""
    found: dict[int, AttemptRecord] = {}
    for line in events:
        number = line.get("attempt")
        if not isinstance(number, int):
            continue
        record = found.setdefault(number, AttemptRecord(number))
        apply = _FOLD.get(str(line.get("event")))
        if apply is not None:
            apply(record, line)
    return [found[number] for number in sorted(found)]


def _started(record: AttemptRecord, line: Mapping[str, Any]) -> None:
    record.started = line.get("time")
    record.node, record.nodes = line.get("node"), line.get("nodes")
    record.job = line.get("job")
    record.restart = line.get("restart") or 0


def _resumed(record: AttemptRecord, line: Mapping[str, Any]) -> None:
    record.first_step = line.get("step")
    record.checkpoint = line.get("checkpoint")
    record.skipped = tuple(each for each in _list(line, "skipped") if isinstance(each, dict))
    record.lost_steps = line.get("lost_steps") or 0
    record.crossed = tuple(each for each in _list(line, "class") if isinstance(each, str))
    record.at = tuple(each for each in _list(line, "at") if isinstance(each, int))


def _list(line: Mapping[str, Any], key: str) -> list[Any]:
    """A user's own job writes such lines, too: what is no list there is none."""
    value = line.get(key)
    return value if isinstance(value, list) else []


def _signalled(record: AttemptRecord, line: Mapping[str, Any]) -> None:
    if record.signal is None:
        record.signal, record.signalled = line.get("signal"), line.get("time")


def _saved(record: AttemptRecord, line: Mapping[str, Any]) -> None:
    record.step = record.saved_step = line.get("step")
    record.saved_seconds = line.get("seconds")


def _ended(record: AttemptRecord, line: Mapping[str, Any]) -> None:
    record.ended, record.exit_code = line.get("time"), line.get("exit_code")
    record.codes = line.get("nodes") or {}
    if line.get("step") is not None:
        record.step = line["step"]


def _decided(record: AttemptRecord, line: Mapping[str, Any]) -> None:
    """The last word counts: a requeue that failed is followed by a second decision."""
    record.cause, record.action, record.decided = line.get("cause"), line.get("action"), line.get("time")
    record.evidence = line.get("evidence") or {}


_FOLD: Mapping[str, Callable[[AttemptRecord, Mapping[str, Any]], None]] = {
    Event.STARTED: _started,
    Event.RESUMED: _resumed,
    Event.SIGNALLED: _signalled,
    Event.SAVED: _saved,
    Event.ENDED: _ended,
    Event.DECIDED: _decided,
}
